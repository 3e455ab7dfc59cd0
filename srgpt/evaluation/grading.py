"""Grades by rule, with no language model as a judge: the same text always gets the same grade.

An answer is read as a number in its question's unit (metres, clock hours, a truth value) and held against the
number that the question was made from. Success follows SpatialRGPT-Bench: lengths within 25 % of the truth,
clock directions within one hour, the right one of two otherwise. What cannot be read is a failure.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from srgpt.geometry.directions import hour_difference
from srgpt.geometry.language import parse_yes_no, verdict
from srgpt.geometry.units import parse_clock, parse_length
from srgpt.records import GROUP_OF

GRADER = "rules-2"
"""Version of these rules: figures of different graders are not comparable."""

LOW, HIGH = 0.75, 1.25
"""A length succeeds from LOW to HIGH times the truth, both included."""

_ROUNDING = 1e-9
"""Relative: ``0.75 * 0.4`` is above ``0.3`` in floating point, and the edges are included."""

HOURS = 1.0
"""A clock direction succeeds within so many hours, the short way round, included."""


@dataclass(frozen=True)
class Grade:
    """What an answer says, and how far it is right.

    ``predicted`` is None where the answer could not be read. ``error`` is ``|predicted - truth| / truth`` for
    lengths, hours for directions, None for truth values and unreadable answers.
    """

    predicted: float | None
    success: bool
    error: float | None


def grade(text: str, category: str, truth: float) -> Grade:
    """Grade the answer ``text`` to a question of ``category`` whose true value is ``truth``."""
    predicted = read_answer(text, category)
    if predicted is None:
        return Grade(None, False, None)
    if category == "direction":
        hours = hour_difference(predicted, truth)
        return Grade(predicted, hours <= HOURS, hours)
    if category.endswith("_data"):
        # a length of zero has no relative error, and only zero meets it
        error = abs(predicted - truth) / truth if truth > 0 else None
        low, high = LOW * truth * (1 - _ROUNDING), HIGH * truth * (1 + _ROUNDING)
        return Grade(predicted, low <= predicted <= high, error)
    return Grade(predicted, predicted == truth, None)


def read_answer(text: str, category: str) -> float | None:
    """Read what a freely worded answer states, in the question's unit; None where it states nothing.

    Metres for ``*_data``, hours for ``direction``; 1.0 or 0.0 for ``*_predicate`` (yes or no) and
    ``*_choice`` (``Region [0]`` or ``Region [1]``). Where an answer states several things, the first counts.
    """
    if category not in GROUP_OF:
        raise ValueError(f"{category!r} is not a question category")
    if category == "direction":
        hour = parse_clock(text)
        return None if hour is None else float(hour)
    if category.endswith("_data"):
        return parse_length(text)
    for said in dict.fromkeys((verdict(text), text)):
        value = _read_words(_normalise(said), category)
        if value is not None:
            return value
    return None


def _read_words(clean: str, category: str) -> float | None:
    if _UNDECIDED.search(clean):
        return None
    return (
        _read_predicate(clean, category) if category.endswith("_predicate") else _read_choice(clean, category)
    )


# Words ----------------------------------------------------------------------------------------------------

_RELATIONS = {
    "left": r"left(?:most|ward)?",
    "right": r"right(?:most|ward)?",
    "below": r"below|beneath|under(?:neath)?|lower|lowest",
    "above": r"above|over|higher|highest|atop|on top",
    "big": r"big(?:ger|gest)?|large[rst]*|huge",
    "small": r"small(?:er|est)?|tin(?:y|ier|iest)|littler?",
    "tall": r"tall(?:er|est)?|higher|highest",
    "short": r"short(?:er|est)?|lower|lowest",
    "wide": r"wide[rst]*|broad(?:er|est)?",
    "thin": r"thin(?:ner|nest)?|narrow(?:er|est)?|slim(?:mer|mest)?|slender",
    "behind": r"behind|back|farther|further|farthest|furthest",
    "front": r"front|closer|closest|nearer|nearest|ahead",
}
_OPPOSITE = {
    "left": "right",
    "below": "above",
    "big": "small",
    "tall": "short",
    "wide": "thin",
    "behind": "front",
}
_OPPOSITE |= {b: a for a, b in _OPPOSITE.items()}
_PATTERNS = {
    word: re.compile(rf"\b(?:(?P<same>{_RELATIONS[word]})|(?P<other>{_RELATIONS[_OPPOSITE[word]]}))\b")
    for word in _RELATIONS
}
_REGION = re.compile(r"<?\bregion[\s#:_-]*[\[(]?\s*(\d{1,6})\s*[\])]?>?|\[\s*(\d{1,6})\s*\]")
_NAMED = re.compile(r"\br(\d+)\b")
_PAIR = re.compile(
    r"\b(?:between|among|of|comparing)\s+(?:the\s+)?r\d+\s*(?:and|or|&|,|to|with)\s*(?:the\s+)?r\d+\b"
)
_COMPARED = re.compile(
    r"\b(?:compared|relative|in comparison|in contrast)\s+(?:to|with)\s+(?:the\s+)?r\d+\b|\bunlike\s+r\d+\b"
)
_CLAUSES = re.compile(r"[.;!?,:]|\b(?:but|while|whereas|although|because)\b")
_NEGATION = re.compile(r"\b(?:not|never|cannot|less|least)\b|n't\b")
_UNDECIDED = re.compile(
    r"\b(?:(?:cannot|can't) (?:tell|say|determine|see|answer|be)|unable|unsure|not sure|uncertain|"
    r"not certain|unknown|unclear|not clear|do not know|don't know|impossible|yes (?:and|or) no)\b"
)
_UNDECIDED_CHOICE = re.compile(r"\b(?:both|neither|equal(?:ly)?|same|identical)\b")
_MORE = re.compile(r"\b(?:greater|more|larger|bigger|higher)\s+(?:in\s+)?(height|width|volume|size)\b")
_LESS = re.compile(
    r"\b(?:less|lesser|smaller|lower|shorter|narrower)\s+(?:in\s+)?(height|width|volume|size)\b"
)
_ADJECTIVES = {
    "height": ("taller", "shorter"), "width": ("wider", "thinner"),
    "volume": ("bigger", "smaller"), "size": ("bigger", "smaller"),
}  # fmt: skip
_LEAD = (
    r"^\W*(?:(?:well|hmm|ok|okay|so|i think|i believe|i would say|i'd say|(?:the |my )?answer(?: is)?)\W+)*"
)
_NO_FIRST = re.compile(
    rf"{_LEAD}(?:no(?!\s+doubt)|nope|nah|not|false|incorrect|wrong|negative|untrue|"
    r"(?:absolutely|definitely|certainly|of course) not)\b"
)
_YES_FIRST = re.compile(
    rf"{_LEAD}(?:(?:yes|yeah|yep|yup|true|correct|indeed|affirmative)\b|"
    r"that(?:'s| is) (?:right|correct|true)\b|"
    r"(?:right|sure|absolutely|definitely|certainly|of course)\s*(?:[.,!]|$|yes\b))"
)
_DENIED = re.compile(r"(?:\bnot|n't)\s+(?:\w+\s+)?(?:correct|true|the case)\b")


def _normalise(text: str) -> str:
    """Lower-case a text, write every region as ``r0``, and "greater height" as "taller"."""
    clean = text.lower().replace("’", "'").replace("‘", "'")
    clean = _REGION.sub(lambda m: f" r{int(m[1] or m[2])} ", clean)
    if bare := re.fullmatch(r"\W*(\d{1,6})\W*", clean):
        clean = f"r{int(bare[1])}"
    clean = re.sub(r"\b(?:the )?(?:first|former)(?: one| region| object)?\b", " r0 ", clean)
    clean = re.sub(r"\b(?:the )?(?:second|latter)(?: one| region| object)?\b", " r1 ", clean)
    clean = _MORE.sub(lambda m: _ADJECTIVES[m[1]][0], clean)
    return _COMPARED.sub(" ", _LESS.sub(lambda m: _ADJECTIVES[m[1]][1], clean))


def _read_predicate(clean: str, category: str) -> float | None:
    """Read yes or no: an opening "yes" or "no", else a statement of the relation or of its opposite."""
    if _NO_FIRST.search(clean):
        return 0.0
    if _YES_FIRST.search(clean):
        return 1.0
    if _DENIED.search(clean):
        return 0.0
    word = category.removesuffix("_predicate")
    for clause in _CLAUSES.split(clean):
        relation = _PATTERNS[word].search(clause)
        if relation is None:
            continue
        named = [int(n) for n in _NAMED.findall(clause)]
        # "region 1 is left of region 0" says the opposite of what was asked about region 0
        swapped = bool(named) and named[0] == 1
        holds = (relation["same"] is not None) ^ bool(_NEGATION.search(clause)) ^ swapped
        return float(holds)
    return parse_yes_no(clean)


def _read_choice(clean: str, category: str) -> float | None:
    """Read which region is chosen: the first that a clause names, or the other where the clause denies it."""
    clean = _PAIR.sub(" ", clean)
    word = category.removesuffix("_choice")
    for clause in _CLAUSES.split(clean):
        if _UNDECIDED_CHOICE.search(clause):
            return None
        named = _NAMED.search(clause)
        if named is None:
            continue
        if int(named[1]) not in (0, 1):
            return None
        relation = _PATTERNS[word].search(clause)
        opposite = relation is not None and relation["other"] is not None
        chosen = int(named[1]) ^ opposite ^ bool(_NEGATION.search(clause))
        return float(chosen == 0)
    return None
