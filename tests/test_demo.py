from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from srgpt import demo
from srgpt.cli import app
from srgpt.errors import InputError
from srgpt.model.drawing import colour_of
from srgpt.records import decode_rle
from srgpt.serving.protocol import Answer
from tests.export import tiny

ANSWER = Answer("Region [0] is to the left, so yes.", 1.0, "truth", "srgpt_v1@abc")


def test_a_question_with_its_scene_is_chosen() -> None:
    scene, conversation, turn = demo.choose(tiny.benchmark())
    assert (scene.scene_id, turn.category) == (conversation.scene_id, "left_predicate")


def test_the_picture_shows_the_masks_that_were_asked_about() -> None:
    scene = tiny.scenes()[3]
    conversation = tiny.conversation(scene)
    turn = conversation.turns[0]
    drawn = np.asarray(demo.draw(scene, conversation, turn, ANSWER))
    height = round(896 * scene.height / scene.width)
    assert drawn.shape[1] == 896
    assert (drawn[height + 1 :] < 128).any(), "text below the picture"
    region = next(r for r in conversation.regions if r.id == turn.regions[0])
    rows, columns = np.nonzero(decode_rle(region.rle))
    left, mask_bottom, box_bottom = 16 * columns.min(), 16 * (rows.max() + 1), round(16 * region.bbox[3])
    assert mask_bottom > box_bottom + 32
    edge = (drawn[:height] == tuple(bytes.fromhex(colour_of(0)[1:]))).all(axis=-1)[:, left + 40 : left + 120]
    assert edge[mask_bottom - 6 : mask_bottom + 6].any()
    assert not edge[box_bottom - 6 : box_bottom + 6].any()


def test_the_served_model_is_asked_by_its_own_name(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    class Client:
        def __init__(self, url: str, *, model: str) -> None:
            asked.extend((url, model))

        def __enter__(self) -> Client:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def ask(self, *_: object, **__: object) -> Answer:
            return ANSWER

    monkeypatch.setattr(demo, "Client", Client)
    params = tiny.params(promote={"model_name": "other"}, serve={"grpc_port": 7001})
    assert demo.ask(params, *demo.choose(tiny.benchmark())) == ANSWER
    assert asked == ["127.0.0.1:7001", "other"]


def test_the_flow_gets_profile_and_overrides(monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[list[str]] = []
    monkeypatch.setattr(demo.process, "run", commands.append)
    monkeypatch.setattr(demo, "summarise", lambda _: None)
    demo.run(tiny.params(), profile="demo", overrides=["train.steps=3"])
    assert commands[0] == [
        sys.executable, "-m", "flows.retrain", "--profile", "demo", "--set", "train.steps=3",
    ]  # fmt: skip


def test_another_parameter_file_becomes_the_pipelines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demo, "run", lambda params, **_: None)
    (tmp_path / "params.yaml").write_text("seed: 1\n")
    (tmp_path / "other.yaml").write_text("seed: 2\n")
    assert CliRunner().invoke(app, ["demo", "--params", "other.yaml"]).exit_code == 0
    assert (tmp_path / "params.yaml").read_text() == "seed: 2\n"
    wrong = CliRunner().invoke(app, ["demo", "--params", "nowhere.yaml"])
    assert isinstance(wrong.exception, InputError)
    assert (tmp_path / "params.yaml").read_text() == "seed: 2\n"
