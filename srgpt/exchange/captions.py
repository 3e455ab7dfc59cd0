"""Pictures with captions: JSON, JSON lines or CSV of rows with ``image`` (a path) and ``caption``.

A caption becomes the answer to a request for one. Which of the requests below is drawn from the picture's path and the
caption, so that it is the same in every import.
"""

from __future__ import annotations

from typing import Any

from srgpt.exchange.drafts import Draft, file_path
from srgpt.exchange.masks import Pixels
from srgpt.exchange.turns import read_talk, text_of
from srgpt.randomness import seeded
from srgpt.sources.pictures import UnusableError

REQUESTS = (
    "What does this picture show?",
    "Say in a sentence what can be seen here.",
    "Write a caption for this picture.",
    "Give a short account of the scene.",
    "What is going on in this image?",
    "Sum up the contents of this picture in a few words.",
    "How would you caption this photograph?",
    "Put into words what you see.",
)


def read(row: Any, pixels: Pixels | None = None) -> Draft:
    """Read a row; it has no masks, and needs no ``pixels``. Raises :class:`UnusableError` where it cannot be used."""
    if not isinstance(row, dict):
        raise UnusableError("not-a-row", f"an object was expected, found {type(row).__name__}")
    path = file_path(text_of(row.get("image"), "image", "bad-filename"))
    caption = row.get("caption")
    answer = text_of(caption.strip() if isinstance(caption, str) else caption, "caption", "bad-caption")
    request = REQUESTS[int(seeded(0, "caption", path, answer).integers(len(REQUESTS)))]
    said = [{"from": "human", "value": request}, {"from": "gpt", "value": answer}]
    return Draft(path, path, "", read_talk(said))
