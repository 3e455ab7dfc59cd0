"""Sharded Parquet tables and folders over fsspec: written atomically, resumable, verified on reading.

A table is a folder of ``part-*.parquet`` shards with a ``manifest.json`` and, where input was set aside, a
``rejected.jsonl``. While a stage works, shards collect in a work folder beside the output (``.NAME.work``),
each with a small done-marker that is written last; a killed stage finds them there and goes on. Only a complete
table moves to its final place, the manifest last, so that a table is whole or absent. What lies at an output's
place is replaced only where it is an output of this project itself. URLs are local paths or any fsspec URL
(``s3://bucket/prefix``).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import posixpath
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from srgpt import __version__
from srgpt.errors import InputError, SrgptError
from srgpt.records import SCHEMA_VERSION, Rejected
from srgpt.schemas import SCHEMAS

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

MANIFEST = "manifest.json"
REJECTED = "rejected.jsonl"
_STATE = "state.json"
_COPYING = ".srgpt.json"
"""In an output on an object store while its files arrive there one by one: a kill leaves it, the end removes it."""

_FOLDER_MARKS = {
    "lineage.json": {"commit", "params_hash"},
    "parity.json": {"export_hash"},
    "summary.json": {"dataset", "fingerprint", "rules"},
}
"""By which of its files, with which keys, a folder is known as an output: models, reports, exports, validations."""

Kind = Literal["table", "folder"]
"""What an output is: a table, or a folder of files that belong together (a report, a model, an export)."""


# URLs and files -----------------------------------------------------------------------------------------------


def is_local(url: str) -> bool:
    """Return whether ``url`` is a path on this machine."""
    return "://" not in url or url.startswith("file://")


def filesystem(url: str) -> tuple[AbstractFileSystem, str]:
    """Return the file system of ``url`` and the path within it; S3 gives up after seconds, not minutes.

    Raises :class:`InputError` where the URL's scheme is unknown, or needs a package that is not here.
    """
    _check_scheme(url)
    options: dict[str, Any] = {}
    if url.startswith(("s3://", "s3a://")):
        options["config_kwargs"] = {
            "connect_timeout": 5,
            "read_timeout": 60,
            "retries": {"max_attempts": 4, "mode": "standard"},
        }
    with io_errors(url):
        return fsspec.core.url_to_fs(url, **options)


def _check_scheme(url: str) -> None:
    scheme = url.split("://", 1)[0] if "://" in url else "file"
    try:
        fsspec.get_filesystem_class(scheme)
    except (ValueError, ImportError) as error:
        raise InputError(
            f"{url}: {scheme}:// cannot be used here ({error}). Allowed: a local path, file://, s3://, "
            "or any scheme that fsspec knows and whose package is installed."
        ) from error


@contextlib.contextmanager
def io_errors(url: str, *, write: bool = False) -> Iterator[None]:
    """Turn what file systems raise about ``url`` into an error that a person can act on."""
    try:
        yield
    except (SrgptError, KeyboardInterrupt):
        raise
    except FileNotFoundError as error:
        if write:
            raise InputError(
                f"{url}: cannot be written there ({error.strerror or error}). Give another folder."
            ) from error
        raise InputError(f"{url}: not found. Check the path; an earlier stage writes it.") from error
    except OSError as error:
        raise SrgptError(f"{url}: {error.strerror or error}") from error
    except Exception as error:
        module = type(error).__module__.split(".")[0]
        if module in {"botocore", "aiobotocore", "aiohttp", "s3fs", "fsspec", "asyncio", "ssl"}:
            raise SrgptError(
                f"{url}: the object store did not answer ({type(error).__name__}: {error}). "
                "Check AWS_ENDPOINT_URL, the credentials and the bucket, then run the same command again."
            ) from error
        raise


def join(url: str, *parts: str) -> str:
    """Append path parts to a URL."""
    return posixpath.join(url.rstrip("/"), *parts)


def exists(url: str) -> bool:
    """Return whether a file or folder is there."""
    fs, path = filesystem(url)
    with io_errors(url):
        return bool(fs.exists(path))


def read_bytes(url: str) -> bytes:
    """Read a whole file."""
    fs, path = filesystem(url)
    with io_errors(url):
        return fs.cat_file(path)


def write_bytes(url: str, data: bytes) -> None:
    """Write a whole file so that a reader sees all of it or nothing."""
    fs, path = filesystem(url)
    with io_errors(url, write=True):
        if is_local(url):
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            partial = f"{path}.{os.getpid()}.tmp"
            try:
                with open(partial, "wb") as file:  # noqa: PTH123
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(partial, path)  # noqa: PTH105
            finally:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(partial)  # noqa: PTH108
        else:  # an object store's put is atomic by itself
            fs.pipe_file(path, data)


def read_json(url: str) -> Any:
    """Read a JSON file; a broken one is an :class:`InputError` that names it."""
    data = read_bytes(url)
    try:
        return json.loads(data)
    except ValueError as error:
        raise InputError(f"{url}: not JSON ({error})") from error


def write_json(url: str, value: Any) -> None:
    """Write JSON with sorted keys, so that equal values are equal bytes."""
    write_bytes(url, (json.dumps(value, indent=2, sort_keys=True) + "\n").encode())


def digest(value: Any) -> str:
    """Return the SHA-256 of bytes, or of a value's canonical JSON."""
    data = value if isinstance(value, bytes) else json.dumps(value, sort_keys=True, default=str).encode()
    return hashlib.sha256(data).hexdigest()


