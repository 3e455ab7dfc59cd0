"""Checkpoints: what DeepSpeed saves, a pointer that is replaced atomically, and exact resumption."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from srgpt.dataset.sampler import SamplerState
from srgpt.storage import read_json, write_json

LATEST = "latest.json"
KEEP = 2


def save(engine: Any, folder: Path, step: int, sampler: SamplerState, *, main: bool) -> None:
    """Save everything that the next step depends on; all ranks call it.

    The pointer moves only after all ranks have written, so that a kill at any moment leaves a whole
    checkpoint.
    """
    import torch.distributed as dist

    tag = f"step-{step:07d}"
    engine.save_checkpoint(str(folder), tag=tag, save_latest=False)
    dist.barrier()
    if main:
        write_json(str(folder / LATEST), {"tag": tag, "step": step, "sampler": sampler.to_json()})
        for old in sorted(folder.glob("step-*"))[:-KEEP]:
            shutil.rmtree(old)
    dist.barrier()


def latest(folder: Path) -> tuple[str, int, SamplerState] | None:
    """Return the newest whole checkpoint's tag, its step and its place in the data, or None."""
    path = folder / LATEST
    if not path.exists():
        return None
    state = read_json(str(path))
    return state["tag"], state["step"], SamplerState(**state["sampler"])


def resume(engine: Any, folder: Path) -> tuple[int, SamplerState] | None:
    """Load the newest checkpoint into ``engine``; return the steps done and the sampler's state, or None."""
    found = latest(folder)
    if found is None:
        return None
    tag, step, sampler = found
    engine.load_checkpoint(str(folder), tag=tag)
    return step, sampler
