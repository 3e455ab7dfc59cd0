"""The recipe: what is trained, in which groups, at which learning rate and precision."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from srgpt.errors import InputError
from srgpt.params import TrainParams
from srgpt.training.trainable import first_match, is_adapter, plain_name


def parameter_groups(model: nn.Module, params: TrainParams) -> list[dict[str, Any]]:
    """Return the optimizer's groups: matrices with weight decay, norms, biases and embeddings without.

    Each has a ``rate``, its learning rate relative to the schedule's (``train.rates``), and the ``part`` of the model
    that has it; ``muon`` says whether Muon trains it, which is for hidden layers' matrices, and for no adapter's.
    Parameters that do not require a gradient are in none. Raises :class:`InputError` where ``train.muon`` names
    parameters, but no matrix that is trained.
    """
    embeddings = {id(p) for m in model.modules() if isinstance(m, nn.Embedding) for p in m.parameters()}
    head = getattr(model, "get_output_embeddings", lambda: None)()
    ends = embeddings | {id(p) for p in (head.parameters() if head is not None else ())}
    groups: dict[tuple[str, float, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            plain = plain_name(name)
            part = first_match(plain, params.rates) or "all"
            decay = params.weight_decay if parameter.ndim >= 2 and id(parameter) not in embeddings else 0.0
            hidden = parameter.ndim == 2 and id(parameter) not in ends and not is_adapter(name)
            muon = hidden and first_match(plain, params.muon) is not None
            groups.setdefault((part, decay, muon), []).append(parameter)
    if params.muon and not any(muon for *_, muon in groups):
        raise InputError(
            f"train.muon = {params.muon}: names no hidden layer's matrix that is trained; set train.muon=[]"
        )
    return [
        {
            "params": found,
            "part": part,
            "rate": params.rates.get(part, 1.0),
            "weight_decay": decay,
            "muon": muon,
        }
        for (part, decay, muon), found in groups.items()
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
    """Return the dtype to train in: ``auto`` is bfloat16 on a GPU, float32 on a CPU or with Muon."""
    if params.dtype == "auto":
        return torch.bfloat16 if torch.cuda.is_available() and not params.muon else torch.float32
    return torch.float32 if params.dtype == "float32" else torch.bfloat16
