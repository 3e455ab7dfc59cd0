"""Open Spatial Dataset: a JSON array of rows with ``filename``, ``conversations``, ``rle`` and ``bbox``.

The picture of a row is ``{filename}.jpg``, its relative depth ``{filename}.png``.
"""

from __future__ import annotations

from typing import Any

from srgpt.exchange.drafts import Draft, file_path
from srgpt.exchange.masks import Pixels
from srgpt.exchange.turns import read_talk, text_of, write_talk
from srgpt.records import Conversation
from srgpt.sources.pictures import UnusableError


def read(row: Any, pixels: Pixels | None = None) -> Draft:
    """Read a row; ``pixels`` are those of its masks.

    Raises :class:`UnusableError` where it cannot be used as a whole.
    """
    if not isinstance(row, dict):
        raise UnusableError("not-a-row", f"an object was expected, found {type(row).__name__}")
    name = file_path(text_of(row.get("filename"), "filename", "bad-filename"))
    talk = read_talk(row.get("conversations"), row.get("rle"), row.get("bbox"), pixels)
    return Draft(name, f"{name}.jpg", f"{name}.png", talk)


def write(conversation: Conversation) -> dict[str, Any]:
    """Return the row of a conversation, equal to the one that :func:`read` read.

    Raises :class:`UnusableError` where the format has no way to say it.
    """
    columns = write_talk(conversation)
    row: dict[str, Any] = {"filename": conversation.scene_id, "conversations": columns.conversations}
    if columns.rle is not None:
        row["rle"] = columns.rle
    return {**row, "bbox": columns.bbox}
