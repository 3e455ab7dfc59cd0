"""LLaVA: a JSON array, or JSON lines, of rows with ``id``, ``image`` (a path) and ``conversations``.

Rows may ask about regions as OSD's do (``<mask>``, ``rle``, ``bbox``). A row about no picture, or about several, has
no place in our tables. A scene's id is its picture's path, suffix and all: ``a.jpg`` and ``a.png`` are two.
"""

from __future__ import annotations

import posixpath
from typing import Any

from srgpt.exchange.drafts import Draft, file_path
from srgpt.exchange.masks import Pixels
from srgpt.exchange.turns import read_talk, text_of
from srgpt.sources.pictures import UnusableError


def read(row: Any, pixels: Pixels | None = None) -> Draft:
    """Read a row; ``pixels`` are those of its masks.

    Raises :class:`UnusableError` where it cannot be used as a whole.
    """
    if not isinstance(row, dict):
        raise UnusableError("not-a-row", f"an object was expected, found {type(row).__name__}")
    image = row.get("image")
    if isinstance(image, list) and len(image) == 1:
        image = image[0]
    if image is None or isinstance(image, list):
        raise UnusableError("not-one-picture", "'image' names no picture, or several")
    path = file_path(text_of(image, "image", "bad-filename"))
    talk = read_talk(row.get("conversations"), row.get("rle"), row.get("bbox"), pixels)
    return Draft(path, path, f"{posixpath.splitext(path)[0]}.png", talk)
