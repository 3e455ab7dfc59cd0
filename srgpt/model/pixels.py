"""From pictures, metric depth and masks to the arrays that the model takes; numpy and pillow only.

Images are squashed to a square (the aspect ratio is not kept), as in the reference.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from srgpt.errors import InputError
from srgpt.geometry.camera import Camera

DepthInput = Literal["none", "relative", "metric"]
"""What a model is told of depth: nothing, a grey image without scale, or points in metres."""

MaskResize = Literal["area", "nearest", "bicubic"]

POINTS = 128
"""Points by which the surface of a region is given."""

STROKE = 0.03
"""Width of a point or scribble, as a share of the picture's shorter side."""

Channels = tuple[float, float, float]
"""One number for each of red, green and blue."""

MEAN: Channels = (0.5, 0.5, 0.5)
STD: Channels = (0.5, 0.5, 0.5)
"""SigLIP's; other towers have other ones."""


@dataclass(frozen=True, eq=False)
class Picture:
    """One image, ready for the model, and the regions that can be asked about.

    ``rgb`` (S, S, 3) uint8; ``masks`` (R, S, S) uint8, 255 where a pixel is wholly inside; ``region_ids`` gives each
    mask's region id. Of depth a model gets one form: ``depth`` (S, S) uint8 as :func:`encode_depth_image` makes it, or
    ``points`` (R, POINTS, 3) float32 as :func:`region_points` does; both are None where there is none.
    """

    rgb: NDArray[np.uint8]
    masks: NDArray[np.uint8]
    region_ids: tuple[int, ...] = ()
    depth: NDArray[np.uint8] | None = None
    points: NDArray[np.float32] | None = None

    @property
    def has_depth(self) -> bool:
        """Whether the model is told of depth."""
        return self.depth is not None or self.points is not None

    @property
    def nbytes(self) -> int:
        """Memory that the arrays take."""
        arrays = (self.rgb, self.masks, self.depth, self.points)
        return sum(a.nbytes for a in arrays if a is not None)


def make_picture(
    rgb: NDArray[np.uint8],
    depth: NDArray[np.floating[Any]] | None,
    masks: dict[int, NDArray[np.bool_]],
    *,
    size: int,
    form: DepthInput,
    camera: Camera | None = None,
    mask_resize: MaskResize = "area",
) -> Picture:
    """Squash an image (H, W, 3), its depth (H, W) in metres and its regions' masks (H, W) to ``size``.

    Points of regions are taken at full resolution, by ``camera`` (assumed where it is None). Raises
    :class:`InputError` where shapes differ or a mask is empty.
    """
    height, width = rgb.shape[:2]
    for name, array in (("depth", depth), *((f"mask of region {k}", m) for k, m in masks.items())):
        if array is not None and array.shape[:2] != (height, width):
            raise InputError(f"{name}: size {array.shape[:2]} differs from the image's {(height, width)}")
    covered = [squash_mask(m, size, k, mask_resize) for k, m in masks.items()]
    grey = points = None
    if depth is not None and form == "relative":
        grey = _resize(encode_depth_image(depth), size, Image.Resampling.BICUBIC)
    if depth is not None and form == "metric":
        camera = camera or Camera.of(width, height)
        points = _stack([region_points(depth, m, camera) for m in masks.values()], (POINTS, 3), np.float32)
    return Picture(
        _resize(rgb, size, Image.Resampling.BICUBIC),
        _stack(covered, (size, size), np.uint8),
        tuple(masks),
        grey,
        points,
    )


