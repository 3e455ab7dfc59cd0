"""The train stage around the training itself: what is kept, gone on with, published and locked."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlflow
import pytest

from srgpt import storage
from srgpt.errors import InputError, SrgptError
from srgpt.params import Params, TrainParams
from srgpt.stages import train
from srgpt.storage import outputs, work_url
from srgpt.tracking import connect
from srgpt.training.delivery import UNDELIVERED
from srgpt.training.launch import Node
from srgpt.training.plan import data_of, plan
from srgpt.training.stopping import STOP, StoppedError
from srgpt.training.worker import Job
from tests.training.data import tiny_params, write_dataset

STAGE = "1-instruct"
STAGES = [
    {"name": "align", "trainable": ["mm_projector"], "learning_rate": 1e-2},
    {"name": "instruct", "epochs": 2},
]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_dataset(tmp_path_factory.mktemp("data"), shards=1, scenes=2)


@pytest.fixture(scope="module")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty MLflow store: making one takes seconds, a copy does not."""
    folder = tmp_path_factory.mktemp("mlflow")
    connect(tiny_params(folder).tracking)
    return folder / "mlflow.db"


@pytest.fixture
def make_params(tmp_path: Path, migrated: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Params]:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    shutil.copy(migrated, tmp_path / "mlflow.db")

    def make(**section: object) -> Params:
        made = tiny_params(tmp_path, **section)
        # an experiment of its own: that of the copied store keeps its artifacts beside the original
        return made.model_copy(update={"tracking": made.tracking.model_copy(update={"experiment": "here"})})

    return make


class Launches:
    """Stands for the training itself; ``stop`` ends it halfway, with checkpoints."""

    def __init__(self) -> None:
        self.jobs: list[Job] = []
        self.stop: BaseException | None = None
        self.resumed: list[bool] = []
        self.undelivered: list[object] = []
        self.stop_at = 0

    def __call__(self, job: Job, params: TrainParams, path: Path, node: Node) -> None:
        self.jobs.append(job)
        job.write(path)
        folder = Path(job.folder)
        self.resumed.append((folder / "checkpoints" / "latest.json").exists())
        (folder / "checkpoints").mkdir(exist_ok=True)
        (folder / "checkpoints" / "latest.json").write_text("{}")
        if self.undelivered:
            (folder / UNDELIVERED).write_text(json.dumps(self.undelivered))
        if self.stop is not None and job.stage >= self.stop_at:
            raise self.stop
        (folder / "model.safetensors").write_bytes(b"weights" if job.stage == 0 else b"later weights")
        (folder / "adapter").mkdir()
        lineage = {"commit": "0123456789ab", "params_hash": "feedbeef", "run_id": job.run_id}
        (folder / "lineage.json").write_text(json.dumps(lineage))
        summary = {"steps": 6 + job.stage, "seconds": 2.0, "final_loss": 1.0 / (job.stage + 1)}
        (folder / "training.json").write_text(json.dumps(summary))


@pytest.fixture
def launches(monkeypatch: pytest.MonkeyPatch) -> Launches:
    made = Launches()
    monkeypatch.setattr(train, "launch", made)
    return made


def beside(folder: Path) -> set[str]:
    return {p.name for p in folder.iterdir() if p.name.startswith(".model")}


def fail_once(monkeypatch: pytest.MonkeyPatch, target: object, name: str) -> None:
    """Make a function raise in its first call."""
    original, calls = getattr(target, name), []

    def function(*args: Any, **kwargs: Any) -> Any:
        calls.append(args)
        if len(calls) == 1:
            raise SrgptError("not now")
        return original(*args, **kwargs)

    monkeypatch.setattr(target, name, function)


