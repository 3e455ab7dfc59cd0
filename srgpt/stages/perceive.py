"""perceive: completes the scenes; what a source gave is kept and stays marked as given."""

from __future__ import annotations

from functools import partial
from typing import Any

from srgpt.engine.local import map_shards
from srgpt.errors import InputError
from srgpt.params import Params, PerceiveParams
from srgpt.perception.gaps import IncompleteError, complete
from srgpt.records import Rejected, Scene
from srgpt.storage import Manifest, Shard, TableWriter, read_manifest, read_shard, write_shard


def run(params: Params, *, source: str, out: str) -> Manifest:
    """Write the scenes of ``source``, completed, to ``out``, shard by shard.

    A scene that lacks something is an :class:`InputError` that names the missing thing, the scenes and the
    setting that would supply it; with ``perceive.on_missing: reject`` it is set aside instead.
    """
    scenes = read_manifest(source, "scenes")
    writer = TableWriter(
        out, "scenes", stage="perceive", dataset=scenes.dataset,
        params=params.perceive.model_dump(mode="json"), inputs={"scenes": source},
    )  # fmt: skip
    names = [shard.name for shard in scenes.shards]
    missing = set(writer.missing(names))
    map_shards(
        partial(_write, source, writer.work, params.perceive),
        [shard for shard in scenes.shards if shard.name in missing],
        workers=params.engine.workers,
        description=f"perceive {scenes.dataset}",
    )
    return writer.commit(names)


def _write(source: str, folder: str, params: PerceiveParams, shard: Shard) -> None:
    rows: list[dict[str, Any]] = []
    rejected: list[Rejected] = []
    for row in read_shard(source, shard, "scenes").to_pylist():
        scene = Scene.from_row(row)
        try:
            done = complete(scene, params)
        except IncompleteError as error:
            rejected.append(Rejected(scene.scene_id, error.reason, error.detail))
            continue
        rows.append(row if done is scene else done.to_row())
    if rejected and params.on_missing == "error":
        raise InputError(_explain(source, shard, rejected))
    write_shard(folder, shard.name, "scenes", rows, rejected)


def _explain(source: str, shard: Shard, rejected: list[Rejected]) -> str:
    """Group by reason: one line each, with the scenes that it concerns."""
    lines = [f"{source}/{shard.name}: {len(rejected)} of {shard.rows} scenes are incomplete"]
    for reason in sorted({r.reason for r in rejected}):
        group = [r for r in rejected if r.reason == reason]
        shown = ", ".join(r.id for r in group[:5]) + (f" and {len(group) - 5} more" if len(group) > 5 else "")
        lines.append(f"  {reason}: {shown}: {group[0].detail}")
    lines.append("  Or set such scenes aside with perceive.on_missing=reject.")
    return "\n".join(lines)
