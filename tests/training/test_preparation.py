"""What a language model must be like to be trained on packed rows."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM, Lfm2Config, PreTrainedModel

from srgpt.errors import InputError
from srgpt.model.attention import PACKED
from srgpt.training.preparation import check_packing
from tests.model.test_attention import FAMILIES, SIZES, model_of


@pytest.mark.parametrize("family", FAMILIES)
def test_attention_keeps_turns_apart(family: str) -> None:
    model = model_of(family).train()
    state = torch.get_rng_state()
    check_packing(model)
    assert model.training
    assert torch.equal(torch.get_rng_state(), state)


def test_layers_that_mix_neighbours_are_refused() -> None:
    torch.manual_seed(0)
    config = Lfm2Config(**SIZES, layer_types=["conv", "full_attention"])
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config)
    model.set_attn_implementation(PACKED)
    with pytest.raises(InputError, match="Lfm2ForCausalLM mix tokens otherwise than by attention"):
        check_packing(model)
