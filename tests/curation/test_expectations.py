"""The rules, and how Great Expectations judges frames by them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from srgpt.curation import expectations, rules
from srgpt.curation.store import FRAMES, KEYS, Store
from srgpt.errors import SrgptError
from srgpt.params import ValidateParams

ALL = rules.rules(ValidateParams(), "toy", judge_quality=True)


def _judge(frames: dict[str, list[dict[str, Any]]], names: set[str], folder: Path) -> dict[str, Any]:
    """Judge rows, of which only some columns matter here."""
    judged = tuple(rule for rule in ALL if rule.name in names)
    with pytest.MonkeyPatch.context() as patch, Store(folder / "frames.db") as store:
        patch.setattr(expectations, "render", lambda context: None)
        for frame, rows in frames.items():
            for row in rows:
                store.add(frame, {**dict.fromkeys(FRAMES[frame]), **row})
        found = expectations.run(store, judged, dataset="toy", docs=folder / "d")
    return {outcome.rule: outcome for outcome in found}


def test_rules_have_names_of_their_own_and_judge_known_columns() -> None:
    names = [rule.name for rule in ALL]
    assert len(names) == len(set(names))
    assert {rule.frame for rule in ALL} == set(KEYS) == set(FRAMES)
    assert all(rule.column in FRAMES[rule.frame] for rule in ALL)
    assert all(set(KEYS[frame]) <= set(columns) for frame, columns in FRAMES.items())


def test_quality_is_judged_only_where_asked() -> None:
    less = rules.rules(ValidateParams(), "toy", judge_quality=False)
    assert {r.name for r in ALL} - {r.name for r in less} == {"labels_accurate", "sizes_accurate"}


def test_outcomes_count_and_name_rows(tmp_path: Path) -> None:
    depths = (0.0, -0.5, float("nan"), 0.1)
    rows = [
        {
            "table": "scenes",
            "file": "scenes/part-00000.parquet",
            "row": i,
            "scene_id": scene,
            "key": f"scenes/{scene}",
            "depth_min": depth,
            "gravity_problem": "gravity has length 2, not 1" if scene == "d" else None,
            "dataset": "toy",
        }
        for i, (scene, depth) in enumerate(zip("abbd", depths, strict=True))
    ]
    names = {"scene_unique", "scene_dataset", "depth_not_negative", "gravity_unit"}
    found = _judge({"scenes": rows}, names, tmp_path)
    place = {"file": "scenes/part-00000.parquet"}
    assert found["scene_dataset"].passed
    assert (found["depth_not_negative"].checked, found["depth_not_negative"].failed) == (3, 1)
    assert found["depth_not_negative"].examples == ({**place, "row": 1, "scene_id": "b", "found": -0.5},)
    assert found["gravity_unit"].examples[0]["found"] == "gravity has length 2, not 1"
    assert [e["row"] for e in found["scene_unique"].examples] == [1, 2]


def test_examples_are_limited_and_counts_are_not(tmp_path: Path) -> None:
    rows = [{"table": f"t{i}", "rows": 0} for i in range(50)]
    outcome = _judge({"tables": rows}, {"enough_rows"}, tmp_path)["enough_rows"]
    assert (outcome.failed, len(outcome.examples)) == (50, expectations.EXAMPLES)


def test_a_frame_without_rows_breaks_nothing(tmp_path: Path) -> None:
    found = _judge({"tables": [{"table": "graphs", "rows": 3}]}, {"enough_rows", "answer_agrees"}, tmp_path)
    assert [(o.rule, o.passed, o.checked) for o in found.values()] == [
        ("answer_agrees", True, 0),
        ("enough_rows", True, 1),
    ]


def test_a_rule_that_cannot_be_judged_is_an_error_and_not_a_pass(tmp_path: Path) -> None:
    with Store(tmp_path / "frames.db") as store:
        store.add("tables", {**dict.fromkeys(FRAMES["tables"]), "table": "graphs"})
        store.query('ALTER TABLE "tables" DROP COLUMN rejected_share')
        judged = tuple(rule for rule in ALL if rule.name == "few_rejected")
        with pytest.raises(SrgptError, match=r"few_rejected: .* could not judge tables.rejected_share"):
            expectations.run(store, judged, dataset="toy", docs=tmp_path / "d")


def test_balance_of_no_questions_is_no_verdict(tmp_path: Path) -> None:
    rows = [{"category": "left_predicate"}, {"category": "tall_choice", "judged_yes_share": 0.6}]
    outcome = _judge({"balance": rows}, {"answers_balanced"}, tmp_path)["answers_balanced"]
    assert (outcome.checked, outcome.failed) == (1, 1)
    assert outcome.examples == ({"category": "tall_choice", "found": 0.6},)


def test_a_warning_is_no_failure(tmp_path: Path) -> None:
    rows = [{"category": "width_data", "judged_lead": 0.4}, {"category": "height_data", "judged_lead": -0.1}]
    outcome = _judge({"blind": rows}, {"not_answerable_blind"}, tmp_path)["not_answerable_blind"]
    assert (outcome.severity, outcome.passed, outcome.checked, outcome.failed) == ("warning", False, 2, 1)
    assert {rule.name for rule in ALL if rule.severity == "warning"} == {"not_answerable_blind"}


def test_a_store_holds_many_rows_and_gives_them_back(tmp_path: Path) -> None:
    with Store(tmp_path / "frames.db") as store:
        for i in range(12_000):
            store.add(
                "quality", {"fact": f"f{i}", "count": i, "judged_accuracy": None, "judged_abs_rel": 0.5}
            )
        assert store.count("quality") == 12_000
        assert store.query("SELECT sum(count) FROM quality") == [(12_000 * 11_999 // 2,)]
        assert store.rows("quality")[7] == {
            "fact": "f7", "count": 7, "judged_accuracy": None, "judged_abs_rel": 0.5,
        }  # fmt: skip
