"""Checkpoints: what DeepSpeed saves, a pointer that is replaced atomically, and exact resumption."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from srgpt.dataset.sampler import SamplerState
from srgpt.errors import SrgptError
from srgpt.storage import read_json, write_json

LATEST = "latest.json"
KEEP = 2

_TORCH_WRITER = ("PytorchStreamWriter", "inline_container")
"""How the errors begin by which ``torch.save`` tells of a file that it could not write."""


def save(engine: Any, folder: Path, step: int, sampler: SamplerState, *, main: bool) -> None:
    """Save everything that the next step depends on; all ranks call it.

    The pointer moves only after all ranks have written, so that a kill at any moment leaves a whole
    checkpoint.
    """
    import torch.distributed as dist

    tag = f"step-{step:07d}"
    with write_errors(folder):
        engine.save_checkpoint(str(folder), tag=tag, save_latest=False)
    dist.barrier()
    if main:
        write_json(str(folder / LATEST), {"tag": tag, "step": step, "sampler": sampler.to_json()})
        for old in sorted(folder.glob("step-*"))[:-KEEP]:
            shutil.rmtree(old)
    dist.barrier()


@contextlib.contextmanager
def write_errors(folder: Path) -> Iterator[None]:
    """Turn what libraries raise where weights cannot be written into an error that a person can act on."""
    try:
        yield
    except (OSError, SafetensorError, RuntimeError) as error:
        reason = str(error).strip().split("\n")[0]
        if isinstance(error, RuntimeError) and not any(name in reason for name in _TORCH_WRITER):
            raise
        free = shutil.disk_usage(folder).free // 2**20
        raise SrgptError(
            f"{folder}: the weights cannot be written there ({free} MB are free; {reason}). "
            "Make room and run the same command again: it goes on from the last whole checkpoint."
        ) from error


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
