from __future__ import annotations

import json
import os
import signal
import socket
from pathlib import Path

import psutil
import pytest

from srgpt.errors import SrgptError
from srgpt.params import Params, ServeParams
from srgpt.promotion import environment, server


@pytest.mark.triton
def test_the_server_starts_once_and_stops_whole(params: Params, triton: None) -> None:
    assert server.state(params.serve) == "stopped"
    started = server.start(params.serve)
    assert server.start(params.serve) == started
    assert server.state(params.serve) == "running"
    other = params.serve.model_copy(update={"grpc_port": params.serve.grpc_port + 1})
    with pytest.raises(SrgptError, match=f"process {started.pid}\\) with grpc_port"):
        server.start(other)
    assert server.stop(params.serve)
    assert not psutil.pid_exists(started.pid)
    assert server.state(params.serve) == "stopped"
    assert not server.stop(params.serve)


@pytest.mark.triton
def test_a_killed_server_is_noticed_and_replaced(params: Params, triton: None) -> None:
    first = server.start(params.serve)
    os.killpg(first.pid, signal.SIGKILL)
    os.waitpid(first.pid, 0)
    assert server.state(params.serve) == "dead"
    with pytest.raises(SrgptError, match=r"is gone; the end of .*server\.log"):
        server.running(params.serve)
    second = server.start(params.serve)
    assert second.pid != first.pid
    (left := Path(f"/dev/shm/srgpt_{params.serve.grpc_port}_left")).touch()
    server.stop(params.serve)
    assert not left.exists()
    server.start(params.serve)
    assert server.state(params.serve) == "running"


def test_another_process_with_the_same_id_is_not_the_server(tmp_path: Path) -> None:
    params = ServeParams(folder=str(tmp_path))
    ports = {"grpc_port": 1, "http_port": 2, "metrics_port": 3}
    (tmp_path / "server.json").write_text(
        json.dumps({"pid": os.getpid(), "started": 12.0, "host": "h", **ports})
    )
    assert server.state(params) == "dead"
    assert not server.stop(params)  # and it certainly is not killed


@pytest.mark.triton
def test_a_taken_port_is_named_with_its_owner(params: Params, triton: None) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", params.serve.http_port))
        taken.listen()
        with pytest.raises(
            SrgptError, match=rf"serve.http_port = {params.serve.http_port}: .*process {os.getpid()}"
        ):
            server.start(params.serve)
    assert server.state(params.serve) == "stopped"


def test_no_server_and_no_environment(tmp_path: Path) -> None:
    params = ServeParams(folder=str(tmp_path / "triton"), venv=str(tmp_path / "venv"))
    with pytest.raises(SrgptError, match="Start it with `srgpt serve`"):
        server.running(params)
    with pytest.raises(SrgptError, match=r"no Triton environment here\. Make it with `make triton`"):
        server.start(params)
    (tmp_path / "triton" / "server.json").parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / "triton" / "server.json").write_text("{")
    with pytest.raises(SrgptError, match=r"server\.json: not readable"):
        server.state(params)


def test_an_environment_without_the_wheel(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").symlink_to(Path(os.__file__).parents[2] / "bin" / "python3")
    with pytest.raises(SrgptError, match="nvidia-pytriton is not installed"):
        environment.find(tmp_path)
