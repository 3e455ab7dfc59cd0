"""Pictures with the asked regions drawn on them."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import binary_erosion

from srgpt.records import AskedRegion, Scene, decode_rle

COLOURS = ("#ff8c1a", "#19b5fe", "#b36bff", "#4cd964")
"""Colour of ``Region [0]``, ``Region [1]``, ...; repeated from the fourth on."""

_TINT = 0.16


def colour_of(index: int) -> str:
    """Return the colour of ``Region [index]``."""
    return COLOURS[index % len(COLOURS)]


def draw_regions(scene: Scene, regions: Sequence[AskedRegion], width: int = 384) -> Image.Image:
    """Return the picture ``width`` pixels wide, each region outlined and tinted in its colour and numbered.

    ``regions`` come in the order of mention: the first is ``Region [0]``. A region without a mask is drawn as
    its box.
    """
    return draw_masks(scene.rgb(), [_mask(r, scene) for r in regions], width)


def draw_masks(rgb: NDArray[np.uint8], regions: Sequence[NDArray[np.uint8]], width: int = 384) -> Image.Image:
    """Return an image (H, W, 3) ``width`` pixels wide, each region, a mask (H, W) of 0..255, drawn on it."""
    picture = Image.fromarray(rgb)
    size = (width, max(1, round(width * picture.height / picture.width)))
    pixels = np.asarray(picture.resize(size, Image.Resampling.BICUBIC)).astype(np.float32)
    # smooth first, then cut: an enlarged mask gets round corners instead of steps
    masks = [np.asarray(Image.fromarray(m).resize(size, Image.Resampling.BICUBIC)) > 127 for m in regions]
    for index, mask in enumerate(masks):
        colour = np.array(_rgb(colour_of(index)), dtype=np.float32)
        edge = mask & ~binary_erosion(mask, iterations=2, border_value=0)
        pixels[mask] = (1 - _TINT) * pixels[mask] + _TINT * colour
        pixels[edge] = colour
    canvas = Image.fromarray(np.rint(pixels).clip(0, 255).astype(np.uint8))
    pen = ImageDraw.Draw(canvas)
    taken: list[tuple[int, int, int, int]] = []
    for index, mask in enumerate(masks):
        taken.append(_tag(pen, mask, index, size, taken))
    return canvas


def data_uri(picture: Image.Image, quality: int = 86) -> str:
    """Encode a picture as a JPEG ``data:`` URI, so that a page needs no other file."""
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def _mask(region: AskedRegion, scene: Scene) -> NDArray[np.uint8]:
    """Return the region's mask, (H, W) of 0 or 255; a region without one is its box."""
    if region.rle is not None:
        return decode_rle(region.rle).astype(np.uint8) * np.uint8(255)
    mask = Image.new("L", (scene.width, scene.height))
    ImageDraw.Draw(mask).rectangle(region.bbox, fill=255)
    return np.asarray(mask)


def _tag(
    pen: ImageDraw.ImageDraw,
    mask: NDArray[np.bool_],
    index: int,
    size: tuple[int, int],
    taken: Sequence[tuple[int, int, int, int]],
) -> tuple[int, int, int, int]:
    """Write the region's number above it, or where there is room; return the rectangle that it takes."""
    font = ImageFont.load_default(15)
    rows, columns = np.nonzero(mask) if mask.any() else (np.array([0]), np.array([0]))
    wide, high = 20, 19
    left = int(np.clip((columns.min() + columns.max()) // 2 - wide // 2, 0, size[0] - wide))
    top = int(np.clip(rows.min() - high - 2, 0, size[1] - high))
    while any(abs(left - t[0]) < wide + 1 and abs(top - t[1]) < high + 1 for t in taken):
        top += high + 1
        if top > size[1] - high:
            break
    box = (left, top, left + wide, top + high)
    pen.rounded_rectangle(box, radius=4, fill=colour_of(index))
    pen.text((left + wide / 2, top + high / 2), str(index), fill="#0b0f14", font=font, anchor="mm")
    return box


def _rgb(colour: str) -> tuple[int, ...]:
    return tuple(bytes.fromhex(colour[1:]))
