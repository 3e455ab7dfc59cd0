"""From bodies and surroundings to one triangle mesh in the camera frame, with its materials."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from srgpt.sources.procedural.backdrop import Backdrop
from srgpt.sources.procedural.camera import Camera
from srgpt.sources.procedural.catalog import COLOURS, MATERIALS, Category
from srgpt.sources.procedural.placement import Body
from srgpt.sources.procedural.shapes import shape
from srgpt.sources.procedural.textures import TEXTURES

Floats = NDArray[np.float64]

BACKDROP = -1
"""The owner of triangles that belong to no object."""

_QUAD = np.array([[0, 1, 2], [0, 2, 3]])
_KINDS = list(TEXTURES)
_PATTERNS = ("plain", "plain", "plain", "noise", "stripes", "bands", "checks")


@dataclass(frozen=True)
class Template:
    """A category's mesh in its unit cube; ``roles`` (F,) says which of ``names`` each face is made of."""

    vertices: Floats
    normals: Floats
    faces: NDArray[np.int32]
    roles: NDArray[np.int32]
    names: tuple[str, ...]
    curved: NDArray[np.bool_]
    """(F,) whether a face's vertex normals differ."""


@dataclass(frozen=True)
class Paint:
    """Materials by number: linear colours ``base``, ``accent`` (M, 3); texture ``kind``, ``scale`` (M,)."""

    base: NDArray[np.float32]
    accent: NDArray[np.float32]
    kind: NDArray[np.int32]
    scale: NDArray[np.float32]


@dataclass(frozen=True)
class Mesh:
    """Triangles in the camera frame. ``owner`` (F,) is a body's index or BACKDROP; ``material`` (F,) into
    ``paint``.

    ``normals`` (V, 3) are the vertices' unit normals, camera frame. ``curved`` (F,) marks faces
    whose vertex normals differ. ``across`` and ``along`` (F, 4) map camera points (x, y, z, 1) to texture
    coordinates in metres along the body's own axes. ``start`` (bodies + 1,) bounds
    the vertices of each body, ``first`` (bodies + 1,) its faces; the backdrop comes last.
    """

    vertices: Floats
    normals: NDArray[np.float32]
    faces: NDArray[np.int32]
    owner: NDArray[np.int32]
    material: NDArray[np.int32]
    curved: NDArray[np.bool_]
    across: NDArray[np.float32]
    along: NDArray[np.float32]
    paint: Paint
    start: NDArray[np.int64]
    first: NDArray[np.int64]

    def body(self, index: int) -> tuple[Floats, NDArray[np.int32]]:
        """Return vertices and faces of one body alone."""
        low, high = self.start[index], self.start[index + 1]
        faces = self.faces[self.first[index] : self.first[index + 1]] - np.int32(low)
        return self.vertices[low:high], faces


@cache
def _template(parts: tuple[tuple[str, float, float, float, float, float, float, str], ...]) -> Template:
    names = tuple(dict.fromkeys(p[-1] for p in parts))
    vertices, normals, faces, roles, count = [], [], [], [], 0
    for name, x0, y0, z0, x1, y1, z1, role in parts:
        base, extent = shape(name), np.array([x1 - x0, y1 - y0, z1 - z0])
        vertices.append(base.vertices * extent + [x0, y0, z0])
        normals.append(base.normals / extent)
        faces.append(base.faces + count)
        roles.append(np.full(len(base.faces), names.index(role)))
        count += len(base.vertices)
    normal, face = np.concatenate(normals), np.concatenate(faces).astype(np.int32)
    curved = (np.ptp(normal[face], axis=1) > 1e-9).any(1)
    return Template(
        np.concatenate(vertices), normal, face, np.concatenate(roles).astype(np.int32), names, curved
    )


def template(category: Category) -> Template:
    """Return the unit mesh of a category."""
    return _template(category.parts)


def linear(colour: NDArray[np.floating] | tuple[int, int, int]) -> Floats:
    """Convert 8-bit display colours to linear light in [0, 1], with a gamma of 2."""
    return (np.asarray(colour, dtype=np.float64) / 255) ** 2