def test_a_failed_publication_does_not_train_again(
    tmp_path: Path, source: str, make_params: Callable[..., Params], launches: Launches,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    fail_once(monkeypatch, outputs, "move")
    with pytest.raises(SrgptError, match="not now"):
        train.run(make_params(), source=source, out=str(tmp_path / "model"))
    assert not (tmp_path / "model").exists()
    assert train.run(make_params(), source=source, out=str(tmp_path / "model"))["steps"] == 6
    assert len(launches.jobs) == 1
    assert (tmp_path / "model" / "model.safetensors").read_bytes() == b"weights"
    assert beside(tmp_path) == set()
    client = connect(make_params().tracking)
    assert client.get_run(launches.jobs[0].run_id).info.status == "FINISHED"


def test_a_failed_upload_does_not_train_again(
    tmp_path: Path, source: str, make_params: Callable[..., Params], launches: Launches, s3: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    import s3fs

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with monkeypatch.context() as patch:
        patch.setattr(s3fs.S3FileSystem, "put", lambda *args, **kwargs: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            train.run(make_params(), source=source, out=f"{s3}/model")
    train.run(make_params(), source=source, out=f"{s3}/model")
    assert len(launches.jobs) == 1
    assert storage.read_bytes(f"{s3}/model/model.safetensors") == b"weights"
    assert not list(tmp_path.glob("srgpt-*/*"))


def test_a_published_model_is_trained_anew_in_a_run_of_its_own(
    tmp_path: Path, source: str, make_params: Callable[..., Params], launches: Launches
) -> None:
    out = str(tmp_path / "model")
    train.run(make_params(), source=source, out=out)
    # killed after the publication, before the state went
    train.state_file(Path(work_url(out))).write_text(json.dumps({"identity": "old", "run_id": "old"}))
    train.run(make_params(), source=source, out=out)
    assert launches.resumed == [False, False]
    assert launches.jobs[0].run_id != launches.jobs[1].run_id
    assert beside(tmp_path) == set()


def test_a_run_that_is_gone_is_replaced_and_its_checkpoints_kept(
    tmp_path: Path, source: str, make_params: Callable[..., Params], launches: Launches,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    launches.stop = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        train.run(make_params(), source=source, out=str(tmp_path / "model"))
    client = connect(make_params().tracking)
    client.delete_run(launches.jobs[0].run_id)
    launches.stop = None
    train.run(make_params(), source=source, out=str(tmp_path / "model"))
    assert launches.resumed == [False, True]
    first, second = (job.run_id for job in launches.jobs)
    assert first != second
    assert f"its MLflow run {first} is not on the tracking server any more" in caplog.text
    assert client.get_run(second).data.params["train.steps"] == "6"


def test_a_whole_model_whose_run_is_gone_names_the_new_one(
    tmp_path: Path, source: str, make_params: Callable[..., Params], launches: Launches,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    fail_once(monkeypatch, outputs, "move")
    with pytest.raises(SrgptError, match="not now"):
        train.run(make_params(), source=source, out=str(tmp_path / "model"))
    client = connect(make_params().tracking)
    client.delete_run(launches.jobs[0].run_id)
    train.run(make_params(), source=source, out=str(tmp_path / "model"))
    run_id = json.loads((tmp_path / "model" / "lineage.json").read_text())["run_id"]
    assert run_id != launches.jobs[0].run_id
    assert client.get_run(run_id).info.status == "FINISHED"


def test_parameters_that_do_not_change_the_model_keep_its_checkpoints(
    tmp_path: Path, source: str, make_params: Callable[..., Params], launches: Launches
) -> None:
    launches.stop = KeyboardInterrupt()
    out = str(tmp_path / "model")
    for section in ({}, {"log_steps": 1}, {"checkpoint_steps": 3}, {"data_workers": 1}):
        with pytest.raises(KeyboardInterrupt):
            train.run(make_params(**section), source=source, out=out)
    assert launches.resumed == [False, True, True, True]
    assert len({job.run_id for job in launches.jobs}) == 1


def test_work_of_other_parameters_is_set_aside_aloud(
    tmp_path: Path, source: str, make_params: Callable[..., Params], launches: Launches,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    launches.stop = KeyboardInterrupt()
    for rate in (1e-3, 2e-3, 3e-3):
        with pytest.raises(KeyboardInterrupt):
            train.run(make_params(learning_rate=rate), source=source, out=str(tmp_path / "model"))
    assert launches.resumed == [False, False, False]
    aside = tmp_path / ".model.work.earlier"
    assert json.loads((aside / STAGE / "job.json").read_text())["params"]["train"]["learning_rate"] == 2e-3
    assert (aside / STAGE / "checkpoints" / "latest.json").exists()
    assert f"was moved to {aside}" in caplog.text


def test_what_could_not_be_delivered_is_logged_in_the_end(
    tmp_path: Path, source: str, make_params: Callable[..., Params], launches: Launches
) -> None:
    launches.undelivered = [[2, {"train/loss": 1.5}], [4, {"train/loss": 0.5}]]
    train.run(make_params(), source=source, out=str(tmp_path / "model"))
    history = connect(make_params().tracking).get_metric_history(launches.jobs[0].run_id, "train/loss")
    assert {m.step: m.value for m in history} == {2: 1.5, 4: 0.5}
    assert not (tmp_path / "model" / UNDELIVERED).exists()


def test_a_second_trainer_is_refused_by_name(
    tmp_path: Path, source: str, make_params: Callable[..., Params], launches: Launches
) -> None:
    out = str(tmp_path / "model")
    refused = []

    class Second(Launches):
        def __call__(self, job: Job, params: TrainParams, path: Path, node: Node) -> None:
            with pytest.raises(SrgptError, match=rf"model.work: process {os.getpid()} trains here") as error:
                train.run(make_params(), source=source, out=out)
            refused.append(error)
            super().__call__(job, params, path, node)

    train.launch = Second()  # the fixture puts the real one back
    train.run(make_params(), source=source, out=out)
    assert len(refused) == 1
    assert beside(tmp_path) == set()


def test_the_lineage_names_the_dataset_that_was_read(
    tmp_path: Path, source: str, make_params: Callable[..., Params], launches: Launches
) -> None:
    params = make_params(dataset="bench")
    train.run(params, source=source, out=str(tmp_path / "model"))
    tags = connect(params.tracking).get_run(launches.jobs[0].run_id).data.tags
    assert "srgpt.data.train" in tags
    assert "srgpt.data.bench" not in tags


# Several stages ---------------------------------------------------------------------------------------------


def test_stages_start_from_each_other_and_the_last_one_is_published(
    tmp_path: Path, source: str, make_params: Callable[..., Params], launches: Launches
) -> None:
    params = make_params(stages=STAGES)
    summary = train.run(params, source=source, out=str(tmp_path / "model"))
    first, second = launches.jobs
    assert (first.init, first.first_step, first.stage) == (None, 0, 0)
    assert (second.init, second.first_step, second.stage) == (first.folder, 6, 1)
    assert [Path(job.folder).name for job in launches.jobs] == ["1-align", "2-instruct"]
    assert first.run_id == second.run_id
    names = {p.name for p in (tmp_path / "model").iterdir()}
    assert names == {"model.safetensors", "adapter", "lineage.json", "training.json"}
    assert (tmp_path / "model" / "model.safetensors").read_bytes() == b"later weights"
    assert (summary["steps"], summary["seconds"], summary["final_loss"]) == (13, 4.0, 0.5)
    assert [(s["name"], s["steps"]) for s in summary["stages"]] == [("align", 6), ("instruct", 7)]
    data = connect(params.tracking).get_run(first.run_id).data
    assert data.tags["srgpt.train.stages"] == "align, instruct"
    assert data.params["train.align.learning_rate"] == "0.01"
    assert "train.instruct.learning_rate" not in data.params


def test_finished_stages_are_not_trained_again(
    tmp_path: Path, source: str, make_params: Callable[..., Params], launches: Launches
) -> None:
    launches.stop, launches.stop_at = KeyboardInterrupt(), 1
    with pytest.raises(KeyboardInterrupt):
        train.run(make_params(stages=STAGES), source=source, out=str(tmp_path / "model"))
    launches.stop = None
    summary = train.run(make_params(stages=STAGES), source=source, out=str(tmp_path / "model"))
    assert [job.stage for job in launches.jobs] == [0, 1, 1]
    assert launches.resumed == [False, False, True]
    assert len({job.run_id for job in launches.jobs}) == 1
    assert summary["steps"] == 13
    assert beside(tmp_path) == set()


def test_a_stop_that_came_at_a_stages_end_keeps_the_next_from_starting(
    tmp_path: Path, source: str, make_params: Callable[..., Params], launches: Launches
) -> None:
    class Asked(Launches):
        def __call__(self, job: Job, params: TrainParams, path: Path, node: Node) -> None:
            super().__call__(job, params, path, node)
            (path.parent / STOP).touch()

    train.launch = asked = Asked()  # the fixture puts the real one back
    with pytest.raises(StoppedError, match="after stage align"):
        train.run(make_params(stages=STAGES), source=source, out=str(tmp_path / "model"))
    assert [job.stage for job in asked.jobs] == [0]
    train.launch = launches
    assert train.run(make_params(stages=STAGES), source=source, out=str(tmp_path / "model"))["steps"] == 13
    assert [job.stage for job in launches.jobs] == [1]


def test_other_nodes_wait_until_the_first_has_begun_this_training(
    tmp_path: Path, source: str, make_params: Callable[..., Params], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else they would take the stages of an earlier one for finished."""
    params = make_params(stages=STAGES, nodes=2)
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    work = Path(work_url(str(tmp_path / "model")))
    (work / "1-align").mkdir(parents=True)
    (work / "1-align" / "training.json").write_text("{}")
    state = train.state_file(work)
    state.write_text(json.dumps({"identity": "of an earlier one", "run_id": "1"}))
    stages = plan(params, source)
    identity = train._identity(params, stages, data_of(stages))
    joined: list[str] = []

    def first_node_begins(seconds: float) -> None:
        (work / "1-align" / "training.json").unlink()
        state.write_text(json.dumps({"identity": identity, "run_id": "2"}))

    monkeypatch.setattr(train, "time", SimpleNamespace(sleep=first_node_begins))
    monkeypatch.setattr(train, "join", lambda params, path, node: joined.append(path.parent.name))
    train.run(params, source=source, out=str(tmp_path / "model"), node_rank=1)
    assert joined == ["1-align", "2-instruct"]

    state.unlink()
    monkeypatch.setattr(train, "time", SimpleNamespace(sleep=lambda seconds: None))
    with pytest.raises(SrgptError, match="node 0 has not begun this training"):
        train.run(params, source=source, out=str(tmp_path / "model"), node_rank=1)


def test_another_stage_is_another_training(
    tmp_path: Path, source: str, make_params: Callable[..., Params], launches: Launches
) -> None:
    launches.stop, launches.stop_at = KeyboardInterrupt(), 1
    for stages in (STAGES, [STAGES[0], {"name": "instruct", "epochs": 3}]):
        with pytest.raises(KeyboardInterrupt):
            train.run(make_params(stages=stages), source=source, out=str(tmp_path / "model"))
    assert [job.stage for job in launches.jobs] == [0, 1, 0, 1]


def test_a_start_model_that_changed_is_another_training(
    tmp_path: Path, source: str, make_params: Callable[..., Params], launches: Launches
) -> None:
    start = tmp_path / "start"
    start.mkdir()
    (start / "config.json").write_text("{}")
    launches.stop = KeyboardInterrupt()
    for weights in (b"one", b"one", b"two"):
        (start / "model.safetensors").write_bytes(weights)
        with pytest.raises(KeyboardInterrupt):
            train.run(make_params(init=str(start)), source=source, out=str(tmp_path / "model"))
    assert launches.resumed == [False, True, False]
    assert {job.init for job in launches.jobs} == {str(start)}
    with pytest.raises(InputError, match=r"config\.json missing"):
        train.run(make_params(init=str(tmp_path / "no")), source=source, out=str(tmp_path / "model"))


def teardown_module() -> None:
    mlflow.set_tracking_uri(None)


def test_the_launching_process_needs_no_torch() -> None:
    """It lives beside the ranks for the whole training: seconds at the start and memory all along."""
    code = "import sys, srgpt.stages.train; print({'torch', 'transformers', 'deepspeed'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
