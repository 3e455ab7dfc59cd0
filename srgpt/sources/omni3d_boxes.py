"""One annotation of Omni3D: checked, filtered as Omni3D does, and turned into a region.

Omni3D's ``dimensions`` are [width, height, length] and its box frame has the length along x, the height
along y and the width along z; ``R_cam`` maps box frame to camera frame. Fields that a source does not know
are -1.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from srgpt.params import Omni3dParams
from srgpt.records import Cuboid, Region, encode_rle, rle_length

Floats = NDArray[np.float64]

_BOXES = ("bbox2D_tight", "bbox2D_trunc", "bbox2D_proj")
_MAX_DEPTH_ERROR = 0.5
_MAX_HEIGHT_SHARE = 1.5
_MAX_TILT = np.radians(10)
_MIN_AGREEMENT = 0.9


class DroppedError(Exception):
    """An annotation that is not used; ``reason`` is a slug that is counted."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def read_region(
    row: dict[str, Any], index: int, names: dict[int, str], size: tuple[int, int], params: Omni3dParams
) -> Region:
    """Turn one annotation into region ``index`` of an image of ``size`` (width, height).

    Raises :class:`DroppedError` with the reason where it is not used.
    """
    category = _category(row, names)
    if row.get("behind_camera"):
        raise DroppedError("behind-camera")
    if not row.get("valid3D", True):
        raise DroppedError("invalid-3d")
    cuboid = _cuboid(row)
    truncation, visibility = _share(row, "truncation"), _share(row, "visibility")
    _filter_known(row, truncation, visibility, params)
    bbox = _bbox(row, size)
    height = bbox[3] - bbox[1]
    if height <= params.min_height_share * size[1] or height >= _MAX_HEIGHT_SHARE * size[1]:
        raise DroppedError("too-small" if height < size[1] else "too-large")
    rle = read_mask(row.get("segmentation"), size)
    return Region(
        id=index,
        category=category,
        label=category,
        bbox=bbox,
        rle=rle,
        mask_source=None if rle is None else "given",
        cuboid=cuboid,
        visibility=visibility,
        truncation=truncation,
    )


def _filter_known(row: dict[str, Any], truncation: float, visibility: float, params: Omni3dParams) -> None:
    """Omni3D's filter over what is known of an object (-1: unknown, which keeps it)."""
    if truncation >= 0 and truncation >= params.max_truncation:
        raise DroppedError("truncated")
    if visibility >= 0 and visibility <= params.min_visibility:
        raise DroppedError("barely-visible")
    if _number(row, "lidar_pts") == 0 or _number(row, "segmentation_pts") == 0:
        raise DroppedError("no-points")
    if _number(row, "depth_error") > _MAX_DEPTH_ERROR:
        raise DroppedError("depth-error")


def _category(row: dict[str, Any], names: dict[int, str]) -> str:
    number, name = row.get("category_id"), row.get("category_name")
    found = (
        name if isinstance(name, str) and name else names.get(number, "") if isinstance(number, int) else ""
    )
    if not is_text(found) or not found:
        raise DroppedError("unknown-category")
    return found


def _cuboid(row: dict[str, Any]) -> Cuboid:
    for key in ("center_cam", "dimensions", "R_cam"):
        if key not in row:
            raise DroppedError(f"missing-{key}")
    center, dimensions = finite_array(row["center_cam"], (3,)), finite_array(row["dimensions"], (3,))
    rotation = finite_array(row["R_cam"], (3, 3))
    if center is None or dimensions is None or rotation is None:
        raise DroppedError("bad-3d-box")
    if center[2] <= 0:
        raise DroppedError("behind-camera")
    if (dimensions <= 0).any():
        raise DroppedError("invalid-3d")
    if np.abs(rotation @ rotation.T - np.eye(3)).max() > 0.02 or np.linalg.det(rotation) < 0:
        raise DroppedError("bad-rotation")
    width, height, length = dimensions
    return Cuboid(center, np.array([length, height, width]), rotation)


def _number(row: dict[str, Any], key: str) -> float:
    """Return a number, -1 where it is absent; anything else drops the annotation."""
    value = row.get(key, -1)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise DroppedError(f"bad-{key}")
    return float(value)


def _share(row: dict[str, Any], key: str) -> float:
    value = _number(row, key)
    if value > 1:
        raise DroppedError(f"bad-{key}")
    return max(value, -1.0) if value >= 0 else -1.0


