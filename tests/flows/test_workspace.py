"""One run per workspace, and what a cancelled or killed run leaves behind: nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from prefect import flow
from prefect.client.orchestration import get_client

from flows.workspace import exclusive, limit_name, lock_file
from srgpt.process import group_alive
from tests.flows.conftest import Workspace


def until(condition: Callable[[], object], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.05)


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def test_limit_is_per_folder_and_made_on_demand(tmp_path: Path) -> None:
    @flow
    def hold() -> int:
        with exclusive(tmp_path), get_client(sync_client=True) as client:
            limit = client.read_global_concurrency_limit_by_name(limit_name(tmp_path))
            assert limit.limit == 1
            return limit.active_slots

    assert limit_name(tmp_path) != limit_name(tmp_path / "other")
    assert limit_name(tmp_path) == limit_name(tmp_path / "x" / "..")
    assert hold() == 1
    assert hold() == 1, "the slot was given back"


def test_a_second_run_waits_for_the_first(tmp_path: Path) -> None:
    events: list[str] = []
    inside = threading.Event()

    @flow
    def hold(name: str) -> None:
        with exclusive(tmp_path):
            events.append(f"{name} in")
            inside.set()
            time.sleep(1.0)
            events.append(f"{name} out")

    first = threading.Thread(target=hold, args=("first",))
    first.start()
    assert inside.wait(60)
    hold("second")
    first.join(60)
    assert events == ["first in", "first out", "second in", "second out"]


def test_lock_file_holds_between_processes(tmp_path: Path) -> None:
    file = tmp_path / "lock"
    code = """
import fcntl, sys
with open(sys.argv[1], "a+") as file:
    fcntl.flock(file, fcntl.LOCK_EX)
    print("held", flush=True)
    sys.stdin.read()
"""
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(file)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    got: list[float] = []

    @flow
    def hold() -> None:
        with lock_file(file):
            got.append(time.monotonic())
            assert file.read_text() == str(os.getpid())

    waiting = threading.Thread(target=hold)
    waiting.start()
    time.sleep(1.5)
    assert not got
    holder.kill()  # the system lets go of a dead process's lock
    holder.wait()
    waiting.join(60)
    assert got


SLEEPER = """
import os, subprocess
child = subprocess.Popen(["sleep", "300"])
pathlib.Path("pids.tmp").write_text(f"{os.getpid()} {child.pid}")
os.rename("pids.tmp", "pids")
child.wait()
"""


@pytest.mark.parametrize(
    "number",
    [
        signal.SIGTERM,
        pytest.param(signal.SIGINT, marks=pytest.mark.slow),
        pytest.param(signal.SIGKILL, marks=pytest.mark.slow),
    ],
)
def test_ending_a_run_ends_what_it_started(workspace: Workspace, number: signal.Signals) -> None:
    """flow -> dvc -> shell -> stage -> its child."""
    workspace.commands["ingest"] = SLEEPER
    workspace.write()
    command = [sys.executable, "-m", "flows.retrain", "--no-promote", "--workspace", str(workspace.root)]
    with get_client(sync_client=True) as client:
        environment = {**os.environ, "PREFECT_API_URL": str(client.api_url)}
    run = subprocess.Popen(command, env=environment, start_new_session=True)
    pids = workspace.root / "pids"
    until(lambda: pids.exists() or run.poll() is not None)
    found = [int(p) for p in pids.read_text().split()]
    assert all(running(p) for p in found)
    run.send_signal(number)
    run.wait(60)
    until(lambda: not any(running(p) for p in found), 30)
    assert not group_alive(run.pid)
    assert workspace.ran() == []
