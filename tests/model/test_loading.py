from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from srgpt.errors import InputError
from srgpt.model.loading import load_model
from srgpt.model.processing import FILE
from tests.model.tiny import make_tiny

HEAD = "llm.lm_head.weight"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    model, processor = make_tiny()
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    return tmp_path


def test_what_was_saved_is_what_is_read(folder: Path) -> None:
    model, _ = load_model(folder)
    saved = load_file(folder / "model.safetensors")
    assert not model.training
    assert torch.equal(model.state_dict()[HEAD], saved[HEAD])


def change_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop(HEAD), rf"1 missing \({HEAD}\)"),
        (lambda w: w.update(extra=torch.zeros(1)), r"1 unexpected \(extra\)"),
        (lambda w: w.update({HEAD: w[HEAD][:1].clone()}), rf"1 mismatched \({HEAD}\)"),
        (lambda w: [w.pop(k) for k in sorted(w)[:5]], r"5 missing \(.*, .*, .*, \.\.\.\)"),
    ],
)
def test_weights_of_another_model_are_refused(
    change: Callable[[dict[str, torch.Tensor]], object], message: str, folder: Path
) -> None:
    change_weights(folder, change)
    with pytest.raises(InputError, match=message):
        load_model(folder)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def forget_a_setting(path: Path) -> None:
    settings = json.loads(path.read_text())
    path.write_text(json.dumps({k: v for k, v in settings.items() if k != "image_size"}))


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("model.safetensors", cut),
        ("model.safetensors", Path.unlink),
        ("config.json", cut),
        (FILE, cut),
        (FILE, forget_a_setting),
        ("tokenizer.json", cut),
    ],
)
def test_a_damaged_file_is_an_input_error(name: str, damage: Callable[[Path], None], folder: Path) -> None:
    damage(folder / name)
    with pytest.raises(InputError, match="the model cannot be loaded"):
        load_model(folder)


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"config.json, {FILE} missing"):
        load_model(tmp_path)
