"""Checks what a scene has, keeps it, and fills what is missing by the rules that need no model.

What the source gave stays as it is. A gap is filled only where a setting of ``perceive`` says how, and the
value is marked with the rule that supplied it; any other gap is an :class:`IncompleteError` that names the
missing thing and the setting that would supply it.
"""

from __future__ import annotations

import math

import numpy as np

from srgpt.errors import InputError
from srgpt.params import PerceiveParams
from srgpt.records import Region, Scene, encode_rle

LEVEL = "level"
"""Source of a gravity that assumes a level camera."""

BOXES = "boxes"
"""Source of a mask that fills its region's box."""

_UNIT_TOLERANCE = 1e-3


class IncompleteError(Exception):
    """A scene that lacks something, or has something wrong. ``reason`` is a slug that is counted."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


def complete(scene: Scene, params: PerceiveParams) -> Scene:
    """Return the scene with its gaps filled; the same object where there are none.

    Raises :class:`IncompleteError`.
    """
    if not scene.regions:
        raise IncompleteError(
            "no-regions", "it has no regions, and no setting supplies them yet; take it out of the source"
        )
    result = _with_intrinsics(_with_gravity(_with_depth(scene, params), params), params)
    return _with_masks(result, params)


def _with_depth(scene: Scene, params: PerceiveParams) -> Scene:
    if scene.depth is None:
        if params.depth == "none":
            return scene
        raise IncompleteError(
            "missing-depth",
            "it has no depth; perceive.depth=none goes on without (facts then come from cuboids only)",
        )
    try:
        shape = scene.depth_metres().shape
    except (OSError, SyntaxError, ValueError) as error:
        raise IncompleteError(
            "bad-depth", f"its depth cannot be decoded ({error}); ingest it again"
        ) from error
    if shape != (scene.height, scene.width):
        raise IncompleteError(
            "wrong-depth-size",
            f"its depth is {' x '.join(map(str, shape[::-1]))} pixels, its image "
            f"{scene.width} x {scene.height}",
        )
    return scene


def _with_gravity(scene: Scene, params: PerceiveParams) -> Scene:
    if scene.gravity is None:
        if params.gravity == "level":
            return scene.replace(gravity=(0.0, 1.0, 0.0), gravity_source=LEVEL)
        raise IncompleteError(
            "missing-gravity", "it has no gravity; perceive.gravity=level assumes a level camera"
        )
    length = math.sqrt(sum(v * v for v in scene.gravity))
    if len(scene.gravity) != 3 or not abs(length - 1) <= _UNIT_TOLERANCE:
        raise IncompleteError(
            "bad-gravity", f"its gravity {scene.gravity} is not a unit vector of three numbers"
        )
    return scene


def _with_intrinsics(scene: Scene, params: PerceiveParams) -> Scene:
    if scene.intrinsics is None:
        if params.intrinsics == "fov":
            return scene.replace(
                intrinsics=_assumed_intrinsics(scene, params.fov_degrees),
                intrinsics_source=f"fov:{params.fov_degrees:g}",
            )
        raise IncompleteError(
            "missing-intrinsics",
            "it has no intrinsics; perceive.intrinsics=fov assumes perceive.fov_degrees as field of view",
        )
    values = scene.intrinsics
    if len(values) != 4 or not all(map(math.isfinite, values)) or values[0] <= 0 or values[1] <= 0:
        raise IncompleteError(
            "bad-intrinsics", f"its intrinsics {values} are not (fx, fy, cx, cy), finite, fx and fy > 0"
        )
    return scene


def _assumed_intrinsics(scene: Scene, degrees: float) -> tuple[float, float, float, float]:
    """Square pixels, the centre of the picture, and a horizontal field of view between its outer edges."""
    focal = scene.width / 2 / math.tan(math.radians(degrees) / 2)
    return (focal, focal, (scene.width - 1) / 2, (scene.height - 1) / 2)


def _with_masks(scene: Scene, params: PerceiveParams) -> Scene:
    bare = [r for r in scene.regions if r.rle is None]
    for region in scene.regions:
        if region.rle is not None:
            _check_mask(scene, region)
    if not bare:
        return scene
    if params.masks != BOXES:
        raise IncompleteError(
            "missing-masks",
            f"region {bare[0].id} ({bare[0].category}) and {len(bare) - 1} more of its {len(scene.regions)} "
            "regions have no mask; perceive.masks=boxes uses their boxes",
        )
    return scene.replace(regions=tuple(_boxed(scene, r) if r.rle is None else r for r in scene.regions))


def _check_mask(scene: Scene, region: Region) -> None:
    try:
        shape = region.mask().shape
    except (InputError, KeyError, TypeError) as error:
        raise IncompleteError(
            "bad-mask", f"the mask of region {region.id} ({region.category}): {error}"
        ) from error
    if shape != (scene.height, scene.width):
        raise IncompleteError(
            "wrong-mask-size",
            f"the mask of region {region.id} ({region.category}) is {shape[1]} x {shape[0]}, "
            f"its image {scene.width} x {scene.height} pixels",
        )


def _boxed(scene: Scene, region: Region) -> Region:
    """Fill a region's box: the pixels whose centres lie within it, at least one."""
    x0, y0, x1, y1 = region.bbox
    mask = np.zeros((scene.height, scene.width), dtype=bool)
    left, top = (min(max(round(v), 0), size - 1) for v, size in ((x0, scene.width), (y0, scene.height)))
    mask[top : max(round(y1), top + 1), left : max(round(x1), left + 1)] = True
    row = {**region.to_row(), "rle": encode_rle(mask), "mask_source": BOXES}
    return Region.from_row(row)
