from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from srgpt.geometry.units import METRES_PER, format_clock, format_length, parse_clock, parse_length


@given(st.floats(0, 500), st.integers(0, 2**32))
def test_what_is_written_reads_back(metres, seed):
    text = format_length(metres, np.random.default_rng(seed))
    unit = text.split()[1]
    assert parse_length(text) == pytest.approx(metres, abs=0.005 * METRES_PER[unit] + 1e-9)


@pytest.mark.parametrize(
    ("metres", "shares"),
    [
        (0.5, {"centimeters": 0.2, "inches": 0.8}),
        (0.999, {"centimeters": 0.2, "inches": 0.8}),
        (1.0, {"meters": 0.5, "feet": 0.5}),
        (2.999, {"meters": 0.5, "feet": 0.5}),
        (3.0, {"meters": 0.7, "feet": 0.3}),
        (80.0, {"meters": 0.7, "feet": 0.3}),
    ],
)
def test_units_follow_the_range(metres, shares):
    rng = np.random.default_rng(0)
    units = Counter(format_length(metres, rng).split()[1] for _ in range(4000))
    assert set(units) == set(shares)
    for unit, share in shares.items():
        assert units[unit] / 4000 == pytest.approx(share, abs=0.03)


def test_two_decimals():
    rng = np.random.default_rng(0)
    assert {format_length(2.0, rng) for _ in range(50)} == {"2.00 meters", "6.56 feet"}
    assert {format_length(0.254, rng) for _ in range(50)} == {"25.40 centimeters", "10.00 inches"}


@given(st.floats(0, 500))
def test_metres_alone(metres):
    rng = np.random.default_rng(0)
    text = format_length(metres, rng, "metres")
    assert text.endswith(" meters")
    assert parse_length(text) == pytest.approx(metres, abs=0.0051)
    assert rng.random() == np.random.default_rng(0).random()  # nothing was drawn


@pytest.mark.parametrize("bad", [-0.1, math.nan, math.inf])
def test_only_lengths_are_written(bad):
    with pytest.raises(ValueError, match="not a length"):
        format_length(bad, np.random.default_rng(0))


@pytest.mark.parametrize(
    ("text", "metres"),
    [
        ("1.5 m", 1.5),
        ("1.5m", 1.5),
        ("The distance is 2.50 meters.", 2.5),
        ("It measures 2,500 millimetres", 2.5),
        ("1,234,567.5 mm", 1234.5675),
        ("120 cm", 1.2),
        ("a 3-foot gap", 0.9144),
        ("5 feet 3 inches", 1.6002),
        ("5 feet and 3 inches", 1.6002),
        ("5 ft, 3 in.", 1.6002),
        ("5'3\"", 1.6002),
        ("5′ 3″", 1.6002),
        ("6'", 1.8288),
        ('18"', 0.4572),
        ("2 yards", 1.8288),
        ("0.5 km", 500.0),
        (".5 metres", 0.5),
        ("10 INCHES", 0.254),
        ("about 5 in wide", 0.127),
        ("Region [0] is 1.00 meters from Region [1].", 1.0),
        ("Region [1] and Region [0] are 12.00 inches apart", 0.3048),
        ("3 feet or 4 meters", 0.9144),
        ("5 feet 14 inches", 1.524),
        ("5 feet. 3 inches is the width", 1.524),
        ("12 chairs, 2 meters away", 2.0),
    ],
)
def test_lengths_are_read(text, metres):
    assert parse_length(text) == pytest.approx(metres)


@pytest.mark.parametrize(
    "text",
    [
        *("", "far", "12", "meters", "-1.5 meters", "1.2.3 m", "2 in front of Region [1]", "1,5 m"),
        *("3 o'clock", "5 miles", "2 months", "Region [0]", "1 000 x", "9" * 400 + " m"),
    ],
)
def test_what_is_no_length_is_not_read(text):
    assert parse_length(text) is None


@given(st.text(alphabet="0123456789.,-'\"’ aefhimnorst[]()\n", max_size=60))
def test_parsers_survive_anything(text):
    length, hour = parse_length(text), parse_clock(text)
    assert length is None or (math.isfinite(length) and length >= 0)
    assert hour is None or 1 <= hour <= 12


@given(st.text(max_size=80))
def test_parsers_survive_any_unicode(text):
    parse_length(text)
    parse_clock(text)


def test_long_input_is_read_in_linear_time():
    for piece in ("1,111", "1'", "5 feet ", "-", "one ", "1 o", "1" * 9):
        assert parse_length(piece * 20_000 + " miles away") in (None, pytest.approx(1.524), 0.3048)
        assert parse_clock(piece * 20_000) is None


@pytest.mark.parametrize("hour", range(1, 13))
def test_hours_read_back(hour):
    assert parse_clock(f"Region [1] is at {format_clock(hour)}.") == hour


@pytest.mark.parametrize(
    ("text", "hour"),
    [
        ("three o'clock", 3),
        ("Twelve O’Clock", 12),
        ("7 oclock", 7),
        ("at 1 o clock", 1),
        ("the 10-o'clock side", 10),
    ],
)
def test_spellings_of_hours(text, hour):
    assert parse_clock(text) == hour


@pytest.mark.parametrize(
    "text", ["", "13 o'clock", "0 o'clock", "-3 o'clock", "3", "someone o'clock", "112 o'clock"]
)
def test_what_is_no_hour_is_not_read(text):
    assert parse_clock(text) is None


@pytest.mark.parametrize("bad", [0, 13])
def test_only_hours_are_written(bad):
    with pytest.raises(ValueError, match="not an hour"):
        format_clock(bad)
