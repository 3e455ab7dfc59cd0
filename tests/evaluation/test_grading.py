"""Grading: hand-computed cells of every rule, free wordings, and text that means nothing."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srgpt.evaluation.grading import grade, read_answer
from srgpt.records import CATEGORIES

YES, NO = 1.0, 0.0
FIRST, SECOND = 1.0, 0.0


@pytest.mark.parametrize(
    ("text", "truth", "predicted", "success", "error"),
    [
        ("2 meters", 2.0, 2.0, True, 0.0),
        ("0.75 m", 1.0, 0.75, True, 0.25),
        ("1.25 meters", 1.0, 1.25, True, 0.25),
        ("0.74 m", 1.0, 0.74, False, 0.26),
        ("1.26 m", 1.0, 1.26, False, 0.26),
        ("0.30 meters", 0.4, 0.3, True, 0.25),
        ("42.00 centimeters", 0.56, 0.42, True, 0.25),
        ("0.2999 meters", 0.4, 0.2999, False, 0.25025),
        ("Region [0] and Region [1] are 10 feet apart.", 3.048, 3.048, True, 0.0),
        ("40 inches", 1.0, 1.016, True, 0.016),
        ("about 150 centimeters", 1.0, 1.5, False, 0.5),
        ("0 meters", 1.0, 0.0, False, 1.0),
        ("It is quite far.", 1.0, None, False, None),
        ("1.5", 1.5, None, False, None),
        ("", 1.0, None, False, None),
    ],
)
def test_lengths(
    text: str, truth: float, predicted: float | None, success: bool, error: float | None
) -> None:
    result = grade(text, "distance_data", truth)
    assert result.predicted == (None if predicted is None else pytest.approx(predicted))
    assert result.success is success
    assert result.error == (None if error is None else pytest.approx(error))


def test_a_length_of_zero_has_no_relative_error() -> None:
    assert grade("0 m", "vertical_distance_data", 0.0) == grade("0 meters", "vertical_distance_data", 0.0)
    assert grade("0 m", "vertical_distance_data", 0.0).success
    assert grade("1 cm", "vertical_distance_data", 0.0).error is None
    assert not grade("1 cm", "vertical_distance_data", 0.0).success


@pytest.mark.parametrize(
    ("text", "truth", "success", "hours"),
    [
        ("3 o'clock", 3.0, True, 0.0),
        ("Region [1] is at 12 o'clock.", 1.0, True, 1.0),
        ("1 o'clock", 12.0, True, 1.0),
        ("11 o'clock", 1.0, False, 2.0),
        ("9 o'clock", 3.0, False, 6.0),
        ("twelve o'clock", 12.0, True, 0.0),
        ("to the left", 9.0, False, None),
        ("13 o'clock", 1.0, False, None),
    ],
)
def test_directions(text: str, truth: float, success: bool, hours: float | None) -> None:
    result = grade(text, "direction", truth)
    assert (result.success, result.error) == (success, hours)


@pytest.mark.parametrize(
    ("category", "text", "value"),
    [
        ("left_predicate", "Yes.", YES),
        ("left_predicate", "yes", YES),
        ("left_predicate", "No, Region [0] is to the right of Region [1].", NO),
        ("left_predicate", "Indeed, Region [0] is on the left.", YES),
        ("left_predicate", "Correct.", YES),
        ("left_predicate", "Incorrect, it is not.", NO),
        ("left_predicate", "That is not correct.", NO),
        ("left_predicate", "That's right.", YES),
        ("left_predicate", "Well, yes.", YES),
        ("left_predicate", "I think no.", NO),
        ("left_predicate", "Absolutely not.", NO),
        ("left_predicate", "Definitely.", YES),
        ("left_predicate", "No doubt Region [0] is to the left.", YES),
        ("left_predicate", "In fact, Region [0] is to the right of Region [1].", NO),
        ("left_predicate", "Region [0] is to the left of Region [1].", YES),
        ("left_predicate", "Region [1] is to the left of Region [0].", NO),
        ("left_predicate", "Region [1] is to the right of Region [0].", YES),
        ("left_predicate", "Region [0] isn't left of Region [1].", NO),
        ("left_predicate", "It is not to the left but to the right.", NO),
        ("above_predicate", "Actually, Region 0 is below Region 1.", NO),
        ("below_predicate", "<region0> sits underneath <region1>", YES),
        ("behind_predicate", "Region [0] is farther away.", YES),
        ("front_predicate", "Region [0] is behind Region [1].", NO),
        ("tall_predicate", "Region [0] has a lesser height compared to Region [1].", NO),
        ("short_predicate", "Region [0] has a lesser height compared to Region [1].", YES),
        ("wide_predicate", "Region [0] is narrower.", NO),
        ("thin_predicate", "Region [0] is not as wide.", YES),
        ("big_predicate", "Region [0] has a larger size compared to Region [1].", YES),
        ("small_predicate", "Region [0] is less big than Region [1]", YES),
        ("small_predicate", "Hard to say, maybe yes", YES),
        ("left_predicate", "I cannot tell.", None),
        ("left_predicate", "Yes or no", None),
        ("left_predicate", "It is 3 meters away.", None),
        ("left_predicate", "Region [0]", None),
        ("left_predicate", "...", None),
    ],
)
def test_yes_and_no(category: str, text: str, value: float | None) -> None:
    assert read_answer(text, category) == value


@pytest.mark.parametrize(
    ("category", "text", "value"),
    [
        ("left_choice", "Region [0]", FIRST),
        ("left_choice", "Region [1].", SECOND),
        ("left_choice", "region 1", SECOND),
        ("left_choice", "<region1>", SECOND),
        ("left_choice", "Region1 is it", SECOND),
        ("left_choice", "[1]", SECOND),
        ("left_choice", "0", FIRST),
        ("left_choice", "the left one is Region [1]", SECOND),
        ("left_choice", "Region [1] is more to the left than Region [0].", SECOND),
        ("left_choice", "From the viewer's perspective, Region [1] appears more on the left side.", SECOND),
        ("left_choice", "Between Region [0] and Region [1], Region [1] is more to the left.", SECOND),
        ("tall_choice", "Of Region [0] and Region [1] the taller is Region [1].", SECOND),
        ("tall_choice", "Compared to Region [0], Region [1] is taller.", SECOND),
        ("tall_choice", "Region [0] is shorter than Region [1].", SECOND),
        ("tall_choice", "The shorter one is Region [0], so the other.", SECOND),
        ("tall_choice", "Region [0] has less height", SECOND),
        ("short_choice", "Region [0] has less height", FIRST),
        ("short_choice", "Standing shorter between the two is Region [0].", FIRST),
        ("left_choice", "Not Region [0].", SECOND),
        ("left_choice", "No, Region [0].", FIRST),
        ("left_choice", "Region [0] is not the one, Region [1] is.", SECOND),
        ("above_choice", "The second one.", SECOND),
        ("above_choice", "The former", FIRST),
        ("above_choice", "Both are the same.", None),
        ("above_choice", "Region [7]", None),
        ("above_choice", "the lamp", None),
        ("above_choice", "", None),
    ],
)
def test_choices(category: str, text: str, value: float | None) -> None:
    assert read_answer(text, category) == value


def test_a_truth_value_has_no_error() -> None:
    assert grade("Yes", "left_predicate", 1.0).success
    assert not grade("Yes", "left_predicate", 0.0).success
    assert grade("Yes", "left_predicate", 0.0).error is None


def test_an_unknown_category_is_refused() -> None:
    with pytest.raises(ValueError, match="'colour'"):
        read_answer("red", "colour")


PIECES = (
    "yes", "no", "not", "Region [0]", "Region [1]", "region 1", "<region0>", "left", "right", "taller",
    "shorter",
    "3 o'clock", "1.5", "meters", "feet", "inches", "between", "and", "of", "than", "compared to", ",", ".",
    "isn't", "cannot tell", "both", "0", "1", "12", "-1", "1e400", "’", "\x00", "½", "².",
)  # fmt: skip
WORDS = st.sampled_from(PIECES)


@given(
    st.one_of(st.text(max_size=60), st.lists(WORDS, max_size=14).map(" ".join)), st.sampled_from(CATEGORIES)
)
def test_any_text_is_read_as_a_value_in_range_or_not_at_all(text: str, category: str) -> None:
    value = read_answer(text, category)
    assert value == read_answer(text, category)
    if value is None:
        assert grade(text, category, 1.0).success is False
    elif category == "direction":
        assert value in range(1, 13)
    elif category.endswith("_data"):
        assert value >= 0
        assert math.isfinite(value)
    else:
        assert value in (0.0, 1.0)


@given(st.floats(0.05, 60), st.floats(0.01, 3))
def test_success_is_the_band(truth: float, ratio: float) -> None:
    predicted = truth * ratio
    result = grade(f"{predicted:.6f} meters", "width_data", truth)
    if min(abs(ratio - 0.75), abs(ratio - 1.25)) > 1e-3:
        assert result.success == (0.75 < ratio < 1.25)
    assert result.error == pytest.approx(abs(ratio - 1), abs=2e-5)
