"""Training end to end at tiny sizes: stages of ZeRO, ranks, resumption, what is written and logged."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

from srgpt.errors import InputError, SrgptError
from srgpt.model import SrgptForConditionalGeneration, SrgptProcessor
from srgpt.stages.train import run, state_file
from srgpt.storage import read_manifest, work_url
from srgpt.tracking import connect
from tests.training.data import tiny_params, write_dataset

STAGE = "1-instruct"


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("data"))


def train(folder, source, name="model", **section):
    params = tiny_params(folder, **section)
    return run(params, source=source, out=str(folder / name))


def losses(folder, params, run_id):
    history = connect(params.tracking).get_metric_history(run_id, "train/loss")
    return {m.step: m.value for m in history}


def same_weights(one: Path, two: Path) -> bool:
    """Whether two models agree bit for bit."""
    first, second = (load_file(p / "model.safetensors") for p in (one, two))
    assert first.keys() == second.keys()
    return all(first[k].equal(second[k]) for k in first)


def test_a_model_folder_with_its_lineage(tmp_path, source):
    # the parameter names another dataset than the one that is given
    summary = train(tmp_path, source, dataset="bench")
    model = tmp_path / "model"
    assert not Path(work_url(str(model))).exists()
    names = {p.name for p in model.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "processor_config.json"} <= names
    assert {"lineage.json", "training.json"} <= names
    assert not {"checkpoints", "job.json", "state.json", STAGE} & names
    assert json.loads((model / "training.json").read_text()) == summary
    assert (summary["steps"], summary["samples_seen"], summary["resumed_at"]) == (6, 24, 0)
    lineage = json.loads((model / "lineage.json").read_text())
    assert set(lineage) == {"commit", "profile", "params_hash", "data", "run_id"}
    assert lineage["data"] == {"train": read_manifest(source).fingerprint}
    assert len(summary["dataset_fingerprint"]) == 64
    SrgptForConditionalGeneration.from_pretrained(model)
    SrgptProcessor.from_pretrained(model)

    params = tiny_params(tmp_path)
    logged = connect(params.tracking).get_run(lineage["run_id"])
    assert logged.info.status == "FINISHED"
    assert logged.data.tags["srgpt.stage"] == "train"
    assert logged.data.params["train.steps"] == "6"
    assert sorted(losses(tmp_path, params, lineage["run_id"])) == [2, 4, 6]
    for name in ("learning_rate", "gradient_norm", "tokens_per_second", "samples_per_second"):
        assert f"train/{name}" in logged.data.metrics
    assert logged.data.metrics["train/gradient_norm"] > 0


def test_the_last_steps_are_reported(tmp_path, source):
    train(tmp_path, source, steps=3)
    run_id = json.loads((tmp_path / "model" / "lineage.json").read_text())["run_id"]
    assert sorted(losses(tmp_path, tiny_params(tmp_path), run_id)) == [2, 3]


def test_answers_that_do_not_fit_are_named(tmp_path, source):
    """Not a loss that is no number, which is all that comes of no label."""
    model = tiny_params(tmp_path).dump()["train"]["model"]
    model["text"]["max_length"] = 8
    with pytest.raises(InputError, match=r"max_length = 8: nothing is left to learn in step 1.* raise it"):
        train(tmp_path, source, model=model)


def test_the_same_parameters_give_the_same_model(tmp_path, source):
    one, two = train(tmp_path, source, "one", steps=3), train(tmp_path, source, "two", steps=3)
    assert one["final_loss"] == two["final_loss"]
    assert same_weights(tmp_path / "one", tmp_path / "two")


KILLED = """
import sys
from tests.training.data import tiny_params
from srgpt.stages.train import run
from pathlib import Path
folder = Path(sys.argv[1])
run(tiny_params(folder, steps=40), source=sys.argv[2], out=str(folder / "model"))
"""


@pytest.mark.slow
def test_killed_and_started_again_ends_with_the_same_loss(tmp_path, source, root):
    whole = train(tmp_path, source, "whole", steps=40)
    env = {**os.environ, "PYTHONPATH": str(root)}
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path), source], env=env, start_new_session=True
    )
    pointer = Path(work_url(str(tmp_path / "model"))) / STAGE / "checkpoints" / "latest.json"
    deadline = time.monotonic() + 200
    while not pointer.exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    state = json.loads(state_file(pointer.parents[2]).read_text())
    _wait_for_ranks_to_end(pointer.parents[1])
    resumed = train(tmp_path, source, "model", steps=40)
    assert 0 < resumed["resumed_at"] < 40
    assert resumed["final_loss"] == whole["final_loss"]
    assert same_weights(tmp_path / "whole", tmp_path / "model")
    assert json.loads((tmp_path / "model" / "lineage.json").read_text())["run_id"] == state["run_id"]


def _wait_for_ranks_to_end(work: Path) -> None:
    """The ranks are in a group of their own, which a guard ends when their starter is killed."""
    job = str(work / "job.json").encode()
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        commands = [p / "cmdline" for p in Path("/proc").iterdir() if p.name.isdigit()]
        if not any(_reads(c, job) for c in commands):
            return
        time.sleep(0.1)
    raise AssertionError("ranks outlive their killed starter")


def _reads(command: Path, job: bytes) -> bool:
    try:
        text = command.read_bytes()
    except OSError:
        return False
    return job in text and b"srgpt.training.worker" in text


def test_other_parameters_do_not_resume(tmp_path, source):
    work = Path(work_url(str(tmp_path / "model")))
    (work / STAGE / "checkpoints").mkdir(parents=True)
    (work / STAGE / "checkpoints" / "latest.json").write_text("{}")
    state_file(work).write_text('{"identity": "other", "run_id": "x"}')
    assert train(tmp_path, source, steps=2)["resumed_at"] == 0


def test_a_loss_that_is_not_a_number_stops_the_run_by_name(tmp_path, source):
    with pytest.raises(SrgptError, match="learning_rate") as told:
        train(tmp_path, source, learning_rate=1e30, gradient_clipping=1e30)
    assert re.search(r"(is nan|is inf) at step \d \(learning rate 1e\+30\); ", str(told.value))
    assert len(re.findall(r"talk-\d+", str(told.value))) == 4
    status = [r.info.status for r in _runs(tmp_path)]
    assert status == ["FAILED"]
    assert not (tmp_path / "model").exists()


def _runs(folder):
    client = connect(tiny_params(folder).tracking)
    experiment = client.get_experiment_by_name("srgpt")
    return client.search_runs([experiment.experiment_id])


def test_an_unreachable_tracking_server_stops_before_any_work(tmp_path, source, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with pytest.raises(SrgptError, match="does not answer"):
        train(tmp_path, source)
    assert list(tmp_path.iterdir()) == []


def test_scenes_that_are_not_there_are_named(tmp_path):
    url = write_dataset(tmp_path / "data", shards=1, scenes=2)
    shutil.rmtree(tmp_path / "data" / "perceived")
    with pytest.raises(InputError, match="perceived"):
        train(tmp_path, url)


@pytest.mark.parametrize("ranks", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_wrong_input_is_told_from_failed_work(tmp_path, ranks):
    url = write_dataset(tmp_path / "data", shards=1, scenes=4)
    (shard,) = (tmp_path / "data" / "perceived").glob("*.parquet")
    shard.write_bytes(b"cut off")
    with pytest.raises(InputError, match="content differs from its manifest"):
        train(tmp_path, url, ranks=ranks, batch_images=2)


def test_watching_changes_nothing(tmp_path, source):
    """Metrics at every step and pages of answers, or none of them: the same bits."""
    plain = train(tmp_path, source, "plain", log_steps=100)
    watched = train(tmp_path, source, "watched", log_steps=1, sample_steps=2, spike_factor=100)
    assert watched["final_loss"] == plain["final_loss"]
    assert same_weights(tmp_path / "plain", tmp_path / "watched")
    assert not (tmp_path / "watched" / "samples").exists()
    lineage = json.loads((tmp_path / "watched" / "lineage.json").read_text())
    client = connect(tiny_params(tmp_path).tracking)
    pages = [f.path for f in client.list_artifacts(lineage["run_id"], "samples")]
    assert pages == [f"samples/step-00000{k}.html" for k in (2, 4, 6)]
    logged = client.get_run(lineage["run_id"]).data.metrics
    for name in ("loss/left_right", "loss/width", "mfu", "memory_gb", "tokens_seen", "hours"):
        assert logged[f"train/{name}"] > 0


@pytest.mark.slow
def test_answers_under_zero_3_are_those_of_the_whole_model(tmp_path, source):
    """Every rank takes part in asking, and training goes on from there as if nobody had asked."""
    plain = train(tmp_path, source, "plain", steps=3, sample_steps=2)
    spread = train(tmp_path, source, "spread", steps=3, sample_steps=2, batch_images=2, ranks=2, zero_stage=3)
    assert spread["final_loss"] == pytest.approx(plain["final_loss"], abs=1e-5)
    client = connect(tiny_params(tmp_path).tracking)
    shown = []
    for name in ("plain", "spread"):
        run_id = json.loads((tmp_path / name / "lineage.json").read_text())["run_id"]
        page = client.download_artifacts(run_id, "samples/step-000002.html", str(tmp_path))
        shown.append(re.findall(r'class="answer">([^<]*)', Path(page).read_text()))
    assert len(shown[0]) == 8
    assert shown[0] == shown[1]


@pytest.mark.slow
def test_reading_ahead_gives_the_same_loss(tmp_path, source):
    plain = train(tmp_path, source, "plain", steps=2)
    ahead = train(tmp_path, source, "ahead", steps=2, data_workers=1)
    assert ahead["final_loss"] == plain["final_loss"]
    assert same_weights(tmp_path / "plain", tmp_path / "ahead")


def test_a_training_outlasts_its_tracking_server(tmp_path, source, root, monkeypatch, capfd):
    monkeypatch.setattr("srgpt.training.launch._MODULE", "tests.training.outage")
    monkeypatch.setenv("PYTHONPATH", str(root))
    train(tmp_path, source, sample_steps=4)
    shown = capfd.readouterr().err
    assert shown.count("MLflow at http://somewhere: no answer\nThe training goes on") == 1
    assert "3 points did not get to the tracking server" in shown
    assert "1 pages did not get to the tracking server" in shown
    # the stage, whose server answers again, has sent them
    run_id = json.loads((tmp_path / "model" / "lineage.json").read_text())["run_id"]
    assert sorted(losses(tmp_path, tiny_params(tmp_path), run_id)) == [2, 4, 6]
    (page,) = connect(tiny_params(tmp_path).tracking).list_artifacts(run_id, "samples")
    assert page.path == "samples/step-000004.html"
    assert not (tmp_path / "model" / "undelivered.json").exists()


RANK = """
import os, subprocess, sys, time
from pathlib import Path
from srgpt.training import worker

def run(job):
    pids = Path(sys.argv[1])
    pids.with_suffix(".tmp").write_text(f"{os.getpid()} {os.getppid()}")
    pids.with_suffix(".tmp").rename(pids)
    time.sleep(300)

if len(sys.argv) == 3:
    worker.run, worker.Job.read = run, lambda path: None
    worker.main("")
subprocess.run([sys.executable, __file__, sys.argv[1], "rank"], start_new_session=True)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="asks the Linux kernel")
def test_a_rank_ends_with_its_parent(tmp_path, root):
    script, pids = tmp_path / "rank.py", tmp_path / "pids"
    script.write_text(RANK)
    env = {**os.environ, "PYTHONPATH": str(root)}
    with subprocess.Popen([sys.executable, str(script), str(pids)], env=env) as parent:
        _until(pids.exists)
        rank, its_parent = (int(p) for p in pids.read_text().split())
        assert its_parent == parent.pid
        parent.kill()
    _until(lambda: not _running(rank))


def _running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def _until(condition, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)
