"""Directions on the ground as hours of a clock, seen by someone who looks the way the camera does."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike


def clock_hour(from_center: ArrayLike, to_center: ArrayLike) -> float:
    """Return the direction from one canonical point (3,) to another as continuous clock hours in (0, 12].

    12 is straight ahead (canonical +z), 3 to the right (+x), 6 towards the viewer, 9 to the left:
    ``hours = atan2(dx, dz) / 30 degrees``. Height plays no part. NaN where both are at one place.
    """
    dx, _, dz = np.asarray(to_center, dtype=np.float64) - np.asarray(from_center, dtype=np.float64)
    if math.hypot(dx, dz) < 1e-9:
        return math.nan
    # `or`: a tiny negative angle wraps to exactly 12 - 0
    return (math.degrees(math.atan2(dx, dz)) / 30.0) % 12.0 or 12.0


def nearest_hour(hours: float) -> int:
    """Round continuous clock hours to the nearest hour, 1 to 12."""
    return math.floor(hours + 0.5) % 12 or 12


def hour_difference(a: float, b: float) -> float:
    """Return how many hours apart two clock directions are, the short way round: 0 to 6."""
    return abs((a - b + 6.0) % 12.0 - 6.0)
