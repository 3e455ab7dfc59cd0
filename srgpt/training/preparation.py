"""How a model computes while it is trained: its attention, and whether activations are kept."""

from __future__ import annotations

import importlib.util

import torch

from srgpt.errors import InputError
from srgpt.model.attention import PACKED
from srgpt.model.modeling import SrgptForConditionalGeneration
from srgpt.params import TrainParams
from srgpt.training.recipe import precision

_FLASH = "flash_attention_2"


def prepare(model: SrgptForConditionalGeneration, params: TrainParams) -> None:
    """Set a model's attention and gradient checkpointing, and put it into training mode."""
    set_attention(model, params)
    if params.gradient_checkpointing:
        for part in (model.vision_tower, model.llm):
            # the re-entrant kind has no gradient where a part's input needs none, as behind frozen parts
            part.gradient_checkpointing_enable({"use_reentrant": False})
    model.train()


def set_attention(model: SrgptForConditionalGeneration, params: TrainParams) -> None:
    """Set how the tower attends; the language model does as packed rows need it.

    Raises :class:`InputError` where flash attention is asked for, and cannot be had.
    """
    model.llm.set_attn_implementation(PACKED)
    missing = _flash_lacks(params)
    if params.attention == _FLASH and missing:
        raise InputError(
            f"train.attention = {_FLASH!r} needs {missing}; use sdpa, which picks a fast kernel by itself"
        )
    if params.attention != "auto":
        model.vision_tower.set_attn_implementation(params.attention)
    elif not missing and model.vision_tower._supports_flash_attn:
        model.vision_tower.set_attn_implementation(_FLASH)


def _flash_lacks(params: TrainParams) -> str:
    """Return what is missing for flash attention, or nothing."""
    lacks = [] if torch.cuda.is_available() else ["a CUDA device"]
    if importlib.util.find_spec("flash_attn") is None:
        lacks.append("the package flash-attn")
    if precision(params) != torch.bfloat16:
        lacks.append("bfloat16 (train.dtype)")
    return ", ".join(lacks)
