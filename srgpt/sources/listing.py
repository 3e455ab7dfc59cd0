"""The files of a folder or bucket, with errors that say what is wrong, and ids made of their paths."""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass

from srgpt.errors import InputError, SrgptError
from srgpt.sources.pictures import MAX_BYTES, UnusableError
from srgpt.storage import digest, filesystem, io_errors, is_local

PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp")

_LONGEST = 100


@dataclass(frozen=True)
class Tree:
    """The files under a URL; all paths are relative to it, with ``/``."""

    url: str

    def files(self) -> dict[str, int]:
        """Return the files' sizes by path, sorted by path; those in hidden folders and hidden themselves are left out.

        Raises :class:`InputError` where there is no such folder.
        """
        fs, root = filesystem(self.url)
        with io_errors(self.url):
            fs.invalidate_cache()
            if not fs.exists(root):
                raise InputError(f"{self.url}: no such folder. Give the folder or bucket with --in.")
            if fs.isfile(root):
                raise InputError(f"{self.url}: this is a file, and a folder of pictures was expected.")
            found = fs.find(root, detail=True)
        start = root.rstrip("/") + "/"
        sizes = {
            name.removeprefix(start): int(info["size"] or 0)
            for name, info in found.items()
            if info["type"] == "file" or info.get("islink")
        }
        return {p: sizes[p] for p in sorted(sizes) if not any(part[:1] == "." for part in p.split("/"))}

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


def is_picture(path: str) -> bool:
    """Return whether a path ends like that of a picture."""
    return posixpath.splitext(path)[1].lower() in PICTURES


def is_storable(path: str) -> bool:
    """Return whether a path can be written in UTF-8 (file systems allow others)."""
    return not any("\ud800" <= character <= "\udfff" for character in path)


def scene_id(path: str) -> str:
    """Return an id for the scene of a file: its path where that is plain and short, else with a hash of it.

    Different paths have different ids, and an id does not depend on what else is there.
    """
    plain = re.sub(r"[^A-Za-z0-9_.-]+", "_", path)
    return plain if plain == path and len(path) <= _LONGEST else f"{plain[-_LONGEST:]}-{digest(path)[:12]}"
