"""What a stage trains: parts, patterns, adapters; start values of the depth connector."""

from __future__ import annotations

import pytest
import torch

from srgpt.errors import InputError
from srgpt.model.attention import PACKED
from srgpt.params import LoraParams, TrainParams
from srgpt.training.lora import add_adapters
from srgpt.training.preparation import prepare
from srgpt.training.recipe import optimizer_steps, parameter_groups
from srgpt.training.trainable import choose, matches, start_depth
from tests.model.test_language_models import make_batch
from tests.model.tiny import TINY, make_tiny

POSITION = "vision_tower.embeddings.position_embedding.weight"


def trained(model):
    return {name for name, p in model.named_parameters() if p.requires_grad}


def test_names_fit_parts_beginnings_and_globs():
    assert matches("llm.model.norm.weight", "llm")
    assert matches("llm.model.layers.1.mlp.up_proj.weight", "llm.model.layers.1")
    assert not matches("llm.model.layers.11.mlp.up_proj.weight", "llm.model.layers.1")
    assert matches("llm.model.norm.weight", "*.norm.*")
    assert not matches("llmx.weight", "llm")


def test_everything_is_trained_but_fixed_positions():
    model, _ = make_tiny()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    choose(model, TrainParams())
    assert trained(model) == {n for n, _ in model.named_parameters()} - {POSITION}


def test_positions_of_a_saved_model_stay_fixed(tmp_path):
    model, _ = make_tiny()
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path)
    choose(again, TrainParams())
    assert POSITION not in trained(again)


def test_exactly_the_named_parameters_get_a_gradient():
    model, processor = make_tiny()
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    choose(model, TrainParams(trainable=["mm_projector", "llm.model.layers.1", "*.rgb_projector.bias"]))
    model.train()
    optimizer = torch.optim.AdamW(parameter_groups(model, TrainParams()), lr=1e-2)
    model(**make_batch(processor)).loss.backward()
    optimizer.step()
    got = {n for n, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    expected = {
        n for n, _ in model.named_parameters() if n.startswith(("mm_projector.", "llm.model.layers.1."))
    }
    assert got == expected | {"region_extractor.rgb_projector.bias"}
    assert {n for n, p in model.named_parameters() if not torch.equal(p, before[n])} == got


@pytest.mark.parametrize("key", ["trainable", "rates"])
def test_a_pattern_that_fits_nothing_is_refused(key):
    model, _ = make_tiny()
    value = ["llmm"] if key == "trainable" else {"llmm": 0.1}
    with pytest.raises(InputError, match=rf"train\.{key}: 'llmm' fits no parameter.* such as vision_tower"):
        choose(model, TrainParams(**{key: value}))
    with pytest.raises(InputError, match="every parameter that it names is fixed"):
        choose(model, TrainParams(trainable=[POSITION]))


def test_the_first_rate_that_fits_counts():
    model, _ = make_tiny()
    rates = {"llm.model.embed_tokens": 0.0, "llm": 0.5, "*.point_encoder.*": 3.0}
    found = {id(p): g["rate"] for g in parameter_groups(model, TrainParams(rates=rates)) for p in g["params"]}
    by_name = {n: found[id(p)] for n, p in model.named_parameters() if p.requires_grad}
    assert by_name["llm.model.embed_tokens.weight"] == 0.0
    assert by_name["llm.model.norm.weight"] == 0.5
    assert by_name["region_extractor.point_encoder.unknown"] == 3.0
    assert by_name["region_extractor.rgb_projector.bias"] == 1.0


def test_epochs_become_steps():
    assert optimizer_steps(TrainParams(steps=5), 1000, 2) == 5
    params = TrainParams(epochs=1.5, batch_images=4, accumulation=3)
    assert optimizer_steps(params, 100, 2) == 7  # 150 images, 24 a step
    assert optimizer_steps(TrainParams(epochs=0.001), 2, 1) == 1


@pytest.mark.parametrize("kind", ["keep", "rgb", "random"])
def test_the_depth_connector_s_start(kind):
    model, _ = make_tiny(params=TINY.model_copy(update={"depth": "relative"}))
    extractor = model.region_extractor
    before = extractor.depth_projector.weight.detach().clone()
    start_depth(model, TrainParams(depth_init=kind), seed=1)
    after = extractor.depth_projector.weight
    assert torch.equal(after, before) == (kind == "keep")
    assert torch.equal(after, extractor.rgb_projector.weight) == (kind == "rgb")
    assert after.data_ptr() != extractor.rgb_projector.weight.data_ptr()
    first = after.detach().clone()
    start_depth(model, TrainParams(depth_init=kind), seed=1)
    assert torch.equal(extractor.depth_projector.weight, first)


def test_checkpointed_activations_give_the_same_gradients():
    gradients = []
    for checkpointing in (False, True):
        model, processor = make_tiny()
        params = TrainParams(gradient_checkpointing=checkpointing, trainable=["mm_projector", "llm"])
        choose(model, params)
        prepare(model, params)
        assert model.training
        assert model.llm.is_gradient_checkpointing == checkpointing
        assert model.vision_tower.is_gradient_checkpointing == checkpointing
        model(**make_batch(processor)).loss.backward()
        gradients.append({n: p.grad for n, p in model.named_parameters() if p.requires_grad})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name])


def test_checkpointing_under_adapters_on_a_frozen_model():
    model, processor = make_tiny()
    params = TrainParams(gradient_checkpointing=True, lora=LoraParams(rank=2), trainable=["mm_projector"])
    add_adapters(model, params.lora, seed=0)
    choose(model, params)
    prepare(model, params)
    model(**make_batch(processor)).loss.backward()
    up = {n: p.grad for n, p in model.named_parameters() if ".lora_B." in n}
    assert up
    assert all(g is not None and g.abs().sum() > 0 for g in up.values())


def test_attention_is_set_or_refused():
    model, processor = make_tiny()
    prepare(model, TrainParams(attention="eager"))
    assert model.vision_tower.config._attn_implementation == "eager"
    assert model.llm.config._attn_implementation == PACKED
    eager = model(**make_batch(processor)).loss
    prepare(model, TrainParams(attention="sdpa"))
    assert model.vision_tower.config._attn_implementation == "sdpa"
    torch.testing.assert_close(model(**make_batch(processor)).loss, eager)
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match=r"flash_attention_2' needs a CUDA device.*use sdpa"):
            prepare(model, TrainParams(attention="flash_attention_2"))
