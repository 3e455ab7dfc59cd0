"""What only a GPU can show: precision, offload to another device, pinned batches and a fused step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.data import write_dataset
from tests.training.matrix import run_plan

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.slow,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

CASES: dict[str, dict[str, Any]] = {
    "exact": {"dtype": "float32"},
    "muon": {"dtype": "float32", "muon": ["llm.model.layers"]},
    **{f"zero{stage}": {"dtype": "bfloat16", "zero_stage": stage} for stage in range(4)},
    "checkpointed": {"dtype": "bfloat16", "zero_stage": 3, "gradient_checkpointing": True},
    "offloaded": {"dtype": "bfloat16", "zero_stage": 2, "offload": "optimizer"},
    "far": {"dtype": "bfloat16", "zero_stage": 3, "offload": "parameters"},
    "workers": {"dtype": "float32", "data_workers": 1},
}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory, root: Path) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("cuda")
    source = write_dataset(folder / "data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(root))
        return run_plan(folder, source, 1, {name: {"train": train} for name, train in CASES.items()})


@pytest.mark.parametrize("name", [name for name in CASES if name not in ("exact", "muon")])
def test_every_way_comes_to_nearly_the_same(results: dict[str, Any], name: str) -> None:
    exact = list(results["exact"]["losses"].values())
    assert len(exact) == 6
    rounding = 0.2 if CASES[name]["dtype"] == "bfloat16" else 1e-4
    assert list(results[name]["losses"].values()) == pytest.approx(exact, abs=rounding)


def test_muon_steps(results: dict[str, Any]) -> None:
    first, *rest = results["muon"]["losses"].values()
    assert rest[-1] < first
