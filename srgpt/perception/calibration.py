"""Calibration: intrinsics from a field of view, gravity from the ground plane.

No learned calibrator of gravity is on the package index for current Python (GeoCalib and PerspectiveFields install
from their repositories only), so gravity comes from what is already known: metric depth, intrinsics, and masks of
floor, ground or road.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from srgpt.geometry.camera import unproject_pixels
from srgpt.params import CalibrationParams

Floats = NDArray[np.float64]

RANSAC = "ransac"
"""Source of a gravity that is the normal of a ground plane."""

MIN_POINTS = 50
"""Fewer points of ground with a depth reading give no plane."""

MAX_POINTS = 5000
"""More points are thinned evenly."""


def ground_points(
    depth: NDArray[np.floating], ground: NDArray[np.bool_], intrinsics: Sequence[float]
) -> Floats:
    """Return the camera-frame points (N, 3) of ground pixels with a reading, at most :data:`MAX_POINTS`.

    ``depth`` (height, width) metres, 0 where there is none; ``ground`` (height, width).
    """
    v, u = np.nonzero(ground & (depth > 0))
    chosen = np.linspace(0, len(v) - 1, min(len(v), MAX_POINTS)).round().astype(np.int64)
    return unproject_pixels(u[chosen], v[chosen], depth[v[chosen], u[chosen]], intrinsics)


def gravity_from_ground(
    points: Floats, params: CalibrationParams, rng: np.random.Generator
) -> tuple[float, float, float] | None:
    """Return the direction of gravity in the camera frame, a unit vector, from points (N, 3) of level ground.

    RANSAC (Fischler and Bolles, 1981) finds the plane that most points are near; a least-squares plane through
    those is the result. Near means within ``tolerance`` of the point's own depth, as depth errors grow with depth.
    Gravity is the normal that points from the camera to the plane. None where there are too few points, too few
    inliers, or where the plane is no ground for a camera (``max_tilt_degrees``).
    """
    if len(points) < MIN_POINTS:
        return None
    near = params.tolerance * points[:, 2]
    inliers = _consensus(points, near, params.iterations, rng)
    for _ in range(2):  # refit to the inliers, then to the inliers of that
        if inliers.sum() < max(3, params.min_inliers * len(points)):
            return None
        normal, offset = _fit(points[inliers], 1 / near[inliers])
        inliers = np.abs(points @ normal - offset) <= near
    if inliers.sum() < params.min_inliers * len(points):
        return None
    gravity = normal if offset > 0 else -normal
    if gravity[1] < np.cos(np.radians(params.max_tilt_degrees)):
        return None
    return (float(gravity[0]), float(gravity[1]), float(gravity[2]))


def _consensus(points: Floats, near: Floats, iterations: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Return the inliers (N,) of the best plane through three random points."""
    triples = points[rng.integers(len(points), size=(iterations, 3))]  # (iterations, 3, 3)
    normals = np.cross(triples[:, 1] - triples[:, 0], triples[:, 2] - triples[:, 0])
    lengths = np.linalg.norm(normals, axis=1)
    usable = lengths > 1e-9
    normals = normals[usable] / lengths[usable, None]
    offsets = (normals * triples[usable, 0]).sum(axis=1)
    best = np.zeros(len(points), dtype=bool)
    for normal, offset in zip(normals, offsets, strict=True):
        inliers = np.abs(points @ normal - offset) <= near
        if inliers.sum() > best.sum():
            best = inliers
    return best


def _fit(points: Floats, weights: Floats) -> tuple[Floats, float]:
    """Return the unit normal (3,) and offset of the plane n @ p = offset with least weighted squared distances."""
    shares = weights / weights.sum()
    centre = shares @ points
    spread = (points - centre) * np.sqrt(shares)[:, None]
    normal = np.linalg.svd(spread, full_matrices=False)[2][-1]
    return normal, float(normal @ centre)
