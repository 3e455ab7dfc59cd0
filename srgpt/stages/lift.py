"""lift: masked depth and camera become point clouds, canonical boxes, and one 3D scene graph per picture."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from srgpt import storage
from srgpt.curation.lifting import lift_scene
from srgpt.engine import Mapped, Row, map_table, table_tasks
from srgpt.errors import InputError
from srgpt.params import LiftParams, Params
from srgpt.records import Rejected, Scene
from srgpt.schemas import SCHEMAS

_UNUSED = {"image": b"", "relative_depth": None}
"""Lifting never looks at the picture itself, nor at what only models see."""

_COLUMNS = [name for name in SCHEMAS["scenes"].names if name not in _UNUSED]


def run(params: Params, *, source: str, out: str) -> storage.Manifest:
    """Read the perceived scenes at ``source`` and write their scene graphs to ``out``.

    Raises :class:`InputError` where ``source`` is not what *perceive* wrote, or a scene lacks its camera.
    """
    scenes = storage.read_manifest(source, "scenes")
    if scenes.stage != "perceive":
        raise InputError(f"{source}: written by {scenes.stage}; lift reads what perceive writes. Run that.")
    writer = storage.TableWriter(
        out, "graphs", stage="lift", dataset=scenes.dataset,
        params={"lift": params.lift.model_dump(mode="json")}, inputs={"perceived": source},
    )  # fmt: skip
    tasks = table_tasks(source, "scenes", scenes.shards, _COLUMNS)
    names = map_table(partial(_lift, params.lift), tasks, writer, params.engine)
    return writer.commit(names, statistics=_statistics(writer.finished(names, ["nodes"])))


def _lift(params: LiftParams, scenes: Iterator[Row]) -> Mapped:
    graphs: list[Row] = []
    rejected: list[Rejected] = []
    for row in scenes:
        found = lift_scene(Scene.from_row({**row, **_UNUSED}), params)
        if isinstance(found, Rejected):
            rejected.append(found)
        else:
            graphs.append(found.to_row())
    return Mapped(graphs, rejected)


def _statistics(tables: Iterable[pa.Table]) -> dict[str, Any]:
    """Count objects, and dropped ones by reason."""
    objects, dropped = 0, Counter[str]()
    for table in tables:
        reasons = pc.struct_field(pc.list_flatten(table["nodes"]), "dropped")
        objects += len(reasons)
        dropped.update(reasons.drop_null().to_pylist())
    return {"objects": objects, "dropped": dict(sorted(dropped.items()))}
