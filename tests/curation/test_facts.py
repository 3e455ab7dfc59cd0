from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from srgpt.curation import facts
from srgpt.curation.facts import fact, is_tie, unit_of
from srgpt.params import AskParams
from srgpt.records import CATEGORIES, GROUP_OF, QUALITATIVE, Box

PARAMS = AskParams()
EXACT = AskParams(tie_margin=0, tie_metres=0, tie_angle_degrees=0, min_distance=0)
CONVERSE = {
    "left": "right",
    "above": "below",
    "behind": "front",
    "wide": "thin",
    "tall": "short",
    "big": "small",
}
CONVERSE |= {b: a for a, b in CONVERSE.items()}

position = st.tuples(st.floats(-5, 5), st.floats(-2, 2), st.floats(0.5, 20))
extent = st.tuples(*[st.floats(0.02, 3)] * 3)
boxes = st.builds(lambda c, s: Box(np.array(c), np.array(s)), position, extent)


def box(x=0.0, y=0.0, z=5.0, width=1.0, height=1.0, length=1.0) -> Box:
    return Box(np.array([x, y, z]), np.array([width, height, length]))


@pytest.mark.parametrize(
    ("category", "a", "b", "value"),
    [
        ("left_predicate", box(x=-1), box(x=1), 1.0),
        ("left_choice", box(x=1), box(x=-1), 0.0),
        ("right_predicate", box(x=1), box(x=-1), 1.0),
        ("above_predicate", box(y=-1), box(y=1), 1.0),  # y points down
        ("below_choice", box(y=1), box(y=-1), 1.0),
        # the nearer face decides, not the centre
        ("behind_predicate", box(z=5, length=4), box(z=4.5, length=1), 0.0),
        ("front_predicate", box(z=5, length=4), box(z=4.5, length=1), 1.0),
        ("wide_predicate", box(width=2), box(width=1), 1.0),
        ("thin_predicate", box(width=2), box(width=1), 0.0),
        ("tall_choice", box(height=1), box(height=2), 0.0),
        ("short_predicate", box(height=1), box(height=2), 1.0),
        ("big_predicate", box(width=3, length=0.1), box(), 0.0),
        ("small_predicate", box(width=3, length=0.1), box(), 1.0),
        ("width_data", box(width=0.7), None, 0.7),
        ("height_data", box(height=1.8), None, 1.8),
        ("distance_data", box(1, 2, 3), box(3, 5, 9), 7.0),
        ("horizontal_distance_data", box(0, 0, 3), box(3, 9, 7), 5.0),
        ("vertical_distance_data", box(0, 2, 3), box(3, -1, 7), 3.0),
        ("direction", box(0, 0, 5), box(0, 0, 9), 12.0),
        ("direction", box(0, 0, 5), box(np.tan(np.radians(10)), 0, 6), 12.0),  # 10 degrees to the right
        ("direction", box(0, 0, 5), box(2, 0, 5), 3.0),
        ("direction", box(0, 0, 5), box(-2, 0, 3), 8.0),  # halfway: 7.5 rounds up
        ("direction", box(2, 0, 5), box(0, 0, 5), 9.0),
    ],
)
def test_facts_by_hand(category, a, b, value):
    assert fact(category, a, b) == pytest.approx(value)


def test_every_category_has_a_fact_and_a_unit():
    for category in CATEGORIES:
        value = fact(category, box(), box(1, 1, 6, 2, 2, 2))
        truth = category.endswith(("_predicate", "_choice"))
        expected = "truth" if truth else "clock_hours" if category == "direction" else "metres"
        assert unit_of(category) == expected
        assert value in (0.0, 1.0) if truth else value > 0


@given(boxes, boxes, st.sampled_from([c for c in CATEGORIES if GROUP_OF[c] in QUALITATIVE]))
def test_relations_turn_around_when_swapped_and_when_reversed(a, b, category):
    assert is_tie(category, a, b, PARAMS) == is_tie(category, b, a, PARAMS)
    assume(not is_tie(category, a, b, EXACT))
    assert fact(category, a, b) != fact(category, b, a)
    relation, form = category.rsplit("_", 1)
    assert fact(f"{CONVERSE[relation]}_{form}", a, b) != fact(category, a, b)


