"""Tracking against a local store, against a real server, and against servers in trouble."""

from __future__ import annotations

import http.server
import logging
import math
import os
import shutil
import socket
import sqlite3
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import mlflow
import pytest

from srgpt import process, tracking
from srgpt.errors import InputError, SrgptError
from srgpt.params import Params, TrackingParams
from srgpt.tracking import Lineage

LINEAGE = Lineage("0123456789ab-dirty", "demo", "feedbeef", {"bench": "ab" * 32, "train": "cd" * 32})


@pytest.fixture(scope="module")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mlflow")
    tracking.connect(TrackingParams(uri=f"sqlite:///{folder}/made/here/mlflow.db"))
    return folder / "made" / "here" / "mlflow.db"


@pytest.fixture
def store(tmp_path: Path, migrated: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TrackingParams]:
    """A local store with one experiment of its own."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    shutil.copy(migrated, tmp_path / "mlflow.db")
    yield TrackingParams(uri=f"sqlite:///{tmp_path}/mlflow.db", experiment="here")
    mlflow.set_tracking_uri(None)


def use_runs(params: TrackingParams, folder: Path) -> None:
    """What every store and server must do: runs."""
    with tracking.start_run(
        params, "first", stage="train", lineage=LINEAGE, tags={"extra": "yes"}, system_metrics=True
    ) as run:
        run.log_params({"long": "x" * 900, "number": 3})
        run.log_metrics({"a": 1.5, "nan": math.nan, "infinite": math.inf}, step=1)
        run.log_metrics({"nothing": math.nan})
        run.log_metrics({"a": 2.5}, step=2)
        run.log_dataset("bench", "ab" * 32, context="evaluation")
        run.log_dict({"k": [1, 2]}, "values.json")
        (folder / "up").mkdir()
        (folder / "up" / "file.txt").write_text("hello")
        run.log_artifacts(folder / "up", "some/where")
        run.log_artifact(folder / "up" / "file.txt")
    client = tracking.connect(params)
    found = client.get_run(run.id)
    assert found.info.status == "FINISHED"
    assert found.info.run_name == "first"
    assert found.data.metrics["a"] == 2.5
    assert not {"nan", "infinite", "nothing"} & found.data.metrics.keys()
    assert found.data.params == {"long": "x" * 500, "number": "3"}
    tags = found.data.tags
    assert (tags["srgpt.stage"], tags["extra"], tags["srgpt.profile"]) == ("train", "yes", "demo")
    assert (tags["srgpt.data.bench"], tags["srgpt.data.train"]) == ("ab" * 8, "cd" * 8)
    assert tags["mlflow.source.git.commit"] == "0123456789ab"
    assert found.inputs.dataset_inputs[0].dataset.name == "bench"
    assert [m.step for m in client.get_metric_history(run.id, "a")] == [1, 2]

    with tracking.start_run(params, "ignored", stage="train", lineage=LINEAGE, run_id=run.id) as again:
        again.log_metrics({"a": 3.5}, step=3)
    found = client.get_run(run.id)
    assert (again.id, found.info.run_name, found.data.metrics["a"]) == (run.id, "first", 3.5)

    with (
        pytest.raises(RuntimeError, match="boom"),
        tracking.start_run(params, "bad", stage="train", lineage=LINEAGE) as bad,
    ):
        raise RuntimeError("boom")
    assert client.get_run(bad.id).info.status == "FAILED"

    assert tracking.log_to_run(params, run.id, {"late": 0.5, "nan": math.nan}, {"seen": "yes"})
    found = client.get_run(run.id)
    assert (found.data.metrics["late"], found.data.tags["seen"], found.info.status) == (
        0.5,
        "yes",
        "FINISHED",
    )
    assert not tracking.log_to_run(params, "f" * 32, {"late": 0.5})
    assert not tracking.log_to_run(params, "not an id", {"late": 0.5})
    target = tracking.download(params, f"runs:/{run.id}/some/where", folder / "down" / "deep")
    assert (target / "file.txt").read_text() == "hello"
    use_registry(params, run, folder)


def use_registry(params: TrackingParams, run: tracking.Run, folder: Path) -> None:
    """What every store and server must do: the registry."""
    assert tracking.version_of_alias(params, "srgpt", "champion") is None
    source = f"{run.artifact_uri}/some/where"
    first = tracking.register(params, "srgpt", source=source, run_id=run.id, tags=LINEAGE.tags())
    second = tracking.register(params, "srgpt", source=source, run_id=run.id, tags={})
    assert (first.version, second.version, first.tags["srgpt.profile"]) == (1, 2, "demo")
    assert tracking.version_of_alias(params, "srgpt", "champion") is None
    tracking.set_alias(params, "srgpt", "champion", 1)
    assert tracking.version_of_alias(params, "srgpt", "champion") == first
    tracking.set_alias(params, "srgpt", "champion", 2)
    tracking.set_version_tags(params, "srgpt", 2, {"why": "better"})
    champion = tracking.version_of_alias(params, "srgpt", "champion")
    assert champion is not None
    assert (champion.version, champion.run_id, champion.tags) == (2, run.id, {"why": "better"})
    assert (tracking.download(params, champion.source, folder / "model") / "file.txt").exists()
    assert (tracking.download(params, "models:/srgpt@champion", folder / "by_alias") / "file.txt").exists()
    tracking.set_alias(params, "srgpt", "champion", None)
    tracking.set_alias(params, "srgpt", "champion", None)
    assert tracking.version_of_alias(params, "srgpt", "champion") is None
    with pytest.raises(SrgptError, match="MLflow at"):
        tracking.set_alias(params, "srgpt", "champion", 99)


def test_a_local_store(store: TrackingParams, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    use_runs(store, tmp_path)
    assert capfd.readouterr().out == ""
    assert (tmp_path / "mlartifacts").is_dir()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_real_server(tmp_path: Path, migrated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(migrated, tmp_path / "mlflow.db")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable, "-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{tmp_path}/mlflow.db",
        "--artifacts-destination", str(tmp_path / "served"), "--host", "127.0.0.1", "--port", str(port),
        "--workers", "1",
    ]  # fmt: skip
    with process.start(command, log=tmp_path / "server.log") as server:
        params = TrackingParams(uri=f"http://127.0.0.1:{port}", experiment="served")
        monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
        wait_for(f"{params.uri}/health", server, tmp_path / "server.log")
        use_runs(params, tmp_path)
        assert tracking.run_page(params, "abc") == f"http://127.0.0.1:{port}/#/runs/abc"
    mlflow.set_tracking_uri(None)


def wait_for(url: str, server, log: Path) -> None:
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline and server.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=2).close()
        except OSError:
            time.sleep(0.3)
        else:
            return
    pytest.fail(f"the server did not start: {log.read_text()[-2000:]}")


def test_the_environment_wins_and_its_run_is_left_alone(
    store: TrackingParams, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tracking.start_run(store, "other", stage="train", lineage=LINEAGE) as other:
        pass
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store.uri)
    monkeypatch.setenv("MLFLOW_RUN_ID", other.id)
    elsewhere = TrackingParams(uri="http://127.0.0.1:9", experiment="here")
    with tracking.start_run(elsewhere, "mine", stage="evaluate", lineage=LINEAGE) as mine:
        pass
    assert mine.id != other.id


def test_connecting_leaves_the_environment_alone(store: TrackingParams, tmp_path: Path) -> None:
    tracking.connect(store)
    assert "MLFLOW_TRACKING_URI" not in os.environ
    shutil.copy(tmp_path / "mlflow.db", tmp_path / "other.db")
    other = TrackingParams(uri=f"sqlite:///{tmp_path}/other.db", experiment="elsewhere")
    with tracking.start_run(other, "there", stage="train", lineage=LINEAGE) as run:
        pass
    assert not tracking.log_to_run(store, run.id, {"a": 1.0})
    assert tracking.log_to_run(other, run.id, {"a": 1.0})
    assert not tracking.has_run(store, run.id)
    assert tracking.has_run(other, run.id)
    tracking.connect(other).delete_run(run.id)
    assert not tracking.has_run(other, run.id)


def test_metrics_that_are_refused_are_an_error_for_people(store: TrackingParams) -> None:
    run = tracking.Run(tracking.connect(store), "f" * 32, "")
    with pytest.raises(SrgptError, match=rf"MLflow at sqlite.*{'f' * 32}"):
        run.log_metrics({"a": 1.0}, step=1)


def test_a_run_may_be_opened_where_git_and_user_are_unknown(
    store: TrackingParams, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert tracking.git_commit() == "unknown"

    def nobody() -> str:
        raise KeyError("uid")

    monkeypatch.setattr(tracking.getpass, "getuser", nobody)
    lineage = Lineage.of(Params(), {"bench": "ab" * 32})
    with tracking.start_run(store, "x", stage="train", lineage=lineage) as run:
        pass
    assert "mlflow.source.git.commit" not in tracking.connect(store).get_run(run.id).data.tags


def test_lineage_is_of_what_matters() -> None:
    plain = Lineage.of(Params(), {})
    moved = Params().model_copy(update={"tracking": TrackingParams(uri="http://elsewhere")})
    assert Lineage.of(moved, {}).params_hash == plain.params_hash
    assert Lineage.of(Params(seed=8), {}).params_hash != plain.params_hash


class Answering(http.server.BaseHTTPRequestHandler):
    code = 500

    def do_GET(self) -> None:
        self.send_response(self.code)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.parametrize(
    "uri", ["http://127.0.0.1:9", "http://[::1]:9", "https://127.0.0.1:9", "http://no.such.host.invalid"]
)
def test_a_server_that_is_not_there(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    started = time.monotonic()
    with pytest.raises(SrgptError, match=r"does not answer .*make mlflow"):
        tracking.connect(TrackingParams(uri=uri))
    assert time.monotonic() - started < 10


def test_a_server_that_never_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(tracking, "_PROBE_SECONDS", 0.3)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        with pytest.raises(SrgptError, match="does not answer"):
            tracking.connect(TrackingParams(uri=f"http://127.0.0.1:{silent.getsockname()[1]}"))


def test_a_server_that_fails_keeps_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    server = http.server.HTTPServer(("127.0.0.1", 0), Answering)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        uri = f"http://me:hush%2Fhush@127.0.0.1:{server.server_port}/ml?token=alsosecret"
        for code in (500, 401):
            monkeypatch.setattr(Answering, "code", code)
            with pytest.raises(SrgptError) as caught:
                tracking.connect(TrackingParams(uri=uri))
            everything = f"{caught.value}{caught.value.__cause__}"
            assert "127.0.0.1" in everything
            assert not any(s in everything for s in ("hush", "alsosecret"))
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("http://me:pw@host:5000/a?x=1", "http://host:5000/a"),
        ("postgresql://me:p%40w@db/mlflow?password=x", "postgresql://db/mlflow"),
        ("sqlite:///.srgpt/mlflow.db", "sqlite:///.srgpt/mlflow.db"),
        ("databricks", "databricks"),
    ],
)
def test_a_uri_is_shown_without_its_secrets(uri: str, shown: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert tracking.shown_uri(TrackingParams(uri=uri)) == shown


def test_messages_lose_every_spelling_of_a_secret() -> None:
    uri = "postgresql://me:p%40ss@db/mlflow"
    text = f"cannot connect to {uri} as me:p@ss or p%40ss; see http://other:word@x"
    assert not any(s in tracking._redact(text, uri) for s in ("p@ss", "p%40ss", "word"))


@pytest.mark.parametrize("uri", ["http://", "http://host:notaport"])
def test_a_uri_that_is_none(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(InputError, match=r"tracking\.uri"):
        tracking.connect(TrackingParams(uri=uri))


def test_a_store_that_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "text.db").write_text("this is not a database, but a longer text " * 30)
    with pytest.raises(SrgptError, match=r"text\.db cannot be used as MLflow's store"):
        tracking.connect(TrackingParams(uri=f"sqlite:///{tmp_path}/text.db"))
    with pytest.raises(SrgptError, match="cannot be used as MLflow's store"):
        tracking.connect(TrackingParams(uri=f"sqlite:///{tmp_path}/text.db/below/mlflow.db"))
    with closing(sqlite3.connect(tmp_path / "other.db")) as other:
        other.execute("create table alembic_version (version_num text)")
        other.execute("insert into alembic_version values ('of another program')")
        other.commit()
    with pytest.raises(SrgptError, match="MLflow at sqlite"):
        tracking.connect(TrackingParams(uri=f"sqlite:///{tmp_path}/other.db"))


def test_a_deleted_experiment_says_how_to_bring_it_back(store: TrackingParams) -> None:
    client = tracking.connect(store)
    client.delete_experiment(client.get_experiment_by_name("here").experiment_id)
    with pytest.raises(SrgptError, match=r"was deleted.*mlflow experiments restore"):
        tracking.connect(store)


def test_a_registry_in_trouble_is_not_an_empty_one(store: TrackingParams, tmp_path: Path) -> None:
    tracking.connect(store)
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as database:
        database.execute("drop table registered_models")
        database.commit()
    with pytest.raises(SrgptError, match="MLflow at"):
        tracking.version_of_alias(store, "srgpt", "champion")


def test_mlflow_keeps_quiet(store: TrackingParams) -> None:
    tracking.connect(store)
    assert logging.getLogger("alembic").level == logging.WARNING