def relative_url(target: str, base: str) -> str:
    """Express ``target`` relative to the folder ``base`` where both lie in one store, else absolute.

    Manifests refer to their inputs this way, so that a tree of tables can move as a whole.
    """
    if is_local(target) and is_local(base):
        return Path(os.path.relpath(_plain(target), _plain(base))).as_posix()
    if not is_local(target) and not is_local(base) and target.split("/")[:3] == base.split("/")[:3]:
        return posixpath.relpath(target.split("://", 1)[1], base.split("://", 1)[1])
    return target


def resolve_url(reference: str, base: str) -> str:
    """Undo :func:`relative_url`."""
    if "://" in reference or reference.startswith("/"):
        return reference
    if is_local(base):
        return os.path.normpath(Path(_plain(base)) / reference)
    scheme, path = base.split("://", 1)
    return f"{scheme}://{posixpath.normpath(posixpath.join(path, reference))}"


def _plain(url: str) -> str:
    return url.removeprefix("file://")


# Outputs ------------------------------------------------------------------------------------------------------


def check_output(out: str, kind: Kind, reads: Iterable[str] = ()) -> None:
    """Raise :class:`InputError` where writing ``out`` would destroy what is not ours to replace.

    Allowed is what is absent, an empty folder, or an earlier output of the same ``kind``. ``reads`` are the
    URLs that are read to make it: ``out`` must not be one of them, nor lie within one, nor hold one.
    """
    for url in reads:
        if _overlap(out, url):
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


def _overlap(one: str, other: str) -> bool:
    a, b = _location(one), _location(other)
    shorter = min(len(a), len(b))
    return a[:shorter] == b[:shorter]


def _location(url: str) -> tuple[str, ...]:
    """Return scheme and path parts; local links are followed, so that two names of a folder are equal."""
    if is_local(url):
        return ("file", *Path(_plain(url)).resolve().parts)
    scheme, path = url.split("://", 1)
    return (scheme.replace("s3a", "s3"), *posixpath.normpath(path).split("/"))


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


# Manifests ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Shard:
    """One file of a table."""

    name: str
    rows: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What a table is and what it was made from. ``inputs`` maps a table's role to its URL and fingerprint."""

    table: str
    stage: str
    dataset: str
    shards: tuple[Shard, ...]
    params: dict[str, Any]
    inputs: dict[str, dict[str, str]] = field(default_factory=dict)
    rejected: dict[str, int] = field(default_factory=dict)
    statistics: dict[str, Any] = field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION
    code_version: str = __version__

    @property
    def rows(self) -> int:
        """Number of rows over all shards."""
        return sum(s.rows for s in self.shards)

    @property
    def dropped(self) -> dict[str, int]:
        """Objects that scenes of the table were left without, by reason: of ``statistics``' ``objects``."""
        return dict(self.statistics.get("dropped", {}))

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the shards' hashes: the identity of the data, whatever made it."""
        return digest([s.sha256 for s in self.shards])

    def to_json(self) -> dict[str, Any]:
        """Convert to what ``manifest.json`` holds."""
        return {
            **asdict(self),
            "rows": self.rows,
            "fingerprint": self.fingerprint,
            "params_hash": digest(self.params),
        }


def read_manifest(url: str, table: str | None = None) -> Manifest:
    """Read and check the manifest of the table at ``url``.

    Raises :class:`InputError` where there is none, where it is broken, of another schema version, or not a
    ``table`` table.
    """
    path = join(url, MANIFEST)
    if not exists(path):
        raise InputError(f"{url}: no {MANIFEST} here, so this is not a finished table. Run the stage before.")
    raw = read_json(path)
    try:
        fields = {k: raw[k] for k in Manifest.__dataclass_fields__}
        manifest = Manifest(**{**fields, "shards": tuple(Shard(**s) for s in raw["shards"])})
    except (KeyError, TypeError) as error:
        raise InputError(f"{path}: not a manifest of this project ({error!r})") from error
    if manifest.schema_version != SCHEMA_VERSION:
        raise InputError(
            f"{path}: schema version {manifest.schema_version}, this code reads {SCHEMA_VERSION}. "
            f"Run `srgpt {manifest.stage}` again to rebuild it."
        )
    if table is not None and manifest.table != table:
        raise InputError(
            f"{url}: holds {manifest.table} (written by {manifest.stage}); {table} was expected."
        )
    return manifest


