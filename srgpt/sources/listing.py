"""The files of a folder or bucket, with errors that say what is wrong, and ids made of their paths."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from srgpt.errors import InputError, SrgptError
from srgpt.records import Rejected
from srgpt.sources.pictures import MAX_BYTES, UnusableError
from srgpt.storage import digest, filesystem, io_errors, is_local

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

PICTURES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".tif", ".tiff", ".bmp")
UNREAD = (
    *(".heic", ".heif", ".hif", ".avif", ".jxl", ".gif", ".jp2", ".j2k"),
    *(".dng", ".cr2", ".cr3", ".crw", ".nef", ".nrw", ".arw", ".srf", ".sr2", ".orf", ".rw2", ".raf", ".pef"),
    *(".srw", ".rwl", ".3fr", ".iiq", ".x3f"),
)
"""Endings of pictures in other formats, the cameras' raw ones included: they are set aside by name."""

_LONGEST = 100


@dataclass(frozen=True)
class Tree:
    """The files under a URL; all paths are relative to it, with ``/``."""

    url: str

    def files(self) -> dict[str, int]:
        """Return the files' sizes by path, sorted by path; those in hidden folders and hidden themselves are left out.

        Links to folders are followed, but not to a folder whose files are found anyway, so that a loop ends.
        Raises :class:`InputError` where there is no such folder.
        """
        fs, root = filesystem(self.url)
        with io_errors(self.url):
            fs.invalidate_cache()
            if not fs.exists(root):
                raise InputError(f"{self.url}: no such folder. Give the folder or bucket with --in.")
            if fs.isfile(root):
                raise InputError(f"{self.url}: this is a file, and a folder of pictures was expected.")
            start = root.rstrip("/") + "/"
            found = fs.find(root, detail=True)
            if is_local(self.url):
                found = _follow_links(fs, start, found)
        sizes = {
            name.removeprefix(start): int(info["size"] or 0)
            for name, info in found.items()
            if info["type"] == "file" or info.get("islink")
        }
        return {path: sizes[path] for path in sorted(sizes) if not _is_hidden(path.split("/"))}

    def read(self, path: str, what: str = "image", size: int = 0) -> bytes:
        """Read a whole file; ``size`` is what :meth:`files` said, ``what`` completes the reasons.

        Raises :class:`UnusableError` for a file that is missing, unreadable or larger than a picture can be, and
        :class:`SrgptError` where the object store does not answer.
        """
        if size > MAX_BYTES:
            raise UnusableError("file-too-large", f"{path}: {size} bytes, at most {MAX_BYTES} are read")
        fs, root = filesystem(self.url)
        try:
            with io_errors(self.url):
                return fs.cat_file(f"{root.rstrip('/')}/{path}")
        except InputError:
            raise UnusableError(f"missing-{what}", f"{path}: no such file") from None
        except SrgptError as error:
            if not is_local(self.url):
                raise
            reason = error.__cause__
            words = reason.strerror if isinstance(reason, OSError) and reason.strerror else str(reason)
            raise UnusableError(f"unreadable-{what}", f"{path}: {words}") from None


def _follow_links(fs: AbstractFileSystem, start: str, found: dict[str, Any]) -> dict[str, Any]:
    """Add to what was ``found`` below ``start`` the files of linked folders, under the links' names."""
    read = [Path(start).resolve()]
    files: dict[str, Any] = {}
    waiting = [found]
    while waiting:
        for name, info in sorted(waiting.pop().items()):
            if not (info.get("islink") and Path(name).is_dir()):
                files[name] = info
                continue
            target = Path(name).resolve()
            known = any(
                target.is_relative_to(f) and not _is_hidden(target.relative_to(f).parts) for f in read
            )
            if not known and not _is_hidden(name.removeprefix(start).split("/")):
                read.append(target)
                waiting.append(fs.find(name, detail=True))
    return files


def _is_hidden(parts: Iterable[str]) -> bool:
    return any(part[:1] == "." for part in parts)


def is_picture(path: str) -> bool:
    """Return whether a path ends like that of a picture."""
    return _ending(path) in PICTURES


def is_unread(path: str) -> bool:
    """Return whether a path ends like that of a picture in a format that is not read."""
    return _ending(path) in UNREAD


def unread(path: str) -> Rejected:
    """Set a picture in a format that is not read aside."""
    detail = f"{shown(path)}: {_ending(path)} is not read; convert it to JPEG or PNG"
    return Rejected(scene_id(path), "unsupported-format", detail)


def _ending(path: str) -> str:
    return posixpath.splitext(path)[1].lower()


def is_storable(path: str) -> bool:
    """Return whether a path can be written in UTF-8 (file systems allow others)."""
    return not any("\ud800" <= character <= "\udfff" for character in path)


def shown(path: str) -> str:
    """Return a path for messages, with escapes for what cannot be written in UTF-8."""
    return path.encode("utf-8", "backslashreplace").decode()


def scene_id(path: str) -> str:
    """Return an id for the scene of a file: its path where that is plain and short, else with a hash of it.

    Different paths have different ids, and an id does not depend on what else is there.
    """
    plain = re.sub(r"[^A-Za-z0-9_.-]+", "_", path)
    return plain if plain == path and len(path) <= _LONGEST else f"{plain[-_LONGEST:]}-{digest(path)[:12]}"
