"""The files beside a picture of an RGB-D set: depth, intrinsics, instance masks and their names.

Intrinsics as text are numbers with spaces or commas between them: ``fx fy cx cy``, a 3 x 3 or a 4 x 4 matrix. As JSON
they are ``{"fx": ..., "fy": ..., "cx": ..., "cy": ...}``, ``{"K": [[...], [...], [...]]}`` or Open3D's
``{"intrinsic_matrix": [...]}``, column by column; ``width`` and ``height``, where given, must be the picture's.
"""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from srgpt.params import RgbdParams
from srgpt.records import DEPTH_UNIT, Region, Rejected, decode_rle, encode_rle
from srgpt.sources.coco import mask_bbox
from srgpt.sources.omni3d_boxes import finite_array, is_text
from srgpt.sources.pictures import Intrinsics, UnusableError, decode

GIVEN = "given"
UNNAMED = "object"
"""Category of an instance where the set names none."""

_MAX_INSTANCES = 1000
_KEYS = ("fx", "fy", "cx", "cy")


def read_depth(
    data: bytes, name: str, size: tuple[int, int], params: RgbdParams, max_pixels: int
) -> NDArray[np.uint16]:
    """Return z-depth in millimetres, (height, width) uint16; 0 = no reading, or more than 65.535 m.

    ``sunrgbd`` rotates the bits back as SUN RGB-D's toolbox does (``read3dPoints.m``: down by 3, up by 13).
    """
    image, form = decode(data, name, "depth", max_pixels=max_pixels)
    if form != "PNG" or not image.mode.startswith("I"):
        raise UnusableError(
            "bad-depth", f"{name}: expected a 16-bit grey PNG, found {form} of mode {image.mode}"
        )
    _check_size("depth", name, image.size, size)
    steps = np.asarray(image).astype(np.int64) & 0xFFFF
    if params.depth_encoding == "sunrgbd":
        steps = (steps >> 3) | (steps << 13) & 0xFFFF
    millimetres = np.rint(steps / (params.depth_scale * DEPTH_UNIT))
    depth = np.where(millimetres <= 65535, millimetres, 0).astype(np.uint16)
    if not depth.any():
        raise UnusableError("empty-depth", f"{name}: no reading in it; check ingest.rgbd.depth_scale")
    return depth


def read_intrinsics(data: bytes, name: str, size: tuple[int, int]) -> Intrinsics:
    """Read (fx, fy, cx, cy) in pixels of a picture of ``size`` (width, height)."""
    try:
        text = data.decode()
        values = _from_json(text, name, size) if name.endswith(".json") else _from_text(text)
    except (ValueError, RecursionError):
        values = None
    if values is None or not np.isfinite(values).all() or min(values[:2]) <= 0:
        raise UnusableError("bad-intrinsics", f"{name}: expected fx fy cx cy, or a 3 x 3 or 4 x 4 matrix")
    fx, fy, cx, cy = (float(v) for v in values)
    if not (0 < cx < size[0] and 0 < cy < size[1]):
        raise UnusableError(
            "bad-intrinsics",
            f"{name}: the principal point ({cx:g}, {cy:g}) is outside the {size[0]} x {size[1]} pixels: "
            "they are for another size",
        )
    return (fx, fy, cx, cy)


def _from_text(text: str) -> NDArray[np.float64] | None:
    lines = [line.split("#")[0] for line in text.splitlines()]
    numbers = np.array([float(word) for word in re.split(r"[\s,;]+", " ".join(lines)) if word])
    if len(numbers) == 4:
        return numbers
    if len(numbers) == 16:
        numbers = numbers.reshape(4, 4)[:3, :3].reshape(9)
    return _from_matrix(numbers.reshape(3, 3)) if len(numbers) == 9 else None


def _from_json(text: str, name: str, size: tuple[int, int]) -> NDArray[np.float64] | None:
    value = json.loads(text)
    if not isinstance(value, dict):
        return None
    stated = (value.get("width", size[0]), value.get("height", size[1]))
    if stated != size:
        raise UnusableError(
            "wrong-intrinsics-size",
            f"{name}: for {stated[0]} x {stated[1]}, the picture is {size[0]} x {size[1]}",
        )
    if all(key in value for key in _KEYS):
        return finite_array([value[key] for key in _KEYS], (4,))
    columns = finite_array(value.get("intrinsic_matrix"), (9,))
    matrix = finite_array(value.get("K"), (3, 3)) if columns is None else columns.reshape(3, 3).T
    return None if matrix is None else _from_matrix(matrix)


