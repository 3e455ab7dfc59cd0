"""Rendering with Embree: one ray per pixel through its centre, one shadow ray, one more per object for
visibility.

Rays start at the camera with directions of z = 1, so that the distance Embree reports *is* the z-depth.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from embreex.mesh_construction import TriangleMesh
from embreex.rtcore_scene import EmbreeScene
from numpy.typing import NDArray

from srgpt.sources.procedural.backdrop import Backdrop
from srgpt.sources.procedural.camera import Camera
from srgpt.sources.procedural.mesh import BACKDROP, Mesh
from srgpt.sources.procedural.textures import TEXTURES

Floats = NDArray[np.float32]

_MISS = -1
_TEXTURES = list(TEXTURES.values())


@dataclass(frozen=True)
class Rendered:
    """A picture and its truth, all (size, size): ``rgb`` (..., 3) uint8, ``depth`` metres (0 = nothing
    hit), ``owner`` the index of the body seen or -1; ``alone`` (bodies,) pixels of each body with nothing
    before it.
    """

    rgb: NDArray[np.uint8]
    depth: NDArray[np.float32]
    owner: NDArray[np.int32]
    alone: NDArray[np.int64]


def render(camera: Camera, scenery: Backdrop, bodies: int, mesh: Mesh) -> Rendered:
    """Render the mesh of ``bodies`` bodies; only visible ones get an ``alone`` count, the others 0."""
    rays = camera.rays().astype(np.float32)
    scene = _scene(mesh.vertices, mesh.faces)
    hits = scene.run(np.zeros_like(rays), rays, output=True)
    face = hits["primID"]
    hit = np.flatnonzero(face != _MISS)
    struck = {name: hits[name].take(hit) for name in ("primID", "tfar", "u", "v")}
    owner = np.full(len(rays), BACKDROP, dtype=np.int32)
    owner[hit] = mesh.owner[struck["primID"]]
    linear = np.empty((len(rays), 3), dtype=np.float32)
    linear[:] = (np.array(scenery.sky) / 255) ** 2
    linear[hit] = _shade(camera, scenery, mesh, scene, rays.take(hit, axis=0), struck)
    depth = np.zeros(len(rays), dtype=np.float32)
    depth[hit] = struck["tfar"]
    counts = np.bincount(owner[owner >= 0], minlength=bodies)
    alone = counts.copy()
    for index in _overlapping(camera, mesh, bodies):
        alone[index] = _alone(camera, mesh, index, rays) if counts[index] else 0
    shape = (camera.size, camera.size)
    rgb = (np.sqrt(np.minimum(linear, 1)) * 255 + 0.5).astype(np.uint8)
    return Rendered(rgb.reshape(*shape, 3), depth.reshape(shape), owner.reshape(shape), alone)


@cache
def _use_one_thread() -> None:
    """Keep Embree's builder to the calling thread: shards already run one process per core.

    Its thread pool takes its size from the cores that are allowed when the first scene is made.
    """
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        EmbreeScene()
    finally:
        os.sched_setaffinity(0, allowed)


def _scene(vertices: NDArray[np.float64], faces: NDArray[np.int32]) -> EmbreeScene:
    _use_one_thread()
    scene = EmbreeScene()
    TriangleMesh(
        scene, np.ascontiguousarray(vertices, dtype=np.float32), np.ascontiguousarray(faces, dtype=np.int32)
    )
    return scene


def _overlapping(camera: Camera, mesh: Mesh, bodies: int) -> list[int]:
    """Return the bodies whose image boxes meet another's: only these can be hidden.

    The backdrop hides nothing: camera and bodies are on one side of each of its faces.
    """
    pixels = camera.project(mesh.vertices[: mesh.start[-1]])
    low, high = np.minimum.reduceat(pixels, mesh.start[:-1]), np.maximum.reduceat(pixels, mesh.start[:-1])
    apart = (low[:, None] > high[None] + 1) | (low[None] > high[:, None] + 1)
    meeting = np.count_nonzero(~apart.any(-1), axis=1)
    return [i for i in range(bodies) if meeting[i] > 1]


def _alone(camera: Camera, mesh: Mesh, index: int, rays: NDArray[np.float32]) -> int:
    """Count the pixels of one body with nothing before it: its own rays, within its image box."""
    vertices, faces = mesh.body(index)
    pixels = camera.project(vertices)
    last = camera.size - 1
    x0, y0 = np.clip(np.floor(pixels.min(0)).astype(int), 0, last)
    x1, y1 = np.clip(np.ceil(pixels.max(0)).astype(int), 0, last)
    window = rays.reshape(camera.size, camera.size, 3)[y0 : y1 + 1, x0 : x1 + 1].reshape(-1, 3)
    window = np.ascontiguousarray(window)
    found = _scene(vertices, faces).run(np.zeros_like(window), window)
    return int(np.count_nonzero(found != _MISS))


def _shade(
    camera: Camera,
    scenery: Backdrop,
    mesh: Mesh,
    scene: EmbreeScene,
    rays: Floats,
    hits: dict[str, NDArray[Any]],
) -> Floats:
    """Return the linear colour (N, 3) of hit points: albedo x (ambient + lamp light unless in shadow)."""
    face, u, v = hits["primID"], hits["u"], hits["v"]
    points = rays * hits["tfar"][:, None]
    normals = mesh.normals.take(mesh.faces[:, 0].take(face), axis=0)
    curved = np.flatnonzero(mesh.curved.take(face))
    normals[curved] = _smooth(mesh, face[curved], u[curved, None], v[curved, None])
    normals *= np.where(_dot(normals, rays) > 0, np.float32(-1), np.float32(1))[:, None]
    lamp = camera.see(scenery.light).astype(np.float32) - points
    incidence = np.maximum(_dot(normals, lamp) / np.sqrt(_dot(lamp, lamp)), 0)
    lit = np.flatnonzero(incidence > 0)
    blocked = _blocked(scene, *(vectors.take(lit, axis=0) for vectors in (points, normals, lamp)))
    incidence[lit[blocked]] = 0
    upward = normals @ -np.array(camera.gravity, dtype=np.float32)
    light = scenery.ambient * (0.8 + 0.25 * upward) + (1.15 - scenery.ambient) * incidence
    return _albedo(mesh, points, face) * light[:, None].astype(np.float32)


def _smooth(mesh: Mesh, face: NDArray[np.int32], u: Floats, v: Floats) -> Floats:
    """Interpolate the vertex normals of curved faces at barycentric (u, v), (N, 1) each; returns (N, 3)."""
    first, second, third = mesh.faces[face].T
    normals = mesh.normals[first] * (1 - u - v) + mesh.normals[second] * u + mesh.normals[third] * v
    return normals / np.maximum(np.sqrt(_dot(normals, normals)), np.float32(1e-9))[:, None]


def _dot(a: Floats, b: Floats) -> Floats:
    return np.einsum("ij,ij->i", a, b)


def _blocked(scene: EmbreeScene, points: Floats, normals: Floats, lamp: Floats) -> NDArray[np.bool_]:
    """Whether something stands between points and the lamp; rays start a little off the surface."""
    start = points + normals * (1e-3 + 2e-4 * points[:, 2:])
    found = scene.run(start, lamp, np.full(len(start), 0.999, dtype=np.float32), query="OCCLUDED")
    return found != _MISS


def _albedo(mesh: Mesh, points: Floats, face: NDArray[np.int32]) -> Floats:
    """Return the linear colour (N, 3) of the surface itself."""
    paint, material = mesh.paint, mesh.material.take(face)
    kind = paint.kind.take(material)
    textured = np.flatnonzero(kind != 0)
    number, where, kind = face.take(textured), points.take(textured, axis=0), kind.take(textured)
    size = paint.scale.take(material.take(textured))
    across, along = mesh.across.take(number, axis=0), mesh.along.take(number, axis=0)
    across = (_dot(across[:, :3], where) + across[:, 3]) / size
    along = (_dot(along[:, :3], where) + along[:, 3]) / size
    mix = np.zeros(len(points), dtype=np.float32)
    for index in np.unique(kind):
        chosen = np.flatnonzero(kind == index)
        mix[textured.take(chosen)] = _TEXTURES[index](across.take(chosen), along.take(chosen))
    return (
        paint.base.take(material, axis=0) + (paint.accent - paint.base).take(material, axis=0) * mix[:, None]
    )