@given(boxes, boxes)
def test_lengths_do_not_depend_on_the_order(a, b):
    for category in ("distance_data", "horizontal_distance_data", "vertical_distance_data"):
        assert fact(category, a, b) == pytest.approx(fact(category, b, a))
    hypotenuse = np.hypot(fact("horizontal_distance_data", a, b), fact("vertical_distance_data", a, b))
    assert fact("distance_data", a, b) == pytest.approx(hypotenuse)


@given(boxes, boxes, st.tuples(st.floats(-5, 5), st.floats(-5, 5), st.floats(-0.4, 5)))
def test_facts_do_not_depend_on_where_the_camera_stands(a, b, shift):
    def moved(value: Box) -> Box:
        return Box(value.center + np.array(shift), value.size)

    for category in CATEGORIES:
        pair = (a, None) if category in facts.SINGLE else (a, b)
        # rounding may turn what is a tie but for 1e-12
        if not is_tie(category, *pair, AskParams(tie_metres=1e-6, tie_angle_degrees=0.01)):
            there = (moved(a), None) if pair[1] is None else (moved(a), moved(b))
            assert fact(category, *there) == pytest.approx(fact(category, *pair), abs=1e-9), category


@given(boxes, boxes, st.floats(1.01, 3))
def test_scaling_the_world_scales_lengths_and_nothing_else(a, b, scale):
    big_a, big_b = Box(a.center * scale, a.size * scale), Box(b.center * scale, b.size * scale)
    for category in CATEGORIES:
        if is_tie(category, a, b, AskParams(tie_metres=1e-6, tie_angle_degrees=0.01)):
            continue
        factor = scale if unit_of(category) == "metres" else 1.0
        assert fact(category, big_a, big_b) == pytest.approx(factor * fact(category, a, b)), category


@pytest.mark.parametrize(
    ("category", "a", "b", "tie"),
    [
        ("left_predicate", box(x=0), box(x=0.04), True),
        ("left_predicate", box(x=0), box(x=0.06), False),
        ("front_predicate", box(z=5), box(z=5.04), True),
        ("front_predicate", box(z=5, length=1), box(z=5, length=1.2), False),
        ("wide_predicate", box(width=0.10), box(width=0.14), True),  # 4 cm
        ("wide_predicate", box(width=2.0), box(width=2.15), True),  # 7 %
        ("wide_predicate", box(width=2.0), box(width=2.3), False),
        ("big_predicate", box(width=1.0), box(width=1.1), True),
        ("big_predicate", box(width=1.0), box(width=1.2), False),
        ("big_predicate", box(0, 0, 5, 0.1, 0.1, 0.1), box(0, 0, 5, 0.1, 0.1, 0.12), False),
        ("distance_data", box(), box(x=0.04), True),
        ("vertical_distance_data", box(), box(x=3, y=0.06), False),
        ("width_data", box(width=0.009), None, True),
        ("width_data", box(width=0.02), None, False),
        ("direction", box(z=5), box(z=9), False),
        ("direction", box(0, 0, 5), box(np.tan(np.radians(13)), 0, 6), True),
        ("direction", box(0, 0, 5), box(np.tan(np.radians(17)), 0, 6), True),
        ("direction", box(0, 0, 5), box(np.tan(np.radians(11)), 0, 6), False),
        ("direction", box(0, 0, 5), box(0.01, 3, 5.01), True),  # one above the other
    ],
)
def test_ties(category, a, b, tie):
    assert is_tie(category, a, b, PARAMS) is tie


def test_equals_are_ties_even_without_margins():
    for category in CATEGORIES:
        if GROUP_OF[category] in QUALITATIVE or category == "direction":
            assert is_tie(category, box(), box(), EXACT)


def test_a_pair_is_needed_where_two_objects_are_compared():
    with pytest.raises(ValueError, match="two objects"):
        fact("left_choice", box())
    with pytest.raises(ValueError, match="two objects"):
        is_tie("distance_data", box(), None, PARAMS)
