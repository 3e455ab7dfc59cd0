"""ingest: from a source to the table of scenes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from srgpt.engine import Mapped, Row, map_table, require_scenes
from srgpt.params import Params, check_dataset
from srgpt.records import Rejected
from srgpt.sources import open_source
from srgpt.sources.base import Divisible, Work
from srgpt.storage import Manifest, TableWriter, shard_name


def run(params: Params, *, source: str | None, out: str, dataset: str) -> Manifest:
    """Write the scenes of ``ingest.source`` to ``out``.

    ``source`` is the folder or URL that the source reads; None takes ``ingest.url``, which is None for one
    that generates. What cannot be used is set aside with its reason; raises :class:`SrgptError` where no picture
    is left, and :class:`InputError` where ``dataset`` is not a plain name.
    """
    check_dataset(dataset)
    url = params.ingest.url if source is None else source
    origin = open_source(params.ingest, params.seed, dataset, url, params.engine)
    writer = TableWriter(
        out, "scenes", stage="ingest", dataset=dataset, params=origin.identity(),
        reads=[] if url is None else [url],
    )  # fmt: skip
    tasks = [_Task(shard_name(index), work) for index, work in enumerate(origin.shards())]
    names = map_table(_load, tasks, writer, params.engine)
    rejected = require_scenes(writer, names)
    return writer.commit(names, origin.statistics({item["id"] for item in rejected}))


@dataclass(frozen=True)
class _Task:
    """One shard of a source: picture by picture where it can be divided, else as a whole."""

    name: str
    work: Work

    @property
    def size(self) -> int:
        return len(self._pieces())

    def items(self) -> Iterator[tuple[str, Work]]:
        return iter(self._pieces())

    def _pieces(self) -> Sequence[tuple[str, Work]]:
        return self.work.pieces() if isinstance(self.work, Divisible) else [(self.name, self.work)]


def _load(pieces: Iterator[Work]) -> Mapped:
    rows: list[Row] = []
    rejected: list[Rejected] = []
    for piece in pieces:
        loaded = piece.load()
        rows += [scene.to_row() for scene in loaded.scenes]
        rejected += loaded.rejected
    return Mapped(rows, rejected)
