"""DeepSpeed's engine: ZeRO stages, offload to the CPU, precision and accumulation; nothing needs a compiler."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from srgpt.errors import InputError
from srgpt.params import TrainParams
from srgpt.training.optimizer import MuonAndAdamW
from srgpt.training.recipe import parameter_groups, precision


def start_engine(model: torch.nn.Module, params: TrainParams, *, universal: bool = False) -> Any:
    """Hand the model to DeepSpeed; needs an initialised process group.

    ``universal`` prepares it to load a checkpoint of another number of ranks (see ``checkpoint``). Raises
    :class:`InputError` where Muon would have to train in bfloat16.
    """
    import deepspeed

    if params.muon and precision(params) == torch.bfloat16:
        raise InputError("train.muon needs float32; set train.dtype=float32, or train.muon=[]")
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
        optimizer=MuonAndAdamW(groups, params) if params.muon else None,
        config=deepspeed_config(params, universal=universal),
    )
    engine.clip_fp32_gradients = partial(_clip, engine)
    return engine


def _clip(engine: Any) -> None:
    """Clip gradients where neither ZeRO nor bfloat16 does, and keep their norm, which DeepSpeed would not tell."""
    trained = [p for group in engine.optimizer.param_groups for p in group["params"] if p.grad is not None]
    engine._global_grad_norm = torch.nn.utils.clip_grad_norm_(trained, engine.gradient_clipping())


def deepspeed_config(params: TrainParams, *, universal: bool = False) -> dict[str, Any]:
    """Return DeepSpeed's configuration.

    Adam is torch's own on every device: on the CPU, where offloaded states are, DeepSpeed's would have to be
    compiled.
    """
    return {
        "train_micro_batch_size_per_gpu": params.batch_images,
        "gradient_accumulation_steps": params.accumulation,
        "gradient_clipping": params.gradient_clipping,
        "zero_optimization": {"stage": params.zero_stage, **_offload(params.offload)},
        "zero_force_ds_cpu_optimizer": False,
        "optimizer": {
            "type": "AdamW",
            "params": {
                "lr": params.learning_rate,
                "betas": list(params.betas),
                "weight_decay": params.weight_decay,
                "torch_adam": True,
                "fused": True,
            },
        },
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
        rates[str(group.get("part", "all"))] = group["lr"]
    return rates
