"""The camera of a procedural scene: a pinhole above level ground.

The *ground frame* has the canonical axes (x right, y down, z forward along the camera's heading) with its
origin on the ground right below the camera, so that a point ``h`` metres above the ground has y = -h.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Camera:
    """A camera ``height`` metres above the ground of a square picture of ``size`` pixels.

    ``pitch`` is positive looking down, ``roll`` positive turning the picture's right side down, radians;
    ``field_of_view`` is horizontal, radians, measured between the outer edges of the picture.
    """

    size: int
    height: float
    pitch: float
    roll: float
    field_of_view: float

    @cached_property
    def focal(self) -> float:
        """Focal length in pixels."""
        return float(self.size / 2 / np.tan(self.field_of_view / 2))

    @property
    def intrinsics(self) -> tuple[float, float, float, float]:
        """(fx, fy, cx, cy) in pixels; pixel centres at integer coordinates."""
        middle = (self.size - 1) / 2
        return (self.focal, self.focal, middle, middle)

    @cached_property
    def to_ground(self) -> Floats:
        """Rotation (3, 3) from camera to ground axes; its columns are the camera's axes."""
        sin, cos = np.sin(self.pitch), np.cos(self.pitch)
        right, down, forward = np.array([1.0, 0, 0]), np.array([0, cos, -sin]), np.array([0, sin, cos])
        turn = np.cos(self.roll), np.sin(self.roll)
        return np.stack([turn[0] * right + turn[1] * down, turn[0] * down - turn[1] * right, forward], 1)

    @property
    def gravity(self) -> tuple[float, float, float]:
        """Unit vector of gravity in the camera frame."""
        x, y, z = self.to_ground.T @ np.array([0.0, 1.0, 0.0])
        return (float(x), float(y), float(z))

    def see(self, points: Floats) -> Floats:
        """Convert points (..., 3) of the ground frame to the camera frame."""
        return (points + np.array([0.0, self.height, 0.0])) @ self.to_ground

    def project(self, seen: Floats) -> Floats:
        """Project camera-frame points (..., 3) with positive z to pixels (..., 2)."""
        return seen[..., :2] / seen[..., 2:] * self.focal + (self.size - 1) / 2

    def rays(self) -> Floats:
        """Direction of every pixel in the camera frame with z = 1, (size * size, 3), row by row."""
        steps = (np.arange(self.size) - (self.size - 1) / 2) / self.focal
        x, y = np.meshgrid(steps, steps)
        return np.stack([x, y, np.ones_like(x)], -1).reshape(-1, 3)


def sample_camera(
    rng: np.random.Generator,
    size: int,
    *,
    height: tuple[float, float],
    aim: tuple[float, float],
    aim_height: tuple[float, float],
) -> Camera:
    """Draw a camera that looks, to a few degrees, at a point ``aim`` metres ahead and ``aim_height`` up."""
    up = rng.uniform(*height)
    pitch = np.arctan2(up - rng.uniform(*aim_height), rng.uniform(*aim)) + rng.normal(0, np.radians(3))
    roll = float(np.clip(rng.normal(0, np.radians(4)), -np.radians(12), np.radians(12)))
    return Camera(size, up, float(pitch), roll, float(np.radians(rng.uniform(48, 80))))
