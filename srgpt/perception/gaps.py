"""Checks what a scene has, keeps it, and fills what is missing by the rules that need no model.

What the source gave stays as it is. A gap is filled only where a setting of ``perceive`` says how, and the
value is marked with the rule that supplied it; all other gaps together are an :class:`IncompleteError`, each
with the missing thing and the setting that would supply it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from srgpt.errors import InputError
from srgpt.geometry.camera import intrinsics_of
from srgpt.params import PerceiveParams
from srgpt.records import Region, Scene, encode_rle

LEVEL = "level"
"""Source of a gravity that assumes a level camera."""

BOXES = "boxes"
"""Source of a mask that fills its region's box."""

_UNIT_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Gap:
    """What a scene lacks, or has wrong. ``reason`` is a slug that is counted, ``detail`` is for a person."""

    reason: str
    detail: str


class IncompleteError(Exception):
    """A scene with gaps that no setting fills: at least one, all that it has."""

    def __init__(self, *gaps: Gap) -> None:
        super().__init__("; ".join(gap.detail for gap in gaps))
        self.gaps = gaps


class SetAsideError(IncompleteError):
    """A scene that perception judged unfit (no photograph, nothing found): no gap that a setting would fill.

    It is set aside whatever ``perceive.on_missing`` says.
    """


def complete(scene: Scene, params: PerceiveParams) -> Scene:
    """Return the scene with its gaps filled; the same object where there are none.

    Raises :class:`IncompleteError`.
    """
    if not scene.regions:
        raise _incomplete("no-regions", "it has no regions; perceive.regions=model detects them")
    gaps: list[Gap] = []
    for fill in (_with_depth, _with_gravity, _with_intrinsics, _with_masks):
        try:
            scene = fill(scene, params)
        except IncompleteError as error:
            gaps += error.gaps
    if gaps:
        raise IncompleteError(*gaps)
    return scene


def _incomplete(reason: str, detail: str) -> IncompleteError:
    return IncompleteError(Gap(reason, detail))


def _with_depth(scene: Scene, params: PerceiveParams) -> Scene:
    if scene.depth is None:
        if params.depth == "none":
            return scene
        raise _incomplete(
            "missing-depth",
            "it has no depth; perceive.depth=model estimates it, perceive.depth=none goes on without (facts then "
            "come from cuboids only)",
        )
    try:
        shape = scene.depth_metres().shape
    except (OSError, SyntaxError, ValueError) as error:
        raise _incomplete("bad-depth", f"its depth cannot be decoded ({error}); ingest it again") from error
    if shape != (scene.height, scene.width):
        raise _incomplete(
            "wrong-depth-size",
            f"its depth is {' x '.join(map(str, shape[::-1]))} pixels, its image "
            f"{scene.width} x {scene.height}",
        )
    return scene


def _with_gravity(scene: Scene, params: PerceiveParams) -> Scene:
    if scene.gravity is None:
        if params.gravity == "level":
            return scene.replace(gravity=(0.0, 1.0, 0.0), gravity_source=LEVEL)
        raise _incomplete(
            "missing-gravity",
            "it has no gravity; perceive.gravity=ransac fits the ground, perceive.gravity=level assumes a level "
            "camera",
        )
    length = math.sqrt(sum(v * v for v in scene.gravity))
    if len(scene.gravity) != 3 or not abs(length - 1) <= _UNIT_TOLERANCE:
        raise _incomplete("bad-gravity", f"its gravity {scene.gravity} is not a unit vector of three numbers")
    return scene


def _with_intrinsics(scene: Scene, params: PerceiveParams) -> Scene:
    if scene.intrinsics is None:
        if params.intrinsics == "fov":
            return scene.replace(
                intrinsics=intrinsics_of(params.fov_degrees, scene.width, scene.height),
                intrinsics_source=f"fov:{params.fov_degrees:g}",
            )
        raise _incomplete(
            "missing-intrinsics",
            "it has no intrinsics; perceive.intrinsics=model estimates them, perceive.intrinsics=fov assumes "
            "perceive.fov_degrees as field of view",
        )
    values = scene.intrinsics
    if len(values) != 4 or not all(map(math.isfinite, values)) or values[0] <= 0 or values[1] <= 0:
        raise _incomplete(
            "bad-intrinsics", f"its intrinsics {values} are not (fx, fy, cx, cy), finite, fx and fy > 0"
        )
    return scene


def _with_masks(scene: Scene, params: PerceiveParams) -> Scene:
    bare = [r for r in scene.regions if r.rle is None]
    gaps = [gap for r in scene.regions if r.rle is not None for gap in _mask_gaps(scene, r)]
    if bare and params.masks != BOXES:
        first = f"region {bare[0].id} ({bare[0].category}) and {len(bare) - 1} more"
        text = (
            f"{first} of its {len(scene.regions)} regions have no mask; perceive.masks=model segments them, "
            "perceive.masks=boxes uses their boxes"
        )
        gaps.append(Gap("missing-masks", text))
    if gaps:
        raise IncompleteError(*gaps)
    if not bare:
        return scene
    return scene.replace(regions=tuple(_boxed(scene, r) if r.rle is None else r for r in scene.regions))


def _mask_gaps(scene: Scene, region: Region) -> list[Gap]:
    name = f"the mask of region {region.id} ({region.category})"
    try:
        shape = region.mask().shape
    except (InputError, KeyError, TypeError) as error:
        return [Gap("bad-mask", f"{name}: {error}")]
    if shape != (scene.height, scene.width):
        sizes = f"{shape[1]} x {shape[0]}, its image {scene.width} x {scene.height} pixels"
        return [Gap("wrong-mask-size", f"{name} is {sizes}")]
    return []


def _boxed(scene: Scene, region: Region) -> Region:
    """Fill a region's box: the pixels whose centres lie within it, at least one."""
    x0, y0, x1, y1 = region.bbox
    mask = np.zeros((scene.height, scene.width), dtype=bool)
    left, top = (min(max(round(v), 0), size - 1) for v, size in ((x0, scene.width), (y0, scene.height)))
    mask[top : max(round(y1), top + 1), left : max(round(x1), left + 1)] = True
    row = {**region.to_row(), "rle": encode_rle(mask), "mask_source": BOXES}
    return Region.from_row(row)
