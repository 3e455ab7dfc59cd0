"""Duplicates by perceptual hash: pictures that look the same, whatever their size, format or compression.

The hash is 64 bits of the low frequencies of a picture's cosine transform (``imagehash.phash``); two pictures
look the same where few bits differ.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

_BITS = 64
_ENOUGH = 128


def perceptual_hash(image: Image.Image) -> int:
    """Return the picture's 64-bit perceptual hash."""
    import imagehash

    smaller = image.reduce(
        max(1, min(image.size) // _ENOUGH)
    )  # several times faster, for a hash of 32 x 32 pixels
    return int(str(imagehash.phash(smaller)), 16)


@dataclass
class _Bucket:
    """Hashes that agree in one band, with their numbers, in the order of arrival."""

    hashes: array[int] = field(default_factory=lambda: array("Q"))
    numbers: array[int] = field(default_factory=lambda: array("Q"))


class DuplicateIndex:
    """Finds, among the hashes seen so far, the first one within ``max_distance`` bits.

    The bits are dealt out to ``max_distance + 1`` bands. Hashes that differ in at most ``max_distance`` bits agree
    in a whole band (pigeonhole principle), so only those that share a band are compared: at a distance of 4 less
    than a thousandth of the pairs, at 8 a fourteenth.
    """

    def __init__(self, max_distance: int) -> None:
        self.max_distance = max_distance
        bands = max_distance + 1
        masks = [sum(1 << bit for bit in range(band, _BITS, bands)) for band in range(bands)]
        self._bands: list[tuple[int, dict[int, _Bucket]]] = [(mask, {}) for mask in masks]
        self._names: list[str] = []

    def add(self, name: str, value: int) -> str | None:
        """Return the name of the earliest picture that looks the same; where there is none, remember this one."""
        for mask, band in self._bands:
            if value & mask not in band:
                band[value & mask] = _Bucket()
        buckets = [band[value & mask] for mask, band in self._bands]
        twins = [twin for bucket in buckets if (twin := self._first(bucket, value)) is not None]
        if twins:
            return self._names[min(twins)]
        for bucket in buckets:
            bucket.hashes.append(value)
            bucket.numbers.append(len(self._names))
        self._names.append(name)
        return None

    def _first(self, bucket: _Bucket, value: int) -> int | None:
        """Return the number of the first hash of a bucket that is close enough."""
        distances = np.bitwise_count(np.frombuffer(bucket.hashes, np.uint64) ^ np.uint64(value))
        close = np.flatnonzero(distances <= self.max_distance)
        return bucket.numbers[close[0]] if len(close) else None
