"""What an imported question asks, and the number that its answer states, where that is beyond doubt.

A question counts as one of the benchmark's categories only if every word of it is known and belongs to that category
or to none: then a composed question ("if I walk from ... do I fit through ...") is never taken for a plain one. All
else stays words, which can be trained on and is not graded.
"""

from __future__ import annotations

import re
from functools import lru_cache

from srgpt.geometry.language import parse_region, parse_yes_no, verdict
from srgpt.geometry.units import parse_clock, parse_length
from srgpt.records import CATEGORIES, Unit

IMPORTED = "imported"
"""Category of a turn that is none of ours for sure."""

Recognised = tuple[str, float | None, Unit]


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


_PLAIN = _set(
    "a an and any appear appears approximate approximately are around as at away be been being between both "
    "by calculate camera can compared confirm could current determine do does estimate estimated estimation "
    "exact find for from get give given has have how i identify if image in is it its know let located "
    "location look looking me measure measured measurement more most much of on one or other out over "
    "perspective picture placed please position positioned positions precise provide provided region roughly "
    "say scene see seem seems seen situated so some stand standing tell terms than that the there these this "
    "to true two us view viewed viewer viewer's viewpoint visible was we were what what's when which who "
    "whose will with would you your"
)
"""Words that do not change what is asked."""

_RELATION_OF = {
    "left": "left", "leftmost": "left", "right": "right", "rightmost": "right",
    "above": "above", "below": "below", "beneath": "below", "under": "below", "underneath": "below",
    "bigger": "big", "larger": "big", "smaller": "small",
    "taller": "tall", "shorter": "short",
    "wider": "wide", "broader": "wide", "thinner": "thin", "narrower": "thin",
    "behind": "behind", "front": "front",
}  # fmt: skip
_OPPOSITE = {
    "left": "right",
    "above": "below",
    "big": "small",
    "tall": "short",
    "wide": "thin",
    "behind": "front",
}
_OPPOSITE |= {b: a for a, b in _OPPOSITE.items()}
_DISTANCE = _set("apart close distance distant far gap separate separated separates separation")
_STRAIGHT = _set("direct line straight")
_HORIZONTAL, _VERTICAL = _set("horizontal horizontally"), _set("vertical vertically")
_WIDTH, _HEIGHT = _set("wide width broad") | _HORIZONTAL, _set("tall height") | _VERTICAL
_DISTANCES = (
    ("distance_data", _STRAIGHT),
    ("horizontal_distance_data", _HORIZONTAL),
    ("vertical_distance_data", _VERTICAL),
)
_SIZE = _set("dimension dimensions extent measure measures occupy size space taken take takes up")
_CLOCK = _set("12 clock direction facing hour lie lies o'clock oclock where")

_PHRASES = tuple(
    (re.compile(pattern), word)
    for pattern, word in (
        (r"\b(left|right)[- ]?(?:hand)? side\b", r"\1"),
        (r"\b(?:farther|further) (?:to )?(?:the )?(left|right)\b", r"\1"),
        (r"\b(?:positioned|located|placed|situated) higher\b|\bhigher (?:up|position)\b", "above"),
        (r"\b(?:positioned|located|placed|situated) lower\b|\blower (?:down|position)\b", "below"),
        (r"\b(?:greater|larger|bigger) height\b", "taller"),
        (r"\b(?:lesser|smaller|lower|shorter) height\b", "shorter"),
        (r"\b(?:greater|larger|bigger) width\b", "wider"),
        (r"\b(?:lesser|smaller|narrower) width\b", "thinner"),
        (r"\b(?:larger|bigger) (?:in )?(?:size|volume)\b", "bigger"),
        (r"\bsmaller (?:in )?(?:size|volume)\b", "smaller"),
        (r"\b(?:farther|further) (?:away|back|from (?:you|the (?:camera|viewer)))\b", "behind"),
        (r"\b(?:closer|nearer)(?: to (?:you|the (?:camera|viewer)))?(?= than|\W*$)", "front"),
    )
)
"""Several words for one relation."""

