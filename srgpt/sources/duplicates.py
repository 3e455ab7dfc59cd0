"""Duplicates by perceptual hash: pictures that look the same, whatever their size, format or compression.

The hash is 64 bits of the low frequencies of a picture's cosine transform (``imagehash.phash``); two pictures
look the same where few bits differ.
"""

from __future__ import annotations

from PIL import Image

_BITS = 64


def perceptual_hash(image: Image.Image) -> int:
    """Return the picture's 64-bit perceptual hash."""
    import imagehash

    return int(str(imagehash.phash(image)), 16)


class DuplicateIndex:
    """Finds, among the hashes seen so far, the first one within ``max_distance`` bits.

    The bits are dealt out to ``max_distance + 1`` bands. Hashes that differ in at most ``max_distance`` bits agree
    in a whole band (pigeonhole principle), so only those that share a band are compared: a millionth of the pairs
    at a distance of 2, a thousandth at 4.
    """

    def __init__(self, max_distance: int) -> None:
        self.max_distance = max_distance
        bands = max_distance + 1
        self._masks = [sum(1 << bit for bit in range(band, _BITS, bands)) for band in range(bands)]
        self._buckets: list[dict[int, list[int]]] = [{} for _ in self._masks]
        self._hashes: list[int] = []
        self._names: list[str] = []

    def add(self, name: str, value: int) -> str | None:
        """Return the name of the earliest picture that looks the same; where there is none, remember this one."""
        nearest = self._find(value)
        if nearest is not None:
            return self._names[nearest]
        for mask, buckets in zip(self._masks, self._buckets, strict=True):
            buckets.setdefault(value & mask, []).append(len(self._hashes))
        self._hashes.append(value)
        self._names.append(name)
        return None

    def _find(self, value: int) -> int | None:
        found: list[int] = []
        for mask, buckets in zip(self._masks, self._buckets, strict=True):
            for index in buckets.get(value & mask, ()):
                if (self._hashes[index] ^ value).bit_count() <= self.max_distance:
                    found.append(index)
                    break  # buckets are in order: the rest came later
        return min(found, default=None)
