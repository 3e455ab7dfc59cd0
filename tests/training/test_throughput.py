"""Counting what a batch costs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from srgpt.model import SrgptForConditionalGeneration
from srgpt.model.region import UPSAMPLING, pooling_weights
from srgpt.training.throughput import Work, matrix_rate, memory
from tests.model.tiny import TINY, make_tiny


def batch_of(images: int, length: int) -> dict[str, Any]:
    return {
        "position_ids": torch.arange(length).expand(2, -1),
        "labels": torch.full((2, length), -100).index_fill(1, torch.tensor([length - 1]), 5),
        "pixel_values": torch.zeros(images, 3, 28, 28),
        "depth_values": torch.zeros(images, 3, 28, 28),
    }


def eager() -> SrgptForConditionalGeneration:
    """Return a model whose attention torch counts: it does not count fused attention on a CPU."""
    model, _ = make_tiny()
    model.set_attn_implementation("eager")
    return model


def test_the_tower_is_counted_as_torch_counts_it() -> None:
    model = eager()
    work = Work(model)
    with FlopCounterMode(display=False) as counter:
        model.vision_tower(torch.zeros(3, 3, 28, 28), output_hidden_states=True)
    counted = counter.get_total_flops()
    # forward is a third of the work where everything is trained
    mine = 3 * (work.tower.token * work.patches + work.tower.pair * work.patches**2) / 3  # 3 images
    assert mine == pytest.approx(counted, rel=0.01)


def test_the_language_model_is_counted_as_torch_counts_it() -> None:
    model = eager()
    work = Work(model)
    with FlopCounterMode(display=False) as counter:
        model.llm(torch.zeros((1, 64), dtype=torch.long))
    # torch counts every pair of tokens, hidden or not
    mine = (work.body.token * 64 + work.body.pair * 64**2 + work.head.token * 64) / 3
    assert mine == pytest.approx(counter.get_total_flops(), rel=0.01)


@pytest.mark.parametrize("depth", ["none", "relative", "metric"])
def test_regions_are_counted_as_torch_counts_them(depth: str) -> None:
    model, _ = make_tiny(params=TINY.model_copy(update={"depth": depth}))
    work, extractor, channels = Work(model), model.region_extractor, model.config.vision_config.hidden_size
    grid, masks, images = model.config.grid, torch.ones((5, 28, 28)), torch.zeros(5, dtype=torch.long)
    with FlopCounterMode(display=False) as counter:
        fine = torch.zeros((1, (UPSAMPLING * grid) ** 2, channels))
        extractor.rgb_projector(extractor.pool(fine, masks, images, UPSAMPLING * grid))
        if depth == "relative":
            coarse = torch.zeros((1, grid**2, channels))
            extractor.depth_projector(extractor.pool(coarse, masks, images, grid))
        if depth == "metric":
            extractor.point_encoder(torch.ones((5, 16, 3)))
    with FlopCounterMode(display=False) as other:
        for side in {grid, UPSAMPLING * grid} if depth == "relative" else {UPSAMPLING * grid}:
            pooling_weights(masks, side, "area")  # of masks, no work of the model's
    counted = counter.get_total_flops() - other.get_total_flops()
    pooling = 5 * 2 * channels * grid**2 * (UPSAMPLING**2 + (depth == "relative"))
    # a third is forward, but of pooling a half: its weights have no gradient
    assert (5 * work.region + 5 * 16 * work.point - 2 * pooling) / 3 + pooling == pytest.approx(counted)


def test_what_is_frozen_costs_less() -> None:
    model, _ = make_tiny()
    batch = batch_of(2, 20)
    whole = Work(model)(batch)
    model.vision_tower.requires_grad_(False)
    tower = Work(model).tower
    assert tower.token == pytest.approx(Work(make_tiny()[0]).tower.token / 3, rel=0.1)
    frozen = Work(model)(batch)
    model.llm.requires_grad_(False)
    # the connectors are trained still: gradients pass through the language model
    passed = Work(model)
    assert passed.body.token == pytest.approx(Work(make_tiny()[0]).body.token * 2 / 3)
    assert whole > frozen > passed(batch)


def test_work_grows_with_pictures_and_tokens() -> None:
    work = Work(make_tiny()[0])
    assert work(batch_of(2, 20)) < work(batch_of(3, 20)) < work(batch_of(3, 40))


def test_the_matrix_rate_is_measured_once_and_draws_no_random_number() -> None:
    state = torch.get_rng_state()
    rate = matrix_rate("cpu", torch.float32)
    assert rate > 1e8
    assert matrix_rate("cpu", torch.float32) == rate
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_matrix_rate_of_a_gpu_is_beyond_a_cpu() -> None:
    assert matrix_rate("cuda", torch.bfloat16) > 10 * matrix_rate("cpu", torch.float32)
    assert memory()["gpu_memory_gb"] > 0


def test_memory_is_that_of_the_process() -> None:
    assert 0.05 < memory()["memory_gb"] < 1000
