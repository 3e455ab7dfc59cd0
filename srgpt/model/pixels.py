"""From pictures, metric depth and masks to the arrays that the model takes; numpy and pillow only.

Images are squashed to a square (the aspect ratio is not kept), as in the reference.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from srgpt.errors import InputError

DepthEncoding = Literal["relative", "metric"]

NEAREST, FARTHEST = 0.2, 80.0
"""Metres that the metric depth image spans; what is nearer or farther is clipped."""

Channels = tuple[float, float, float]
"""One number for each of red, green and blue."""

MEAN: Channels = (0.5, 0.5, 0.5)
STD: Channels = (0.5, 0.5, 0.5)
"""SigLIP's; other towers have other ones."""


@dataclass(frozen=True, eq=False)
class Picture:
    """One image, ready for the model, and the regions that can be asked about.

    ``rgb`` (S, S, 3) uint8; ``depth`` (S, S) uint8 as :func:`encode_depth_image` makes it, or None; ``masks``
    (R, S, S) uint8, 255 where a pixel is wholly inside; ``region_ids`` gives each mask's region id.
    """

    rgb: NDArray[np.uint8]
    depth: NDArray[np.uint8] | None
    masks: NDArray[np.uint8]
    region_ids: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Memory that the arrays take."""
        return self.rgb.nbytes + self.masks.nbytes + (0 if self.depth is None else self.depth.nbytes)


def make_picture(
    rgb: NDArray[np.uint8],
    depth: NDArray[np.floating[Any]] | None,
    masks: dict[int, NDArray[np.bool_]],
    *,
    size: int,
    encoding: DepthEncoding,
) -> Picture:
    """Squash an image (H, W, 3), its depth (H, W) in metres and its regions' masks (H, W) to ``size``.

    Raises :class:`InputError` where shapes differ or a mask is empty.
    """
    for name, array in (("depth", depth), *((f"mask of region {k}", m) for k, m in masks.items())):
        if array is not None and array.shape[:2] != rgb.shape[:2]:
            raise InputError(f"{name}: size {array.shape[:2]} differs from the image's {rgb.shape[:2]}")
    grey = None
    if depth is not None:
        grey = _resize(encode_depth_image(depth, encoding), size, Image.Resampling.BICUBIC)
    covered = [squash_mask(m, size, k) for k, m in masks.items()]
    return Picture(
        _resize(rgb, size, Image.Resampling.BICUBIC),
        grey,
        np.stack(covered) if covered else np.zeros((0, size, size), np.uint8),
        tuple(masks),
    )


def encode_depth_image(metres_HW: NDArray[np.floating[Any]], encoding: DepthEncoding) -> NDArray[np.uint8]:
    """Turn z-depth (H, W; 0 or not finite = no reading) into a grey image, uint8, brighter = nearer.

    ``relative``: inverse depth, min-max over the image, as the reference's depth images. ``metric``: the
    logarithm of depth on a fixed scale from 80 m (1) to 0.2 m (255), so that a grey level means a distance.
    No reading is 0.
    """
    depth = np.asarray(metres_HW, dtype=np.float64)
    known = np.isfinite(depth) & (depth > 0)
    result = np.zeros(depth.shape)
    if encoding == "metric":
        share = np.log(FARTHEST / np.clip(depth[known], NEAREST, FARTHEST)) / np.log(FARTHEST / NEAREST)
        result[known] = 1 + 254 * share
    elif known.any():
        inverse = 1.0 / depth[known]
        span = inverse.max() - inverse.min()
        result[known] = 255 * (inverse - inverse.min()) / (span if span > 0 else 1.0)
    return np.rint(result).astype(np.uint8)


def without_scale(png: bytes) -> NDArray[np.float64]:
    """Return a scene's relative depth as z-depth (H, W) that is known but for its scale, 0 = no reading.

    :func:`encode_depth_image` makes of it, by ``relative``, what it makes of metric depth.
    """
    with Image.open(io.BytesIO(png)) as picture:
        inverse = np.asarray(picture).astype(np.float64)
    return np.divide(65535.0, inverse, out=np.zeros_like(inverse), where=inverse > 0)


def squash_mask(mask_HW: NDArray[np.bool_], size: int, region: int) -> NDArray[np.uint8]:
    """Resize a mask by area to (size, size) uint8, 255 = wholly covered; one pixel still marks a cell."""
    if not mask_HW.any():
        raise InputError(f"region {region}: its mask is empty")
    if mask_HW.shape == (size, size):
        return mask_HW.astype(np.uint8) * np.uint8(255)
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


def normalise(image: NDArray[np.uint8], mean: Channels = MEAN, std: Channels = STD) -> NDArray[np.float32]:
    """Turn (..., S, S, 3) colour or (..., S, S) grey uint8 into (..., 3, S, S) float32: 0..1, less mean, by std."""
    grey = image.shape[-1] != 3
    share = np.repeat(image[..., None, :, :], 3, axis=-3) if grey else np.moveaxis(image, -1, -3)
    scaled = share.astype(np.float32) / np.float32(255) - np.array(mean, np.float32)[:, None, None]
    return np.ascontiguousarray(scaled / np.array(std, np.float32)[:, None, None])


def _resize(array: NDArray[np.uint8], size: int, method: Image.Resampling) -> NDArray[np.uint8]:
    if array.shape[:2] == (size, size):
        return array
    return np.array(Image.fromarray(array).resize((size, size), method))
