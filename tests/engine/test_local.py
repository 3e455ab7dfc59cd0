"""Mapping over a table: every item once, errors surface, dead workers are replaced, killers are set aside."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from srgpt.engine import Mapped, map_table
from srgpt.engine.local import worker_environments
from srgpt.errors import InputError, SrgptError
from srgpt.params import EngineParams
from srgpt.records import Rejected
from srgpt.storage import Manifest, TableWriter, read_rejected, read_rows


@dataclass(frozen=True)
class Numbers:
    """A task of consecutive numbers."""

    name: str
    start: int
    size: int

    def items(self) -> Iterator[tuple[str, int]]:
        return ((f"n{i}", i) for i in range(self.start, self.start + self.size))


TASKS = [Numbers(f"part-{i:05d}.parquet", 4 * i, 4) for i in range(3)]


def row(number: int) -> dict:
    return {"dataset": "d", "scene_id": f"n{number}", "width": number, "height": 1, "rotation": [1.0] * 9,
            "nodes": []}  # fmt: skip


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def odd_are_rejected(numbers: Iterator[int]) -> Mapped:
    found = list(numbers)
    return Mapped(
        [row(n) for n in found if n % 2 == 0], [Rejected(f"n{n}", "is-odd", "") for n in found if n % 2]
    )


def dies_on(killers: set[int], numbers: Iterator[int]) -> Mapped:
    rows = []
    for number in numbers:
        if number in killers:
            die()
        rows.append(row(number))
    return Mapped(rows, [])


def dies_on_all_at_once(killers: set[int], numbers: Iterator[int]) -> Mapped:
    found = list(numbers)
    if killers & set(found):
        die()
    return Mapped([row(n) for n in found], [])


def dies_once(folder: Path, at: int, numbers: Iterator[int]) -> Mapped:
    rows = []
    for number in numbers:
        if number == at and not (folder / "died").exists():
            (folder / "died").touch()
            die()
        rows.append(row(number))
    return Mapped(rows, [])


def dies_always(numbers: Iterator[int]) -> Mapped:
    return die()  # type: ignore[return-value]


def fails(kind: type[Exception], numbers: Iterator[int]) -> Mapped:
    raise kind(f"cannot do {next(numbers)}")


class OddError(Exception):
    """An error that pickle cannot bring back."""

    def __init__(self, one: str, other: str = "", *, must: int = 0) -> None:
        super().__init__(f"{one}, at all")
        self.hook = lambda: None


def make(transform, out: Path, workers: int) -> Manifest:
    writer = TableWriter(str(out), "graphs", stage="lift", dataset="d", params={})
    return writer.commit(map_table(transform, TASKS, writer, EngineParams(workers=workers)))


def numbers(out: Path) -> list[int]:
    return [r["width"] for r in read_rows(str(out), "graphs")]


@pytest.mark.parametrize("workers", [1, 2])
def test_every_item_goes_in_once_and_in_order(tmp_path: Path, workers: int) -> None:
    manifest = make(odd_are_rejected, tmp_path / "t", workers)
    assert numbers(tmp_path / "t") == list(range(0, 12, 2))
    assert manifest.rejected == {"is-odd": 6}
    assert [r["id"] for r in read_rejected(str(tmp_path / "t"))] == [f"n{i}" for i in range(1, 12, 2)]


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("kind", [SrgptError, InputError, EOFError, BrokenPipeError])
def test_an_error_surfaces_as_what_it_is(tmp_path: Path, workers: int, kind: type[Exception]) -> None:
    with pytest.raises(kind, match="cannot do"):
        make(partial(fails, kind), tmp_path / "t", workers)
    assert not (tmp_path / "t").exists()


def test_an_error_that_cannot_travel_says_what_it_was(tmp_path: Path) -> None:
    with pytest.raises(SrgptError, match=r"OddError: cannot do \d+, at all"):
        make(partial(fails, OddError), tmp_path / "t", 2)


def test_a_worker_that_dies_is_replaced_and_nothing_is_lost(tmp_path: Path) -> None:
    manifest = make(partial(dies_once, tmp_path, 7), tmp_path / "t", 2)
    assert (numbers(tmp_path / "t"), manifest.rejected) == (list(range(12)), {})


@pytest.mark.parametrize(("transform", "killers"), [(dies_on, (2, 3, 9)), (dies_on_all_at_once, (6,))])
def test_items_that_kill_workers_are_set_aside_and_the_rest_is_done(
    tmp_path: Path, transform, killers: tuple[int, ...]
) -> None:
    manifest = make(partial(transform, set(killers)), tmp_path / "t", 2)
    assert numbers(tmp_path / "t") == [n for n in range(12) if n not in killers]
    assert manifest.rejected == {"kills-worker": len(killers)}
    assert [r["id"] for r in read_rejected(str(tmp_path / "t"))] == [f"n{n}" for n in killers]


def test_workers_that_die_of_nothing_in_particular_end_in_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("srgpt.engine.worker.MAX_DEATHS", 3)
    with pytest.raises(SrgptError, match="keep dying"):
        make(dies_always, tmp_path / "t", 2)


def places(each: float, workers: int = 0, device: str = "auto") -> list[str | None]:
    engine = EngineParams(workers=workers, gpus_per_worker=each)
    found = worker_environments(engine, device=device)  # type: ignore[arg-type]
    return [place.get("CUDA_VISIBLE_DEVICES") for place in found]


def test_each_worker_gets_its_own_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("srgpt.engine.local._gpus", lambda: ["0", "1", "2", "3"])
    assert places(1) == ["0", "1", "2", "3"]
    assert places(2) == ["0,1", "2,3"]
    assert places(3) == ["0,1,2"], "no GPU twice"
    assert places(0.5) == ["0", "1", "2", "3"] * 2
    assert places(0.4) == ["0", "1", "2", "3"] * 2, "a third one would not fit on a GPU"
    assert places(1 / 3) == ["0", "1", "2", "3"] * 3
    assert places(1, workers=2) == ["0", "1"]
    assert places(1, workers=9) == ["0", "1", "2", "3"], "no more than there is room for"
    assert set(places(1, device="cpu")) == {None}


def test_workers_that_claim_no_gpu_see_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("srgpt.engine.local._gpus", lambda: ["0", "1"])
    assert places(0, workers=3) == ["", "", ""]


def test_more_gpus_than_there_are_is_wrong_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("srgpt.engine.local._gpus", lambda: ["0", "1"])
    with pytest.raises(InputError, match=r"engine\.gpus_per_worker = 3: this machine has 2 GPUs"):
        places(3)
    monkeypatch.setattr("srgpt.engine.local._gpus", list)
    assert set(places(3)) == {None}, "without any, models work on the CPU"


@pytest.mark.parametrize("backend", ["local", "ray"])
def test_a_gpu_and_a_half_is_wrong_input(tmp_path: Path, backend: str) -> None:
    writer = TableWriter(str(tmp_path / "t"), "graphs", stage="lift", dataset="d", params={})
    engine = EngineParams(backend=backend, gpus_per_worker=1.5)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"engine\.gpus_per_worker = 1\.5: expected a whole number"):
        map_table(odd_are_rejected, TASKS, writer, engine, device="auto")


def counts_threads(numbers: Iterator[int]) -> Mapped:
    from threadpoolctl import threadpool_info

    threads = max(library["num_threads"] for library in threadpool_info())
    return Mapped([{**row(n), "height": threads} for n in numbers], [])


def test_blas_has_one_thread_in_a_worker(tmp_path: Path) -> None:
    pytest.importorskip("threadpoolctl")
    program = (
        "import sys, pathlib; from tests.engine.test_local import counts_threads, make; "
        "make(counts_threads, pathlib.Path(sys.argv[1]), 2)"
    )
    many = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "3")
    subprocess.run([sys.executable, "-c", program, tmp_path / "t"], check=True, env={**os.environ, **many})
    assert {r["height"] for r in read_rows(str(tmp_path / "t"), "graphs")} == {1}
