from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from srgpt import promotion, tracking
from srgpt.export import LINEAGE
from srgpt.export.questions import read_smoke
from srgpt.model.prompts import Inputs
from srgpt.params import Params, TrackingParams
from srgpt.records import Prediction
from srgpt.storage import TableWriter, shard_name, write_shard
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
    folder: Path,
    qualitative: float = 0.8,
    quantitative: float = 0.5,
    count: int = 400,
    answer: str | None = None,
) -> str:
    """Write an evaluation of the tiny model, which gave the export's answers or, to everything, ``answer``."""
    folder.mkdir(parents=True, exist_ok=True)
    lineage = json.loads((tiny.export() / LINEAGE).read_text())
    data = {**lineage["data"], "bench": lineage["benchmark"]}
    (folder / LINEAGE).write_text(json.dumps({**lineage, "data": data, "runs": {}}))
    write_predictions(
        folder,
        [
            (q.conversation_id, q.turn, answer or q.answer, "rgb" if q.request.depth is None else "rgbd")
            for q in read_smoke(tiny.export() / "smoke", 100)
        ],
    )
    metrics = {
        "qualitative_micro": qualitative, "qualitative_count": count,
        "quantitative_micro": quantitative, "quantitative_count": count,
    }  # fmt: skip
    (folder / "metrics.json").write_text(
        json.dumps({"rgbd": metrics, "blind": {**metrics, "qualitative_micro": 0.1}})
    )
    return str(folder)


def write_predictions(
    folder: Path, answers: list[tuple[str, int, str, Inputs]], max_questions: int = 0
) -> None:
    """Write a table of predictions: conversation, turn, text, inputs."""
    params = {"max_questions": max_questions, "inputs": sorted({a[3] for a in answers})}
    table = str(folder / "predictions")
    writer = TableWriter(table, "predictions", stage="evaluate", dataset="bench", params=params)
    rows = [
        Prediction("bench", "s", c, t, "width_data", "q", "a", text, 1.0, "metres", None, False, None, inputs)
        for c, t, text, inputs in answers
    ]
    write_shard(writer.work, shard_name(0), "predictions", [r.to_row() for r in rows])
    writer.commit([shard_name(0)])


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
