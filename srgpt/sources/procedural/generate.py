"""One procedural scene from its recipe: a pure function of (seed, dataset, index) and the settings."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from srgpt.params import ProceduralParams
from srgpt.randomness import seeded
from srgpt.records import Region, Rejected, Scene, encode_depth, encode_rle
from srgpt.sources.procedural.camera import Camera
from srgpt.sources.procedural.families import arrange
from srgpt.sources.procedural.mesh import Mesh, build
from srgpt.sources.procedural.placement import Body
from srgpt.sources.procedural.render import Rendered, render

LICENCE = "CC0-1.0"

MAX_DEPTH = 65.0
"""Metres; farther surfaces have no depth reading."""

_ATTEMPTS = 40
_SURFACE_POINTS = 256
_JPEG_QUALITY = 95


def scene_id(params: ProceduralParams, index: int) -> str:
    """Return the id of scene ``index``: its family, and the index."""
    return f"{params.families[index % len(params.families)]}-{index:06d}"


def generate(params: ProceduralParams, seed: int, dataset: str, index: int) -> Scene | Rejected:
    """Make scene ``index`` of a dataset.

    Layouts are drawn until one shows at least ``min_objects`` regions; a scene that never does (impossible
    settings) is set aside.
    """
    family = params.families[index % len(params.families)]
    for attempt in range(_ATTEMPTS):
        rng = seeded(seed, dataset, family, index, attempt, "procedural")
        count = int(rng.integers(params.min_objects, params.max_objects + 1))
        camera, scenery, bodies = arrange(family, rng, params.image_size, count)
        if len(bodies) < params.min_objects:
            continue
        mesh = build(camera, scenery, bodies, rng)
        rendered = render(camera, scenery, len(bodies), mesh)
        regions = _regions(params, camera, bodies, mesh, rendered, rng)
        if len(regions) >= params.min_objects:
            return _scene(family, seed, dataset, index, camera, rendered, regions)
    return Rejected(
        scene_id(params, index), "no-layout",
        f"no layout of {_ATTEMPTS} showed {params.min_objects} objects of {params.min_pixels} pixels or more "
        f"and {params.min_visibility:.0%} visibility at {params.image_size} pixels",
    )  # fmt: skip


def _regions(
    params: ProceduralParams,
    camera: Camera,
    bodies: list[Body],
    mesh: Mesh,
    rendered: Rendered,
    rng: np.random.Generator,
) -> list[Region]:
    """Describe the bodies that are seen well enough, in random order: an id says nothing about an object."""
    pixels = np.bincount(rendered.owner[rendered.owner >= 0], minlength=len(bodies))
    regions: list[Region] = []
    for index in rng.permutation(len(bodies)):
        body = bodies[index]
        visibility = min(1.0, float(pixels[index] / max(rendered.alone[index], 1)))
        truncation = _truncation(camera, mesh, index, rng)
        if pixels[index] < params.min_pixels or visibility < params.min_visibility:
            continue
        mask = rendered.owner == index
        regions.append(
            Region(
                id=len(regions),
                category=body.category.name,
                label=f"{body.colour} {body.category.name}",
                bbox=_bounds(mask),
                rle=encode_rle(mask),
                mask_source="given",
                cuboid=body.cuboid(camera),
                visibility=visibility,
                truncation=truncation,
            )
        )
    return regions


def _truncation(camera: Camera, mesh: Mesh, index: int, rng: np.random.Generator) -> float:
    """Estimate the share of a body's surface outside of the picture from points drawn evenly over its
    triangles.

    Hidden surface counts too: it is the object that is cut off, not its visible side.
    """
    vertices, faces = mesh.body(index)
    edge = camera.project(vertices)
    if edge.min() >= -0.5 and edge.max() <= camera.size - 0.5:
        return 0.0
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    area = np.cumsum(np.linalg.norm(np.cross(b - a, c - a), axis=1))
    chosen = np.searchsorted(area, rng.random(_SURFACE_POINTS) * area[-1])
    s, t = rng.random((2, _SURFACE_POINTS, 1))
    s, t = np.where(s + t > 1, 1 - s, s), np.where(s + t > 1, 1 - t, t)
    points = camera.project(a[chosen] + s * (b[chosen] - a[chosen]) + t * (c[chosen] - a[chosen]))
    return float(np.mean(((points < -0.5) | (points > camera.size - 0.5)).any(1)))


def _bounds(mask: NDArray[np.bool_]) -> tuple[float, float, float, float]:
    """Return the pixels' outer edges as xyxy."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return (float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1))


def _scene(
    family: str,
    seed: int,
    dataset: str,
    index: int,
    camera: Camera,
    rendered: Rendered,
    regions: list[Region],
) -> Scene:
    picture = io.BytesIO()
    Image.fromarray(rendered.rgb).save(picture, "JPEG", quality=_JPEG_QUALITY, subsampling=0)
    return Scene(
        dataset=dataset,
        scene_id=f"{family}-{index:06d}",
        width=camera.size,
        height=camera.size,
        image=picture.getvalue(),
        regions=tuple(regions),
        depth=encode_depth(np.where(rendered.depth <= MAX_DEPTH, rendered.depth, 0)),
        depth_source="given",
        intrinsics=camera.intrinsics,
        intrinsics_source="given",
        gravity=camera.gravity,
        gravity_source="given",
        uri=f"procedural://{family}/{index}?dataset={dataset}&seed={seed}",
        licence=LICENCE,
    )
