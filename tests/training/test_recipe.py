"""The recipe: schedule, groups, precision."""

import math
from itertools import pairwise

import pytest
import torch

from srgpt.params import TrainParams
from srgpt.training.engine import deepspeed_config
from srgpt.training.recipe import learning_rate, parameter_groups, precision
from tests.model.tiny import make_tiny


def test_schedule_warms_up_and_falls_as_a_cosine():
    params = TrainParams(steps=110, warmup_share=10 / 110, learning_rate=1.0)
    rates = [learning_rate(s, params) for s in range(111)]
    assert rates[:10] == pytest.approx([0.1 * k for k in range(1, 11)])
    assert rates[60] == pytest.approx(0.5)
    assert rates[110] == pytest.approx(0.0)
    assert rates[35] == pytest.approx(0.5 * (1 + math.cos(math.pi / 4)))
    assert all(a >= b for a, b in pairwise(rates[9:]))


def test_groups_hold_every_trained_parameter_once():
    model, _ = make_tiny()
    decayed, plain = parameter_groups(model, TrainParams(weight_decay=0.1))
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.1, 0.0)
    found = [id(p) for g in (decayed, plain) for p in g["params"]]
    assert len(found) == len(set(found))
    assert set(found) == {id(p) for p in model.parameters() if p.requires_grad}
    position = model.vision_tower.embeddings.position_embedding.weight
    assert id(position) not in found
    assert any(p is model.get_input_embeddings().weight for p in plain["params"])
    assert any(p is model.region_extractor.rgb_projector.weight for p in decayed["params"])
    assert all(p.ndim >= 2 for p in decayed["params"])


def test_the_vision_side_has_a_rate_of_its_own():
    model, _ = make_tiny()
    groups = parameter_groups(model, TrainParams(rates={"vision_tower": 0.25, "region_extractor": 0.25}))
    rates = {id(p): g["rate"] for g in groups for p in g["params"]}
    assert rates[id(model.vision_tower.embeddings.patch_embedding.weight)] == 0.25
    assert rates[id(model.region_extractor.rgb_projector.bias)] == 0.25
    assert rates[id(model.mm_projector.layers[2].weight)] == 1.0
    assert rates[id(model.get_input_embeddings().weight)] == 1.0


def test_precision_follows_the_device_unless_told():
    expected = torch.bfloat16 if torch.cuda.is_available() else torch.float32
    assert precision(TrainParams()) == expected
    assert precision(TrainParams(dtype="bfloat16")) == torch.bfloat16


def test_nothing_needs_a_compiler():
    config = deepspeed_config(TrainParams(zero_stage=3))
    assert "optimizer" not in config  # it is handed over, torch's own
    assert config["zero_optimization"]["stage"] == 3
