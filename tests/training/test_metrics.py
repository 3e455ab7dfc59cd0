"""Points to the tracking server: delivered in order, kept through an outage, never lost."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from srgpt.errors import SrgptError
from srgpt.training.delivery import Delivery
from srgpt.training.metrics import Reporter, Step


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
    deliver = Delivery(server, tmp_path / "left.json", pause=0)
    for step in range(6):
        server.up = step not in (2, 3)
        deliver({"loss": 1.0}, step)
    assert server.steps == [0, 1, 2, 3, 4, 5]
    assert len(caplog.records) == 1
    assert "no answer" in caplog.text
    deliver.close()
    assert not (tmp_path / "left.json").exists()


def test_a_server_that_does_not_answer_is_left_alone_for_a_while(tmp_path: Path) -> None:
    server = Server()
    server.up = False
    deliver = Delivery(server, tmp_path / "left.json", pause=1000)
    for step in range(5):
        deliver({"loss": 1.0}, step)
    assert server.asked == 1
    deliver.close()
    assert server.asked == 2
    assert json.loads((tmp_path / "left.json").read_text()) == [[i, {"loss": 1.0}] for i in range(5)]


def test_what_waits_outlives_its_process_even_where_that_is_killed(tmp_path: Path) -> None:
    server, left = Server(), tmp_path / "left.json"
    server.up = False
    for first in (0, 2):  # two processes, neither of which is closed
        deliver = Delivery(server, left, pause=1000)
        for step in (first, first + 1):
            deliver({"loss": 1.0}, step)
    server.up = True
    Delivery(server, left)({"loss": 1.0}, 4)
    assert server.steps == [0, 1, 2, 3, 4]
    assert not left.exists()


def test_other_errors_are_not_taken_for_an_outage(tmp_path: Path) -> None:
    def broken(values: Mapping[str, float], step: int) -> None:
        raise KeyError("loss")

    with pytest.raises(KeyError):
        Delivery(broken, tmp_path / "left.json")({"loss": 1.0}, 1)


def test_a_page_waits_as_a_point_does_and_goes_once_sent(tmp_path: Path) -> None:
    server, sent = Server(), []

    def send_page(page: Path) -> None:
        if not server.up:
            raise SrgptError("MLflow at http://somewhere: no answer")
        sent.append(page.name)

    (tmp_path / "step-000002.html").write_text("<p>")
    deliver = Delivery(server, tmp_path / "left.json", pause=0, send_page=send_page, pages=tmp_path)
    server.up = False
    deliver({}, 2)
    assert sent == []
    assert (tmp_path / "step-000002.html").exists()
    server.up = True
    deliver({}, 4)
    assert sent == ["step-000002.html"]
    assert list(tmp_path.iterdir()) == []


def test_reports_are_means_since_the_last() -> None:
    seen = []
    reporter = Reporter(lambda values, step: seen.append((step, values)), every=2, peak=100.0)
    losses = [{"width": (8.0, 4.0)}, {"width": (1.0, 2.0), "height": (3.0, 1.0)}, {}]
    for number, (loss, families) in enumerate(zip([4.0, 2.0, 1.0], losses, strict=True), start=1):
        step = Step(loss=loss, norm=1.5, tokens=10, labels=4, samples=2, flops=50.0, families=families)
        reporter.step(
            number, step, rates={"vision": 0.1, "language": 0.4}, tokens_seen=10 * number, seconds=36.0
        )
    assert [s for s, _ in seen] == [2]
    values = seen[0][1]
    assert values["train/loss"] == 3.0
    assert values["train/loss/width"] == 1.5
    assert values["train/loss/height"] == 3.0
    assert values["train/learning_rate"] == values["train/learning_rate/language"] == 0.4
    assert values["train/learning_rate/vision"] == 0.1
    assert (values["train/tokens_seen"], values["train/hours"]) == (20, 0.01)
    seconds = 20 / values["train/tokens_per_second"]
    assert values["train/label_tokens_per_second"] == pytest.approx(8 / seconds)
    assert values["train/mfu"] == pytest.approx(1.0 / seconds)
    reporter.flush(3)
    assert seen[1][0] == 3
    assert seen[1][1]["train/loss"] == 1.0
    reporter.flush(3)
    assert len(seen) == 2
