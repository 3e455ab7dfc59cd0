"""Lengths as people write them: metres to text with everyday units, and back."""

from __future__ import annotations

import math
import re
from typing import Literal

import numpy as np

Units = Literal["everyday", "metres"]
"""Units that answers are written in: as people mix them, or metres alone."""

METRES_PER = {"centimeters": 0.01, "inches": 0.0254, "meters": 1.0, "feet": 0.3048}
"""Metres in one of each unit that answers are written in."""

_RANGES: tuple[tuple[float, tuple[tuple[str, float], ...]], ...] = (
    (1.0, (("centimeters", 0.2), ("inches", 0.8))),
    (3.0, (("meters", 0.5), ("feet", 0.5))),
    (math.inf, (("meters", 0.7), ("feet", 0.3))),
)
"""Upper bound in metres (exclusive), and the units below it with their probabilities, as in SpatialRGPT."""

_SPELLINGS = {
    r"kilomet(?:er|re)s?|kms?": 1000.0,
    r"centimet(?:er|re)s?|cms?": 0.01,
    r"millimet(?:er|re)s?|mms?": 0.001,
    r"met(?:er|re)s?|m": 1.0,
    r"yards?|yds?": 0.9144,
    r"feet|foot|ft": 0.3048,
    # "2 in front" is not a length
    r"inch(?:es)?|ins?(?!\s+(?:front|the|a|an|this|that|total|all|between|which|its)\b)": 0.0254,
}
_NUMBER = r"(?<![0-9.,])(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)?(?:\.[0-9]+)?(?<=[0-9])"
_UNIT = "|".join(f"(?P<u{i}>{spelling})" for i, spelling in enumerate(_SPELLINGS))
_LENGTH = re.compile(
    rf"(?P<sign>(?<![^\s(\[])[-−])?(?P<number>{_NUMBER})[\s-]?\s?"
    rf"(?:(?:{_UNIT})(?![a-z])|(?P<mark>''|[\"'”″’′]))",
    re.IGNORECASE,
)
_FACTORS = tuple(_SPELLINGS.values())
_FOOT, _INCH = METRES_PER["feet"], METRES_PER["inches"]
_AND = re.compile(r"\s*(?:,|and)?\s*", re.IGNORECASE)


def format_length(metres: float, rng: np.random.Generator, units: Units = "everyday") -> str:
    """Write a length >= 0 with two decimals, such as ``"1.52 meters"``; everyday units are drawn by its range."""
    if not (math.isfinite(metres) and metres >= 0):
        raise ValueError(f"format_length: {metres} is not a length")
    if units == "metres":
        return f"{metres:.2f} meters"
    options = next(options for bound, options in _RANGES if metres < bound)
    draw, unit = rng.random(), options[-1][0]
    for name, probability in options:
        if draw < probability:
            unit = name
            break
        draw -= probability
    return f"{metres / METRES_PER[unit]:.2f} {unit}"


def parse_length(text: str) -> float | None:
    """Read the first length in a text, in metres; None where there is none.

    A length is a number right before a unit (``1.5 m``, ``3-foot``, ``18"``, ``1,200 millimetres``); feet
    followed by inches count together (``5 feet 3 inches``, ``5'3"``). A negative one is not a length.
    """
    match = _LENGTH.search(text)
    if match is None or match["sign"]:
        return None
    metres, unit = _read(match)
    if unit == _FOOT:
        # the inches of "5 feet 3 inches" start right where the feet end
        rest = _LENGTH.match(text, _AND.match(text, match.end()).end())  # type: ignore[union-attr]
        if rest is not None and not rest["sign"]:
            more, more_unit = _read(rest)
            if more_unit == _INCH and more < _FOOT:
                metres += more
    return metres if math.isfinite(metres) else None


def _read(match: re.Match[str]) -> tuple[float, float]:
    number = float(match["number"].replace(",", ""))
    if match["mark"]:
        factor = _FOOT if match["mark"] in ("'", "’", "′") else _INCH
    else:
        factor = next(f for i, f in enumerate(_FACTORS) if match[f"u{i}"] is not None)
    return number * factor, factor


_HOURS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
_CLOCK = re.compile(
    rf"(?<![0-9.,:-])(?P<hour>[0-9]{{1,2}}|\b(?:{'|'.join(_HOURS)}))[\s-]*o\s?['’‘`´]?\s?clock\b",
    re.IGNORECASE,
)


def format_clock(hour: int) -> str:
    """Write a clock hour, 1 to 12: ``"3 o'clock"``."""
    if not 1 <= hour <= 12:
        raise ValueError(f"format_clock: {hour} is not an hour of a clock")
    return f"{hour} o'clock"


def parse_clock(text: str) -> int | None:
    """Read the first clock hour (``3 o'clock``, ``three oclock``), 1 to 12; None where there is none."""
    match = _CLOCK.search(text)
    if match is None:
        return None
    word = match["hour"].lower()
    hour = _HOURS.index(word) + 1 if word in _HOURS else int(word)
    return hour if 1 <= hour <= 12 else None
