"""Statistics against values computed by hand, and against published tables."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srgpt.evaluation.statistics import compare, compare_groups, mcnemar, measure, wilson
from srgpt.records import QUALITATIVE, QUANTITATIVE, Prediction
from tests.evaluation.tables import prediction


def answers(category: str, right: int, wrong: int, start: int = 0, **changes: object) -> list[Prediction]:
    return [
        prediction(category, success=k < right, turn=start + k, **changes)  # type: ignore[arg-type]
        for k in range(right + wrong)
    ]


def test_wilson_by_hand() -> None:
    # 8 of 10: centre (0.8 + z^2/20) / (1 + z^2/10) = 0.716740, half width 0.226579
    assert wilson(8, 10) == pytest.approx((0.490162, 0.943318), abs=1e-6)
    assert wilson(0, 5) == pytest.approx((0.0, 0.434482), abs=1e-6)
    assert wilson(5, 5)[1] == 1.0
    with pytest.raises(ValueError, match="3 successes of 2"):
        wilson(3, 2)


def test_mcnemar_by_hand() -> None:
    assert mcnemar(0, 0) == 1.0
    assert mcnemar(5, 0) == pytest.approx(2 / 2**5)
    # 2 * (C(10,0) + C(10,1) + C(10,2)) / 2^10
    assert mcnemar(8, 2) == mcnemar(2, 8) == pytest.approx(2 * 56 / 1024)
    assert mcnemar(5, 5) == 1.0
    assert 0 < mcnemar(3000, 2700) < 1e-3


@given(st.integers(0, 400), st.integers(1, 400))
def test_wilson_holds_the_share(successes: int, more: int) -> None:
    count = successes + more
    low, high = wilson(successes, count)
    assert 0 <= low <= successes / count <= high <= 1


def test_replay_of_the_published_averages() -> None:
    """SpatialRGPT-VILA-1.5-8B: successes per group from the paper's cells give the averages known for it."""
    qualitative = {"below_above": (119, 120), "left_right": (105, 105), "big_small": (90, 106),
                   "tall_short": (100, 112), "wide_thin": (95, 104), "behind_front": (100, 110)}  # fmt: skip
    quantitative = {"distance": (68, 148), "horizontal_distance": (83, 122), "vertical_distance": (60, 106),
                    "width": (65, 133), "height": (82, 133), "direction": (102, 107)}  # fmt: skip
    predictions = []
    for group, (right, count) in {**qualitative, **quantitative}.items():
        category = {**QUALITATIVE, **QUANTITATIVE}[group][0]
        predictions += answers(category, right, count - right, len(predictions))
    metrics = measure(predictions)
    assert metrics["questions"] == 1406
    assert metrics["qualitative_micro"] == pytest.approx(0.9269, abs=5e-5)
    assert metrics["quantitative_micro"] == pytest.approx(0.6141, abs=6e-5)
    assert metrics["quantitative_macro_6"] == pytest.approx(0.6273, abs=1e-4)
    assert metrics["quantitative_macro_5"] == pytest.approx(0.5622, abs=1e-4)
    assert metrics["below_above_accuracy"] == pytest.approx(0.9917, abs=5e-5)
    assert metrics["direction_success"] == pytest.approx(0.953, abs=5e-4)


def test_errors_are_over_readable_answers_and_successes_over_all() -> None:
    metrics = measure(
        [
            prediction("width_data", success=True, turn=0, error=0.1, unit="metres"),
            prediction("width_data", success=False, turn=1, error=0.9, unit="metres"),
            prediction("width_data", success=True, turn=2, error=0.2, unit="metres"),
            prediction("width_data", success=False, turn=3, predicted_value=None, unit="metres"),
            prediction("direction", success=True, turn=4, error=1.0, unit="clock_hours"),
            prediction("direction", success=False, turn=5, error=4.0, unit="clock_hours"),
        ]
    )
    assert metrics["width_success"] == 0.5
    assert metrics["width_abs_rel"] == pytest.approx(0.4)
    assert metrics["width_abs_rel_median"] == pytest.approx(0.2)
    assert metrics["width_unreadable"] == metrics["unreadable"] == 1
    assert metrics["direction_error_degrees"] == pytest.approx(75.0)
    assert metrics["quantitative_micro"] == 0.5
    assert metrics["quantitative_count"] == 6


def test_a_macro_average_needs_all_its_groups() -> None:
    metrics = measure(answers("left_choice", 3, 1))
    assert metrics["left_right_accuracy"] == metrics["qualitative_micro"] == 0.75
    assert not {"qualitative_macro", "quantitative_micro", "quantitative_macro_6"} & metrics.keys()


def test_nothing_measured_is_not_an_error() -> None:
    assert measure([]) == {"questions": 0, "unreadable": 0}


def test_every_metric_is_finite_and_order_does_not_matter() -> None:
    predictions = [p for g in (*QUALITATIVE.values(), *QUANTITATIVE.values()) for p in answers(g[0], 2, 1)]
    metrics = measure(predictions)
    assert metrics == measure(reversed(predictions))
    assert all(math.isfinite(v) for v in metrics.values())


def test_compare_by_hand() -> None:
    ours = answers("left_choice", 3, 1) + answers("left_choice", 2, 0, scene="s1")
    theirs = answers("left_choice", 1, 3) + answers("left_choice", 2, 0, scene="s1")
    found = compare(ours, theirs)
    assert (found.questions, found.only_model, found.only_control) == (6, 2, 0)
    assert found.difference == pytest.approx(2 / 6)
    # cluster sums less their share of the mean: 2 - 4/3 and 0 - 2/3; sqrt(2 * (4/9 + 4/9)) / 6
    assert found.standard_error == pytest.approx(math.sqrt(2 * 8 / 9) / 6)
    assert found.p_value == 0.5


def test_one_scene_has_no_standard_error() -> None:
    assert compare(answers("left_choice", 3, 1), answers("left_choice", 1, 3)).standard_error == 0.0


def test_different_questions_are_not_compared() -> None:
    with pytest.raises(ValueError, match="not the same questions"):
        compare(answers("left_choice", 2, 0), answers("left_choice", 1, 0))


def test_groups_are_compared_apart_and_together() -> None:
    ours = answers("left_choice", 2, 0) + answers("width_data", 1, 1, start=9)
    theirs = answers("left_choice", 0, 2) + answers("width_data", 1, 1, start=9)
    found = compare_groups(ours, theirs)
    assert set(found) == {"left_right", "width", "qualitative", "quantitative"}
    assert found["left_right"].difference == found["qualitative"].difference == 1.0
    assert found["width"].difference == 0.0
