"""The evaluate stage from tables to report and MLflow runs."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import mlflow
import pytest

from srgpt import tracking
from srgpt.errors import InputError, SrgptError
from srgpt.evaluation.predict import Predictor
from srgpt.params import Params, load
from srgpt.stages import evaluate
from srgpt.storage import read_manifest, read_rows
from srgpt.tracking import Lineage, start_run
from tests.evaluation.tables import write_tables
from tests.model.tiny import make_tiny_checkpoint


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_checkpoint(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty MLflow store: making one takes seconds, a copy does not."""
    folder = tmp_path_factory.mktemp("mlflow")
    tracking.connect(load(overrides=[f"tracking.uri=sqlite:///{folder}/mlflow.db"], cwd=folder).tracking)
    return folder / "mlflow.db"


@pytest.fixture
def make_params(tmp_path: Path, migrated: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Params]:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    shutil.copy(migrated, tmp_path / "mlflow.db")

    def make(*overrides: str) -> Params:
        # an experiment of its own: that of the copied store keeps its artifacts beside the original
        return load(
            overrides=[
                f"tracking.uri=sqlite:///{tmp_path}/mlflow.db", "tracking.experiment=here",
                "evaluate.max_new_tokens=4", "evaluate.gallery=3", *overrides,
            ],
            cwd=tmp_path,
        )  # fmt: skip

    return make


def test_the_whole_stage(tmp_path: Path, checkpoint: Path, make_params: Callable[..., Params]) -> None:
    params = make_params()
    source, out = write_tables(tmp_path / "data"), tmp_path / "reports" / "evaluation"
    model = shutil.copytree(checkpoint, tmp_path / "model")
    with start_run(params.tracking, "train", stage="train", lineage=Lineage.of(params, {})) as trained:
        trained.log_metrics({"train/loss": 1.0})
    (model / "lineage.json").write_text(json.dumps({"run_id": trained.id, "data": {"train": "cd" * 32}}))

    metrics = evaluate.run(params, source=source, model=str(model), out=str(out))

    assert {p.name for p in out.iterdir()} == {
        "index.html",
        "lineage.json",
        "metrics.json",
        "plots",
        "predictions",
    }
    assert metrics == json.loads((out / "metrics.json").read_text())
    assert [metrics[i]["questions"] for i in ("rgbd", "rgb", "blind")] == [48, 48, 48]
    manifest = read_manifest(str(out / "predictions"), "predictions")
    assert manifest.rows == 144
    assert manifest.dataset == "bench"
    lineage = json.loads((out / "lineage.json").read_text())
    assert lineage["run_id"] == trained.id
    client = tracking.connect(params.tracking)
    names = []
    for inputs, run_id in lineage["runs"].items():
        run = client.get_run(run_id)
        names.append(set(run.data.metrics))
        assert run.info.run_name == f"evaluate {inputs}"
        assert run.info.status == "FINISHED"
        assert run.data.tags["srgpt.inputs"] == inputs
        assert run.data.tags["srgpt.dataset"] == "bench"
        assert run.data.tags["srgpt.data.bench"] == read_manifest(source).fingerprint[:16]
        assert run.data.tags["srgpt.data.train"] == "cd" * 8
        assert run.data.tags["srgpt.train_run"] == trained.id
        assert run.inputs.dataset_inputs[0].dataset.name == "bench"
        assert run.data.metrics["qualitative_micro"] == metrics[inputs]["qualitative_micro"]
    assert names[0] == names[1] == names[2]
    found = {a.path for a in client.list_artifacts(lineage["runs"]["rgbd"])}
    assert found == {"index.html", "metrics.json", "plots", "predictions", "scores.json"}
    assert [a.path for a in client.list_artifacts(lineage["runs"]["blind"])] == ["scores.json"]
    on_training = client.get_run(trained.id)
    assert on_training.data.metrics["qualitative_micro"] == metrics["rgbd"]["qualitative_micro"]
    assert on_training.info.status == "FINISHED"


