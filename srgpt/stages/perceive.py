"""perceive: completes the scenes; what a source gave is kept and stays marked as given."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import islice

from srgpt.engine import Mapped, Row, map_table, require_scenes, table_tasks
from srgpt.errors import InputError
from srgpt.params import Params, PerceiveParams
from srgpt.perception import Gap, SetAsideError, complete_all
from srgpt.perception.chain import uses_models
from srgpt.records import Rejected, Scene
from srgpt.storage import Manifest, TableWriter, read_manifest


def run(params: Params, *, source: str, out: str) -> Manifest:
    """Write the scenes of ``source``, completed, to ``out``, shard by shard.

    Scenes that lack something are an :class:`InputError` that names every missing thing, the scenes and the
    settings that would supply it; with ``perceive.on_missing: reject`` it is set aside instead. Pictures that
    perception judges unfit are always set aside. Raises :class:`SrgptError` where no scene is left.
    """
    scenes = read_manifest(source, "scenes")
    writer = TableWriter(
        out, "scenes", stage="perceive", dataset=scenes.dataset,
        params={"perceive": params.perceive.model_dump(mode="json"), "seed": params.seed},
        inputs={"scenes": source},
    )  # fmt: skip
    tasks = table_tasks(source, "scenes", scenes.shards)
    transform = partial(_perceive, source, params.perceive, params.seed)
    device = params.perceive.device if uses_models(params.perceive) else "cpu"
    names = map_table(transform, tasks, writer, params.engine, device=device)
    require_scenes(writer, names)
    return writer.commit(names)


def _perceive(source: str, params: PerceiveParams, seed: int, scenes: Iterator[Row]) -> Mapped:
    rows: list[Row] = []
    rejected: list[Rejected] = []
    incomplete: list[tuple[str, tuple[Gap, ...]]] = []
    while batch := list(islice(scenes, params.batch_size)):
        given = [Scene.from_row(row) for row in batch]
        for row, scene, done in zip(batch, given, complete_all(given, params, seed), strict=True):
            if isinstance(done, Scene):
                rows.append(row if done is scene else done.to_row())
            elif params.on_missing == "reject" or isinstance(done, SetAsideError):
                rejected.append(_rejected(scene.scene_id, done.gaps))
            else:
                incomplete.append((scene.scene_id, done.gaps))
    if incomplete:
        raise InputError(_explain(source, incomplete, len(rows) + len(rejected) + len(incomplete)))
    return Mapped(rows, rejected)


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
