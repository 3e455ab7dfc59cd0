"""Boxes: of cuboids and of points, in the canonical frame and in the image."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import ConvexHull

from srgpt.records import Box, Cuboid, OrientedBox

Floats = NDArray[np.float64]

_FLAT = 1e-9
"""Metres; a footprint thinner than this is a line, and has no convex hull."""


def canonical_box(cuboid: Cuboid, rotation: Floats) -> Box:
    """Return the axis-aligned canonical box around a cuboid; ``rotation`` maps camera to canonical."""
    return box_of_points(cuboid.corners() @ np.asarray(rotation).T)


def box_of_points(points: NDArray[np.floating]) -> Box:
    """Return the axis-aligned box around canonical points (N, 3), N >= 1."""
    low, high = points.min(axis=0), points.max(axis=0)
    return Box((low + high) / 2, high - low)


def oriented_box_of_points(points: NDArray[np.floating]) -> OrientedBox:
    """Return the gravity-aligned box around canonical points (N, 3) whose footprint has the least area.

    A least-area rectangle shares a side with the convex hull (Freeman and Shapira, 1975), so every hull edge
    of the footprint in the xz plane is tried. ``yaw`` lies in [0, pi / 2): turning the canonical axes by it
    about +y gives the box's own, x to (cos, 0, -sin) and z to (sin, 0, cos).
    """
    ground = np.stack([points[:, 0], points[:, 2]]).astype(np.float64).T
    hull = _hull(ground)
    edges = np.roll(hull, -1, axis=0) - hull
    # an x axis turned by yaw is (cos, -sin) in (x, z)
    yaws = np.unique(np.arctan2(-edges[:, 1], edges[:, 0]) % (np.pi / 2))
    cos, sin = np.cos(yaws), np.sin(yaws)
    across = np.outer(cos, hull[:, 0]) - np.outer(sin, hull[:, 1])
    along = np.outer(sin, hull[:, 0]) + np.outer(cos, hull[:, 1])
    areas = np.ptp(across, axis=1) * np.ptp(along, axis=1)
    best = int(np.argmin(areas))
    yaw = float(yaws[best])
    x = (across[best].min() + across[best].max()) / 2
    z = (along[best].min() + along[best].max()) / 2
    low, high = points[:, 1].min(), points[:, 1].max()
    center = np.array([cos[best] * x + sin[best] * z, (low + high) / 2, -sin[best] * x + cos[best] * z])
    return OrientedBox(center, np.array([np.ptp(across[best]), high - low, np.ptp(along[best])]), yaw)


def _hull(ground: Floats) -> Floats:
    """Return the hull's corners (M, 2) of points (N, 2): the two ends where they lie on one line."""
    start = ground[np.argmin(ground[:, 0])]
    offsets = ground - start
    lengths = np.hypot(offsets[:, 0], offsets[:, 1])
    farthest = int(np.argmax(lengths))
    # distance from the line through the two ends, times the distance of the ends
    sides = np.abs(offsets[:, 0] * offsets[farthest, 1] - offsets[:, 1] * offsets[farthest, 0])
    if len(ground) < 3 or sides.max() <= _FLAT * lengths[farthest]:
        along = offsets @ offsets[farthest]
        return ground[[int(along.argmin()), int(along.argmax())]]
    return ground[ConvexHull(ground).vertices]
