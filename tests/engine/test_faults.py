"""Faults of the world: processes that are killed, a store that refuses and hangs. The result is the same bytes."""

from __future__ import annotations

import os
import random
import secrets
import signal
import time
from collections.abc import Iterator
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import pytest

from srgpt.engine import Mapped, Row
from srgpt.params import LiftParams, Params, build
from srgpt.stages import ask, ingest, lift, perceive
from srgpt.storage import (
    TableWriter,
    filesystem,
    read_manifest,
    read_rows,
    read_shard,
    work_url,
    write_shard,
)
from tests.engine.unruly_s3 import UnrulyServer

SHARDS = 6
SMALL = {
    "ingest": {"scenes": 2 * SHARDS, "shard_scenes": 2, "procedural": {"image_size": 48, "min_pixels": 6}},
    "ask": {"turns": 4},
}


def params(workers: int) -> Params:
    return build({**SMALL, "engine": {"workers": workers}})


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Perceived scenes, and what becomes of them when nothing happens."""
    folder = tmp_path_factory.mktemp("undisturbed")
    ingest.run(params(1), source=None, out=str(folder / "scenes"), dataset="train")
    perceive.run(params(1), source=str(folder / "scenes"), out=str(folder / "perceived"))
    lift.run(params(1), source=str(folder / "perceived"), out=str(folder / "graphs"))
    ask.run(params(1), source=str(folder / "graphs"), out=str(folder / "conversations"))
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


# Processes that are killed -----------------------------------------------------------------------------------


def fragile_lift(
    folder: Path, points: frozenset[tuple[str, str]], params: LiftParams, scenes: Iterator[Row]
) -> Mapped:
    """Lift, and be killed at each of ``points`` once: before or after a scene."""

    def die(*point: str) -> None:
        mark = folder / "-".join(point)
        if point in points and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    def fragile() -> Iterator[Row]:
        for row in scenes:
            die("before", row["scene_id"])
            yield row
            die("after", row["scene_id"])

    return lift._lift(params, fragile())


def test_workers_killed_at_random_points_change_no_byte(
    undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [row["scene_id"] for row in read_rows(str(undisturbed / "graphs"), "graphs")]
    points = random.Random(3).sample([(when, i) for when in ("before", "after") for i in ids], 5)
    (tmp_path / "died").mkdir()
    real = lift._lift
    monkeypatch.setattr(lift, "_lift", partial(fragile_lift, tmp_path / "died", frozenset(points)))
    lift.run(params(2), source=str(undisturbed / "perceived"), out=str(tmp_path / "graphs"))
    assert {path.name for path in (tmp_path / "died").iterdir()} == {"-".join(point) for point in points}
    assert lift._lift is not real
    found, expected = contents(tmp_path / "graphs"), contents(undisturbed / "graphs")
    for files in (found, expected):
        del files["manifest.json"]  # holds the relative path of the input
    assert found == expected


def slow_lift(begun: Path, params: LiftParams, scenes: Iterator[Row]) -> Mapped:
    """Lift at a pace that leaves time to be killed, and say which process began which scene."""

    def slowly() -> Iterator[Row]:
        for row in scenes:
            (begun / f"{os.getpid()}-{row['scene_id']}").touch()
            time.sleep(0.15)
            yield row

    return lift._lift(params, slowly())


def run_slowly(source: str, out: str, begun: Path) -> None:
    lift._lift = partial(slow_lift, begun)  # type: ignore[assignment]
    lift.run(params(2), source=source, out=out)


@pytest.mark.slow
def test_runs_killed_at_random_moments_leave_no_orphan_and_change_no_byte(
    undisturbed: Path, tmp_path: Path
) -> None:
    out, begun = tmp_path / "graphs", tmp_path / "begun"
    begun.mkdir()
    context = get_context("forkserver")
    arguments = (str(undisturbed / "perceived"), str(out), begun)
    finished = []
    for scenes in random.Random(4).sample(range(1, 6), 5):
        run = context.Process(target=run_slowly, args=arguments)
        run.start()
        target = len(list(begun.iterdir())) + scenes
        _wait_until(lambda: len(list(begun.iterdir())) >= target)  # noqa: B023
        run.kill()
        run.join()
        workers = {path.name.split("-")[0] for path in begun.iterdir()}
        _wait_until(lambda: not any(map(_alive, workers)))  # noqa: B023
        finished.append(len(list(Path(work_url(str(out))).glob("*.done"))))
    assert not out.exists()
    assert finished == sorted(finished), "no finished shard is lost"
    assert 0 < finished[-1] < SHARDS, "killed in the midst of it"
    run = context.Process(target=run_slowly, args=arguments)
    run.start()
    run.join()
    assert run.exitcode == 0
    found, expected = contents(out), contents(undisturbed / "graphs")
    assert read_manifest(str(out)).fingerprint == read_manifest(str(undisturbed / "graphs")).fingerprint
    for files in (found, expected):
        del files["manifest.json"]
    assert found == expected


def _wait_until(condition, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def _alive(pid: str) -> bool:
    stat = Path("/proc", pid, "stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


# A store that refuses and hangs ------------------------------------------------------------------------------


@pytest.fixture
def unruly(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[UnrulyServer, str]]:
    """An S3 server that misbehaves once it is armed, and a bucket there."""
    import s3fs

    server = UnrulyServer(hang=4)
    for key, value in {
        "AWS_ENDPOINT_URL": server.url,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(key, value)
    s3fs.S3FileSystem.clear_instance_cache()
    bucket = f"srgpt-test-{secrets.token_hex(4)}"
    s3fs.S3FileSystem().mkdir(bucket)
    yield server, f"s3://{bucket}"
    server.app.armed = False
    s3fs.S3FileSystem.clear_instance_cache()
    server.stop()


@pytest.mark.slow
def test_a_store_that_refuses_a_third_and_hangs_once_loses_and_doubles_nothing(
    undisturbed: Path, unruly: tuple[UnrulyServer, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, bucket = unruly
    monkeypatch.setattr("srgpt.storage.files.READ_TIMEOUT", 1)
    source, manifest = str(undisturbed / "graphs"), read_manifest(str(undisturbed / "graphs"))
    writer = TableWriter(str(tmp_path / "graphs"), "graphs", stage="lift", dataset="train", params={})
    for shard in manifest.shards[:2]:
        write_shard(writer.work, shard.name, "graphs", read_shard(source, shard, "graphs").to_pylist())
    writer.commit([shard.name for shard in manifest.shards[:2]])
    ask.run(params(1), source=str(tmp_path / "graphs"), out=str(tmp_path / "conversations"))
    fs, path = filesystem(bucket)
    fs.put(f"{tmp_path}/graphs/", f"{path}/graphs/", recursive=True)
    server.app.armed = True
    ask.run(params(1), source=f"{bucket}/graphs", out=f"{bucket}/conversations")
    server.app.armed = False
    assert server.app.hung == 1
    assert server.app.refused > server.app.requests / 4
    fs.invalidate_cache()
    found = {name.removeprefix(f"{path}/"): fs.cat_file(name) for name in fs.find(path)}
    tables = (tmp_path / "graphs", tmp_path / "conversations")
    assert found == {f"{t.name}/{name}": data for t in tables for name, data in contents(t).items()}
