"""Tables of Parquet shards with a manifest: what they are, where they come from, and their rows, verified."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from srgpt import __version__
from srgpt.errors import InputError
from srgpt.records import SCHEMA_VERSION
from srgpt.schemas import SCHEMAS
from srgpt.storage.files import digest, exists, join, location, read_bytes, read_json, resolve_url

MANIFEST = "manifest.json"
REJECTED = "rejected.jsonl"


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
        if location(current) in seen:
            raise InputError(
                f"{join(current, MANIFEST)}: names itself among its own inputs, so no table written by "
                f"{stage!r} can be found. It was changed by hand; run `srgpt {manifest.stage}` again."
            )
        seen.add(location(current))
        if manifest.stage == stage:
            return current
        if not manifest.inputs:
            raise InputError(f"{url}: no table written by {stage!r} among its inputs (ended at {current})")
        current = input_url(current, next(iter(manifest.inputs)))


def scenes_of(url: str) -> str:
    """Return the URL of the scenes that the conversations at ``url`` are about: perceived, or imported with them."""
    return input_url(url, "scenes") if read_manifest(url).stage == "import" else trace(url, "perceive")


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
        # without threads: Arrow's may outlive the read, and then abort the process at its end
        with pq.ParquetFile(pa.BufferReader(data), pre_buffer=False) as file:
            result = file.read(columns=columns, use_threads=False)
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
