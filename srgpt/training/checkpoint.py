"""Checkpoints: what DeepSpeed saves, a pointer that is replaced atomically, and exact resumption.

A checkpoint of ZeRO stage 1, 2 or 3 is cut for its number of ranks. For another number (or stage 1 in place of 2)
it is converted first to DeepSpeed's universal form, which has one file per parameter and state. One without ZeRO is
whole, and loads on any number of ranks.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from srgpt.dataset.sampler import SamplerState
from srgpt.errors import InputError, SrgptError
from srgpt.params import TrainParams
from srgpt.process import run
from srgpt.storage import read_json, write_json

LATEST = "latest.json"

_UNIVERSAL = "universal-"
_CONVERTER = "deepspeed.checkpoint.ds_to_universal"
_TORCH_WRITER = ("PytorchStreamWriter", "inline_container")
"""How the errors begin by which ``torch.save`` tells of a file that it could not write."""


@dataclass(frozen=True)
class Progress:
    """Where a training stands, beside its weights."""

    step: int
    sampler: SamplerState
    tokens: int = 0
    """Tokens seen by all ranks."""
    seconds: float = 0.0
    """Time spent training."""
    losses: list[float] = field(default_factory=list)
    """The last losses, by which a jump is known."""


@dataclass(frozen=True)
class Checkpoint:
    """A whole checkpoint: its folder's name, and by how many ranks at which ZeRO stage it was written."""

    tag: str
    world: int
    zero_stage: int
    progress: Progress

    def universal(self, world: int, zero_stage: int) -> bool:
        """Return whether it must be converted for ``world`` ranks at ``zero_stage``.

        Raises :class:`InputError` where that cannot be done: only stages 1 and 2 lay out their files alike.
        """
        if self.zero_stage != zero_stage and {self.zero_stage, zero_stage} != {1, 2}:
            raise InputError(
                f"checkpoint {self.tag} was written with train.zero_stage={self.zero_stage} and cannot go on with "
                f"{zero_stage}: among the stages only 1 and 2 can take each other's place. Set it back to "
                f"{self.zero_stage}."
            )
        return self.zero_stage > 0 and (self.world, self.zero_stage) != (world, zero_stage)

    @property
    def universal_tag(self) -> str:
        """The name of the folder of its universal form."""
        return f"{_UNIVERSAL}{self.tag}"


def save(engine: Any, folder: Path, progress: Progress, *, main: bool) -> None:
    """Save everything that the next step depends on; all ranks call it.

    The pointer moves only after all ranks have written, so that a kill at any moment leaves a whole
    checkpoint. The one before is kept beside it.
    """
    import torch.distributed as dist

    tag = f"step-{progress.step:07d}"
    if main:
        shutil.rmtree(folder / tag, ignore_errors=True)  # a killed one's files may be of other ranks
    dist.barrier()
    with write_errors(folder):
        engine.save_checkpoint(str(folder), tag=tag, save_latest=False)
    dist.barrier()
    if main:
        before = latest(folder)
        made = Checkpoint(tag, dist.get_world_size(), engine.zero_optimization_stage(), progress)
        write_json(str(folder / LATEST), asdict(made))
        kept = {tag, before.tag if before else tag}
        for old in [*folder.glob("step-*"), *folder.glob(f"{_UNIVERSAL}*")]:
            if old.name not in kept:
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


def latest(folder: Path) -> Checkpoint | None:
    """Return the newest whole checkpoint, or None."""
    path = folder / LATEST
    if not path.exists():
        return None
    state = read_json(str(path))
    progress = state["progress"]
    sampler = SamplerState(**progress["sampler"])
    return Checkpoint(**{**state, "progress": Progress(**{**progress, "sampler": sampler})})


def convert(folder: Path, params: TrainParams) -> None:
    """Convert the newest checkpoint where the ranks and ZeRO stage of ``params`` need it and it is not yet.

    One process calls it, before any rank starts.
    """
    found = latest(folder)
    if found is None or not found.universal(params.world, params.zero_stage):
        return
    target = folder / found.universal_tag
    if target.exists():
        return
    partial = target.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    paths = ["--input_folder", str(folder / found.tag), "--output_folder", str(partial)]
    run([sys.executable, "-m", _CONVERTER, *paths], env={"DS_ACCELERATOR": "cpu"}, on_line=lambda line: None)
    partial.rename(target)


def resume(engine: Any, folder: Path) -> Progress | None:
    """Load the newest checkpoint into ``engine``; return where it stands, or None where there is none.

    Settings of the optimizer come from the parameters, never from the checkpoint.
    """
    found = latest(folder)
    if found is None:
        return None
    settings = _settings(engine)
    tag = found.universal_tag if engine.load_universal_checkpoint() else found.tag
    if engine.load_checkpoint(str(folder), tag=tag)[0] is None:  # DeepSpeed only warns
        raise SrgptError(f"{folder / tag}: DeepSpeed found no checkpoint of this kind there; remove {folder}")
    _restore(engine, settings)
    return found.progress


def _settings(engine: Any) -> list[dict[str, Any]]:
    """Return what the optimizer's groups are set to, without their parameters."""
    return [{k: v for k, v in g.items() if k != "params"} for g in engine.optimizer.param_groups]


def _restore(engine: Any, settings: Sequence[dict[str, Any]]) -> None:
    """Set the optimizer's groups again after loading: a universal checkpoint gives all those of the first.

    It gives them one step counter, too, under ZeRO-3, which each group would then move on.
    """
    import torch

    for group, setting in zip(engine.optimizer.param_groups, settings, strict=True):
        group.update(setting)
    adam = getattr(engine.optimizer, "optimizer", engine.optimizer)
    for parameter, state in adam.state.items():
        if isinstance(state.get("step"), torch.Tensor):
            # the converter leaves it on the CPU; a fused step needs it where the parameter is
            state["step"] = state["step"].to(parameter.device, copy=True)
