"""perceive: completes the scenes; what a source gave is kept and stays marked as given."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from srgpt.engine import Mapped, Row, map_table, table_tasks
from srgpt.errors import InputError
from srgpt.params import Params, PerceiveParams
from srgpt.perception.gaps import Gap, IncompleteError, complete
from srgpt.records import Rejected, Scene
from srgpt.storage import Manifest, TableWriter, read_manifest


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
    tasks = table_tasks(source, "scenes", scenes.shards)
    names = map_table(partial(_perceive, source, params.perceive), tasks, writer, params.engine, gpu=True)
    return writer.commit(names)


def _perceive(source: str, params: PerceiveParams, scenes: Iterator[Row]) -> Mapped:
    rows: list[Row] = []
    incomplete: list[tuple[str, tuple[Gap, ...]]] = []
    for row in scenes:
        scene = Scene.from_row(row)
        try:
            done = complete(scene, params)
        except IncompleteError as error:
            incomplete.append((scene.scene_id, error.gaps))
            continue
        rows.append(row if done is scene else done.to_row())
    if incomplete and params.on_missing == "error":
        raise InputError(_explain(source, incomplete, len(rows) + len(incomplete)))
    return Mapped(rows, [_rejected(*found) for found in incomplete])


def _rejected(scene_id: str, gaps: tuple[Gap, ...]) -> Rejected:
    """Set a scene aside once, counted under its first gap; the detail names all of them."""
    return Rejected(scene_id, gaps[0].reason, "; ".join(gap.detail for gap in gaps))


def _explain(source: str, incomplete: list[tuple[str, tuple[Gap, ...]]], scenes: int) -> str:
    """Group by reason: one line each, with the scenes that it concerns."""
    lines = [f"{source}: {len(incomplete)} of {scenes} scenes of one shard are incomplete"]
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
