from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from srgpt import promotion, tracking
from srgpt.params import Params, TrackingParams
from tests.conftest import ROOT
from tests.export import tiny


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for s in sockets:
        s.bind(("127.0.0.1", 0))
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def make_params(folder: Path, **promote: object) -> Params:
    grpc, http, metrics = free_ports(3)
    return tiny.params(
        promote={"smoke_questions": 4, **promote},
        serve={
            "folder": str(folder / "triton"), "venv": str(ROOT / ".venv-triton"), "threads": 1,
            "grpc_port": grpc, "http_port": http, "metrics_port": metrics,
        },
        tracking={"uri": f"sqlite:///{folder / 'mlflow.db'}"},
    )  # fmt: skip


def write_evaluation(
    folder: Path, qualitative: float = 0.8, quantitative: float = 0.5, count: int = 400
) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    metrics = {
        "qualitative_micro": qualitative, "qualitative_count": count,
        "quantitative_micro": quantitative, "quantitative_count": count,
    }  # fmt: skip
    (folder / "metrics.json").write_text(
        json.dumps({"rgbd": metrics, "blind": {**metrics, "qualitative_micro": 0.1}})
    )
    return str(folder)


@pytest.fixture(scope="session")
def empty_registry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tracking database with its tables made, which takes seconds, to be copied."""
    path = tmp_path_factory.mktemp("registry") / "mlflow.db"
    tracking.connect(TrackingParams(uri=f"sqlite:///{path}", experiment="template"))
    return path


@pytest.fixture(autouse=True)
def _own_tracking(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture
def params(tmp_path: Path, empty_registry: Path) -> Iterator[Params]:
    """Parameters of a server and a registry of its own; the server is stopped in the end."""
    shutil.copyfile(empty_registry, tmp_path / "mlflow.db")
    result = make_params(tmp_path)
    yield result
    promotion.stop(result)


@pytest.fixture
def triton() -> None:
    if not (ROOT / ".venv-triton" / "bin" / "python").exists():
        pytest.skip("the Triton environment is not here (`make triton`)")
