"""ask: facts of scene graphs become questions and answers, each with the number it came from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from srgpt import storage
from srgpt.curation import rephrasing
from srgpt.curation.questions import Balance, ask_scene
from srgpt.engine import Mapped, Row, map_table, table_tasks
from srgpt.errors import InputError
from srgpt.params import AskParams, Params
from srgpt.records import UNIT_OF, Conversation, Rejected, SceneGraph


def run(params: Params, *, source: str, out: str) -> storage.Manifest:
    """Read the scene graphs at ``source`` and write conversations to ``out``.

    Raises :class:`InputError` where not one question can be asked, or the settings contradict each other.
    """
    _check(params.ask)
    graphs = storage.read_manifest(source, "graphs")
    writer = storage.TableWriter(
        out, "conversations", stage="ask", dataset=graphs.dataset,
        params={"ask": params.ask.recorded(), "seed": params.seed}, inputs={"graphs": source},
    )  # fmt: skip
    tasks = table_tasks(source, "graphs", graphs.shards)
    names = map_table(partial(_ask, params.ask, params.seed), tasks, writer, params.engine)
    statistics = _statistics(writer.finished(names, ["turns"]))
    if not statistics["turns"]:
        raise InputError(
            f"{source}: not one question can be asked of its {graphs.rows} scenes with ask.truth = "
            f"{params.ask.truth}. cuboids needs ground-truth boxes, perceived needs depth and masks."
        )
    if params.ask.rephrase is not None:
        statistics["rephrase"] = rephrasing.statistics(writer.counts(names), params.ask.rephrase)
    return writer.commit(names, statistics)


def _check(params: AskParams) -> None:
    """Refuse what the reference's questions cannot be: see :mod:`srgpt.curation.reference`."""
    if params.compat != "reference":
        return
    if params.truth == "cuboids":
        raise InputError(
            "ask.compat = reference: its facts come from perceived clouds, and ask.truth is cuboids. "
            "Set ask.truth=perceived, or keep ask.compat=corrected for this dataset."
        )
    if params.units != "everyday":
        raise InputError(
            f"ask.units = {params.units}: SpatialRGPT draws units. "
            "Set ask.units=everyday, or keep ask.compat=corrected for this dataset."
        )
    if set(params.reasoning) - {"facts"}:
        raise InputError(
            f"ask.reasoning = {params.reasoning}: with ask.compat=reference only facts can be asked. "
            "Set ask.reasoning to [facts] or []."
        )


def _ask(params: AskParams, seed: int, graphs: Iterator[Row]) -> Mapped:
    conversations: list[Conversation] = []
    rejected: list[Rejected] = []
    balance = Balance()
    for row in graphs:
        found = ask_scene(SceneGraph.from_row(row), params, seed, balance)
        if isinstance(found, Rejected):
            rejected.append(found)
        else:
            conversations += found
    counts = Counter[str]()
    if params.rephrase is not None:
        conversations, counts = rephrasing.rephrase(conversations, params.rephrase, seed)
    return Mapped([conversation.to_row() for conversation in conversations], rejected, counts)


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
    qualitative = [c for c in UNIT_OF if asked[c] and c.endswith(("_predicate", "_choice"))]
    return {
        "turns": asked.total(),
        "categories": {c: asked[c] for c in UNIT_OF if asked[c]},
        "positive_share": {c: round(positive[c] / asked[c], 4) for c in qualitative},
    }
