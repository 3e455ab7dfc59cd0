"""The rules, and how Great Expectations judges frames by them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from great_expectations.checkpoint import UpdateDataDocsAction

from srgpt.curation import expectations, rules
from srgpt.curation.frames import KEYS
from srgpt.errors import SrgptError
from srgpt.params import ValidateParams

ALL = rules.rules(ValidateParams(), "toy", judge_quality=True)


def _judge(frame: pd.DataFrame, name: str, names: set[str], folder: Path) -> dict[str, expectations.Outcome]:
    judged = tuple(rule for rule in ALL if rule.name in names)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(UpdateDataDocsAction, "run", lambda *args, **kwargs: {})
        found = expectations.run({name: frame}, judged, dataset="toy", work=folder / "w", docs=folder / "d")
    return {outcome.rule: outcome for outcome in found}


def test_rules_have_names_of_their_own_and_known_frames() -> None:
    names = [rule.name for rule in ALL]
    assert len(names) == len(set(names))
    assert {rule.frame for rule in ALL} == set(KEYS)


def test_quality_is_judged_only_where_asked() -> None:
    less = rules.rules(ValidateParams(), "toy", judge_quality=False)
    assert {r.name for r in ALL} - {r.name for r in less} == {"labels_accurate", "sizes_accurate"}


def test_outcomes_count_and_name_rows(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {
            "table": ["scenes"] * 4,
            "file": ["scenes/part-00000.parquet"] * 4,
            "row": range(4),
            "scene_id": ["a", "b", "b", "d"],
            "depth_min": [0.0, -0.5, np.nan, 0.1],
            "gravity_problem": [None, None, None, "gravity has length 2, not 1"],
            "dataset": ["toy"] * 4,
        }
    )
    names = {"scene_unique", "scene_dataset", "depth_not_negative", "gravity_unit"}
    found = _judge(frame, "scenes", names, tmp_path)
    place = {"file": "scenes/part-00000.parquet"}
    assert found["scene_dataset"].passed
    assert (found["depth_not_negative"].checked, found["depth_not_negative"].failed) == (3, 1)
    assert found["depth_not_negative"].examples == ({**place, "row": 1, "scene_id": "b", "found": -0.5},)
    assert found["gravity_unit"].examples[0]["found"] == "gravity has length 2, not 1"
    assert [e["row"] for e in found["scene_unique"].examples] == [1, 2]


def test_examples_are_limited_and_counts_are_not(tmp_path: Path) -> None:
    frame = pd.DataFrame({"table": [f"t{i}" for i in range(50)], "rows": [0] * 50})
    outcome = _judge(frame, "tables", {"enough_rows"}, tmp_path)["enough_rows"]
    assert (outcome.failed, len(outcome.examples)) == (50, expectations.EXAMPLES)


def test_a_frame_without_rows_breaks_nothing(tmp_path: Path) -> None:
    frames = {"tables": pd.DataFrame({"table": ["graphs"], "rows": [3]}), "turns": pd.DataFrame()}
    judged = tuple(rule for rule in ALL if rule.name in ("enough_rows", "answer_agrees"))
    found = expectations.run(frames, judged, dataset="toy", work=tmp_path / "w", docs=tmp_path / "d")
    assert [(o.rule, o.passed, o.checked) for o in found] == [
        ("answer_agrees", True, 0),
        ("enough_rows", True, 1),
    ]


def test_a_rule_that_cannot_be_judged_is_an_error_and_not_a_pass(tmp_path: Path) -> None:
    with pytest.raises(SrgptError, match=r"few_rejected: .* could not judge tables.rejected_share"):
        _judge(pd.DataFrame({"table": ["graphs"]}), "tables", {"few_rejected"}, tmp_path)


def test_balance_of_no_questions_is_no_verdict(tmp_path: Path) -> None:
    frame = pd.DataFrame({"category": ["left_predicate", "tall_choice"], "judged_yes_share": [np.nan, 0.6]})
    outcome = _judge(frame, "balance", {"answers_balanced"}, tmp_path)["answers_balanced"]
    assert (outcome.checked, outcome.failed) == (1, 1)
    assert outcome.examples == ({"category": "tall_choice", "found": 0.6},)
