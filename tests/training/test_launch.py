"""Launching: nodes that train together, and a training that is asked to stop."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from srgpt.errors import InputError
from srgpt.params import TrainParams
from srgpt.storage import work_url
from srgpt.training.launch import Node, _environment, free_port
from tests.training.data import tiny_params, write_dataset


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_dataset(tmp_path_factory.mktemp("data"))


@pytest.fixture
def start(tmp_path: Path, source: str, root: Path) -> Any:
    """Start `srgpt train` as a person would; what is left running is ended."""
    started = []

    def function(*arguments: str, env: dict[str, str] | None = None, **section: Any) -> subprocess.Popen[str]:
        path = tmp_path / "params.yaml"
        path.write_text(yaml.safe_dump(tiny_params(tmp_path, **section).dump()))
        command = [sys.executable, "-m", "srgpt.cli", "train", "--params", str(path), "--in", source]
        process = subprocess.Popen(
            [*command, "--out", str(tmp_path / "model"), *arguments],
            env={**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1", **(env or {})},
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield function
    for process in started:
        if process.poll() is None:
            process.kill()
        process.wait()


def until(condition: Callable[[], Any], seconds: float = 240) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.05)
    return found


def stage_folder(folder: Path) -> Path:
    return Path(work_url(str(folder / "model"))) / "1-instruct"


def checkpoint_of(folder: Path) -> dict[str, Any]:
    path = stage_folder(folder) / "checkpoints" / "latest.json"
    return json.loads(path.read_text()) if path.exists() else {}


# Stopping ---------------------------------------------------------------------------------------------------


def ranks_of(work: Path) -> list[int]:
    job = str(work / "job.json").encode()
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                arguments = (folder / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if job in arguments and b"torch.distributed.run" not in arguments:
                found.append(int(folder.name))
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "to_a_rank"),
    [(signal.SIGTERM, False), (signal.SIGINT, False), (signal.SIGTERM, True)],
    ids=["term", "interrupt", "term-to-a-rank"],
)
def test_a_signal_writes_a_checkpoint_and_does_not_count_as_success(
    tmp_path: Path, start: Callable[..., subprocess.Popen[str]], number: signal.Signals, to_a_rank: bool
) -> None:
    section = {
        "steps": 100_000,
        "checkpoint_steps": 1_000_000,
        "batch_images": 2,
        "ranks": 2,
        "zero_stage": 2,
    }
    process = start(**section)
    work = stage_folder(tmp_path)
    assert process.stderr is not None
    while not (line := process.stderr.readline()).startswith("train: "):
        assert line, "ended before its first step"
    os.kill(ranks_of(work)[-1] if to_a_rank else process.pid, number)
    said = process.stderr.read()
    assert process.wait() == 1
    step = checkpoint_of(tmp_path)["progress"]["step"]
    assert step > 1
    # the message is wrapped to nobody's width
    assert (
        f"after step {step} of 100000, whose checkpoint is kept. The same command goes on from there" in said
    )
    assert "Traceback" not in said
    assert ("a checkpoint after the current step" in said) is not to_a_rank
    assert not (tmp_path / "model").exists()
    assert ranks_of(work) == []


# Nodes ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_two_nodes_come_to_what_two_ranks_do(
    tmp_path: Path, start: Callable[..., subprocess.Popen[str]]
) -> None:
    env = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    second = start("--node-rank", "1", env=env, batch_images=2, nodes=2)
    first = start(env={**env, "NODE_RANK": "0"}, batch_images=2, nodes=2)
    said = [process.communicate()[1] for process in (first, second)]
    assert (first.returncode, second.returncode) == (0, 0), said
    assert "node 0 writes the model" in said[1]
    apart = json.loads((tmp_path / "model" / "training.json").read_text())
    assert {p.name for p in tmp_path.iterdir() if p.name.startswith(".model")} == set()
    together = start(batch_images=2, ranks=2)
    assert together.wait() == 0
    summary = json.loads((tmp_path / "model" / "training.json").read_text())
    assert apart["ranks"] == summary["ranks"] == 2
    assert apart["final_loss"] == pytest.approx(
        summary["final_loss"], abs=1e-5
    )  # threads are shared otherwise


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in ("NODE_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def test_one_node_needs_no_environment(environment: pytest.MonkeyPatch) -> None:
    assert Node.find(TrainParams()) == Node(0, 1, "127.0.0.1", 0)
    with pytest.raises(InputError, match=r"--node-rank 1: train\.nodes is 1"):
        Node.find(TrainParams(), 1)


def test_a_node_is_found_in_the_environment(environment: pytest.MonkeyPatch) -> None:
    params = TrainParams(nodes=3)
    environment.setenv("MASTER_ADDR", "node-0.srgpt")
    environment.setenv("NODE_RANK", "2")
    assert Node.find(params) == Node(2, 3, "node-0.srgpt", 29500)
    environment.setenv("MASTER_PORT", "4000")
    assert Node.find(params, 0) == Node(0, 3, "node-0.srgpt", 4000)
    with pytest.raises(InputError, match="node rank 3: expected 0 to 2"):
        Node.find(params, 3)
    environment.setenv("NODE_RANK", "two")
    with pytest.raises(InputError, match="NODE_RANK=two: expected a number"):
        Node.find(params)
    environment.delenv("MASTER_ADDR")
    with pytest.raises(InputError, match="MASTER_ADDR"):
        Node.find(params, 1)


def test_torchrun_gives_its_ranks_the_time_that_the_scheduler_gives(environment: pytest.MonkeyPatch) -> None:
    environment.delenv("SRGPT_GRACE", raising=False)
    assert "TORCH_ELASTIC_SHUTDOWN_TIMEOUT" not in _environment(TrainParams(), Node())
    environment.setenv("SRGPT_GRACE", "120")
    assert _environment(TrainParams(), Node())["TORCH_ELASTIC_SHUTDOWN_TIMEOUT"] == "120"


def test_cores_are_shared_unless_threads_are_given(environment: pytest.MonkeyPatch) -> None:
    environment.setattr("os.sched_getaffinity", lambda pid: set(range(8)))
    environment.delenv("OMP_NUM_THREADS", raising=False)
    assert _environment(TrainParams(ranks=2), Node())["OMP_NUM_THREADS"] == "4"
    assert _environment(TrainParams(ranks=2, threads=1), Node())["OMP_NUM_THREADS"] == "1"
    environment.setenv("OMP_NUM_THREADS", "3")
    assert "OMP_NUM_THREADS" not in _environment(TrainParams(ranks=2), Node())
    assert _environment(TrainParams(threads=2), Node())["OMP_NUM_THREADS"] == "2"
