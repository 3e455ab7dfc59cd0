"""Where things stand: bodies, and the rules that keep a layout physical.

A body rests on the ground, on a surface of another body, or hangs on a wall or from the ceiling. Two bodies
never share space: the footprints of any two (rectangles turned about gravity) are apart, or their height
intervals are. A body on a surface stays within it and under what is above it. Positions are in the ground
frame of :mod:`srgpt.sources.procedural.camera`; heights are metres above the ground, positive up.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from srgpt.records import Cuboid
from srgpt.sources.procedural.camera import Camera
from srgpt.sources.procedural.catalog import Category

Floats = NDArray[np.float64]

GROUND, WALL, CEILING = -1, -2, -3
"""What :attr:`Body.support` says where it is not the index of another body."""

CONTACT = 0.0005
"""Gap in metres between touching things, so that no two faces coincide."""

_UNIT = np.array([[x, y, z] for x in (0, 1) for y in (0, 1) for z in (0, 1)], dtype=np.float64)


@dataclass(frozen=True)
class Body:
    """One placed object: its box stands at (x, z), ``base`` metres above the ground, turned by ``yaw``."""

    category: Category
    colour: str
    size: tuple[float, float, float]
    x: float
    z: float
    base: float
    yaw: float
    support: int = GROUND

    @property
    def top(self) -> float:
        """Height of its upper end above the ground."""
        return self.base + self.size[1]

    def place(self, unit: Floats) -> Floats:
        """Map points (N, 3) of the unit cube (y up) to the ground frame (y down)."""
        x, z = (unit[:, 0] - 0.5) * self.size[0], (unit[:, 2] - 0.5) * self.size[2]
        sin, cos = np.sin(self.yaw), np.cos(self.yaw)
        y = -(self.base + unit[:, 1] * self.size[1])
        return np.stack([self.x + cos * x + sin * z, y, self.z - sin * x + cos * z], 1)

    def turn(self, normals: Floats) -> Floats:
        """Map unit-cube normals (N, 3) to unit normals of the ground frame."""
        scaled = normals / np.asarray(self.size)
        scaled /= np.linalg.norm(scaled, axis=1, keepdims=True)
        sin, cos = np.sin(self.yaw), np.cos(self.yaw)
        x, y, z = scaled.T
        return np.stack([cos * x + sin * z, -y, -sin * x + cos * z], 1)

    def corners(self) -> Floats:
        """Return the eight corners of its box in the ground frame, (8, 3)."""
        return self.place(_UNIT)

    def footprint(self) -> Floats:
        """Return the four corners of its footprint as (x, z), (4, 2), in order around it."""
        return self.corners()[[0, 1, 5, 4]][:, [0, 2]]

    def cuboid(self, camera: Camera) -> Cuboid:
        """Return its box in the camera frame."""
        sin, cos = np.sin(self.yaw), np.cos(self.yaw)
        turn = np.array([[cos, 0.0, sin], [0.0, 1.0, 0.0], [-sin, 0.0, cos]])
        center = np.array([self.x, -(self.base + self.size[1] / 2), self.z])
        return Cuboid(camera.see(center), np.array(self.size), camera.to_ground.T @ turn)


def apart(first: Floats, second: Floats, gap: float) -> bool:
    """Return whether two rectangles (4, 2) are at least ``gap`` apart along some edge direction of either."""
    for rectangle in (first, second):
        for edge in (rectangle[1] - rectangle[0], rectangle[3] - rectangle[0]):
            axis = edge / max(float(np.hypot(*edge)), 1e-9)
            a, b = first @ axis, second @ axis
            if a.max() + gap <= b.min() or b.max() + gap <= a.min():
                return True
    return False


@dataclass
class Layout:
    """A growing set of bodies in front of a camera.

    ``inside`` says whether a footprint (4, 2) lies where things may be; ``ceiling`` is its height. ``gap``
    is kept free around bodies. ``near`` and ``far`` bound the depth of what may be placed.
    """

    camera: Camera
    inside: Callable[[Floats], bool]
    near: float
    far: float
    gap: float
    ceiling: float = np.inf
    bodies: list[Body] = field(default_factory=list)
    _footprints: list[Floats] = field(default_factory=list)
    _boxes: list[tuple[float, float, float, float, float]] = field(default_factory=list)
    """Per body its image box and the depth of its middle."""

    def add(self, body: Body) -> bool:
        """Add a body where it fits, is in view and neither hides nor is hidden by another; say whether."""
        if body.top > self.ceiling or not self._ahead(body):
            return False
        corners = body.corners()
        box = self._in_view(corners)
        if box is None:
            return False
        footprint = corners[[0, 1, 5, 4]][:, [0, 2]]
        if body.support in (GROUND, CEILING) and not self.inside(footprint):
            return False
        if not self._free(body, footprint) or not self._clear(body, box):
            return False
        self.bodies.append(body)
        self._footprints.append(footprint)
        self._boxes.append(box)
        return True

    def _ahead(self, body: Body) -> bool:
        """Whether the middle of a body is in the picture: spares most misfits the costlier tests."""
        turn = self.camera.to_ground
        y = self.camera.height - body.base - body.size[1] / 2
        x, y, z = (float(body.x * turn[0, k] + y * turn[1, k] + body.z * turn[2, k]) for k in range(3))
        half = self.camera.size / 2 / self.camera.focal
        return self.near < z < self.far and abs(x) < z * half and abs(y) < z * half

    def _in_view(self, corners: Floats) -> tuple[float, float, float, float, float] | None:
        seen = self.camera.see(corners)
        depth = float(seen[:, 2].mean())
        if seen[:, 2].min() < self.near or seen[:, 2].max() > self.far:
            return None
        pixels = self.camera.project(seen)
        x0, y0 = pixels.min(0)
        x1, y1 = pixels.max(0)
        last = self.camera.size - 1
        shown = max(0.0, min(x1, last) - max(x0, 0)) * max(0.0, min(y1, last) - max(y0, 0))
        smallest = self.camera.size / 17
        if (
            shown < 0.55 * (x1 - x0) * (y1 - y0)
            or max(x1 - x0, y1 - y0) < smallest
            or shown < smallest**2 * 0.7
        ):
            return None
        if shown > 0.4 * self.camera.size**2:
            return None
        return (float(x0), float(y0), float(x1), float(y1), depth)

    def _free(self, body: Body, footprint: Floats) -> bool:
        for index, other in enumerate(self.bodies):
            if index == body.support or body.base >= other.top or other.base >= body.top:
                continue
            reach = (
                math.hypot(body.size[0], body.size[2]) + math.hypot(other.size[0], other.size[2])
            ) / 2 + self.gap
            if abs(body.x - other.x) > reach or abs(body.z - other.z) > reach:
                continue
            if not apart(footprint, self._footprints[index], self.gap):
                return False
        return True

    def _clear(self, body: Body, box: tuple[float, float, float, float, float]) -> bool:
        """Whether no image box covers most of another's; a surface and what rests on it are exempt."""
        for index, other in enumerate(self._boxes):
            width = min(box[2], other[2]) - max(box[0], other[0])
            height = min(box[3], other[3]) - max(box[1], other[1])
            if index == body.support or width <= 0 or height <= 0:
                continue
            behind = box if box[4] > other[4] else other
            if width * height > 0.5 * (behind[2] - behind[0]) * (behind[3] - behind[1]):
                return False
        return True

    def resting(self, category: Category, colour: str, size: tuple[float, float, float], yaw: float,
                index: int, surface: int, spot: tuple[float, float]) -> Body | None:  # fmt: skip
        """Rest a new body on a surface of body ``index``, at ``spot`` (shares of the free range).

        Returns None where there is no room.
        """
        host = self.bodies[index]
        x0, z0, x1, z1, level, clearance = host.category.surfaces[surface]
        base = host.base + level * host.size[1] + CONTACT
        if clearance and size[1] + 2 * CONTACT > clearance * host.size[1]:
            return None
        sin, cos = abs(np.sin(yaw)), abs(np.cos(yaw))
        extent = np.array([size[0] * cos + size[2] * sin, size[0] * sin + size[2] * cos])
        low = np.array([(x0 - 0.5) * host.size[0], (z0 - 0.5) * host.size[2]]) + extent / 2
        high = np.array([(x1 - 0.5) * host.size[0], (z1 - 0.5) * host.size[2]]) - extent / 2
        if (low > high).any():
            return None
        x, z = low + (high - low) * np.asarray(spot)
        sin, cos = np.sin(host.yaw), np.cos(host.yaw)
        center = (float(host.x + cos * x + sin * z), float(host.z - sin * x + cos * z))
        return Body(category, colour, size, *center, base, host.yaw + yaw, index)
