"""Answers read back from their text, by rule: yes or no, a choice of region, a length, a clock hour."""

from __future__ import annotations

import re

from srgpt.geometry.units import parse_clock, parse_length
from srgpt.records import UNIT_OF

NUMBERS = (
    "none", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
)  # fmt: skip
"""Small numbers as answers write them."""

_YES = ("yes", "yeah", "yep", "true", "correct", "indeed")
_NO = ("no", "nope", "false", "incorrect", "not")
_WORD = re.compile(r"[a-z]+", re.IGNORECASE)
_VERDICT = re.compile(r"[,;.]\s*so\b(?P<verdict>.+)$", re.IGNORECASE | re.DOTALL)
_NUMBER = re.compile(rf"[0-9]+(?:\.[0-9]+)?|\b(?:{'|'.join(NUMBERS)})\b", re.IGNORECASE)
_REGION = re.compile(r"<?\bregion\s?(?:\[\s?)?([0-9]{1,6})\b", re.IGNORECASE)


def verdict(text: str) -> str:
    """Return what an answer concludes ("... is to the left, so yes." -> " yes."), or all of it where it does not."""
    match = _VERDICT.search(text)
    return text if match is None else match["verdict"]


def parse_yes_no(text: str) -> float | None:
    """Read a truth value: 1.0 for yes, 0.0 for no, None for neither.

    The first word decides; where it says neither, a text that holds only one of "yes" and "no" still counts.
    """
    words = [w.lower() for w in _WORD.findall(text)]
    if not words:
        return None
    if words[0] in _YES or words[0] in _NO:
        return 1.0 if words[0] in _YES else 0.0
    yes, no = "yes" in words, "no" in words
    return None if yes == no else float(yes)


def parse_region(text: str) -> int | None:
    """Read the first region named (``Region [1]``, ``region 1``, ``<region1>``); None where there is none."""
    match = _REGION.search(text)
    return None if match is None else int(match[1])


def parse_order(text: str) -> int | None:
    """Read all regions named, at most nine different ones, as the digits of a number; None where there is none."""
    found = [int(match[1]) for match in _REGION.finditer(text)]
    if not found or max(found) > 9 or len(set(found)) != len(found):
        return None
    return int("".join(map(str, found)))


def parse_number(text: str) -> float | None:
    """Read the first number, in digits or, up to twelve, as a word; None where there is none."""
    match = _NUMBER.search(_REGION.sub(" ", text))
    if match is None:
        return None
    word = match[0].lower()
    return float(NUMBERS.index(word)) if word in NUMBERS else float(word)


def read_value(text: str, category: str) -> float | None:
    """Read the value that an answer to a question of ``category`` states, in its unit; None where it states none.

    For ``*_choice`` 1.0 where the first region named is number 0 of the question, 0.0 where it is number 1; for
    other questions after a region, its number. What an answer concludes with ("..., so ...") counts.
    """
    unit = UNIT_OF.get(category)
    if unit is None:
        raise ValueError(f"{category!r} is not a question category")
    said = verdict(text)
    if unit == "clock_hours":
        return None if (hour := parse_clock(text)) is None else float(hour)
    if unit == "metres":
        return parse_length(text)
    if unit == "region":
        return None if (region := parse_region(said)) is None else float(region)
    if unit == "order":
        return None if (order := parse_order(said)) is None else float(order)
    if unit != "truth":
        return parse_number(said)
    if category.endswith("_choice"):
        region = parse_region(said)
        return None if region is None else {0: 1.0, 1: 0.0}.get(region)
    return parse_yes_no(said)
