"""A row as its file has it: what was said, and which picture to fetch."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass

from srgpt.exchange.turns import Talk
from srgpt.sources.pictures import UnusableError


@dataclass(frozen=True)
class Draft:
    """A row without its pixels. ``picture`` and ``depth`` are paths below the folders of pictures and of depth."""

    scene_id: str
    picture: str
    depth: str
    talk: Talk


def file_path(path: str) -> str:
    """Return a path that stays below its folder; :class:`UnusableError` (``bad-filename``) where it does not.

    The path comes from a file of someone else, and is read from disks and buckets.
    """
    parts = path.split("/")
    if (
        posixpath.isabs(path)
        or "\\" in path
        or "://" in path
        or not path.isprintable()
        or {"", ".", ".."} & {*parts}
    ):
        raise UnusableError("bad-filename", f"{ascii(path)[:80]}: not a plain path below a folder")
    return path
