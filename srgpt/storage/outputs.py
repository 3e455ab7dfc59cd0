"""Outputs, tables and folders alike: whole or absent, and never in the place of what is not ours."""

from __future__ import annotations

import contextlib
import os
import posixpath
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal

from srgpt.errors import InputError, SrgptError
from srgpt.storage.files import (
    digest,
    exists,
    filesystem,
    io_errors,
    is_local,
    join,
    location,
    plain_path,
    read_json,
    remove,
    write_json,
)
from srgpt.storage.tables import MANIFEST, Manifest

_COPYING = ".srgpt.json"
"""In an output on an object store while its files arrive there one by one: a kill leaves it, the end removes it."""

_FOLDER_MARKS = {
    "lineage.json": {"commit", "params_hash"},
    "parity.json": {"export_hash"},
    "summary.json": {"dataset", "fingerprint", "rules"},
    "publication.json": {"dataset", "fingerprint", "format"},
    "conversion.json": {"layout", "source", "tensors"},
}
"""By which of its files, with which keys, a folder is known as an output.

These are models, reports, exports, validations, publications and converted models.
"""

Kind = Literal["table", "folder"]
"""What an output is: a table, or a folder of files that belong together (a report, a model, an export)."""


def check_output(out: str, kind: Kind, reads: Iterable[str] = ()) -> None:
    """Raise :class:`InputError` where writing ``out`` would destroy what is not ours to replace.

    Allowed is what is absent, an empty folder, or an earlier output of the same ``kind``. ``reads`` are the
    URLs that are read to make it: ``out`` must not be one of them, nor lie within one, nor hold one.
    """
    for url in reads:
        if overlap(out, url):
            raise InputError(
                f"{out}: the output overlaps with the input {url}, which it would destroy. "
                "Give a folder beside the input with --out."
            )
    fs, path = filesystem(out)
    with io_errors(out):
        fs.invalidate_cache()
        if not fs.exists(path):
            return
        free = fs.isdir(path) and not fs.ls(path, detail=False)
    if not free and not _is_own(out, kind):
        raise InputError(
            f"{out}: is there already and was not written as a {kind} by srgpt, so it is not replaced. "
            "Give another folder with --out, or move what is there away."
        )


def overlap(one: str, other: str) -> bool:
    """Return whether two URLs are one place, or one lies within the other."""
    a, b = location(one), location(other)
    shorter = min(len(a), len(b))
    return a[:shorter] == b[:shorter]


def _is_own(url: str, kind: Kind) -> bool:
    table_marks = {MANIFEST: {*Manifest.__dataclass_fields__, "fingerprint"}}
    marks = {_COPYING: {"srgpt"}, **(table_marks if kind == "table" else _FOLDER_MARKS)}
    return any(keys <= _keys_of(join(url, name)) for name, keys in marks.items())


def _keys_of(url: str) -> set[str]:
    """Return the keys of a JSON object in a file; none where there is no such file."""
    try:
        value = read_json(url) if exists(url) else None
    except InputError:
        return set()
    return set(value) if isinstance(value, dict) else set()


def work_url(out: str) -> str:
    """Return the work folder that belongs to the output ``out``: its hidden sibling ``.NAME.work``."""
    parent, _, name = out.rstrip("/").rpartition("/")
    return join(parent, f".{name}.work") if parent or out.startswith("/") else f".{name}.work"


def move(source: str, target: str) -> None:
    """Replace the folder ``target`` by ``source``; on an object store the manifest goes last.

    On a disk the old folder steps aside and goes only when the new one is in its place. Whether ``target`` may
    be replaced at all is what :func:`check_output` says before any work.
    """
    if is_local(target):
        with io_errors(target, write=True):
            _swap(Path(plain_path(source)), Path(plain_path(target)))
        return
    fs, path = filesystem(source)
    with io_errors(target):
        remove(target)
        write_json(join(target, _COPYING), {"srgpt": "table"})
        fs.invalidate_cache()
        files = sorted(fs.find(path), key=lambda p: p.endswith(MANIFEST))
        destination = filesystem(target)[1]
        for file in files:
            fs.copy(file, posixpath.join(destination, posixpath.relpath(file, path)))
        remove(join(target, _COPYING))
        fs.rm(path, recursive=True)


def _swap(source: Path, target: Path) -> None:
    aside = Path(work_url(f"{target}.old"))
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        shutil.rmtree(aside, ignore_errors=True)
        target.rename(aside)
    try:
        source.rename(target)
    except OSError:
        if aside.exists():
            aside.rename(target)
        raise
    shutil.rmtree(aside, ignore_errors=True)


@contextlib.contextmanager
def staged_folder(out: str, *, keep: bool = False, reads: Sequence[str] = ()) -> Iterator[Path]:
    """Yield a local folder that becomes ``out`` (local or remote) when the block ends without an error.

    With ``keep`` the folder survives a crash for the next run to resume from; else it starts empty. Raises
    :class:`InputError` before any work where ``out`` holds something else than an earlier output of this kind,
    or overlaps with one of the URLs ``reads``.
    """
    check_output(out, "folder", reads)
    local = Path(plain_path(work_url(out))) if is_local(out) else _private_folder() / digest(out)[:16]
    if not keep:
        shutil.rmtree(local, ignore_errors=True)
    with io_errors(out, write=True):
        local.mkdir(parents=True, exist_ok=True)
    yield local
    if is_local(out):
        move(str(local), out)
        return
    remove(out)
    write_json(join(out, _COPYING), {"srgpt": "folder"})
    fs, path = filesystem(out)
    with io_errors(out, write=True):
        fs.put(f"{local}/", f"{path}/", recursive=True)
    remove(join(out, _COPYING))
    shutil.rmtree(local, ignore_errors=True)


def _private_folder() -> Path:
    """Return this user's folder for work on remote outputs, closed to others: checkpoints are resumed from it."""
    path = Path(tempfile.gettempdir()) / f"srgpt-{os.getuid()}"
    with io_errors(str(path), write=True):
        path.mkdir(mode=0o700, exist_ok=True)
        status = path.lstat()
    if status.st_uid != os.getuid() or status.st_mode & 0o077 or path.is_symlink():
        raise SrgptError(
            f"{path}: must be a folder of yours alone (mode 0700), and is not. Remove or mend it."
        )
    return path


@contextlib.contextmanager
def local_copy(url: str) -> Iterator[Path]:
    """Yield ``url`` as a local path: itself where it is local, else a temporary download."""
    if is_local(url):
        path = Path(plain_path(url))
        if not path.exists():
            raise InputError(f"{url}: not found")
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="srgpt-") as folder:
        fs, path_ = filesystem(url)
        target = Path(folder) / posixpath.basename(url.rstrip("/"))
        with io_errors(url):
            fs.get(path_, str(target), recursive=True)
        yield target
