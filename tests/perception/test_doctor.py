"""What doctor says about perception's models."""

import io

import pytest
from rich.console import Console

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


def test_what_to_do_is_told_whole_however_narrow_the_terminal():
    command = f"`hf download {'owner/' + 'long-name-' * 12} --revision {'0' * 40}`"
    shown = doctor.table(
        [
            doctor.Finding("perceive: depth", "owner/" + "x" * 100, False, command),
            doctor.Finding("disk", "[plenty]", True, "free some"),
        ]
    )
    console = Console(file=io.StringIO(), width=60)
    console.print(shown, highlight=False, soft_wrap=True)
    text = console.file.getvalue()
    assert f"\nperceive: depth: {command}\n" in text
    assert text.count("x") == 100
    assert "[plenty]" in text
    assert "free some" not in text
    assert "…" not in text
