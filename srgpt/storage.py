"""Sharded Parquet tables and folders over fsspec: written atomically, resumable, verified on reading.

A table is a folder of ``part-*.parquet`` shards with a ``manifest.json`` and, where input was set aside, a
``rejected.jsonl``. While a stage works, shards collect in a work folder beside the output (``.NAME.work``),
each with a small done-marker that is written last; a killed stage finds them there and goes on. Only a complete
table moves to its final place, the manifest last, so that a table is whole or absent. URLs are local paths or
any fsspec URL (``s3://bucket/prefix``).
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
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

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


# URLs and files -----------------------------------------------------------------------------------------------


def is_local(url: str) -> bool:
    """Return whether ``url`` is a path on this machine."""
    return "://" not in url or url.startswith("file://")


def filesystem(url: str) -> tuple[AbstractFileSystem, str]:
    """Return the file system of ``url`` and the path within it; S3 gives up after seconds, not minutes."""
    options: dict[str, Any] = {}
    if url.startswith(("s3://", "s3a://")):
        options["config_kwargs"] = {
            "connect_timeout": 5,
            "read_timeout": 60,
            "retries": {"max_attempts": 4, "mode": "standard"},
        }
    with io_errors(url):
        return fsspec.core.url_to_fs(url, **options)


@contextlib.contextmanager
def io_errors(url: str) -> Iterator[None]:
    """Turn what file systems raise about ``url`` into an error that a person can act on."""
    try:
        yield
    except (SrgptError, KeyboardInterrupt):
        raise
    except FileNotFoundError as error:
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
    with io_errors(url):
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
    """Follow the inputs of the table at ``url`` upstream to the table that ``stage`` wrote; return its URL."""
    current = url
    while True:
        manifest = read_manifest(current)
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
    write_json(
        join(work, f"{name}.done"), {"shard": asdict(shard), "rejected": [asdict(r) for r in rejected]}
    )
    return shard


class TableWriter:
    """Collects the shards of one table and publishes them together.

    ``inputs`` maps roles to URLs of the tables read. Work of an earlier, killed run is kept only if it had the
    same inputs, parameters and code version.
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
    ) -> None:
        self.out = out.rstrip("/")
        self.work = work_url(self.out)
        self.table = table
        self.stage = stage
        self.dataset = dataset
        self.params = params
        self.inputs = {
            role: {"url": relative_url(url, self.out), "fingerprint": read_manifest(url).fingerprint}
            for role, url in (inputs or {}).items()
        }
        self._prepare()

    def _prepare(self) -> None:
        state = {
            "identity": digest(
                [self.table, self.stage, self.dataset, self.params, self.inputs, __version__, SCHEMA_VERSION]
            )
        }
        path = join(self.work, _STATE)
        if exists(path) and read_json(path) == state:
            return
        remove(self.work)
        write_json(path, state)

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
        """Publish the shards ``names`` as the table: the old one goes, the new one comes, its manifest last."""
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
        if rejected:
            lines = "".join(json.dumps(r, sort_keys=True) + "\n" for r in rejected)
            write_bytes(join(self.work, REJECTED), lines.encode())
        for name in names:
            remove(join(self.work, f"{name}.done"))
        remove(join(self.work, _STATE))
        write_json(join(self.work, MANIFEST), manifest.to_json())
        move(self.work, self.out)
        return manifest


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
    """Replace the folder ``target`` by ``source``; on an object store the manifest goes last."""
    fs, path = filesystem(source)
    with io_errors(target):
        remove(target)
        if is_local(target):
            Path(_plain(target)).parent.mkdir(parents=True, exist_ok=True)
            os.rename(_plain(source), _plain(target))  # noqa: PTH104
            return
        fs.invalidate_cache()
        files = sorted(fs.find(path), key=lambda p: p.endswith(MANIFEST))
        destination = filesystem(target)[1]
        for file in files:
            fs.copy(file, posixpath.join(destination, posixpath.relpath(file, path)))
        fs.rm(path, recursive=True)


@contextlib.contextmanager
def staged_folder(out: str, *, keep: bool = False) -> Iterator[Path]:
    """Yield a local folder that becomes ``out`` (local or remote) when the block ends without an error.

    With ``keep`` the folder survives a crash for the next run to resume from; else it starts empty.
    """
    local = (
        Path(_plain(work_url(out)))
        if is_local(out)
        else Path(tempfile.gettempdir()) / f"srgpt-{digest(out)[:16]}"
    )
    if not keep:
        shutil.rmtree(local, ignore_errors=True)
    with io_errors(str(local)):
        local.mkdir(parents=True, exist_ok=True)
    yield local
    if is_local(out):
        move(str(local), out)
        return
    remove(out)
    fs, path = filesystem(out)
    with io_errors(out):
        fs.put(f"{local}/", f"{path}/", recursive=True)
    shutil.rmtree(local, ignore_errors=True)


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
