"""lift: masked depth and camera become point clouds, canonical boxes, and one 3D scene graph per picture."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from srgpt import storage
from srgpt.curation.lifting import lift_scene
from srgpt.engine.local import map_shards
from srgpt.errors import InputError
from srgpt.params import LiftParams, Params
from srgpt.records import Rejected, Scene
from srgpt.schemas import SCHEMAS

_COLUMNS = [name for name in SCHEMAS["scenes"].names if name != "image"]
"""Lifting never looks at the picture itself."""


def run(params: Params, *, source: str, out: str) -> storage.Manifest:
    """Read the perceived scenes at ``source`` and write their scene graphs to ``out``.

    Raises :class:`InputError` where ``source`` is not what *perceive* wrote, or a scene lacks its camera.
    """
    scenes = storage.read_manifest(source, "scenes")
    if scenes.stage != "perceive":
        raise InputError(f"{source}: written by {scenes.stage}; lift reads what perceive writes. Run that.")
    writer = storage.TableWriter(
        out,
        "graphs",
        stage="lift",
        dataset=scenes.dataset,
        params={"lift": params.lift.model_dump(mode="json")},
        inputs={"perceived": source},
    )
    names = [s.name for s in scenes.shards]
    missing = set(writer.missing(names))
    map_shards(
        partial(_lift_shard, source, writer.work, params.lift),
        [s for s in scenes.shards if s.name in missing],
        workers=params.engine.workers,
        description=f"lift {scenes.dataset}",
    )
    return writer.commit(names, statistics=_statistics(writer.finished(names, ["nodes"])))


def _lift_shard(source: str, work: str, params: LiftParams, shard: storage.Shard) -> None:
    rows: list[dict[str, Any]] = []
    rejected: list[Rejected] = []
    for row in storage.read_shard(source, shard, "scenes", _COLUMNS).to_pylist():
        found = lift_scene(Scene.from_row({**row, "image": b""}), params)
        if isinstance(found, Rejected):
            rejected.append(found)
        else:
            rows.append(found.to_row())
    storage.write_shard(work, shard.name, "graphs", rows, rejected)


def _statistics(tables: Iterable[pa.Table]) -> dict[str, Any]:
    """Count objects, and dropped ones by reason."""
    objects, dropped = 0, Counter[str]()
    for table in tables:
        reasons = pc.struct_field(pc.list_flatten(table["nodes"]), "dropped")
        objects += len(reasons)
        dropped.update(reasons.drop_null().to_pylist())
    return {"objects": objects, "dropped": dict(sorted(dropped.items()))}
