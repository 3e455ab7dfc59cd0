"""Pictures and depth pictures of imported rows: fetched many at a time, checked by decoding them."""

from __future__ import annotations

import io
import posixpath
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from srgpt.records import encode_png
from srgpt.sources.pictures import FORMATS, UnusableError, decode, look_at, without_metadata
from srgpt.storage import filesystem, io_errors

MAX_PIXELS = 2**27
"""Larger pictures are set aside: 134 megapixels, 400 MB decoded."""


def fetch(folder: str, paths: Sequence[str]) -> dict[str, bytes | None]:
    """Read files below a folder or URL, from an object store all at once; None where there is no such file."""
    names = list(dict.fromkeys(paths))
    fs, root = filesystem(folder)
    with io_errors(folder):
        found = fs.cat_ranges([posixpath.join(root, name) for name in names], None, None, on_error="return")
    files: dict[str, bytes | None] = {}
    for name, data in zip(names, found, strict=True):
        if isinstance(data, FileNotFoundError | IsADirectoryError | NotADirectoryError):
            files[name] = None
        elif isinstance(data, Exception):
            with io_errors(f"{folder}/{name}"):
                raise data
        else:
            files[name] = bytes(data)
    return files


def read_image(data: bytes, name: str) -> tuple[bytes, tuple[int, int]]:
    """Return the file to store (JPEG or PNG, its metadata removed) and the picture's (width, height).

    Pixels stay as they are stored, for masks lie on those: a rotation in EXIF is not applied. Raises
    :class:`UnusableError` where the picture cannot be decoded.
    """
    look_at(data, name, max_pixels=MAX_PIXELS, side=1)  # a JPEG is read to its end, but not computed in full
    with Image.open(io.BytesIO(data), formats=FORMATS) as opened:
        size, form = opened.size, opened.format or ""
    plain = without_metadata(data, form)
    if plain is None:
        image, _ = decode(data, name, "image", max_pixels=MAX_PIXELS)
        plain = encode_png(np.asarray(image.convert("RGB")))
    return plain, size


def read_depth(data: bytes, name: str, size: tuple[int, int]) -> bytes:
    """Return a depth picture (grey of 8 or 16 bits, brighter is nearer) as our relative depth.

    There 0 is the farthest, here it would mean "no reading", so that grey levels are spread over 1 to 65535.
    """
    image, _ = decode(data, name, "depth", max_pixels=MAX_PIXELS)
    if image.size != size:
        raise UnusableError("depth-size-differs", f"{name}: {image.size}, the picture has {size}")
    sixteen = image.mode.startswith("I")
    grey = np.asarray(image if sixteen else image.convert("L"))
    if sixteen and (grey.min() < 0 or grey.max() > 65535):
        raise UnusableError("unreadable-depth", f"{name}: grey of 8 or 16 bits was expected")
    return encode_png(spread(grey, 65535 if sixteen else 255))


def spread(grey: NDArray[np.integer], levels: int) -> NDArray[np.uint16]:
    """Map grey levels 0 to ``levels`` to 1 to 65535."""
    return np.rint(1 + grey.astype(np.float64) * (65534 / levels)).astype(np.uint16)
