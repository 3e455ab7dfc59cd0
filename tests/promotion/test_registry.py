from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from srgpt.errors import InputError
from srgpt.export.questions import SmokeQuestion
from srgpt.model.prompts import Inputs
from srgpt.promotion import registry
from srgpt.serving.bundle import FORMAT
from srgpt.serving.protocol import Request
from tests.export import tiny
from tests.promotion.conftest import write_evaluation, write_predictions

WITH_DEPTH = SmokeQuestion(Request(b"i", "q", (), b"d"), "width_data", "export says", "c0", 1, "rgbd")
WITHOUT = SmokeQuestion(Request(b"i", "q"), "width_data", "export says", "c1", 0, "rgb")
ANSWERS: list[tuple[str, int, str, Inputs]] = [
    ("c0", 1, "evaluated with depth", "rgbd"),
    ("c0", 1, "evaluated blind", "blind"),
    ("c0", 0, "another turn", "rgbd"),
    ("c1", 0, "evaluated with black depth", "rgbd"),
]


def test_expected_answers_are_the_evaluated_ones_for_the_same_inputs(tmp_path: Path) -> None:
    write_predictions(tmp_path, ANSWERS)
    found = registry.evaluated([WITH_DEPTH, WITHOUT], str(tmp_path))
    # without depth nothing was asked, as the manifest's inputs say
    assert [q.answer for q in found] == ["evaluated with depth", "export says"]


def test_an_answer_may_be_missing_only_where_the_evaluation_was_cut(tmp_path: Path) -> None:
    write_predictions(tmp_path / "cut", ANSWERS[1:], max_questions=3)
    assert registry.evaluated([WITH_DEPTH], str(tmp_path / "cut")) == [WITH_DEPTH]
    write_predictions(tmp_path / "whole", ANSWERS[1:])
    with pytest.raises(InputError, match=r"no answer to 1 of the export's 1 smoke questions.*c0, turn 1"):
        registry.evaluated([WITH_DEPTH], str(tmp_path / "whole"))
    with pytest.raises(InputError, match="nothing"):
        registry.evaluated([WITH_DEPTH], str(tmp_path / "nothing"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"run_id": "other"}, f"training run other, but .* of that of run {tiny.RUN}"),
        ({"run_id": ""}, r"training run \(not named\)"),
        ({"data": {"bench": "another"}}, "names bench another, but .* proven on the benchmark"),
        ({"data": {}}, "names no data"),
    ],
)
def test_an_evaluation_of_something_else_is_refused(
    change: dict[str, object], message: str, tmp_path: Path
) -> None:
    evaluation = write_evaluation(tmp_path)
    registry.open_export(str(tiny.export()), evaluation, "srgpt")
    lineage = json.loads((tmp_path / "lineage.json").read_text())
    (tmp_path / "lineage.json").write_text(json.dumps({**lineage, **change}))
    with pytest.raises(InputError, match=f"{message}.*Run `srgpt evaluate`"):
        registry.open_export(str(tiny.export()), evaluation, "srgpt")


@pytest.mark.parametrize(
    "name", ["model.py", "srgpt/serving/engine.py", "onnx/manifest.json", "onnx/tower.onnx"]
)
def test_a_changed_file_of_the_model_folder_is_found(name: str, tmp_path: Path) -> None:
    evaluation = write_evaluation(tmp_path / "evaluation")
    shutil.copytree(tiny.export(), tmp_path / "export")
    with (tmp_path / "export" / "triton" / "srgpt" / "1" / name).open("ab") as file:
        file.write(b" ")
    with pytest.raises(InputError, match=f"{name}: content differs"):
        registry.open_export(str(tmp_path / "export"), evaluation, "srgpt")


def test_another_shell_is_another_export(tmp_path: Path) -> None:
    evaluation = write_evaluation(tmp_path)
    ours = registry.open_export(str(tiny.export()), evaluation, "srgpt")
    fixed = registry.open_export(str(tiny.another_export()), evaluation, "srgpt")
    assert ours.hash != fixed.hash
    assert ours.parity["export_hash"] == ours.hash
    assert fixed.parity["export_hash"] == fixed.hash


def test_an_export_keeps_its_name(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"named srgpt, but promote\.model_name is other"):
        registry.open_export(str(tiny.export()), str(tmp_path), "other")


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    def opened() -> registry.Export:
        return registry.open_export(str(tmp_path / "export"), str(tmp_path), "srgpt")

    with pytest.raises(InputError, match="no export here"):
        opened()
    (version := tmp_path / "export" / "triton" / "srgpt" / "1").mkdir(parents=True)
    with pytest.raises(InputError, match=r"no manifest\.json here"):
        opened()
    (version / "manifest.json").write_text(json.dumps({"format": FORMAT, "files": {}, "device": "cpu"}))
    with pytest.raises(InputError, match=r"parity\.json: cannot be read"):
        opened()
    (tmp_path / "export" / "parity.json").write_text("{}")
    (tmp_path / "export" / "lineage.json").write_text("[]")
    with pytest.raises(InputError, match=r"lineage\.json: an object was expected"):
        opened()
    (tmp_path / "export" / "lineage.json").write_text('{"run_id": "r", "benchmark": "b"}')
    with pytest.raises(InputError, match=r"lineage\.json: cannot be read"):
        opened()
    (tmp_path / "lineage.json").write_text('{"run_id": "r", "data": {"bench": "b"}}')
    (tmp_path / "metrics.json").write_text('{"blind": {}}')
    with pytest.raises(InputError, match="holds no figures of the model"):
        opened()
