"""The recipe: what is trained, in which groups, at which learning rate and precision."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from srgpt.params import TrainParams
from srgpt.training.trainable import first_match


def parameter_groups(model: nn.Module, params: TrainParams) -> list[dict[str, Any]]:
    """Return the optimizer's groups: matrices with weight decay, norms, biases and embeddings without.

    Each has a ``rate``, its learning rate relative to the schedule's (``train.rates``), and the ``part`` of the model
    that has it; ``muon`` says whether Muon trains it. Parameters that do not require a gradient are in none.
    """
    embeddings = {id(p) for m in model.modules() if isinstance(m, nn.Embedding) for p in m.parameters()}
    groups: dict[tuple[str, float, float, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            part = first_match(name.replace(".base_layer", ""), params.rates) or "all"
            rate = params.rates.get(part, 1.0)
            matrix = parameter.ndim >= 2 and id(parameter) not in embeddings
            muon = matrix and parameter.ndim == 2 and first_match(name, params.muon) is not None
            key = part, rate, params.weight_decay if matrix else 0.0, muon
            groups.setdefault(key, []).append(parameter)
    return [
        {"params": found, "rate": rate, "part": part, "weight_decay": decay, "muon": muon}
        for (part, rate, decay, muon), found in groups.items()
    ]


def optimizer_steps(params: TrainParams, rows: int, world: int) -> int:
    """Return the steps of a stage: as given, or those of its ``epochs`` over ``rows`` images on ``world`` ranks."""
    if params.epochs is None:
        return params.steps
    return max(1, math.ceil(params.epochs * rows / (params.batch_images * params.accumulation * world)))


def learning_rate(step: int, params: TrainParams) -> float:
    """Return the learning rate of optimizer step ``step`` (from 0): linear warm-up, then a cosine to zero."""
    warmup = max(1, round(params.warmup_share * params.steps))
    if step < warmup:
        return params.learning_rate * (step + 1) / warmup
    progress = (step - warmup) / max(1, params.steps - warmup)
    return params.learning_rate * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def precision(params: TrainParams) -> torch.dtype:
    """Return the dtype to train in: ``auto`` is bfloat16 on a GPU, float32 on a CPU."""
    if params.dtype == "auto":
        return torch.bfloat16 if torch.cuda.is_available() else torch.float32
    return torch.float32 if params.dtype == "float32" else torch.bfloat16