def build(camera: Camera, scenery: Backdrop, bodies: list[Body], rng: np.random.Generator) -> Mesh:
    """Build the mesh of a layout; ``rng`` draws tints and patterns."""
    lists: list[list[NDArray[Any]]] = [[] for _ in range(7)]
    vertices, normals, faces, owner, material, wrap, curved = lists
    palette: list[tuple[Floats, Floats, int, float]] = []
    start, first = [0], [0]
    for index, body in enumerate(bodies):
        unit = template(body.category)
        vertices.append(body.place(unit.vertices))
        normals.append(body.turn(unit.normals))
        faces.append(unit.faces + start[-1])
        owner.append(np.full(len(unit.faces), index))
        curved.append(unit.curved)
        material.append(unit.roles + len(palette))
        palette += [_body_paint(body, role, rng) for role in unit.names]
        facing = np.abs(unit.normals[unit.faces[:, 0]] / np.asarray(body.size))
        wrap.append(_axes(camera, body.x, -body.base, body.z, body.yaw)[np.argmax(facing, axis=1)])
        start.append(start[-1] + len(unit.vertices))
        first.append(first[-1] + len(unit.faces))
    corners = np.array([quad.corners for quad in scenery.quads])
    normal = _quad_normals(corners)
    vertices.append(corners.reshape(-1, 3))
    normals.append(np.repeat(normal, 4, axis=0))
    faces.append((_QUAD + 4 * np.arange(len(corners))[:, None, None]).reshape(-1, 3) + start[-1])
    owner.append(np.full(2 * len(corners), BACKDROP))
    curved.append(np.zeros(2 * len(corners), dtype=bool))
    wrap.append(_axes(camera, 0.0, 0.0, 0.0, 0.0)[np.repeat(np.argmax(np.abs(normal), axis=1), 2)])
    material.append(np.repeat(np.arange(len(corners)), 2) + len(palette))
    palette += [(linear(q.colour), linear(q.accent), _KINDS.index(q.texture), q.scale) for q in scenery.quads]
    axes = np.concatenate(wrap)
    base, accent, kind, scale = zip(*palette, strict=True)
    return Mesh(
        camera.see(np.concatenate(vertices)),
        (np.concatenate(normals) @ camera.to_ground).astype(np.float32),
        np.concatenate(faces).astype(np.int32),
        np.concatenate(owner).astype(np.int32),
        np.concatenate(material).astype(np.int32),
        np.concatenate(curved),
        np.ascontiguousarray(axes[:, 0], dtype=np.float32),
        np.ascontiguousarray(axes[:, 1], dtype=np.float32),
        Paint(
            np.array(base, dtype=np.float32),
            np.array(accent, dtype=np.float32),
            np.array(kind, dtype=np.int32),
            np.array(scale, dtype=np.float32),
        ),
        np.array(start),
        np.array(first),
    )


def _axes(camera: Camera, x: float, y: float, z: float, yaw: float) -> Floats:
    """Return, per dominant axis of a face's normal, the rows (3, 2, 4) that map camera points to (u, v)."""
    sin, cos = np.sin(yaw), np.cos(yaw)
    turn = np.array([[cos, 0.0, -sin], [0.0, 1.0, 0.0], [sin, 0.0, cos]])
    shift = turn @ -np.array([x, y + camera.height, z])
    own = np.column_stack([turn @ camera.to_ground, shift])
    return np.array([[own[2], -own[1]], [own[0], own[2]], [own[0], -own[1]]])


def _quad_normals(corners: Floats) -> Floats:
    """Return the unit normals (Q, 3) of flat quadrilaterals (Q, 4, 3)."""
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    return normal / np.linalg.norm(normal, axis=1, keepdims=True)


def _body_paint(body: Body, role: str, rng: np.random.Generator) -> tuple[Floats, Floats, int, float]:
    """Draw how one role of a body is painted: its colour varies a little, its pattern in brightness only."""
    draw = rng.random(7)
    colour = np.array(COLOURS[body.colour] if role == "main" else MATERIALS[role], dtype=np.float64)
    colour = np.minimum(np.maximum(colour * (0.88 + 0.22 * draw[0]) + (draw[1:4] - 0.5) * 16, 8), 250)
    kinds = _PATTERNS if role == "main" else ("plain", "noise")
    kind = _KINDS.index(kinds[int(draw[4] * len(kinds))])
    accent = colour * (0.66 + 0.2 * draw[5]) if colour.max() > 60 else colour + 18 + 16 * draw[5]
    return linear(colour), linear(accent), kind, float(max(body.size) * (0.12 + 0.23 * draw[6]))