def _bbox(row: dict[str, Any], size: tuple[int, int]) -> tuple[float, float, float, float]:
    """Return the tightest known 2D box, clipped to the image."""
    for key in _BOXES:
        value = row.get(key)
        if value is None or value == -1:
            continue
        box = finite_array(value, (4,))
        if box is None:
            raise DroppedError(f"bad-{key}")
        if (box == -1).all():
            continue
        x0, x1 = np.clip(box[[0, 2]], 0, size[0])
        y0, y1 = np.clip(box[[1, 3]], 0, size[1])
        if x1 <= x0 or y1 <= y0:
            raise DroppedError("outside-image")
        return (float(x0), float(y0), float(x1), float(y1))
    raise DroppedError("no-2d-box")


def read_mask(value: Any, size: tuple[int, int]) -> dict[str, Any] | None:
    """Read a COCO segmentation of an image of ``size`` (width, height): compressed or plain RLE, or polygons.

    None where there is none; raises :class:`DroppedError` where it is broken or empty.
    """
    if value is None or value == -1 or value == []:
        return None
    if isinstance(value, dict):
        return _run_length(value, size)
    if not isinstance(value, list):
        raise DroppedError("bad-segmentation")
    from PIL import Image, ImageDraw

    canvas = Image.new("1", size)
    for polygon in value:
        points = finite_array(polygon, None)
        if (
            points is None
            or points.ndim != 1
            or len(points) < 6
            or len(points) % 2
            or np.abs(points).max() > 1e6
        ):
            raise DroppedError("bad-segmentation")
        ImageDraw.Draw(canvas).polygon([float(v) for v in points], fill=1)
    mask = np.array(canvas)
    if not mask.any():
        raise DroppedError("empty-segmentation")
    return encode_rle(mask)


def _run_length(value: dict[str, Any], size: tuple[int, int]) -> dict[str, Any]:
    width, height = size
    counts = value.get("counts")
    if value.get("size") != [height, width]:
        raise DroppedError("bad-segmentation")
    if isinstance(counts, list):
        if not all(
            isinstance(c, int) and not isinstance(c, bool) and 0 <= c <= height * width for c in counts
        ):
            raise DroppedError("bad-segmentation")
        if sum(counts) != height * width:
            raise DroppedError("bad-segmentation")
        flat = np.repeat(np.arange(len(counts)) % 2, counts).astype(bool)
        mask = flat.reshape(width, height).T
        if not mask.any():
            raise DroppedError("empty-segmentation")
        return encode_rle(mask)
    if not isinstance(counts, str) or rle_length(counts) != height * width:
        raise DroppedError("bad-segmentation")
    return {"size": [height, width], "counts": counts}


def is_text(value: Any) -> bool:
    """Return whether a value is text that can be stored (JSON may hold half of a surrogate pair)."""
    return isinstance(value, str) and not any("\ud800" <= character <= "\udfff" for character in value)


def finite_array(value: Any, shape: tuple[int, ...] | None) -> Floats | None:
    """Return nested lists of finite numbers as an array of ``shape`` (None: any); None where they are not."""
    if not isinstance(value, list):
        return None
    try:
        array = np.array(value)
        if array.dtype.kind not in "iuf":
            return None
        array = array.astype(np.float64)
    except (ValueError, TypeError, OverflowError):
        return None
    if (shape is not None and array.shape != shape) or not np.isfinite(array).all():
        return None
    return array


def common_gravity(regions: list[Region]) -> tuple[float, float, float] | None:
    """Return the common vertical axis of the regions' cuboids, pointing down; None where there is none.

    The vertical axis of a cuboid is its own y axis, taken to point down in the picture (the camera is not
    upside down). At least nine in ten must agree within ten degrees.
    """
    axes = np.array([r.cuboid.rotation[:, 1] for r in regions if r.cuboid is not None])
    if not len(axes):
        return None
    axes = axes * np.where(axes[:, 1:2] < 0, -1.0, 1.0)
    middle = np.median(axes, axis=0)
    if np.linalg.norm(middle) < 0.5:
        return None
    close = axes @ (middle / np.linalg.norm(middle)) > np.cos(_MAX_TILT)
    if close.mean() < _MIN_AGREEMENT:
        return None
    mean = axes[close].mean(axis=0)
    x, y, z = mean / np.linalg.norm(mean)
    return (float(x), float(y), float(z))