def test_a_killed_evaluation_goes_on(
    tmp_path: Path, checkpoint: Path, make_params: Callable[..., Params], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_tables(tmp_path / "data", scenes=4, shards=2)
    # the page shows the commit, which may move while the test runs
    monkeypatch.setattr(tracking, "git_commit", lambda: "0123456789ab")
    original, asked = Predictor.predict, []

    def predict(self, found, inputs, advance=lambda _: None):
        asked.append((found[0].conversation.scene_id, inputs))
        if len(asked) == 4:
            raise KeyboardInterrupt
        return original(self, found, inputs, advance)

    monkeypatch.setattr(Predictor, "predict", predict)
    arguments = {"source": source, "model": str(checkpoint)}
    with pytest.raises(KeyboardInterrupt):
        evaluate.run(make_params(), **arguments, out=str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()
    resumed = evaluate.run(make_params(), **arguments, out=str(tmp_path / "out"))
    # the first shard's three inputs are not asked again
    assert [s for s, _ in asked] == ["s000"] * 3 + ["s001"] * 4
    fresh = evaluate.run(make_params(), **arguments, out=str(tmp_path / "fresh"))
    assert fresh == resumed
    for name in ("part-00000.parquet", "part-00001.parquet"):
        assert (tmp_path / f"out/predictions/{name}").read_bytes() == (
            tmp_path / f"fresh/predictions/{name}"
        ).read_bytes()
    assert (tmp_path / "out/index.html").read_bytes() == (tmp_path / "fresh/index.html").read_bytes()


def test_a_tracking_failure_loses_no_prediction(
    tmp_path: Path, checkpoint: Path, make_params: Callable[..., Params], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_tables(tmp_path / "data", scenes=2, shards=2)
    original, asked = Predictor.predict, []

    def predict(self, found, inputs, advance=lambda _: None):
        asked.append(inputs)
        return original(self, found, inputs, advance)

    def track(*args: object) -> dict[str, str]:
        raise SrgptError("MLflow at http://somewhere: no answer")

    monkeypatch.setattr(Predictor, "predict", predict)
    arguments = {"source": source, "model": str(checkpoint), "out": str(tmp_path / "out")}
    with monkeypatch.context() as patch:
        patch.setattr(evaluate, "_track", track)
        with pytest.raises(SrgptError, match="no answer"):
            evaluate.run(make_params(), **arguments)
    assert len(asked) == 6
    metrics = evaluate.run(make_params(), **arguments)
    assert len(asked) == 6
    assert metrics["rgbd"]["questions"] == read_manifest(str(tmp_path / "out/predictions")).rows / 3
    # other parameters ask anew
    with monkeypatch.context() as patch:
        patch.setattr(evaluate, "_track", track)
        with pytest.raises(SrgptError, match="no answer"):
            evaluate.run(make_params(), **arguments)
    asked.clear()
    evaluate.run(make_params("evaluate.max_new_tokens=3"), **arguments)
    assert len(asked) == 6


def test_without_depth_the_model_is_asked_without_it(
    tmp_path: Path, checkpoint: Path, make_params: Callable[..., Params]
) -> None:
    source = write_tables(tmp_path / "data", scenes=2, shards=1, depth=False)
    metrics = evaluate.run(make_params(), source=source, model=str(checkpoint), out=str(tmp_path / "out"))
    assert set(metrics) == {"rgb", "blind", "comparisons"}
    assert set(metrics["comparisons"]) == {"blind"}


def test_only_the_first_questions(
    tmp_path: Path, checkpoint: Path, make_params: Callable[..., Params]
) -> None:
    source = write_tables(tmp_path / "data", scenes=3, shards=3, turns=4)
    params = make_params("evaluate.max_questions=6")
    metrics = evaluate.run(params, source=source, model=str(checkpoint), out=str(tmp_path / "out"))
    assert metrics["rgbd"]["questions"] == 6
    rows = [r for r in read_rows(str(tmp_path / "out/predictions"), "predictions") if r["inputs"] == "rgbd"]
    assert [(r["scene_id"], r["turn"]) for r in rows] == [(f"s00{i}", t) for i in (0, 1) for t in range(4)][
        :6
    ]


def test_a_training_run_elsewhere_is_no_error(
    tmp_path: Path, checkpoint: Path, make_params: Callable[..., Params], caplog: pytest.LogCaptureFixture
) -> None:
    model = shutil.copytree(checkpoint, tmp_path / "model")
    (model / "lineage.json").write_text(json.dumps({"run_id": "f" * 32, "data": {}}))
    source = write_tables(tmp_path / "data", scenes=1, shards=1, turns=2)
    evaluate.run(make_params(), source=source, model=str(model), out=str(tmp_path / "out"))
    assert f"run {'f' * 32} of the model is not on this tracking server" in caplog.text


def test_trouble_before_any_work(
    tmp_path: Path, checkpoint: Path, make_params: Callable[..., Params]
) -> None:
    source = write_tables(tmp_path / "data", scenes=1, shards=1)
    out = str(tmp_path / "out")
    with pytest.raises(InputError, match=r"not a model folder"):
        evaluate.run(make_params(), source=source, model=str(tmp_path / "data"), out=out)
    with pytest.raises(InputError, match=r"holds scenes .* conversations was expected"):
        evaluate.run(
            make_params(), source=str(tmp_path / "data/perceived/bench"), model=str(checkpoint), out=out
        )
    empty = write_tables(tmp_path / "empty", scenes=1, shards=1, turns=0)
    with pytest.raises(InputError, match=r"holds no questions"):
        evaluate.run(make_params(), source=empty, model=str(checkpoint), out=out)
    started = time.monotonic()
    with pytest.raises(SrgptError, match=r"http://127\.0\.0\.1:9 does not answer"):
        evaluate.run(
            make_params("tracking.uri=http://127.0.0.1:9"), source=source, model=str(checkpoint), out=out
        )
    assert time.monotonic() - started < 10
    assert not Path(out).exists()


def test_tracked_metrics_are_few_enough_to_compare(tmp_path: Path) -> None:
    metrics = {
        "width_success": 0.5,
        "width_success_low": 0.1,
        "width_count": 3,
        "unreadable": 1.0,
        "questions": 3,
    }
    assert set(evaluate.tracked_metrics(metrics)) == {"width_success", "unreadable", "questions"}


@pytest.mark.omni3d_mini
def test_real_photographs(
    tmp_path: Path, omni3d_mini: Path, checkpoint: Path, make_params: Callable[..., Params]
) -> None:
    from srgpt.stages import ask, ingest, lift, perceive

    params = make_params("ingest.source=omni3d", "ask.truth=cuboids", "engine.workers=1")
    urls = {n: str(tmp_path / n) for n in ("scenes", "perceived", "graphs", "conversations", "out")}
    ingest.run(params, source=str(omni3d_mini), out=urls["scenes"], dataset="omni3d_mini")
    perceive.run(params, source=urls["scenes"], out=urls["perceived"])
    lift.run(params, source=urls["perceived"], out=urls["graphs"])
    ask.run(params, source=urls["graphs"], out=urls["conversations"])
    metrics = evaluate.run(params, source=urls["conversations"], model=str(checkpoint), out=urls["out"])
    assert metrics["rgbd"]["questions"] >= 20
    assert (tmp_path / "out" / "index.html").read_text().count("<article") == 3


def teardown_module() -> None:
    mlflow.set_tracking_uri(None)