def input_url(url: str, role: str) -> str:
    """Return where the table at ``url`` says its input ``role`` lies."""
    manifest = read_manifest(url)
    if role not in manifest.inputs:
        raise InputError(f"{url}: its manifest names no {role!r} input, only {sorted(manifest.inputs)}")
    return resolve_url(manifest.inputs[role]["url"], url)


def trace(url: str, stage: str) -> str:
    """Follow the inputs of the table at ``url`` upstream to the table that ``stage`` wrote; return its URL.

    Raises :class:`InputError` where there is none, or where manifests name each other in a circle.
    """
    current = url
    seen: set[tuple[str, ...]] = set()
    while True:
        manifest = read_manifest(current)
        if _location(current) in seen:
            raise InputError(
                f"{join(current, MANIFEST)}: names itself among its own inputs, so no table written by "
                f"{stage!r} can be found. It was changed by hand; run `srgpt {manifest.stage}` again."
            )
        seen.add(_location(current))
        if manifest.stage == stage:
            return current
        if not manifest.inputs:
            raise InputError(f"{url}: no table written by {stage!r} among its inputs (ended at {current})")
        current = input_url(current, next(iter(manifest.inputs)))


# Reading ------------------------------------------------------------------------------------------------------


def read_shard(url: str, shard: Shard, table: str, columns: Sequence[str] | None = None) -> pa.Table:
    """Read one shard, checked against its hash and the table's schema; ``columns`` limits what is decoded."""
    path = join(url, shard.name)
    data = read_bytes(path)
    if digest(data) != shard.sha256:
        raise InputError(
            f"{path}: content differs from its manifest (SHA-256 {digest(data)[:12]}, expected "
            f"{shard.sha256[:12]}). It was changed or cut off; rebuild it with the stage that wrote it."
        )
    try:
        result = pq.read_table(pa.BufferReader(data), columns=columns)
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"{path}: not a readable Parquet file ({error})") from error
    expected = SCHEMAS[table]
    wanted = [expected.field(c) for c in (columns or expected.names)]
    if [(f.name, f.type) for f in result.schema] != [(f.name, f.type) for f in wanted]:
        raise InputError(
            f"{path}: its columns are not those of a {table!r} table of version {SCHEMA_VERSION}"
        )
    return result


