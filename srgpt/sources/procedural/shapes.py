"""Unit primitives that composite objects are made of: meshes that span the cube [0, 1]^3 exactly.

Axes of an object: x to its right, y **up** from its bottom, z from its front to its back. Every primitive is
convex and touches all six faces of its cube, so that the box of an object is the box of its parts.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from srgpt.errors import SrgptError

Floats = NDArray[np.float64]

SIDES = 16
"""Faces around a round primitive (a multiple of four, so that it touches its cube)."""


@dataclass(frozen=True)
class Shape:
    """A triangle mesh: ``vertices`` (V, 3), ``normals`` (V, 3) per vertex, ``faces`` (F, 3) indices."""

    vertices: Floats
    normals: Floats
    faces: NDArray[np.int32]


@cache
def shape(name: str) -> Shape:
    """Return a primitive by name.

    There are box, taper, wedge, cylinder (about y), cylinder_x, cylinder_z, cone, frustum, cup and sphere.
    """
    makers = {
        "box": lambda: _prism(1.0, 1.0),
        "taper": lambda: _prism(0.72, 0.9),
        "wedge": lambda: _prism(0.35, 1.0),
        "cylinder": lambda: _turned(1.0, 1.0),
        "cylinder_x": lambda: _swapped(_turned(1.0, 1.0), (1, 0, 2)),
        "cylinder_z": lambda: _swapped(_turned(1.0, 1.0), (0, 2, 1)),
        "cone": lambda: _turned(1.0, 0.06),
        "frustum": lambda: _turned(1.0, 0.6),
        "cup": lambda: _turned(0.65, 1.0),
        "sphere": _sphere,
    }
    if name not in makers:
        raise SrgptError(f"no primitive {name!r}; there are {', '.join(makers)}")
    return makers[name]()


def _prism(top_depth: float, top_width: float) -> Shape:
    """A box whose top face shrinks to ``top_width`` x ``top_depth``, about the middle."""
    corners = {}
    for y, width, depth in ((0, 1.0, 1.0), (1, top_width, top_depth)):
        for x in (0, 1):
            for z in (0, 1):
                corners[x, y, z] = (0.5 + (x - 0.5) * width, y, 0.5 + (z - 0.5) * depth)
    quads = [
        [(0, 0, 0), (0, 1, 0), (1, 1, 0), (1, 0, 0)],
        [(1, 0, 1), (1, 1, 1), (0, 1, 1), (0, 0, 1)],
        [(0, 0, 1), (0, 1, 1), (0, 1, 0), (0, 0, 0)],
        [(1, 0, 0), (1, 1, 0), (1, 1, 1), (1, 0, 1)],
        [(0, 1, 0), (0, 1, 1), (1, 1, 1), (1, 1, 0)],
        [(0, 0, 1), (0, 0, 0), (1, 0, 0), (1, 0, 1)],
    ]
    return _flat([[corners[key] for key in quad] for quad in quads])


def _turned(bottom: float, top: float) -> Shape:
    """A round solid about the y axis with relative radii ``bottom`` and ``top``; smooth side, flat caps."""
    angle = 2 * np.pi * np.arange(SIDES) / SIDES
    circle = np.stack([np.cos(angle), np.sin(angle)], 1)
    rings = [
        np.stack([0.5 + r / 2 * circle[:, 0], np.full(SIDES, y), 0.5 + r / 2 * circle[:, 1]], 1)
        for y, r in ((0.0, bottom), (1.0, top))
    ]
    slope = (bottom - top) / 2
    side = np.stack([circle[:, 0], np.full(SIDES, slope), circle[:, 1]], 1) / np.hypot(1.0, slope)
    here, there = np.arange(SIDES), (np.arange(SIDES) + 1) % SIDES
    faces = [
        np.stack([here, here + SIDES, there + SIDES], 1),
        np.stack([here, there + SIDES, there], 1),
    ]
    vertices, normals = [*rings], [side, side]
    for ring, up in ((rings[0], -1.0), (rings[1], 1.0)):
        start = sum(map(len, vertices))
        vertices.append(ring)
        normals.append(np.tile([0.0, up, 0.0], (SIDES, 1)))
        fan = np.stack([np.zeros(SIDES - 2), np.arange(1, SIDES - 1), np.arange(2, SIDES)], 1).astype(int)
        faces.append(start + (fan if up < 0 else fan[:, ::-1]))
    return Shape(np.concatenate(vertices), np.concatenate(normals), np.concatenate(faces).astype(np.int32))


def _sphere(rings: int = 6) -> Shape:
    """A latitude-longitude ball with smooth normals."""
    latitude = np.pi * np.arange(rings + 1) / rings
    angle = 2 * np.pi * np.arange(SIDES) / SIDES
    normals = np.stack(
        [
            np.outer(np.sin(latitude), np.cos(angle)),
            np.outer(-np.cos(latitude), np.ones(SIDES)),
            np.outer(np.sin(latitude), np.sin(angle)),
        ],
        -1,
    ).reshape(-1, 3)
    faces = []
    for row in range(rings):
        for column in range(SIDES):
            a, b = row * SIDES + column, row * SIDES + (column + 1) % SIDES
            if row < rings - 1:
                faces.append([a, a + SIDES, b + SIDES])
            if row > 0:
                faces.append([a, b + SIDES, b])
    return Shape(0.5 + normals / 2, normals, np.array(faces, dtype=np.int32))


def _flat(quads: list[list[tuple[float, float, float]]]) -> Shape:
    """Build a mesh of flat, outward quadrilaterals, each with vertices of its own."""
    points = np.array(quads, dtype=np.float64)
    normals = np.cross(points[:, 1] - points[:, 0], points[:, 2] - points[:, 0])
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    outward = np.sign(np.sum(normals * (points.mean(1) - 0.5), axis=1, keepdims=True))
    start = 4 * np.arange(len(points))[:, None]
    faces = np.concatenate([start + np.array([0, 1, 2]), start + np.array([0, 2, 3])]).astype(np.int32)
    return Shape(points.reshape(-1, 3), np.repeat(normals * outward, 4, axis=0), faces)


def _swapped(base: Shape, order: tuple[int, int, int]) -> Shape:
    """Permute the axes of a shape."""
    return Shape(base.vertices[:, order], base.normals[:, order], base.faces)
