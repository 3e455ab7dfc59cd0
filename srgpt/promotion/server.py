"""The local Triton server: the real binary as a detached process, started, watched and stopped.

Its folder (``serve.folder``) holds ``server.json`` (who runs), ``server.log``, ``backends/`` and the model
repository. A process id alone proves nothing after a crash or a reboot, so the record carries the process's
start time as well.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import time
import urllib.error
import urllib.request
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import psutil

from srgpt.errors import SrgptError
from srgpt.params import ServeParams
from srgpt.process import end_group, spawn
from srgpt.promotion import environment
from srgpt.storage import write_json

_STOP_SECONDS = 20.0
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 (where Linux has it)


class ServerGoneError(SrgptError):
    """The server was started and is no longer there."""


State = Literal["running", "stopped", "dead"]


@dataclass(frozen=True)
class Server:
    """What ``server.json`` holds about the process that was started."""

    pid: int
    started: float
    """The process's start time, seconds since the epoch."""
    host: str
    grpc_port: int
    http_port: int
    metrics_port: int

    @property
    def grpc(self) -> str:
        """The gRPC endpoint, ``host:port``."""
        return f"{self.host}:{self.grpc_port}"


def folder(params: ServeParams) -> Path:
    """Return the server's folder."""
    return Path(params.folder).absolute()


def repository(params: ServeParams) -> Path:
    """Return the model repository that the server reads."""
    return folder(params) / "repository"


def log_file(params: ServeParams) -> Path:
    """Return where the server's output goes."""
    return folder(params) / "server.log"


def recorded(params: ServeParams) -> Server | None:
    """Return the server that was started last and not stopped, alive or not."""
    try:
        return Server(**json.loads((folder(params) / "server.json").read_text()))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise SrgptError(f"{folder(params) / 'server.json'}: not readable ({error}). Remove it.") from error


def state(params: ServeParams) -> State:
    """Return ``running``, ``stopped``, or ``dead`` where a started server is gone."""
    server = recorded(params)
    if server is None:
        return "stopped"
    return "running" if _alive(server) else "dead"


def running(params: ServeParams) -> Server:
    """Return the running server; raise :class:`SrgptError` where there is none."""
    server = recorded(params)
    if server is None:
        raise SrgptError(f"no Triton server runs here ({folder(params)}). Start it with `srgpt serve`.")
    if not _alive(server):
        raise ServerGoneError(
            f"the Triton server (process {server.pid}) is gone; the end of {log_file(params)}:\n"
            f"{_log_tail(params)}\nStart it again with `srgpt serve`."
        )
    return server


def start(params: ServeParams) -> Server:
    """Start the server with no model loaded, and wait until it is ready; a running one is returned as it is.

    Raises :class:`SrgptError` where a port is taken, the environment is missing, or it is not ready in time.
    """
    server = recorded(params)
    if server is not None and _alive(server):
        _check_same_ports(server, params)
        return server
    if server is not None:
        _end_leftovers(server)
    env = environment.find(Path(params.venv))
    _check_ports(params)
    repository(params).mkdir(parents=True, exist_ok=True)
    backends = env.backend_directory(folder(params) / "backends")
    pid = spawn(
        _command(params, env, backends), cwd=folder(params), env=env.variables(), log=log_file(params)
    )
    server = Server(
        pid, _start_time(pid), params.host, params.grpc_port, params.http_port, params.metrics_port
    )
    write_json(str(folder(params) / "server.json"), asdict(server))
    try:
        _wait_ready(server, params)
    except BaseException:
        stop(params)
        raise
    return server


def stop(params: ServeParams) -> bool:
    """Stop the server and all it started; return whether one was running."""
    server = recorded(params)
    if server is None:
        return False
    was_alive = _alive(server)
    if was_alive:
        os.killpg(server.pid, signal.SIGTERM)
        try:
            psutil.Process(server.pid).wait(timeout=_STOP_SECONDS)
        except psutil.TimeoutExpired:
            end_group(server.pid, grace=0.1)
        except psutil.NoSuchProcess:
            pass  # it ended between the two calls
    _end_leftovers(server)
    (folder(params) / "server.json").unlink(missing_ok=True)
    return was_alive


