from __future__ import annotations

import json
from pathlib import Path

import pytest

from srgpt.errors import InputError
from srgpt.export.questions import SmokeQuestion
from srgpt.promotion import registry
from srgpt.records import Prediction
from srgpt.serving.protocol import Request
from srgpt.storage import TableWriter, shard_name, write_shard
from tests.promotion.conftest import write_evaluation

WITH_DEPTH = SmokeQuestion(Request(b"i", "q", (), b"d"), "width_data", "export says", "c0", 1)
WITHOUT = SmokeQuestion(Request(b"i", "q"), "width_data", "export says", "c1", 0)


def write_predictions(folder: Path) -> None:
    writer = TableWriter(
        str(folder / "predictions"), "predictions", stage="evaluate", dataset="bench", params={}
    )
    rows = [
        Prediction(
            "bench", "s", c, t, "width_data", "q", "a", text, 1.0, "metres", None, False, None, inputs
        ).to_row()
        for c, t, text, inputs in (
            ("c0", 1, "evaluated with depth", "rgbd"),
            ("c0", 1, "evaluated blind", "blind"),
            ("c0", 0, "another turn", "rgbd"),
            ("c1", 0, "evaluated with black depth", "rgbd"),
        )
    ]
    write_shard(writer.work, shard_name(0), "predictions", rows)
    writer.commit([shard_name(0)])


def test_expected_answers_are_the_evaluated_ones_for_the_same_inputs(tmp_path: Path) -> None:
    write_predictions(tmp_path)
    found = registry.evaluated([WITH_DEPTH, WITHOUT], str(tmp_path))
    assert [q.answer for q in found] == ["evaluated with depth", "export says"]


def test_without_predictions_the_export_speaks_for_itself(tmp_path: Path) -> None:
    assert registry.evaluated([WITH_DEPTH], write_evaluation(tmp_path)) == [WITH_DEPTH]


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no export here"):
        registry.open_export(str(tmp_path / "nothing"), str(tmp_path))
    (tmp_path / "onnx").mkdir()
    (tmp_path / "onnx" / "manifest.json").write_text(json.dumps({"format": 1, "files": {}, "device": "cpu"}))
    with pytest.raises(InputError, match=r"parity\.json: cannot be read"):
        registry.open_export(str(tmp_path), str(tmp_path))
    (tmp_path / "parity.json").write_text("{}")
    (tmp_path / "lineage.json").write_text("[]")
    with pytest.raises(InputError, match=r"lineage\.json: an object was expected"):
        registry.open_export(str(tmp_path), str(tmp_path))
    (tmp_path / "lineage.json").write_text("{}")
    (tmp_path / "metrics.json").write_text('{"blind": {}}')
    with pytest.raises(InputError, match="holds no figures of the model"):
        registry.open_export(str(tmp_path), str(tmp_path))
