from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from srgpt.geometry.directions import clock_hour, hour_difference, nearest_hour


def place(degrees: float) -> list[float]:
    """A point ``degrees`` to the right of straight ahead."""
    return [math.sin(math.radians(degrees)), 0.7, math.cos(math.radians(degrees))]


@pytest.mark.parametrize(
    ("degrees", "hour"),
    [
        (0, 12),
        (10, 12),
        (-10, 12),
        (14.9, 12),
        (15.1, 1),
        (30, 1),
        (90, 3),
        (104, 3),
        (106, 4),
        (180, 6),
        (194, 6),
        (-90, 9),
        (-31, 11),
        (-16, 11),
        (-14, 12),
        (344, 11),
        (346, 12),
    ],
)
def test_hours_by_hand(degrees, hour):
    assert nearest_hour(clock_hour([0, 0, 0], place(degrees))) == hour


@given(st.floats(-1000, 1000), st.floats(-5, 5))
def test_hours_are_of_the_clock_and_height_plays_no_part(degrees, height):
    hours = clock_hour([0, height, 0], place(degrees))
    assert 0 < hours <= 12
    assert 1 <= nearest_hour(hours) <= 12
    assert hour_difference(hours, degrees / 30) == pytest.approx(0, abs=1e-6)


@given(st.floats(0, 360))
def test_the_way_back_is_six_hours_away(degrees):
    there, back = clock_hour([0, 0, 0], place(degrees)), clock_hour(place(degrees), [0, 0, 0])
    assert hour_difference(there, back) == pytest.approx(6)


def test_no_direction_to_the_same_place():
    assert math.isnan(clock_hour([1, 0, 2], [1, 5, 2]))


@given(st.floats(0, 12), st.floats(0, 12))
def test_hour_difference_goes_the_short_way(a, b):
    expected = min(abs(a - b), 12 - abs(a - b))
    assert hour_difference(a, b) == pytest.approx(expected, abs=1e-9)
    assert np.isclose(hour_difference(a, b), hour_difference(b, a))
