"""The same training, whatever computes it: batches, ranks, ZeRO stages, kills and what resumes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from srgpt.process import run
from srgpt.training import checkpoint
from tests.training.data import tiny_params, write_dataset
from tests.training.kills import STEPS
from tests.training.matrix import run_plan

pytestmark = pytest.mark.slow

ZERO = (0, 1, 2, 3)
KILLS = 20

HALF = {"rates": {"vision_tower": 0.5, "region_extractor": 0.5}, "weight_decay": 0.1}
"""Groups of parameters that differ in more than their names."""

MUON: dict[str, Any] = {"muon": ["llm.model.layers", "region_extractor"]}


@pytest.fixture(scope="module", autouse=True)
def _importable(root: Path) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(root))
        patch.setenv("OMP_NUM_THREADS", "1")
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("exactness")


@pytest.fixture(scope="module")
def source(folder: Path) -> str:
    return write_dataset(folder / "data")


@pytest.fixture(scope="module")
def one(folder: Path, source: str) -> dict[str, Any]:
    """One rank; ``stoppedN`` with ZeRO stage N stops after step 4 of 8."""
    blind = {"blind_share": 0.4}
    cases = {
        "plain": {"train": {}},
        "blind": {"train": blind},
        "accumulated": {"train": {"batch_images": 2, "accumulation": 2}},
        "muon": {"train": MUON},
        "whole": {"train": {"steps": 8, **HALF}},
        "frozen": {"train": {"steps": 8, **HALF}, "freeze": ["vision_tower"]},
        "offloaded": {"train": {"zero_stage": 2, "offload": "optimizer"}},
        "far": {"train": {"zero_stage": 3, "offload": "parameters"}},
    }
    cases |= {
        f"zero{z}": {"train": {"zero_stage": z, "batch_images": 2, "accumulation": 2}} for z in ZERO[1:]
    }
    cases["cut"] = {"train": {"steps": 8}, "stop": 5, "every": 3}
    cases["checkpointed"] = {"train": {"zero_stage": 3, "dtype": "bfloat16", "gradient_checkpointing": True}}
    cases |= {f"half{z}": {"train": {"zero_stage": z, "dtype": "bfloat16"}} for z in ZERO}
    cases |= {f"one-stop{z}": {"train": {"steps": 8, "zero_stage": z, **HALF}, "stop": 4} for z in ZERO}
    return run_plan(folder, source, 1, cases)


@pytest.fixture(scope="module")
def two(folder: Path, source: str) -> dict[str, Any]:
    """Two ranks, of half the batch; under ``blind`` some rank has no picture at all in some step."""
    cases = {f"zero{z}": {"train": {"batch_images": 1, "accumulation": 2, "zero_stage": z}} for z in ZERO}
    cases |= {f"blind{z}": {"train": {"batch_images": 2, "blind_share": 0.4, "zero_stage": z}} for z in ZERO}
    cases["muon"] = {"train": {"batch_images": 2, **MUON}}
    stopped = {"steps": 8, "batch_images": 2, **HALF}
    cases |= {f"two-stop{z}": {"train": {"zero_stage": z, **stopped}, "stop": 4} for z in ZERO}
    cases["frozen-stop"] = {"train": {"zero_stage": 3, **stopped}, "stop": 4, "freeze": ["vision_tower"]}
    (folder / "two").mkdir()
    return run_plan(folder / "two", source, 2, cases)


def losses(case: dict[str, Any]) -> list[float]:
    return list(case["losses"].values())


def norms(case: dict[str, Any]) -> list[float]:
    return [point["gradient_norm"] for point in case["points"].values()]


@pytest.mark.parametrize("name", ["accumulated", "zero1", "zero2", "zero3", "offloaded", "far"])
def test_accumulation_zero_and_offload_change_nothing(one: dict[str, Any], name: str) -> None:
    assert len(losses(one[name])) == 6
    assert losses(one[name]) == pytest.approx(losses(one["plain"]), abs=1e-5)
    assert norms(one[name]) == pytest.approx(norms(one["plain"]), rel=1e-4)


@pytest.mark.parametrize("stage", ZERO)
def test_bfloat16_comes_to_nearly_the_same(one: dict[str, Any], stage: int) -> None:
    assert losses(one[f"half{stage}"]) == pytest.approx(losses(one["plain"]), abs=0.2)
    assert losses(one[f"half{stage}"]) != losses(one["plain"])


def test_activations_that_are_computed_twice_are_the_same(one: dict[str, Any]) -> None:
    assert losses(one["checkpointed"]) == pytest.approx(losses(one["half3"]), abs=1e-2)


@pytest.mark.parametrize("stage", ZERO)
def test_two_ranks_equal_one(one: dict[str, Any], two: dict[str, Any], stage: int) -> None:
    assert losses(two[f"zero{stage}"]) == pytest.approx(losses(one["plain"]), abs=1e-5)
    assert norms(two[f"zero{stage}"]) == pytest.approx(norms(one["plain"]), rel=1e-4)


def test_muon_takes_the_same_steps_on_two_ranks(one: dict[str, Any], two: dict[str, Any]) -> None:
    # it rounds to bfloat16 within, so that what differs in the last bit comes out larger
    assert losses(two["muon"]) == pytest.approx(losses(one["muon"]), abs=1e-3)
    assert losses(one["muon"])[0] == pytest.approx(losses(one["plain"])[0], abs=1e-6)
    assert losses(one["muon"])[1:] != pytest.approx(losses(one["plain"])[1:], abs=1e-3)


@pytest.mark.parametrize("stage", ZERO)
def test_a_rank_without_a_picture_is_not_waited_for(
    one: dict[str, Any], two: dict[str, Any], stage: int
) -> None:
    assert losses(two[f"blind{stage}"]) == pytest.approx(losses(one["blind"]), abs=1e-5)


def test_what_is_counted_is_counted_over_all_ranks(one: dict[str, Any], two: dict[str, Any]) -> None:
    for single, double in zip(one["plain"]["points"].values(), two["zero2"]["points"].values(), strict=True):
        assert double["tokens_seen"] == single["tokens_seen"] > 0
        for name in ("loss/left_right", "loss/width"):
            assert double[name] == pytest.approx(single[name], abs=1e-4)
    # what the families lose, the whole does: their mean lies between them
    point = one["plain"]["points"]["1"]
    low, high = sorted((point["loss/left_right"], point["loss/width"]))
    assert low < point["loss"] < high


def test_one_rank_that_is_asked_stops_all(two: dict[str, Any]) -> None:
    for stage in ZERO:
        stopped = two[f"two-stop{stage}"]
        assert list(stopped["losses"]) == ["1", "2", "3", "4"]
        assert "after step 4 of 8" in stopped["ended"]


def test_what_was_not_reported_yet_is_when_training_stops(one: dict[str, Any]) -> None:
    assert list(one["cut"]["losses"]) == ["3", "5"]


CHANGES = [
    # world and stage that wrote the checkpoint, world and stage that go on
    *((1, z, 2, z) for z in ZERO),
    *((2, z, 1, z) for z in ZERO if z != 1),
    (2, 1, 1, 2),
]


@pytest.fixture(scope="module")
def resumed(folder: Path, source: str, one: dict[str, Any], two: dict[str, Any]) -> dict[str, Any]:
    """Every change of ranks, gone on with to the end."""
    plans: dict[int, dict[str, Any]] = {1: {}, 2: {}}
    for world, stage, then, later in CHANGES:
        place = folder / f"one-stop{stage}" if world == 1 else folder / "two" / f"two-stop{stage}"
        section = {"steps": 8, "batch_images": 4 // then, "zero_stage": later, **HALF}
        plans[then][f"{world}-{stage}-{then}-{later}"] = {"train": section, "folder": str(place)}
    frozen = {"steps": 8, "zero_stage": 3, **HALF}
    plans[1]["frozen"] = {
        "train": frozen,
        "folder": str(folder / "two/frozen-stop"),
        "freeze": ["vision_tower"],
    }
    results = {}
    for world, cases in plans.items():
        for case in cases.values():
            params = tiny_params(folder, **case["train"], ranks=world)
            checkpoint.convert(Path(case["folder"]) / "checkpoints", params.train)
        results |= run_plan(folder, source, world, cases)
    return results


@pytest.mark.parametrize("change", CHANGES, ids=lambda c: "-".join(map(str, c)))
def test_a_training_goes_on_with_other_ranks(
    one: dict[str, Any], resumed: dict[str, Any], change: tuple[int, ...]
) -> None:
    found = resumed["-".join(map(str, change))]
    assert list(found["losses"]) == ["5", "6", "7", "8"]
    assert losses(found) == pytest.approx(losses(one["whole"])[4:], abs=1e-4)
    assert norms(found) == pytest.approx(norms(one["whole"])[4:], rel=1e-3)
    assert found["points"]["8"]["tokens_seen"] == one["whole"]["points"]["8"]["tokens_seen"]


def test_what_is_frozen_stays_so_with_other_ranks(one: dict[str, Any], resumed: dict[str, Any]) -> None:
    assert losses(resumed["frozen"]) == pytest.approx(losses(one["frozen"])[4:], abs=1e-4)
    assert losses(one["frozen"]) != pytest.approx(losses(one["whole"]), abs=1e-4)


def test_killed_twenty_times_the_losses_are_those_of_the_undisturbed_bit_for_bit(
    tmp_path: Path, source: str
) -> None:
    lines: list[str] = []
    run(
        [sys.executable, "-m", "tests.training.kills", str(tmp_path), source, str(KILLS)],
        on_line=lines.append,
    )
    assert f"{KILLS} kills" in lines
    whole = dict(line.split() for line in (tmp_path / "whole.txt").read_text().splitlines())
    cut = [line.split() for line in (tmp_path / "losses.txt").read_text().splitlines()]
    assert list(whole) == [str(step) for step in range(1, STEPS + 1)]
    assert {step for step, _ in cut} == set(whole)
    assert [(step, loss) for step, loss in cut if whole[step] != loss] == []
