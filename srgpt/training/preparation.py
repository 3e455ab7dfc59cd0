"""How a model computes while it is trained: its attention, and whether activations are kept."""

from __future__ import annotations

import importlib.util
from typing import cast

import torch
from torch import nn
from transformers import PreTrainedModel

from srgpt.errors import InputError
from srgpt.model.attention import PACKED, packed_layout
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
    check_packing(model.llm)
    missing = _flash_lacks(params)
    if params.attention == _FLASH and missing:
        raise InputError(
            f"train.attention = {_FLASH!r} needs {missing}; use sdpa, which picks a fast kernel by itself"
        )
    if params.attention != "auto":
        model.vision_tower.set_attn_implementation(params.attention)
    elif not missing and model.vision_tower._supports_flash_attn:
        model.vision_tower.set_attn_implementation(_FLASH)


@torch.no_grad()
def check_packing(llm: PreTrainedModel) -> None:
    """Raise :class:`InputError` where a language model lets a turn, or a sample, see another one in a packed row.

    Attention keeps them apart; convolutions, state spaces and linear attention, which hybrid models have between its
    layers, know of no packing. So a turn is changed, and nothing may come of it after the turn.
    """
    layout = packed_layout([2, 1], [[3, 2], [2]])
    turn = slice(2, 5)  # the first of three
    weight = cast(nn.Embedding, llm.get_input_embeddings()).weight
    embeds = torch.randn((1, 10, weight.shape[1]), generator=torch.Generator().manual_seed(0)).to(weight)
    changed = embeds.clone()
    changed[:, turn] = embeds[:, turn].roll(1, 2)
    refused = InputError(
        f"train.model.text: layers of {type(llm).__name__} mix tokens otherwise than by attention, so that packed "
        "turns would see each other; take a language model of attention alone (Llama, Qwen3 and Gemma are tested)"
    )
    training = llm.training
    llm.eval()
    try:
        one, other = (
            llm.base_model(
                inputs_embeds=given,
                attention_mask=given.new_zeros((1, 1, 1, 1)),
                position_ids=torch.tensor([[0, 1, 2, 3, 4, 2, 3, 0, 1, 2]], device=given.device),
                packing=layout.to(given.device),
                use_cache=False,
            ).last_hidden_state
            for given in (embeds, changed)
        )
    except (TypeError, ValueError):  # of models that know neither masks nor positions
        raise refused from None
    finally:
        llm.train(training)
    effect = (one - other).abs()
    # not zero: experts round differently where other tokens are routed to them
    if effect[:, turn.stop :].max() > 1e-3 * effect[:, turn].max():
        raise refused


def _flash_lacks(params: TrainParams) -> str:
    """Return what is missing for flash attention, or nothing."""
    lacks = [] if torch.cuda.is_available() else ["a CUDA device"]
    if importlib.util.find_spec("flash_attn") is None:
        lacks.append("the package flash-attn")
    if precision(params) != torch.bfloat16:
        lacks.append("bfloat16 (train.dtype)")
    return ", ".join(lacks)
