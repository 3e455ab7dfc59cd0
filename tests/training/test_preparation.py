"""What a language model must be like to be trained on packed rows."""

from __future__ import annotations

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    Lfm2Config,
    MambaConfig,
    MixtralConfig,
)

from srgpt.errors import InputError
from srgpt.training.preparation import check_packing
from tests.model.test_attention import FAMILIES, SIZES, model_from

MODELS = {
    **FAMILIES,
    "mixtral": MixtralConfig(**SIZES, num_local_experts=4, num_experts_per_tok=2),
}


@pytest.mark.parametrize("family", MODELS)
def test_attention_keeps_turns_apart(family: str) -> None:
    model = model_from(MODELS[family]).train()
    state = torch.get_rng_state()
    check_packing(model)
    assert model.training
    assert torch.equal(torch.get_rng_state(), state)


def test_layers_that_mix_neighbours_are_refused() -> None:
    hybrid = model_from(Lfm2Config(**SIZES, layer_types=["conv", "full_attention"]))
    with pytest.raises(InputError, match="Lfm2ForCausalLM mix tokens otherwise than by attention"):
        check_packing(hybrid)
    without = AutoModelForCausalLM.from_config(
        MambaConfig(vocab_size=64, hidden_size=16, num_hidden_layers=1)
    )
    with pytest.raises(InputError, match="MambaForCausalLM"):
        check_packing(without)
