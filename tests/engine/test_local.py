"""Mapping over shards: every task once, errors surface, a killed worker is named."""

import os
import signal
from functools import partial
from pathlib import Path

import pytest

from srgpt.engine import map_shards
from srgpt.errors import SrgptError


def touch(folder: Path, name: str) -> None:
    with (folder / name).open("a") as file:
        file.write("x")


def fail(name: str) -> None:
    raise SrgptError(f"cannot do {name}")


def die(_: str) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("workers", [1, 2])
def test_every_task_runs_once(tmp_path: Path, workers: int) -> None:
    map_shards(partial(touch, tmp_path), ["a", "b", "c"], workers=workers)
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {"a": "x", "b": "x", "c": "x"}


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_surfaces(workers: int) -> None:
    with pytest.raises(SrgptError, match="cannot do"):
        map_shards(fail, ["a", "b"], workers=workers)


def test_a_killed_worker_is_an_error_that_says_what_to_do() -> None:
    with pytest.raises(SrgptError, match="worker process was killed"):
        map_shards(die, ["a", "b"], workers=2, description="lift")
