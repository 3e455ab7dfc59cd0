"""DeepSpeed's engine: ZeRO stages, offload to the CPU, precision and accumulation; nothing needs a compiler."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist

from srgpt.params import TrainParams
from srgpt.training.optimizer import make_optimizer
from srgpt.training.recipe import parameter_groups, precision


def start_engine(model: torch.nn.Module, params: TrainParams, *, universal: bool = False) -> Any:
    """Hand the model to DeepSpeed; needs an initialised process group.

    ``universal`` prepares it to load a checkpoint of another number of ranks (see ``checkpoint``).
    """
    import deepspeed

    groups = parameter_groups(model, params)
    if torch.cuda.is_available():
        # what a bfloat16 model still computes in float32 may be TF32; a float32 model is to be exact
        half = precision(params) == torch.bfloat16
        torch.set_float32_matmul_precision("high" if half else "highest")
    # ZeRO writes it into checkpoints; without it they cannot be converted to universal ones
    model.universal_checkpoint_info = {}  # type: ignore[assignment]
    engine, _, _, _ = deepspeed.initialize(
        model=model,
        model_parameters=groups,  # type: ignore[arg-type]
        optimizer=make_optimizer(groups, params),
        config=deepspeed_config(params, universal=universal),
    )
    if dist.get_world_size() == 1 and norm_to_clip(params) is not None:
        engine.enable_backward_allreduce = False  # would copy all gradients, to add them to no others
    return engine


def norm_to_clip(params: TrainParams) -> float | None:
    """Return the norm that the loop clips gradients to; None where DeepSpeed clips: with ZeRO, and in bfloat16."""
    itself = params.zero_stage > 0 or precision(params) == torch.bfloat16
    return None if itself else params.gradient_clipping


def deepspeed_config(params: TrainParams, *, universal: bool = False) -> dict[str, Any]:
    """Return DeepSpeed's configuration.

    The optimizer is handed over: on the CPU, where offloaded states are, DeepSpeed's own would have to be compiled.
    """
    return {
        "train_micro_batch_size_per_gpu": params.batch_images,
        "gradient_accumulation_steps": params.accumulation,
        "gradient_clipping": params.gradient_clipping if norm_to_clip(params) is None else 0.0,
        "zero_optimization": {"stage": params.zero_stage, **_offload(params.offload)},
        "zero_force_ds_cpu_optimizer": False,
        "bf16": {"enabled": precision(params) == torch.bfloat16},
        "checkpoint": {"load_universal": universal},
        "steps_per_print": 10**9,
        "wall_clock_breakdown": False,
    }


def _offload(what: str) -> dict[str, Any]:
    """Return where ZeRO keeps what; parameters are offloaded together with the optimizer's states."""
    place = {"device": "cpu", "pin_memory": torch.cuda.is_available()}
    parts = {"none": (), "optimizer": ("optimizer",), "parameters": ("optimizer", "param")}[what]
    return {f"offload_{part}": dict(place) for part in parts}


def set_rates(engine: Any, rate: float) -> dict[str, float]:
    """Set the learning rate of the coming step; return that of every part of the model that is trained."""
    rates = {}
    for group in engine.optimizer.param_groups:
        group["lr"] = rate * group["rate"]
        rates[str(group["part"])] = group["lr"]
    return rates
