"""Stages trained for real: each from the model before, frozen parts untouched, adapters merged, fine-tuning."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest
import torch
from safetensors.torch import load_file

from srgpt.model.loading import load_model
from srgpt.stages.train import run
from srgpt.tracking import Lineage, connect, start_run
from srgpt.training.launch import launch
from srgpt.training.plan import plan
from srgpt.training.worker import Job
from tests.training.data import OVERRIDES, tiny_params, write_dataset


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def base(tmp_path_factory, source):
    """A model to start from."""
    folder = tmp_path_factory.mktemp("base")
    run(tiny_params(folder, steps=2), source=source, out=str(folder / "model"))
    return folder / "model"


def changed(one, two):
    """The parts of the model whose weights differ between two folders."""
    first, second = (load_file(folder / "model.safetensors") for folder in (one, two))
    assert first.keys() == second.keys()
    return {name.partition(".")[0] for name in first if not torch.equal(first[name], second[name])}


def test_two_stages_on_one_axis_of_steps(tmp_path, source):
    params = tiny_params(
        tmp_path,
        log_steps=1,
        stages=[
            {"name": "align", "steps": 2, "trainable": ["mm_projector", "region_extractor"]},
            {"name": "instruct", "epochs": 1, "batch_images": 3, "learning_rate": 1e-4},
        ],
    )
    summary = run(params, source=source, out=str(tmp_path / "model"))
    assert [(s["name"], s["steps"], s["samples_seen"]) for s in summary["stages"]] == [
        ("align", 2, 8),
        ("instruct", 4, 12),
    ]
    assert (summary["steps"], summary["samples_seen"]) == (6, 20)
    assert summary["stages"][0]["trained_parameters"] < summary["stages"][1]["trained_parameters"]
    run_id = json.loads((tmp_path / "model" / "lineage.json").read_text())["run_id"]
    client = connect(params.tracking)
    history = client.get_metric_history(run_id, "train/loss")
    assert sorted(m.step for m in history) == [1, 2, 3, 4, 5, 6]
    stages = {m.step: m.value for m in client.get_metric_history(run_id, "train/stage")}
    assert stages == {1: 1, 2: 1, 3: 2, 4: 2, 5: 2, 6: 2}
    rates = {m.step: m.value for m in client.get_metric_history(run_id, "train/learning_rate")}
    assert max(rates[1], rates[2]) == 5e-3
    assert max(rates[s] for s in (3, 4, 5, 6)) == 1e-4
    load_model(tmp_path / "model")


@pytest.mark.parametrize("zero", [2, *(pytest.param(z, marks=pytest.mark.slow) for z in (0, 1, 3))])
def test_adapters_on_a_model_that_was_trained_before(tmp_path, source, base, zero):
    lora = {"rank": 2, "targets": ["llm", "region_extractor.point_encoder"]}
    params = tiny_params(
        tmp_path, init=str(base), lora=lora, trainable=["mm_projector"], zero_stage=zero, steps=3
    )
    summary = run(params, source=source, out=str(tmp_path / "model"))
    assert changed(base, tmp_path / "model") == {"llm", "mm_projector", "region_extractor"}
    weights = [load_file(f / "model.safetensors") for f in (base, tmp_path / "model")]
    for name in (
        "region_extractor.rgb_projector.weight",
        "llm.model.embed_tokens.weight",
        "llm.model.norm.weight",
    ):
        assert torch.equal(weights[0][name], weights[1][name])
    assert 0 < summary["trained_parameters"] < summary["parameters"] / 2
    adapter = load_file(tmp_path / "model" / "adapter" / "adapter_model.safetensors")
    name = "llm.model.layers.0.mlp.up_proj"
    a, b = (adapter[f"base_model.model.{name}.lora_{k}.weight"] for k in "AB")
    expected = weights[0][f"{name}.weight"] + 32 / 2 * (b @ a)
    torch.testing.assert_close(weights[1][f"{name}.weight"], expected)
    assert (b @ a).abs().max() > 0
    tokenizers = [(f / "tokenizer.json").read_text() for f in (base, tmp_path / "model")]
    assert tokenizers[0] == tokenizers[1]


def test_a_depth_connector_that_starts_from_the_rgb_one(tmp_path, source):
    relative = {**OVERRIDES["train"]["model"], "depth": "relative"}
    params = tiny_params(tmp_path, model=relative, depth_init="rgb", trainable=["mm_projector"], steps=1)
    run(params, source=source, out=str(tmp_path / "model"))
    weights = load_file(tmp_path / "model" / "model.safetensors")
    extractor = "region_extractor.{}_projector.weight"
    assert torch.equal(weights[extractor.format("depth")], weights[extractor.format("rgb")])


@pytest.mark.parametrize("zero", [0, *(pytest.param(z, marks=pytest.mark.slow) for z in (1, 2, 3))])
def test_adapters_go_on_from_a_checkpoint_to_the_same_weights(tmp_path, source, base, zero):
    lora = {"rank": 2, "dropout": 0.3}
    params = tiny_params(tmp_path, init=str(base), lora=lora, trainable=["mm_projector"], zero_stage=zero)
    (stage,) = plan(params, source)
    connect(params.tracking)
    with start_run(params.tracking, "test", stage="train", lineage=Lineage.of(params, {})) as active:
        sources = [asdict(s) for s in stage.sources]
        job = Job(params.dump(), 0, sources, {}, str(tmp_path / "work"), active.id, str(base))
        (tmp_path / "work").mkdir()
        found = []
        for _ in range(2):  # checkpoints of steps 2 and 4 stay, as after a kill at step 5
            launch(job, stage.params, tmp_path / "job.json")
            summary = json.loads((tmp_path / "work" / "training.json").read_text())
            found.append(
                (
                    summary["resumed_at"],
                    summary["final_loss"],
                    load_file(tmp_path / "work" / "model.safetensors"),
                )
            )
    (first, loss, weights), (second, loss_again, again) = found
    assert (first, second) == (0, 4)
    assert loss == loss_again
    assert all(torch.equal(weights[name], again[name]) for name in weights)
