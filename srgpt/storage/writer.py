"""Writing a table: shards collect in a work folder, each with a marker, and are published together."""

from __future__ import annotations

import json
import posixpath
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from srgpt import __version__
from srgpt.errors import InputError, SrgptError
from srgpt.records import SCHEMA_VERSION, Rejected
from srgpt.schemas import SCHEMAS
from srgpt.storage.files import (
    digest,
    exists,
    filesystem,
    io_errors,
    join,
    read_json,
    relative_url,
    remove,
    write_bytes,
    write_json,
)
from srgpt.storage.outputs import check_output, move, work_url
from srgpt.storage.tables import MANIFEST, REJECTED, Manifest, Shard, read_manifest, read_rejected, read_shard

_STATE = "state.json"


def write_shard(
    work: str,
    name: str,
    table: str,
    rows: Sequence[dict[str, Any]],
    rejected: Sequence[Rejected] = (),
    counts: Mapping[str, int] | None = None,
) -> Shard:
    """Write one shard into the work folder, then its done-marker. Runs in any process.

    ``counts`` are figures of how the shard was made that its rows do not tell; see :meth:`TableWriter.counts`.
    """
    try:
        arrow = pa.Table.from_pylist(list(rows), schema=SCHEMAS[table])
    except (pa.ArrowInvalid, pa.ArrowTypeError, TypeError) as error:
        raise SrgptError(f"{name}: a row does not fit the schema of {table!r}: {error}") from error
    sink = pa.BufferOutputStream()
    pq.write_table(arrow, sink, compression="zstd", row_group_size=1024)
    data = sink.getvalue().to_pybytes()
    shard = Shard(name, len(rows), len(data), digest(data))
    write_bytes(join(work, name), data)
    _write_marker(work, shard, [asdict(r) for r in rejected], counts or {})
    return shard


def _write_marker(work: str, shard: Shard, rejected: list[dict[str, str]], counts: Mapping[str, int]) -> None:
    marker = {"shard": asdict(shard), "rejected": rejected, "counts": dict(counts)}
    write_json(join(work, f"{shard.name}.done"), marker)


class TableWriter:
    """Collects the shards of one table and publishes them together.

    ``inputs`` maps roles to URLs of the tables read, ``beside`` to those of tables that are written together with
    this one and published before it; ``reads`` are other places that are read. Work of an earlier, killed run is
    kept only if it had the same inputs, parameters and code version. Raises :class:`InputError` before any work
    where ``out`` holds something else than such a table, or an input.
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
        beside: dict[str, str] | None = None,
        reads: Sequence[str] = (),
    ) -> None:
        self.out = out.rstrip("/")
        self.work = work_url(self.out)
        self.table = table
        self.stage = stage
        self.dataset = dataset
        self.params = params
        check_output(self.out, "table", [*(inputs or {}).values(), *reads])
        self.inputs = _named(inputs or {}, self.out)
        self._beside = beside or {}
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
        inputs = {role: value for role, value in manifest.inputs.items() if role not in self._beside}
        own = (manifest.table, manifest.stage, manifest.dataset, manifest.params, inputs)
        if digest([*own, manifest.code_version, manifest.schema_version]) != self._identity():
            return False
        rejected, counts = read_rejected(self.work), manifest.statistics.get("counts", {})
        for shard in manifest.shards:
            _write_marker(self.work, shard, rejected, counts)
            rejected, counts = [], {}
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
            yield read_shard(self.work, Shard(**self._marker(name)["shard"]), self.table, columns)

    def counts(self, names: Sequence[str]) -> Counter[str]:
        """Add up what the finished shards ``names`` counted while they were made, in this run or before."""
        return _added(self.markers(names))

    def markers(self, names: Sequence[str]) -> list[dict[str, Any]]:
        """Return what is known of the finished shards ``names``: ``shard``, ``rejected`` and ``counts`` of each."""
        return [self._marker(name) for name in names]

    def _marker(self, name: str) -> dict[str, Any]:
        marker: dict[str, Any] = read_json(join(self.work, f"{name}.done"))
        return marker

    def commit(self, names: Sequence[str], statistics: dict[str, Any] | None = None) -> Manifest:
        """Publish the shards ``names`` as the table: the old one goes, the new one comes, its manifest last.

        Whatever else lies in the work folder stays out of the table. Killed on the way, the next run finds
        either the markers or the manifest, and publishes the same table. ``statistics`` gain the shards'
        ``counts``, where there are any.
        """
        markers = self.markers(names)
        counts = _added(markers)
        rejected = [r for m in markers for r in m["rejected"]]
        manifest = Manifest(
            self.table,
            self.stage,
            self.dataset,
            tuple(Shard(**m["shard"]) for m in markers),
            self.params,
            {**self.inputs, **_named(self._beside, self.out)},
            dict(sorted(Counter(r["reason"] for r in rejected).items())),
            {**(statistics or {}), **({"counts": dict(sorted(counts.items()))} if counts else {})},
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


def _added(markers: Sequence[dict[str, Any]]) -> Counter[str]:
    total: Counter[str] = Counter()
    for marker in markers:
        total.update(marker.get("counts", {}))
    return total


def _named(tables: dict[str, str], out: str) -> dict[str, dict[str, str]]:
    """Return how the manifest of ``out`` names other tables: by relative URL and fingerprint."""
    return {
        role: {"url": relative_url(url, out), "fingerprint": read_manifest(url).fingerprint}
        for role, url in tables.items()
    }


def shard_name(index: int) -> str:
    """Return the file name of shard ``index``."""
    return f"part-{index:05d}.parquet"
