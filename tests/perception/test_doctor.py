"""What doctor says about perception's models."""

import pytest

from srgpt import doctor
from srgpt.params import build


@pytest.fixture(autouse=True)
def _empty_cache(tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))


def findings(**params):
    return {f.what: f for f in doctor._models(build(params))}


def test_unused_models_may_be_absent():
    found = findings()
    assert len(found) == 7
    assert all(f.good for f in found.values())
    depth = found["perceive: metric depth"].found
    assert depth == "Intel/zoedepth-nyu-kitti: not here; mit; not used (perceive.depth=given)"


def test_a_used_model_that_is_absent_is_named_with_its_command():
    found = findings(perceive={"regions": "model", "detection": {"revision": "abc"}})["perceive: detection"]
    assert not found.good
    assert found.advice == "`hf download IDEA-Research/grounding-dino-tiny --revision abc`"
    assert "used on cpu" in found.found


def test_what_only_one_dataset_uses_counts():
    datasets = {"train": {"perceive": {"depth": "model"}}, "bench": {}}
    assert not findings(datasets=datasets)["perceive: metric depth"].good


def test_a_model_that_is_here_is_measured(checkpoint):
    settings = {"masks": "model", "segmentation": {"model": checkpoint("sam2")}}
    found = findings(perceive=settings)["perceive: segmentation"]
    assert found.good
    assert "here, 1 MiB" in found.found or "here, 0 MiB" in found.found
    assert "unknown licence" in found.found
