"""ask: facts of scene graphs become questions and answers, each with the number it came from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from srgpt import storage
from srgpt.curation.questions import Balance, ask_scene
from srgpt.engine.local import map_shards
from srgpt.errors import InputError
from srgpt.params import AskParams, Params
from srgpt.records import CATEGORIES, Rejected, SceneGraph


def run(params: Params, *, source: str, out: str) -> storage.Manifest:
    """Read the scene graphs at ``source`` and write conversations to ``out``.

    Raises :class:`InputError` where not one question can be asked.
    """
    graphs = storage.read_manifest(source, "graphs")
    writer = storage.TableWriter(
        out,
        "conversations",
        stage="ask",
        dataset=graphs.dataset,
        params={"ask": params.ask.model_dump(mode="json"), "seed": params.seed},
        inputs={"graphs": source},
    )
    names = [s.name for s in graphs.shards]
    missing = set(writer.missing(names))
    map_shards(
        partial(_ask_shard, source, writer.work, params.ask, params.seed),
        [s for s in graphs.shards if s.name in missing],
        workers=params.engine.workers,
        description=f"ask {graphs.dataset}",
    )
    statistics = _statistics(writer.finished(names, ["turns"]))
    if not statistics["turns"]:
        raise InputError(
            f"{source}: not one question can be asked of its {graphs.rows} scenes with ask.truth = "
            f"{params.ask.truth}. cuboids needs ground-truth boxes, perceived needs depth and masks."
        )
    return writer.commit(names, statistics)


def _ask_shard(source: str, work: str, params: AskParams, seed: int, shard: storage.Shard) -> None:
    rows: list[dict[str, Any]] = []
    rejected: list[Rejected] = []
    balance = Balance()
    for row in storage.read_shard(source, shard, "graphs").to_pylist():
        found = ask_scene(SceneGraph.from_row(row), params, seed, balance)
        if isinstance(found, Rejected):
            rejected.append(found)
        else:
            rows += [conversation.to_row() for conversation in found]
    storage.write_shard(work, shard.name, "conversations", rows, rejected)


def _statistics(tables: Iterable[pa.Table]) -> dict[str, Any]:
    """Count questions by category, and positive answers where answers are truth values."""
    asked, positive = Counter[str](), Counter[str]()
    for table in tables:
        turns = pc.list_flatten(table["turns"])
        names = pc.struct_field(turns, "category").to_pylist()
        units = pc.struct_field(turns, "unit").to_pylist()
        values = pc.struct_field(turns, "value").to_pylist()
        asked.update(names)
        positive.update(n for n, u, v in zip(names, units, values, strict=True) if u == "truth" and v == 1.0)
    qualitative = [c for c in CATEGORIES if asked[c] and c.endswith(("_predicate", "_choice"))]
    return {
        "turns": asked.total(),
        "categories": {c: asked[c] for c in CATEGORIES if asked[c]},
        "positive_share": {c: round(positive[c] / asked[c], 4) for c in qualitative},
    }