def _from_matrix(matrix: NDArray[np.float64]) -> NDArray[np.float64] | None:
    if not np.allclose(matrix[2], [0, 0, 1]) or matrix[1, 0] != 0:
        return None
    return matrix[[0, 1, 0, 1], [0, 1, 2, 2]]


def read_instances(
    data: bytes,
    name: str,
    size: tuple[int, int],
    max_pixels: int,
    names: dict[int, str] | None,
    scene_id: str,
) -> tuple[list[Region], list[Rejected]]:
    """Read an instance image: a region per value but 0, and the values that ``names`` does not name.

    Without ``names`` all are of category ``object``. Palette images count by index.
    """
    image, _ = decode(data, name, "mask", max_pixels=max_pixels)
    if image.mode not in ("1", "L", "P") and not image.mode.startswith("I"):
        raise UnusableError("bad-mask", f"{name}: expected one value per pixel, found mode {image.mode}")
    _check_size("mask", name, image.size, size)
    instances = np.asarray(image).astype(np.int64)
    values = [int(v) for v in np.unique(instances) if v != 0]
    if len(values) > _MAX_INSTANCES:
        raise UnusableError("bad-mask", f"{name}: {len(values)} values, at most {_MAX_INSTANCES} are objects")
    regions: list[Region] = []
    dropped: list[Rejected] = []
    for value in values:
        category = UNNAMED if names is None else names.get(value)
        if category is None:
            detail = f"value {value} of {name}: the names do not name it"
            dropped.append(Rejected(f"{scene_id}/{value}", "unknown-category", detail))
            continue
        mask = instances == value
        rle = encode_rle(mask)
        regions.append(Region(len(regions), category, category, mask_bbox(mask), rle, GIVEN))
    return regions, dropped


def read_names(data: bytes, name: str) -> dict[int, str]:
    """Read ``{"1": "chair", ...}``: category by value in an instance image."""
    try:
        value: Any = json.loads(data)
        names = {int(key): text for key, text in value.items()}
    except (ValueError, AttributeError, RecursionError):
        names = {-1: ""}
    if not all(is_text(text) and text for text in names.values()):
        raise UnusableError("bad-names", f'{name}: expected {{"VALUE": "NAME", ...}}')
    return names


def _check_size(what: str, name: str, found: tuple[int, int], size: tuple[int, int]) -> None:
    if found != size:
        raise UnusableError(
            f"wrong-{what}-size",
            f"{name}: {found[0]} x {found[1]} pixels, its picture has {size[0]} x {size[1]}",
        )


# Scaling --------------------------------------------------------------------------------------------------


def nearest(array: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """Scale a (height, width) array to ``size`` (width, height), taking the nearest value: depth has no mean."""
    height, width = array.shape
    rows = ((np.arange(size[1]) + 0.5) * height / size[1]).astype(int)
    columns = ((np.arange(size[0]) + 0.5) * width / size[0]).astype(int)
    return array[np.ix_(rows, columns)]


def scale_regions(
    regions: list[Region], size: tuple[int, int], to: tuple[int, int], scene_id: str
) -> tuple[list[Region], list[Rejected]]:
    """Scale regions of a picture of ``size`` ``to`` another; those of which nothing is left are dropped."""
    kept: list[Region] = []
    dropped: list[Rejected] = []
    x, y = to[0] / size[0], to[1] / size[1]
    for region in regions:
        x0, y0, x1, y1 = region.bbox
        row = {**region.to_row(), "id": len(kept), "bbox": (x0 * x, y0 * y, x1 * x, y1 * y)}
        if region.rle is not None:
            mask = nearest(decode_rle(region.rle), to)
            if not mask.any():
                detail = f"{region.category!r}: nothing is left of it at {to[0]} x {to[1]} pixels"
                dropped.append(Rejected(f"{scene_id}/{region.id}", "too-small", detail))
                continue
            row |= {"rle": encode_rle(mask), "bbox": mask_bbox(mask)}
        kept.append(Region.from_row(row))
    return kept, dropped
