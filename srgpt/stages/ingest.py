"""ingest: from a source to the table of scenes."""

from __future__ import annotations

from functools import partial

from srgpt.engine.local import map_shards
from srgpt.errors import SrgptError
from srgpt.params import Params, check_dataset
from srgpt.sources import open_source
from srgpt.sources.base import Work
from srgpt.storage import Manifest, TableWriter, join, read_json, remove, shard_name, write_shard


def run(params: Params, *, source: str | None, out: str, dataset: str) -> Manifest:
    """Write the scenes of ``ingest.source`` to ``out``.

    ``source`` is the folder or URL that the source reads; None takes ``ingest.url``, which is None for one
    that generates. What cannot be used is set aside with its reason; raises :class:`SrgptError` where no picture
    is left, and :class:`InputError` where ``dataset`` is not a plain name.
    """
    check_dataset(dataset)
    url = params.ingest.url if source is None else source
    origin = open_source(params.ingest, params.seed, dataset, url)
    work = origin.shards()
    names = [shard_name(i) for i in range(len(work))]
    writer = TableWriter(
        out, "scenes", stage="ingest", dataset=dataset, params=origin.identity(),
        reads=[] if url is None else [url],
    )  # fmt: skip
    missing = set(writer.missing(names))
    tasks = [(name, item) for name, item in zip(names, work, strict=True) if name in missing]
    map_shards(
        partial(_write, writer.work), tasks, workers=params.engine.workers, description=f"ingest {dataset}"
    )
    rejected = _require_scenes(writer, names)
    return writer.commit(names, origin.statistics({item["id"] for item in rejected}))


def _write(folder: str, task: tuple[str, Work]) -> None:
    name, work = task
    loaded = work.load()
    write_shard(folder, name, "scenes", [scene.to_row() for scene in loaded.scenes], loaded.rejected)


def _require_scenes(writer: TableWriter, names: list[str]) -> list[dict[str, str]]:
    """Return what was set aside; raise where it is every picture, so that a repaired source is read afresh."""
    markers = [read_json(join(writer.work, f"{name}.done")) for name in names]
    rejected = [item for marker in markers for item in marker["rejected"]]
    if any(marker["shard"]["rows"] for marker in markers):
        return rejected
    reasons = sorted({item["reason"] for item in rejected})
    counts = ", ".join(f"{sum(item['reason'] == r for item in rejected)} {r}" for r in reasons)
    shown = "".join(f"\n  {item['id']}: {item['reason']}: {item['detail']}" for item in rejected[:5])
    remove(writer.work)
    raise SrgptError(f"ingest {writer.dataset}: every scene was set aside ({counts}). The first:{shown}")