_MENTIONS = re.compile(r"<region(\d+)>")
_ANSWERED = re.compile(r"region \[\d+\]", re.IGNORECASE)
_WORD = re.compile(r"[a-z0-9]+(?:'[a-z]+)?")
_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_CHOICE = _set("which who whose")
_DENIED = _set("not no less neither both equal equally same")
_FROM_FIRST = re.compile(r"\b(?:at|from|around|of) (?:the )?<region0>")
_FROM_SECOND = re.compile(r"\b(?:at|from|around|of|to) (?:the )?<?region ?\[?1\b")
_UNSURE: Recognised = (IMPORTED, None, "text")


def recognise(question: str, answer: str) -> Recognised:
    """Return category, value and unit of a turn; ``("imported", None, "text")`` where there is any doubt."""
    category = category_of(question)
    if category is None:
        return _UNSURE
    if category == "direction":
        return _hour(answer)
    if category.endswith("_data"):
        return _length(category, answer)
    relation, _, kind = category.partition("_")
    return _predicate(relation, answer) if kind == "predicate" else _choice(relation, answer)


@lru_cache(maxsize=4096)  # most questions come from templates
def category_of(question: str) -> str | None:
    """Return the category that a question is of for sure, else None."""
    mentions = [int(k) for k in _MENTIONS.findall(question)]
    if mentions not in ([0], [0, 1]):
        return None
    text = " ".join(question.lower().replace("’", "'").split())
    clean = " ".join(_MENTIONS.sub(" ", text).split())
    for pattern, word in _PHRASES:
        clean = pattern.sub(word, clean)
    words = set(_WORD.findall(clean))
    special = words - _PLAIN
    if len(mentions) == 1:
        kinds = (("width_data", _WIDTH, _SIZE), ("height_data", _HEIGHT, _SIZE))
        return next((c for c, own, also in kinds if special & own and special <= own | also), None)
    if special & _DISTANCE:
        return next((category for category, own in _DISTANCES if special <= _DISTANCE | own), None)
    if special & _CLOCK:
        asked = special <= _CLOCK and _FROM_FIRST.search(text) and not _FROM_SECOND.search(text)
        return "direction" if asked else None
    relations = {_RELATION_OF.get(word, "") for word in special}
    category = (
        f"{relations.pop() if len(relations) == 1 else ''}_{'choice' if words & _CHOICE else 'predicate'}"
    )
    return category if category in CATEGORIES else None


def _length(category: str, answer: str) -> Recognised:
    """Read the only number of an answer as a length."""
    said = _ANSWERED.sub(" ", answer)
    metres = parse_length(said) if len(_NUMBER.findall(said)) == 1 else None
    return _UNSURE if metres is None else (category, metres, "metres")


def _hour(answer: str) -> Recognised:
    """Read the only number of an answer as the hour at which the second region is from the first."""
    said = answer.lower()
    if _FROM_SECOND.search(said) or len(_NUMBER.findall(_ANSWERED.sub(" ", said))) > 1:
        return _UNSURE
    hour = parse_clock(said)
    return _UNSURE if hour is None else ("direction", float(hour), "clock_hours")


def _predicate(relation: str, answer: str) -> Recognised:
    """Read an answer that concludes with, or opens with, yes or no."""
    said = _WORD.findall(verdict(answer).lower())
    value = parse_yes_no(said[0]) if said else None
    if value is None or (value and _DENIED & set(said)) or said[1:2] in (["doubt"], ["question"]):
        return _UNSURE
    return f"{relation}_predicate", value, "truth"


def _choice(relation: str, answer: str) -> Recognised:
    """Read an answer that names one region, or begins with the one that it says to be so."""
    said = verdict(answer).lower()
    words = set(_WORD.findall(_ANSWERED.sub(" ", said)))
    named = [region.lower() for region in _ANSWERED.findall(said)]
    opposite = any(_RELATION_OF.get(word) == _OPPOSITE[relation] for word in words)
    begins = said.strip().removeprefix("the ").startswith(tuple(named[:1]))
    if not named or (len(set(named)) > 1 and not begins) or opposite or words & _DENIED:
        return _UNSURE
    region = parse_region(said)
    return _UNSURE if region not in (0, 1) else (f"{relation}_choice", float(region == 0), "truth")