def _command(params: ServeParams, env: environment.TritonEnvironment, backends: Path) -> list[str]:
    return [
        str(env.binary),
        f"--model-repository={repository(params)}",
        f"--backend-directory={backends}",
        "--model-control-mode=explicit",
        # our configurations are whole; completing them would start every model's process twice
        "--disable-auto-complete-config",
        f"--http-address={params.host}",
        f"--http-port={params.http_port}",
        f"--grpc-address={params.host}",
        f"--grpc-port={params.grpc_port}",
        f"--metrics-address={params.host}",
        f"--metrics-port={params.metrics_port}",
        # two servers on one machine must not share the stubs' memory
        f"--backend-config=python,shm-region-prefix-name={_memory_prefix(params.grpc_port)}",
        # a busy machine may take long to start a model's process; the server does not survive giving up on it
        "--backend-config=python,stub-timeout-seconds=300",
        "--exit-timeout-secs=10",
    ]


def _start_time(pid: int) -> float:
    try:
        return psutil.Process(pid).create_time()
    except psutil.NoSuchProcess:
        return 0.0


def _alive(server: Server) -> bool:
    try:
        process = psutil.Process(server.pid)
        same = abs(process.create_time() - server.started) < 1.0
        return same and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _end_leftovers(server: Server) -> None:
    """End the stubs that outlived a killed server (its process group, Triton's names), and free their memory."""
    for process in psutil.process_iter(["pid", "name", "create_time"]):
        try:
            ours = os.getpgid(process.pid) == server.pid and process.create_time() >= server.started - 1.0
            if ours and process.name().startswith("triton"):
                process.kill()
                process.wait(timeout=5)
        except (ProcessLookupError, psutil.Error):
            continue
    for region in _SHARED_MEMORY.glob(f"{_memory_prefix(server.grpc_port)}*"):
        region.unlink(missing_ok=True)


def _memory_prefix(grpc_port: int) -> str:
    return f"srgpt_{grpc_port}_"


def _check_same_ports(server: Server, params: ServeParams) -> None:
    for key in ("host", "grpc_port", "http_port", "metrics_port"):
        if getattr(server, key) != getattr(params, key):
            raise SrgptError(
                f"a Triton server runs already (process {server.pid}) with {key} {getattr(server, key)}, but "
                f"serve.{key} is {getattr(params, key)}. Stop it with `srgpt serve --stop`, or set it back."
            )


def _check_ports(params: ServeParams) -> None:
    for key in ("grpc_port", "http_port", "metrics_port"):
        port = getattr(params, key)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((params.host, port))
            except OSError as error:
                raise SrgptError(
                    f"serve.{key} = {port}: cannot listen on {params.host}:{port} ({error.strerror}"
                    f"{_owner(port)}). Stop that process or set serve.{key} to a free port."
                ) from None


def _owner(port: int) -> str:
    try:
        for connection in psutil.net_connections("inet"):
            if connection.laddr and connection.laddr.port == port and connection.status == psutil.CONN_LISTEN:
                name = psutil.Process(connection.pid).name() if connection.pid else "another user's process"
                return f"; taken by {name}, process {connection.pid}"
    except psutil.Error:
        return ""
    return ""


def _wait_ready(server: Server, params: ServeParams) -> None:
    deadline = time.monotonic() + params.startup_timeout
    while time.monotonic() < deadline:
        if not _alive(server):
            raise SrgptError(
                f"Triton ended while starting; the end of {log_file(params)}:\n{_log_tail(params)}"
            )
        try:
            url = f"http://{server.host}:{server.http_port}/v2/health/ready"
            with urllib.request.urlopen(url, timeout=2) as answer:
                if answer.status == 200:
                    return
        except (urllib.error.URLError, OSError):
            pass  # not listening yet
        time.sleep(0.1)
    raise SrgptError(
        f"Triton was not ready within {params.startup_timeout:.0f} s (serve.startup_timeout); "
        f"the end of {log_file(params)}:\n{_log_tail(params)}"
    )


def _log_tail(params: ServeParams, lines: int = 12) -> str:
    try:
        text = log_file(params).read_text(errors="replace")
    except FileNotFoundError:
        return "  | (no log)"
    return "\n".join(f"  | {line}" for line in text.splitlines()[-lines:])