def encode_depth_image(metres_HW: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
    """Turn z-depth (H, W; 0 or not finite = no reading) into the reference's grey image, uint8.

    Inverse depth, min-max over the image, brighter = nearer; no reading is 0.
    """
    depth = np.asarray(metres_HW, dtype=np.float64)
    known = np.isfinite(depth) & (depth > 0)
    result = np.zeros(depth.shape)
    if known.any():
        inverse = 1.0 / depth[known]
        span = inverse.max() - inverse.min()
        result[known] = 255 * (inverse - inverse.min()) / (span if span > 0 else 1.0)
    return np.rint(result).astype(np.uint8)


def region_points(
    metres_HW: NDArray[np.floating[Any]], mask_HW: NDArray[np.bool_], camera: Camera
) -> NDArray[np.float32]:
    """Return points of the surface under a mask, (POINTS, 3) metres in the canonical frame.

    They are the masked pixels that have a reading, evenly spaced from the first to the last in rows, repeated where
    there are fewer; all zeros where there is none.
    """
    rows, columns = np.nonzero(mask_HW & np.isfinite(metres_HW) & (metres_HW > 0))
    if len(rows) == 0:
        return np.zeros((POINTS, 3), np.float32)
    chosen = np.linspace(0, len(rows) - 1, POINTS).round().astype(int)
    v, u = rows[chosen], columns[chosen]
    return camera.canonical_points(u, v, metres_HW[v, u]).astype(np.float32)


def without_scale(png: bytes) -> NDArray[np.float64]:
    """Return a scene's relative depth as z-depth (H, W) that is known but for its scale, 0 = no reading.

    :func:`encode_depth_image` makes of it what it makes of metric depth.
    """
    with Image.open(io.BytesIO(png)) as picture:
        inverse = np.asarray(picture).astype(np.float64)
    return np.divide(65535.0, inverse, out=np.zeros_like(inverse), where=inverse > 0)


def squash_mask(
    mask_HW: NDArray[np.bool_], size: int, region: int, method: MaskResize = "area"
) -> NDArray[np.uint8]:
    """Resize a mask to (size, size) uint8, 255 = wholly covered.

    By ``area`` one pixel still marks a cell. SpatialRGPT takes the ``nearest`` pixel in training (the one whose corner
    is OpenCV's choice) and ``bicubic`` ones, rounded, in its published evaluation; both lose what is small.
    """
    if not mask_HW.any():
        raise InputError(f"region {region}: its mask is empty")
    if mask_HW.shape == (size, size):
        return mask_HW.astype(np.uint8) * np.uint8(255)
    if method == "nearest":
        rows, columns = (np.arange(size) * side // size for side in mask_HW.shape)
        return mask_HW[np.ix_(rows, columns)].astype(np.uint8) * np.uint8(255)
    if method == "bicubic":
        binary = Image.fromarray(mask_HW.astype(np.uint8))
        return np.array(binary.resize((size, size), Image.Resampling.BICUBIC)) * np.uint8(255)
    picture = Image.fromarray(mask_HW.astype(np.float32))
    share = np.asarray(picture.resize((size, size), Image.Resampling.BOX))
    result = np.rint(255 * share.clip(0, 1)).astype(np.uint8)
    if not result.any():
        result.flat[int(share.argmax())] = 1
    return result


def box_mask(bbox: tuple[float, float, float, float], width: int, height: int) -> NDArray[np.bool_]:
    """Return the mask of an ``xyxy`` box within an image: at least the pixel nearest to its centre."""
    x1, y1, x2, y2 = bbox
    mask = np.zeros((height, width), dtype=bool)
    left, right = sorted((round(x1), round(x2)))
    top, bottom = sorted((round(y1), round(y2)))
    mask[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)] = True
    if not mask.any():
        mask[min(max(int((y1 + y2) / 2), 0), height - 1), min(max(int((x1 + x2) / 2), 0), width - 1)] = True
    return mask


def point_mask(point: tuple[float, float], width: int, height: int) -> NDArray[np.bool_]:
    """Return the mask of a point ``(x, y)`` in pixels: a disc about it, within the image."""
    return scribble_mask([point], width, height)


def scribble_mask(points: Sequence[tuple[float, float]], width: int, height: int) -> NDArray[np.bool_]:
    """Return the mask of a stroke through points ``(x, y)`` in pixels, with round ends, within the image.

    It is as wide as :data:`STROKE` has it. Raises :class:`InputError` where no point lies in the image.
    """
    if not any(-0.5 <= x < width - 0.5 and -0.5 <= y < height - 0.5 for x, y in points):
        raise InputError(f"no point of {list(points)} lies in the image of {width} x {height} pixels")
    radius = max(STROKE * min(width, height) / 2, 0.5)
    canvas = Image.new("1", (width, height))
    pen = ImageDraw.Draw(canvas)
    if len(points) > 1:
        pen.line([tuple(p) for p in points], fill=1, width=max(round(2 * radius), 1))
    for x, y in points:
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=1)
    mask = np.array(canvas)
    inside = [(round(x), round(y)) for x, y in points if 0 <= round(x) < width and 0 <= round(y) < height]
    for x, y in inside:
        mask[y, x] = True
    return mask


def normalise(image: NDArray[np.uint8], mean: Channels = MEAN, std: Channels = STD) -> NDArray[np.float32]:
    """Turn (..., S, S, 3) colour or (..., S, S) grey uint8 into (..., 3, S, S) float32: 0..1, less mean, by std."""
    grey = image.shape[-1] != 3
    share = np.repeat(image[..., None, :, :], 3, axis=-3) if grey else np.moveaxis(image, -1, -3)
    scaled = share.astype(np.float32) / np.float32(255) - np.array(mean, np.float32)[:, None, None]
    return np.ascontiguousarray(scaled / np.array(std, np.float32)[:, None, None])


def _stack(arrays: list[NDArray[Any]], shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
    return np.stack(arrays) if arrays else np.zeros((0, *shape), dtype)


def _resize(array: NDArray[np.uint8], size: int, method: Image.Resampling) -> NDArray[np.uint8]:
    if array.shape[:2] == (size, size):
        return array
    return np.array(Image.fromarray(array).resize((size, size), method))
