"""perceive: completes the scenes; what a source gave is kept and stays marked as given."""

from __future__ import annotations

from functools import partial
from typing import Any

from srgpt.engine.local import map_shards
from srgpt.errors import InputError
from srgpt.params import Params, PerceiveParams
from srgpt.perception.gaps import Gap, IncompleteError, complete
from srgpt.records import Rejected, Scene
from srgpt.storage import Manifest, Shard, TableWriter, read_manifest, read_shard, write_shard


def run(params: Params, *, source: str, out: str) -> Manifest:
    """Write the scenes of ``source``, completed, to ``out``, shard by shard.

    Scenes that lack something are an :class:`InputError` that names every missing thing, the scenes and the
    settings that would supply it; with ``perceive.on_missing: reject`` it is set aside instead.
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
    incomplete: list[tuple[str, tuple[Gap, ...]]] = []
    for row in read_shard(source, shard, "scenes").to_pylist():
        scene = Scene.from_row(row)
        try:
            done = complete(scene, params)
        except IncompleteError as error:
            incomplete.append((scene.scene_id, error.gaps))
            continue
        rows.append(row if done is scene else done.to_row())
    if incomplete and params.on_missing == "error":
        raise InputError(_explain(source, shard, incomplete))
    write_shard(folder, shard.name, "scenes", rows, [_rejected(*found) for found in incomplete])


def _rejected(scene_id: str, gaps: tuple[Gap, ...]) -> Rejected:
    """Set a scene aside once, counted under its first gap; the detail names all of them."""
    return Rejected(scene_id, gaps[0].reason, "; ".join(gap.detail for gap in gaps))


def _explain(source: str, shard: Shard, incomplete: list[tuple[str, tuple[Gap, ...]]]) -> str:
    """Group by reason: one line each, with the scenes that it concerns."""
    lines = [f"{source}/{shard.name}: {len(incomplete)} of {shard.rows} scenes are incomplete"]
    details: dict[str, dict[str, str]] = {}
    for scene_id, gaps in incomplete:
        for gap in gaps:
            details.setdefault(gap.reason, {}).setdefault(scene_id, gap.detail)
    for reason, group in sorted(details.items()):
        ids = list(group)
        shown = ", ".join(ids[:5]) + (f" and {len(ids) - 5} more" if len(ids) > 5 else "")
        lines.append(f"  {reason}: {shown}: {group[ids[0]]}")
    lines.append("  Or set such scenes aside with perceive.on_missing=reject.")
    return "\n".join(lines)
