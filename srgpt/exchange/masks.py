"""Compressed COCO RLEs by the hundred: whether each is one, and of how many pixels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

MAX_PIXELS = 2**28
"""A larger mask is taken for a broken one: whoever decodes it would run out of memory."""

_DIGITS = 6
"""Of a number in an RLE at most: 30 bits are more than the pixels of any mask."""

_TOGETHER = 96
"""Masks that are taken apart together: enough to outweigh numpy's overhead, few enough for the processor's cache."""

Pixels = dict[str, tuple[int, bool] | None]
"""By an RLE's counts: how many pixels it has in all, and whether any is in the mask; None for no RLE."""


def pixels_of(columns: Iterable[Any]) -> Pixels:
    """Count the pixels of all masks in some rows' ``rle`` columns, whatever else these hold."""
    masks = (
        mask for column in columns if isinstance(column, list) for mask in column if isinstance(mask, dict)
    )
    texts = list(dict.fromkeys(text for mask in masks if isinstance(text := mask.get("counts"), str)))
    found: Pixels = {}
    for start in range(0, len(texts), _TOGETHER):
        some = texts[start : start + _TOGETHER]
        found.update(zip(some, count_pixels(some), strict=True))
    return found


def count_pixels(masks: Sequence[str]) -> list[tuple[int, bool] | None]:
    """Return how many pixels each RLE has in all, and whether any is in the mask; None for no RLE.

    As :func:`srgpt.records.rle_runs` would have it, which explains the format, but many times faster.
    """
    if not masks:
        return []
    numbers = _numbers(masks)
    if numbers is not None:
        runs, bounds = numbers
        for a, b in pairwise(bounds):
            for column in (runs[a + 1 : b : 2], runs[a + 2 : b : 2]):  # undo the differences, in place
                column.cumsum(out=column)
        # A sum beyond 32 bits comes after one beyond MAX_PIXELS, for no difference has more than 30.
        if runs.min() >= 0 and runs.max() <= MAX_PIXELS:
            totals = np.add.reduceat(runs, bounds[:-1], dtype=np.int64).tolist()
            insides = [
                b - a > 1 and bool(runs[a + 1] or runs[a + 1 : b : 2].any()) for a, b in pairwise(bounds)
            ]
            return list(zip(totals, insides, strict=True))
    if len(masks) == 1:
        return [None]
    half = len(masks) // 2  # one of them is broken
    return [*count_pixels(masks[:half]), *count_pixels(masks[half:])]


def _numbers(masks: Sequence[str]) -> tuple[NDArray[np.int32], list[int]] | None:
    """Return the numbers of all masks, differences not yet undone, and the bounds of each; None where one is no RLE."""
    text = "".join(masks)
    if not all(masks) or not text.isascii():
        return None
    digits = np.frombuffer(text.encode("ascii"), np.uint8) - np.uint8(48)
    stops = np.cumsum([len(mask) for mask in masks])
    if digits.max() > 63 or digits[stops - 1].max() >= 0x20:
        return None
    ends = (digits < 0x20).nonzero()[0]
    lengths = (ends + 1).astype(np.int32)
    lengths[1:] -= lengths[:-1].copy()
    longest = int(lengths.max())
    if longest > _DIGITS:
        return None
    last = digits[ends].astype(np.int32)
    values = (last & 0x1F) - ((last & 0x10) << 1)  # the last digit has the sign
    for k in range(1, longest):
        longer = (lengths > k).nonzero()[0]
        values[longer] = (values[longer] << 5) | (digits[ends[longer] - k] & 0x1F)
    return values, [0, *ends.searchsorted(stops).tolist()]
