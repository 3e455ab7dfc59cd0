from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srgpt.geometry.language import parse_region, parse_yes_no, read_value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("Yes.", 1.0),
        ("No, Region [0] is not to the left of Region [1].", 0.0),
        ("  yes, it is", 1.0),
        ('"No"', 0.0),
        ("Indeed, Region [0] is taller.", 1.0),
        ("Incorrect.", 0.0),
        ("I think the answer is yes", 1.0),
        ("It is hard to say yes or no", None),
        ("", None),
        ("42", None),
        ("Notably taller", None),
        ("Region [0] is taller.", None),
    ],
)
def test_yes_and_no(text, value):
    assert parse_yes_no(text) == value


@pytest.mark.parametrize(
    ("text", "region"),
    [
        ("Region [1] is taller than Region [0].", 1),
        ("region 0", 0),
        ("The answer is <region1>.", 1),
        ("Region[12]", 12),
        ("subregion 3", None),
        ("Region", None),
        ("regional 1", None),
        ("", None),
    ],
)
def test_regions(text, region):
    assert parse_region(text) == region


@pytest.mark.parametrize(
    ("text", "category", "value"),
    [
        ("Region [0] is further left.", "left_choice", 1.0),
        ("Region [1] is further left than Region [0].", "left_choice", 0.0),
        ("Region [2].", "left_choice", None),
        ("the chair", "left_choice", None),
        ("Yes.", "front_predicate", 1.0),
        ("2.00 meters", "width_data", 2.0),
        ("Region [1] is at 3 o'clock.", "direction", 3.0),
        ("2.00 meters", "direction", None),
    ],
)
def test_values_by_category(text, category, value):
    assert read_value(text, category) == value


def test_an_unknown_category_is_a_mistake():
    with pytest.raises(ValueError, match="colour"):
        read_value("red", "colour")


@given(st.text(max_size=60), st.sampled_from(["left_choice", "left_predicate", "direction", "width_data"]))
def test_reading_survives_anything(text, category):
    value = read_value(text, category)
    assert value is None or value >= 0
