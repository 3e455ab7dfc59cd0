"""The pinhole camera, and the canonical frame in which heights and headings mean what people mean.

Camera frame: OpenCV (x right, y down, z forward). Canonical frame: the camera frame turned so that gravity is
+y, origin at the camera, heading kept. Metres; pixel centres at integer coordinates.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from srgpt.errors import InputError

Floats = NDArray[np.float64]

Intrinsics = tuple[float, float, float, float]
"""(fx, fy, cx, cy) in pixels."""

ASSUMED_FOV = 60.0
"""Horizontal field of view, degrees, of a camera of which nothing is known."""

LEVEL = (0.0, 1.0, 0.0)
"""Gravity in the frame of a level camera."""

_MIN_HEADING = 1e-3
"""Sine of the smallest angle between optical axis and gravity that still gives a heading."""


@dataclass(frozen=True)
class Camera:
    """How a picture's pixels become points: its intrinsics, and gravity (3,) in the camera frame."""

    intrinsics: Intrinsics
    gravity: tuple[float, float, float] = LEVEL

    @classmethod
    def of(
        cls,
        width: int,
        height: int,
        intrinsics: Intrinsics | None = None,
        gravity: tuple[float, float, float] | None = None,
    ) -> Camera:
        """Return a picture's camera; what is not known of it is assumed: 60 degrees wide, level."""
        return cls(intrinsics or intrinsics_of(ASSUMED_FOV, width, height), gravity or LEVEL)

    @cached_property
    def rotation(self) -> Floats:
        """R (3, 3) from the camera frame to the canonical one; raises as :func:`canonical_rotation` does."""
        return canonical_rotation(self.gravity)

    def canonical_points(self, u: ArrayLike, v: ArrayLike, depth: ArrayLike) -> Floats:
        """Return the canonical points (..., 3) of pixels (u, v) with z-depth ``depth``, metres.

        Raises :class:`InputError` as :func:`intrinsics_matrix` and :func:`canonical_rotation` do.
        """
        intrinsics_matrix(self.intrinsics)
        return unproject_pixels(u, v, depth, self.intrinsics) @ self.rotation.T


def intrinsics_matrix(intrinsics: Sequence[float]) -> Floats:
    """Return K (3, 3) of (fx, fy, cx, cy); raise :class:`InputError` where these cannot be a camera's."""
    values = np.asarray(intrinsics, dtype=np.float64)
    if values.shape != (4,) or not np.isfinite(values).all() or values[0] <= 0 or values[1] <= 0:
        raise InputError(
            f"intrinsics {tuple(intrinsics)}: expected finite numbers (fx, fy, cx, cy) with fx, fy above 0"
        )
    fx, fy, cx, cy = values
    return np.array([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]])


def focal_of(fov_degrees: float, width: int) -> float:
    """Return the focal length in pixels of a horizontal field of view in degrees."""
    return 0.5 * width / math.tan(math.radians(fov_degrees) / 2)


def intrinsics_of(fov_degrees: float, width: int, height: int) -> Intrinsics:
    """Return (fx, fy, cx, cy) of square pixels, the picture's centre, and a horizontal field of view."""
    focal = focal_of(fov_degrees, width)
    return (focal, focal, (width - 1) / 2, (height - 1) / 2)


def canonical_rotation(gravity: ArrayLike) -> Floats:
    """Return R (3, 3) that maps camera to canonical coordinates.

    ``gravity`` (3,) is the direction of gravity in the camera frame, of any length. ``R @ gravity`` points
    along +y, and the optical axis, projected on the ground plane, becomes +z: roll and pitch go, the heading
    stays. Raises :class:`InputError` for a vector that is zero or not finite, and for a camera that looks
    straight along gravity, which has no heading.
    """
    down = np.asarray(gravity, dtype=np.float64)
    if down.shape != (3,) or not np.isfinite(down).all():
        raise InputError(f"gravity {down.tolist()}: expected three finite numbers")
    length = float(np.linalg.norm(down))
    if length < 1e-9:
        raise InputError("gravity is the zero vector: it has no direction")
    down = down / length
    axis = np.array([0.0, 0.0, 1.0])
    forward = axis - (axis @ down) * down
    heading = float(np.linalg.norm(forward))
    if heading < _MIN_HEADING:
        raise InputError("the camera looks straight along gravity: with no heading there is no left or right")
    forward /= heading
    return np.stack([np.cross(down, forward), down, forward])


def unproject(depth_HW: NDArray[np.floating], intrinsics: Sequence[float]) -> Floats:
    """Return the camera-frame points (H, W, 3) of a z-depth map (H, W) in metres."""
    height, width = depth_HW.shape
    v, u = np.mgrid[:height, :width]
    return unproject_pixels(u, v, depth_HW, intrinsics)


def unproject_pixels(u: ArrayLike, v: ArrayLike, depth: ArrayLike, intrinsics: Sequence[float]) -> Floats:
    """Return the camera-frame points (..., 3) of pixels (u, v) with z-depth ``depth``, all shaped (...)."""
    fx, fy, cx, cy = intrinsics
    z = np.asarray(depth, dtype=np.float64)
    x = (np.asarray(u, dtype=np.float64) - cx) / fx * z
    y = (np.asarray(v, dtype=np.float64) - cy) / fy * z
    return np.moveaxis(np.stack([x, y, z]), 0, -1)  # coordinates apart in memory: all that follows is faster


def project(points: NDArray[np.floating], intrinsics: Sequence[float]) -> Floats:
    """Return the pixels (N, 2) of camera-frame points (N, 3), all in front of the camera (z > 0)."""
    fx, fy, cx, cy = intrinsics
    z = points[:, 2]
    if not (z > 0).all():
        raise ValueError("project: points at or behind the camera have no pixel; clip them first")
    return np.stack([points[:, 0] / z * fx + cx, points[:, 1] / z * fy + cy], axis=1)
