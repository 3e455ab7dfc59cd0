"""From the bytes of a request to the arrays of the model, by the same functions that training used."""

from __future__ import annotations

import hashlib
import io
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from srgpt.errors import InputError
from srgpt.geometry.camera import Camera
from srgpt.model.pixels import (
    Channels,
    DepthInput,
    MaskResize,
    Picture,
    box_mask,
    make_picture,
    normalise,
    point_mask,
    scribble_mask,
)
from srgpt.model.prompts import Inputs, PromptTemplate, region_marks, region_mentions
from srgpt.records import decode_depth, rle_runs
from srgpt.serving.protocol import AskedArea, Request, RequestError

MAX_PIXELS = 50_000_000


@dataclass(frozen=True, eq=False)
class Prepared:
    """A request ready for the graphs.

    ``picture`` has the regions that the question mentions, in the order of first mention; ``mentions`` indexes
    them, one entry per mention in the text.
    """

    picture: Picture
    mentions: tuple[int, ...]
    inputs: Inputs
    turn: str
    """The text after the image, with placeholders for regions."""
    image_key: str
    depth_key: str
    """Name the pixels in a cache; they differ even where RGB and depth are one file."""


class Preprocessor:
    """Prepares requests as the processor of one model does."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.image_size = int(settings["image_size"])
        self.form: DepthInput = settings["depth"]
        self.mask_resize: MaskResize = settings["mask_resize"]
        self.mean: Channels = tuple(settings["image_mean"])
        self.std: Channels = tuple(settings["image_std"])
        self.template = PromptTemplate(**settings["template"])
        self.reserved = tuple(settings["reserved"])

    def normalise(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Turn a prepared image, (S, S, 3) or grey (S, S), into the tower's pixels (3, S, S)."""
        return normalise(image, self.mean, self.std)

    def prepare(self, request: Request) -> Prepared:
        """Decode and resize a request's pixels; raise :class:`RequestError` where that cannot be done."""
        rgb = _decode_image(request.image)
        depth = None if request.depth is None else _decode_depth(request.depth)
        mentioned = list(dict.fromkeys(region_mentions(request.question)))
        masks = {k: _mask(request.regions[k], rgb.shape, f"regions[{k}]") for k in mentioned}
        height, width = rgb.shape[:2]
        camera = Camera.of(width, height, request.camera.intrinsics, request.camera.gravity)
        try:
            picture = make_picture(
                rgb,
                depth,
                masks,
                size=self.image_size,
                form=self.form,
                camera=camera,
                mask_resize=self.mask_resize,
            )
            inputs: Inputs = "rgbd" if picture.has_depth else "rgb"
            marks = region_marks(inputs, len(request.regions))
            turn = self.template.turn(request.question, inputs, marks, self.reserved)
        except InputError as error:
            raise RequestError(str(error)) from None
        return Prepared(
            picture,
            tuple(mentioned.index(k) for k in region_mentions(request.question)),
            inputs,
            turn,
            _key("rgb", request.image),
            _key("depth", request.depth or b""),
        )


def _key(kind: str, data: bytes) -> str:
    return f"{kind}:{hashlib.sha256(data).hexdigest()}"


def _open(data: bytes, name: str, formats: tuple[str, ...]) -> NDArray[Any]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data), formats=formats) as picture:
                if picture.width * picture.height > MAX_PIXELS:
                    raise RequestError(
                        f"{name}: {picture.width} x {picture.height}, at most {MAX_PIXELS} pixels"
                    )
                if name == "depth":
                    if not picture.mode.startswith("I"):
                        raise RequestError(
                            f"depth: a 16-bit grey PNG in millimetres was expected, not {picture.mode}"
                        )
                    return decode_depth(data)
                return np.array(picture.convert("RGB"))
    except RequestError:
        raise
    # what pillow raises for broken files depends on the format and on where it breaks
    except Exception as error:
        reason = "unknown format, or cut off" if isinstance(error, UnidentifiedImageError) else str(error)
        raise RequestError(f"{name}: not a readable {' or '.join(formats)} file ({reason})") from None


def _decode_image(data: bytes) -> NDArray[np.uint8]:
    return _open(data, "image", ("JPEG", "PNG"))


def _decode_depth(data: bytes) -> NDArray[np.float32]:
    return _open(data, "depth", ("PNG",))


def _mask(area: AskedArea, shape: tuple[int, ...], where: str) -> NDArray[np.bool_]:
    height, width = shape[:2]
    if area.rle is not None:
        if list(area.rle["size"]) != [height, width]:
            raise RequestError(
                f"{where}.rle: its size is {area.rle['size']}, the image's is {[height, width]}"
            )
        return decode_mask(area.rle["counts"], height, width, where)
    if area.box is not None:
        x1, y1, x2, y2 = area.box
        if x2 <= 0 or y2 <= 0 or x1 >= width or y1 >= height:
            raise RequestError(f"{where}.box: {list(area.box)} lies outside the image of {width} x {height}")
        return box_mask(area.box, width, height)
    try:
        if area.point is not None:
            return point_mask(area.point, width, height)
        if area.scribble is not None:
            return scribble_mask(area.scribble, width, height)
    except InputError as error:
        raise RequestError(f"{where}: {error}") from None
    raise RequestError(f"{where}: no mask, box, point or scribble was given")


def decode_mask(counts: str, height: int, width: int, where: str = "rle") -> NDArray[np.bool_]:
    """Decode compressed COCO RLE counts (column-major runs) to (height, width) bool, without pycocotools."""
    runs = rle_runs(counts)
    if runs is None or sum(runs) != height * width:
        raise RequestError(f"{where}: its counts are not a run-length mask of {height} x {width} pixels")
    values = np.arange(len(runs)) % 2 == 1
    mask = np.repeat(values, runs).reshape(width, height).T
    if not mask.any():
        raise RequestError(f"{where}: the mask is empty")
    return mask
