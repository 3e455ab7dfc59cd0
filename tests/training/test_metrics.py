"""Points to the tracking server: delivered in order, kept through an outage, never lost."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from srgpt.errors import SrgptError
from srgpt.training.metrics import Delivery


class Server:
    def __init__(self) -> None:
        self.up = True
        self.asked = 0
        self.steps: list[int] = []

    def __call__(self, values: Mapping[str, float], step: int) -> None:
        self.asked += 1
        if not self.up:
            raise SrgptError("MLflow at http://somewhere: no answer")
        self.steps.append(step)


def test_points_wait_for_the_server_and_keep_their_order(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server = Server()
    deliver = Delivery(server, pause=0)
    for step in range(6):
        server.up = step not in (2, 3)
        deliver({"loss": 1.0}, step)
    assert server.steps == [0, 1, 2, 3, 4, 5]
    assert len(caplog.records) == 1
    assert "no answer" in caplog.text
    deliver.close(tmp_path / "left.json")
    assert not (tmp_path / "left.json").exists()


def test_a_server_that_does_not_answer_is_left_alone_for_a_while(tmp_path: Path) -> None:
    server = Server()
    server.up = False
    deliver = Delivery(server, pause=1000)
    for step in range(5):
        deliver({"loss": 1.0}, step)
    assert server.asked == 1
    deliver.close(tmp_path / "left.json")
    assert server.asked == 2
    assert json.loads((tmp_path / "left.json").read_text()) == [[i, {"loss": 1.0}] for i in range(5)]


def test_other_errors_are_not_taken_for_an_outage() -> None:
    def broken(values: Mapping[str, float], step: int) -> None:
        raise KeyError("loss")

    with pytest.raises(KeyError):
        Delivery(broken)({"loss": 1.0}, 1)