def read_rows(url: str, table: str, columns: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
    """Yield every row of the table at ``url`` as a plain dict, in order."""
    for shard in read_manifest(url, table).shards:
        yield from read_shard(url, shard, table, columns).to_pylist()


def read_rejected(url: str) -> list[dict[str, str]]:
    """Return what was set aside when the table at ``url`` was made: ``{id, reason, detail}`` each."""
    path = join(url, REJECTED)
    if not exists(path):
        return []
    return [json.loads(line) for line in read_bytes(path).decode().splitlines()]


# Writing ------------------------------------------------------------------------------------------------------


def work_url(out: str) -> str:
    """Return the work folder that belongs to the output ``out``: its hidden sibling ``.NAME.work``."""
    parent, _, name = out.rstrip("/").rpartition("/")
    return join(parent, f".{name}.work") if parent or out.startswith("/") else f".{name}.work"


def write_shard(
    work: str, name: str, table: str, rows: Sequence[dict[str, Any]], rejected: Sequence[Rejected] = ()
) -> Shard:
    """Write one shard into the work folder, then its done-marker. Runs in any process."""
    try:
        arrow = pa.Table.from_pylist(list(rows), schema=SCHEMAS[table])
    except (pa.ArrowInvalid, pa.ArrowTypeError, TypeError) as error:
        raise SrgptError(f"{name}: a row does not fit the schema of {table!r}: {error}") from error
    sink = pa.BufferOutputStream()
    pq.write_table(arrow, sink, compression="zstd", row_group_size=1024)
    data = sink.getvalue().to_pybytes()
    shard = Shard(name, len(rows), len(data), digest(data))
    write_bytes(join(work, name), data)
    _write_marker(work, shard, [asdict(r) for r in rejected])
    return shard


def _write_marker(work: str, shard: Shard, rejected: list[dict[str, str]]) -> None:
    write_json(join(work, f"{shard.name}.done"), {"shard": asdict(shard), "rejected": rejected})


class TableWriter:
    """Collects the shards of one table and publishes them together.

    ``inputs`` maps roles to URLs of the tables read; ``reads`` are other places that are read. Work of an
    earlier, killed run is kept only if it had the same inputs, parameters and code version. Raises
    :class:`InputError` before any work where ``out`` holds something else than such a table, or an input.
    """

    def __init__(
        self,
        out: str,
        table: str,
        *,
        stage: str,
        dataset: str,
        params: dict[str, Any],
        inputs: dict[str, str] | None = None,
        reads: Sequence[str] = (),
    ) -> None:
        self.out = out.rstrip("/")
        self.work = work_url(self.out)
        self.table = table
        self.stage = stage
        self.dataset = dataset
        self.params = params
        check_output(self.out, "table", [*(inputs or {}).values(), *reads])
        self.inputs = {
            role: {"url": relative_url(url, self.out), "fingerprint": read_manifest(url).fingerprint}
            for role, url in (inputs or {}).items()
        }
        self._prepare()

    def _identity(self) -> str:
        return digest(
            [self.table, self.stage, self.dataset, self.params, self.inputs, __version__, SCHEMA_VERSION]
        )

    def _prepare(self) -> None:
        state = {"identity": self._identity()}
        path = join(self.work, _STATE)
        if self._reopen() or (exists(path) and read_json(path) == state):
            write_json(path, state)
            return
        remove(self.work)
        write_json(path, state)

    def _reopen(self) -> bool:
        """Take back a table that was complete when its run was killed: its manifest becomes markers again."""
        path = join(self.work, MANIFEST)
        if not exists(path):
            return False
        try:
            manifest = read_manifest(self.work)
        except InputError:  # of another version of this project
            return False
        own = (manifest.table, manifest.stage, manifest.dataset, manifest.params, manifest.inputs)
        if digest([*own, manifest.code_version, manifest.schema_version]) != self._identity():
            return False
        rejected = read_rejected(self.work)
        for shard in manifest.shards:
            _write_marker(self.work, shard, rejected)
            rejected = []
        remove(path)
        return True

    def missing(self, names: Sequence[str]) -> list[str]:
        """Return those of ``names`` that have no finished shard yet."""
        fs, path = filesystem(self.work)
        with io_errors(self.work):
            fs.invalidate_cache()
            found = {posixpath.basename(p) for p in fs.ls(path, detail=False)}
        return [n for n in names if f"{n}.done" not in found]

    def finished(self, names: Sequence[str], columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """Yield the finished shards ``names``, still in the work folder, for figures over the table."""
        for name in names:
            shard = Shard(**read_json(join(self.work, f"{name}.done"))["shard"])
            yield read_shard(self.work, shard, self.table, columns)

    def commit(self, names: Sequence[str], statistics: dict[str, Any] | None = None) -> Manifest:
        """Publish the shards ``names`` as the table: the old one goes, the new one comes, its manifest last.

        Whatever else lies in the work folder stays out of the table. Killed on the way, the next run finds
        either the markers or the manifest, and publishes the same table.
        """
        markers = [read_json(join(self.work, f"{n}.done")) for n in names]
        rejected = [r for m in markers for r in m["rejected"]]
        manifest = Manifest(
            self.table,
            self.stage,
            self.dataset,
            tuple(Shard(**m["shard"]) for m in markers),
            self.params,
            self.inputs,
            dict(sorted(Counter(r["reason"] for r in rejected).items())),
            statistics or {},
        )
        kept = {*names, MANIFEST}
        if rejected:
            lines = "".join(json.dumps(r, sort_keys=True) + "\n" for r in rejected)
            write_bytes(join(self.work, REJECTED), lines.encode())
            kept.add(REJECTED)
        write_json(join(self.work, MANIFEST), manifest.to_json())
        self._drop_all_but(kept)
        move(self.work, self.out)
        return manifest

    def _drop_all_but(self, kept: set[str]) -> None:
        """Remove markers, state, half-written files and shards of no name from the work folder."""
        fs, path = filesystem(self.work)
        with io_errors(self.work):
            fs.invalidate_cache()
            found = [posixpath.basename(p.rstrip("/")) for p in fs.ls(path, detail=False)]
        for name in sorted(set(found) - kept - {""}):
            remove(join(self.work, name))


def shard_name(index: int) -> str:
    """Return the file name of shard ``index``."""
    return f"part-{index:05d}.parquet"


def remove(url: str) -> None:
    """Remove a file or a folder; nothing happens where there is none."""
    fs, path = filesystem(url)
    with io_errors(url):
        if fs.exists(path):
            fs.rm(path, recursive=True)


def move(source: str, target: str) -> None:
    """Replace the folder ``target`` by ``source``; on an object store the manifest goes last.

    On a disk the old folder steps aside and goes only when the new one is in its place. Whether ``target`` may
    be replaced at all is what :func:`check_output` says before any work.
    """
    if is_local(target):
        with io_errors(target, write=True):
            _swap(Path(_plain(source)), Path(_plain(target)))
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
    local = Path(_plain(work_url(out))) if is_local(out) else _private_folder() / digest(out)[:16]
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
        path = Path(_plain(url))
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
