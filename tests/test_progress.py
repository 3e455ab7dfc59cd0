"""Progress: counts in words, lines for a log, a bar for a terminal."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from srgpt import progress
from srgpt.progress import counts, tally


def test_counts_in_words() -> None:
    assert counts({}) == ""
    assert counts({"a-b": 1, "c": 3, "b": 1}, "set aside") == "5 set aside (3 c, 1 a-b, 1 b)"


def test_a_log_gets_rate_time_left_and_rejects(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "_LOG_EVERY", 0.0)
    with tally("lift train", total=4, unit="scenes") as counted:
        counted.reject({"broken-depth": 1})
        counted.count(1)
        counted.count(3)
    lines = capsys.readouterr().err.splitlines()
    told = r"lift train: 1/4 scenes 1 set aside \(1 broken-depth\) \(0 s, [\d.]+/s, \d+ s left\)"
    assert re.fullmatch(told, lines[0])
    assert re.fullmatch(r"lift train: 4 scenes in 0\.\d s, [\d.]+ scenes/s", lines[-1])


def test_a_terminal_gets_a_bar_with_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(
        progress, "console", Console(file=screen, force_terminal=True, width=160, color_system=None)
    )
    with tally("lift train", total=4, unit="scenes") as counted:
        counted.count(1)
        counted.reject({"broken-depth": 1})
        counted.say("part-00000.parquet: a worker died [at item 3]")
        counted.count(3)
    shown = screen.getvalue()
    assert "4/4 scenes" in shown
    assert "1 set aside (1 broken-depth)" in shown
    assert "a worker died [at item 3]" in shown
    assert "scenes/s" in shown
