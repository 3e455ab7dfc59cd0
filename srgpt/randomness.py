"""Random numbers that depend on what they are for, not on when they are drawn."""

from __future__ import annotations

import numpy as np

from srgpt.storage import digest


def seeded(seed: int, *purpose: str | int) -> np.random.Generator:
    """Return a generator that depends on the seed and the purpose alone, the same in every process."""
    return np.random.default_rng(int(digest([seed, *purpose])[:32], 16))
