"""Muon and AdamW as one optimizer."""

from __future__ import annotations

import copy

import pytest
import torch

from srgpt.errors import InputError
from srgpt.params import TrainParams
from srgpt.training.lora import add_adapters
from srgpt.training.optimizer import make_optimizer
from srgpt.training.recipe import parameter_groups, precision
from srgpt.training.trainable import choose
from tests.model.tiny import make_tiny

PARAMS = TrainParams(muon=["llm.model.layers", "region_extractor.*_projector.weight"], weight_decay=0.1)


def started(params: TrainParams = PARAMS):
    torch.manual_seed(0)
    model, _ = make_tiny()
    return model, make_optimizer(parameter_groups(model, params), params)


def train(model, optimizer, steps, seed=0):
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.grad = torch.randn(parameter.shape, generator=generator)
        optimizer.step()


def test_muon_has_the_matrices_that_are_named_and_adamw_the_rest():
    model, optimizer = started()
    muon = {id(p) for g in optimizer.param_groups if g["muon"] for p in g["params"]}
    names = {n for n, p in model.named_parameters() if id(p) in muon}
    assert "llm.model.layers.0.self_attn.q_proj.weight" in names
    assert "region_extractor.rgb_projector.weight" in names
    assert all(n.startswith(("llm.model.layers.", "region_extractor.")) for n in names)
    assert not any("norm" in n or n.endswith("bias") for n in names)
    everything = [id(p) for g in optimizer.param_groups for p in g["params"]]
    assert len(everything) == len(set(everything))
    assert set(everything) == {id(p) for p in model.parameters() if p.requires_grad}


def test_a_step_is_about_as_large_as_adamws():
    model, optimizer = started(PARAMS.model_copy(update={"weight_decay": 0.0}))
    before = copy.deepcopy(model.state_dict())
    for group in optimizer.param_groups:
        group["lr"] = 0.01
    train(model, optimizer, 1)
    for name in ("llm.model.layers.0.mlp.up_proj.weight", "llm.lm_head.weight"):
        moved = (model.state_dict()[name] - before[name]).square().mean().sqrt()
        # Muon's is about 0.2 of the rate, as AdamW's are once its gradients disagree; its first one is all of it
        assert 0.0015 < moved < 0.012, name


def test_a_rate_that_is_set_from_outside_counts_for_both():
    model, optimizer = started()
    before = copy.deepcopy(model.state_dict())
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    train(model, optimizer, 1)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_a_loaded_state_goes_on_exactly():
    model, optimizer = started()
    train(model, optimizer, 3)
    saved, weights = copy.deepcopy(optimizer.state_dict()), copy.deepcopy(model.state_dict())
    train(model, optimizer, 2, seed=1)
    again, other = started()
    again.load_state_dict(weights)
    other.load_state_dict(saved)
    train(again, other, 2, seed=1)
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in model.state_dict().items())
    for group in other.param_groups:  # still those that the steps are taken by
        group["lr"] = 0.0
    train(again, other, 1)
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in model.state_dict().items())


def test_adapters_ends_and_what_is_no_matrix_are_not_for_muon():
    model, _ = make_tiny()
    params = TrainParams(muon=["llm", "vision_tower"])
    groups = parameter_groups(model, params)
    muon = {id(p) for g in groups if g["muon"] for p in g["params"]}
    assert id(model.get_input_embeddings().weight) not in muon
    assert id(model.get_output_embeddings().weight) not in muon
    assert id(model.vision_tower.embeddings.patch_embedding.weight) not in muon
    lora = {"rank": 2, "alpha": 4, "targets": ["llm"]}
    params = TrainParams(muon=["llm"], lora=lora, trainable=["mm_projector"])
    add_adapters(model, params.lora, 0)
    choose(model, params)
    with pytest.raises(
        InputError, match=r"names no hidden layer's matrix that is trained; set train\.muon=\[\]"
    ):
        parameter_groups(model, params)


def test_a_pattern_that_fits_nothing_is_an_error_but_not_another_form_of_depth():
    model, _ = make_tiny()
    with pytest.raises(InputError, match=r"train\.muon: 'llm\.layers' fits no parameter"):
        choose(model, TrainParams(muon=["llm.layers"]))
    choose(
        model,
        TrainParams(muon=["region_extractor.point_encoder"], rates={"region_extractor.depth_projector": 1}),
    )


@pytest.mark.parametrize("bad", [{"zero_stage": 1}, {"dtype": "bfloat16"}])
def test_it_needs_whole_matrices(bad):
    with pytest.raises(ValueError, match="muon needs whole matrices in float32"):
        TrainParams(muon=["llm"], **bad)


def test_it_has_float32_where_the_device_would_choose_otherwise(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert precision(PARAMS) == torch.float32
    assert precision(TrainParams()) == torch.bfloat16


def test_a_stage_may_go_without():
    stages = [{"name": "a"}, {"name": "b", "zero_stage": 2, "muon": []}]
    assert TrainParams(muon=["llm"], stages=stages).at(1).muon == []
    with pytest.raises(ValueError, match="stage b: muon needs whole matrices"):
        TrainParams(muon=["llm"], stages=[{"name": "a"}, {"name": "b", "zero_stage": 2}])
    offloaded = TrainParams(zero_stage=2, stages=[{"name": "a", "offload": "optimizer"}])
    assert offloaded.at(0).offload == "optimizer"
