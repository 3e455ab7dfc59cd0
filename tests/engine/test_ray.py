"""The Ray backend: the same rows, rejects and bytes as the local one, and the same errors."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from functools import partial
from multiprocessing import parent_process
from pathlib import Path

import pytest

from srgpt.engine import Mapped, map_table
from srgpt.errors import InputError
from srgpt.params import EngineParams, build
from srgpt.records import Rejected
from srgpt.stages import ask, ingest, lift, perceive
from srgpt.storage import Manifest, TableWriter, read_rejected
from tests.engine.test_local import TASKS, dies_on, fails, numbers

pytestmark = pytest.mark.slow

SMALL = {
    "ingest": {"scenes": 4, "shard_scenes": 2, "procedural": {"image_size": 48, "min_pixels": 6}},
    "ask": {"turns": 3},
}


def test_a_cluster_that_does_not_answer_is_a_clear_error(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    writer = TableWriter(str(tmp_path / "t"), "graphs", stage="lift", dataset="d", params={})
    for address in ("127.0.0.1:9", "auto"):
        engine = EngineParams(backend="ray", ray_address=address)
        with pytest.raises(InputError, match=f"engine.ray_address = {address}: no Ray cluster answers there"):
            map_table(partial(dies_on, set()), TASKS, writer, engine)


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    """Whatever a test starts ends with the module."""
    ray = pytest.importorskip("ray")
    yield
    ray.shutdown()


def test_stages_write_the_same_bytes_as_locally(tmp_path: Path) -> None:
    local, on_ray = (build({**SMALL, "engine": {"backend": b, "workers": 2}}) for b in ("local", "ray"))
    one, two, work = tmp_path / "local", tmp_path / "ray", tmp_path / "work"
    ingest.run(local, source=None, out=str(one / "scenes"), dataset="train")
    perceive.run(local, source=str(one / "scenes"), out=str(work / "perceived"))
    lift.run(local, source=str(work / "perceived"), out=str(work / "graphs"))
    ask.run(local, source=str(work / "graphs"), out=str(one / "conversations"))
    ingest.run(on_ray, source=None, out=str(two / "scenes"), dataset="train")
    ask.run(on_ray, source=str(work / "graphs"), out=str(two / "conversations"))
    files = sorted(path.relative_to(one) for path in one.rglob("*.*"))
    assert len(files) == 6, "two shards and a manifest each"
    assert files == sorted(path.relative_to(two) for path in two.rglob("*.*"))
    for file in files:
        assert (two / file).read_bytes() == (one / file).read_bytes(), file


def make(transform, out: Path, backend: str) -> Manifest:
    writer = TableWriter(str(out), "graphs", stage="lift", dataset="d", params={})
    engine = EngineParams(backend=backend, workers=2)  # type: ignore[arg-type]
    return writer.commit(map_table(transform, TASKS, writer, engine))


def dies_on_five_and_loses_its_actor(folder: Path, numbers: Iterator[int]) -> Mapped:
    """Item 5 kills its worker; at item 9 the actor itself, the worker's parent, is killed once."""
    rows = []
    for number in numbers:
        parent = parent_process()
        if number == 9 and not (folder / "died").exists() and parent is not None:
            (folder / "died").touch()
            os.kill(parent.pid, signal.SIGKILL)
        rows.append(number)
    return dies_on({5}, iter(rows))


def test_lost_actors_are_replaced_and_items_that_kill_workers_set_aside_as_locally(tmp_path: Path) -> None:
    make(partial(dies_on, {5}), tmp_path / "local", "local")
    make(partial(dies_on_five_and_loses_its_actor, tmp_path), tmp_path / "ray", "ray")
    assert (tmp_path / "died").exists()
    assert numbers(tmp_path / "ray") == [n for n in range(12) if n != 5]
    assert read_rejected(str(tmp_path / "ray")) == read_rejected(str(tmp_path / "local")) != []


def test_an_error_surfaces_as_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^cannot do"):
        make(partial(fails, InputError), tmp_path / "t", "ray")
    assert not (tmp_path / "t").exists()


def test_actors_claim_gpus_that_must_be_there_even_where_the_cluster_has_none_yet() -> None:
    from srgpt.engine import ray as module

    engine = EngineParams(backend="ray", workers=2, gpus_per_worker=0.5)
    module._join(engine)
    here = module.ray.cluster_resources().get("GPU", 0) > 0
    assert module._gpus_each(engine, "cuda") == 0.5
    assert module._gpus_each(engine, "auto") == (0.5 if here else 0)
    assert module._gpus_each(engine, "cpu") == 0


def sees_gpus(numbers: Iterator[int]) -> Mapped:
    seen = os.environ.get("CUDA_VISIBLE_DEVICES", "all")
    return Mapped([], [Rejected(f"n{n}", "saw", seen) for n in numbers])


def test_a_worker_that_claims_no_gpu_sees_none(tmp_path: Path) -> None:
    writer = TableWriter(str(tmp_path / "t"), "graphs", stage="lift", dataset="d", params={})
    engine = EngineParams(backend="ray", workers=2, gpus_per_worker=0)
    writer.commit(map_table(sees_gpus, TASKS, writer, engine, device="auto"))
    assert {item["detail"] for item in read_rejected(str(tmp_path / "t"))} == {""}
