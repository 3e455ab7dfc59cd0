"""Convert a model folder: which way is seen from its content, and the result is whole or absent."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from srgpt.errors import InputError, SrgptError
from srgpt.model.vila import exporting, importing
from srgpt.model.vila.plan import RECORD, Plan
from srgpt.model.vila.settings import CONFIG
from srgpt.model.vila.weights import SHARD_BYTES, copy_tensors
from srgpt.progress import progress_bar
from srgpt.storage import is_local, local_copy, read_json, staged_folder, write_json

_TYPES = {"srgpt": importing.LAYOUT, "llava_llama": exporting.LAYOUT}
"""The layout of a folder, by the model type in its ``config.json``."""

_MB = 10**6


def convert(
    source: str,
    out: str,
    *,
    to: str | None = None,
    template: str | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> dict[str, Any]:
    """Convert the model folder ``source`` into ``out``; return the record that ``conversion.json`` holds.

    ``to`` is ``srgpt`` or ``reference``, by default the other one. ``template`` names the prompts of an imported
    model. All is checked before anything is written, and only a whole folder gets to its place. Raises
    :class:`InputError` for a folder that is not in either layout, is damaged, or cannot be held by the other one.
    """
    with local_copy(source) as folder:
        plan = _plan(folder, to, template)
        record = {
            "layout": plan.layout,
            "source": source,
            "tensors": plan.tensors,
            "bytes": plan.nbytes,
            "left_out": list(plan.left_out),
        }
        with staged_folder(out, reads=[source]) as staged:
            _check_room(staged, plan, out)
            _write(plan, staged, shard_bytes)
            write_json(str(staged / RECORD), record)
    return record


def layout_of(folder: Path) -> str:
    """Return the layout of a model folder: ``srgpt`` or ``reference``."""
    path = folder / CONFIG
    if not path.is_file():
        raise InputError(
            f"{folder}: no {CONFIG}, so no model folder. Give one that `srgpt train` wrote, or a released "
            "checkpoint with llm/, vision_tower/, mm_projector/ and region_extractor/."
        )
    try:
        config = read_json(str(path))
    except RecursionError as error:
        raise InputError(f"{path}: not JSON (nested too deep)") from error
    kind = config.get("model_type") if isinstance(config, dict) else None
    if not isinstance(kind, str) or kind not in _TYPES:
        raise InputError(f"{path}: model_type is {kind!r}; expected one of {', '.join(_TYPES)}")
    return _TYPES[kind]


def _plan(folder: Path, to: str | None, template: str | None) -> Plan:
    held = layout_of(folder)
    other = next(layout for layout in _TYPES.values() if layout != held)
    if to not in (None, *_TYPES.values()):
        raise InputError(f"--to {to}: allowed are {' and '.join(_TYPES.values())}")
    if to == held:
        raise InputError(
            f"{folder}: is in the layout {held} already; leave --to away to convert it to {other}"
        )
    if other == importing.LAYOUT:
        return importing.plan_import(folder, template)
    if template is not None:
        raise InputError("--template: chosen when a released checkpoint is imported; leave it away here")
    return exporting.plan_export(folder)


def _check_room(staged: Path, plan: Plan, out: str) -> None:
    free = shutil.disk_usage(staged).free
    if plan.nbytes > free:
        where = f"{out}: " if is_local(out) else f"{staged}, where {out} is made: "
        raise SrgptError(f"{where}needs {plan.nbytes / 1e9:.1f} GB, {free / 1e9:.1f} GB are free. Make room.")


def _write(plan: Plan, folder: Path, shard_bytes: int) -> None:
    written = 0
    with progress_bar("convert", total=-(-plan.nbytes // _MB), unit="MB") as advance:

        def count(size: int) -> None:
            nonlocal written
            before, written = -(-written // _MB), written + size
            advance(-(-written // _MB) - before)

        for part, tensors in plan.weights.items():
            copy_tensors(tensors, folder / part, count, shard_bytes)
    plan.write_rest(folder)
