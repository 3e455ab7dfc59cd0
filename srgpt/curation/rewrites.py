"""Whether a rewritten question or answer still says what its template said, by rule.

A rewrite is compared with the template that it comes from: the same regions, the same numbers with their units,
the same value read back, the same quantity, the same side of a comparison, and nothing in the question that gives
the answer away.
What cannot be told apart by rule is not accepted: the template is always there to fall back on.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import Any

import yaml

from srgpt.geometry.language import NUMBERS, parse_yes_no, read_value, verdict
from srgpt.geometry.units import parse_clock, parse_length
from srgpt.records import UNIT_OF, Turn

REASONS = (
    "cut-off", "refused", "not-json", "wrong-schema", "empty", "too-long", "odd-characters", "stray-markup",
    "not-a-question", "not-an-answer", "regions-changed", "numbers-changed", "value-changed",
    "quantity-changed", "relation-changed", "answer-in-question", "category-named", "unchanged",
)  # fmt: skip
"""Why a rewrite is not used."""

_MENTION = re.compile(
    r"<\s*region\s*\[?\s*([0-9]{1,6})\s*\]?\s*>"  # <region0>
    r"|\[\s*region\s*([0-9]{1,6})\s*\]"  # [Region 0]
    r"|\bregion\s*\[\s*([0-9]{1,6})\s*\]"  # Region [0]
    r"|\bregion\s?([0-9]{1,6})\b(?![.,]?[0-9])",  # region 0
    re.IGNORECASE,
)
_ASKED = re.compile(r"<region([0-9]+)>")
_SAID = re.compile(r"Region \[([0-9]+)\]")
_MARKUP = re.compile(r"[<>{}\[\]|`*#_\\~^]")
_NAMED = re.compile(r"\bregions?\b\s*[0-9]", re.IGNORECASE)

_WORD = re.compile(r"[a-z]+(?:['’][a-z]+)?", re.IGNORECASE)
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
_CLAUSE = re.compile(r"[,;:.!?]")
_NEGATIONS = frozenset({"not", "never", "neither", "nor", "less", "least", "no", "without", "cannot"})
_TAG = re.compile(
    r",\s*(?:right|correct|true|yes|no|(?:is|are|does|do|would|will)(?:n['’]t)?(?:\s(?:it|they|that))?(?:\snot)?)"
    r"\?\s*$",
    re.IGNORECASE,
)
_FROM_ABOVE = re.compile(r"\bfrom (?:straight |right )?above\b", re.IGNORECASE)
_GIVEN = re.compile(
    r"\b(?:since|because|knowing|as we know|(?:given|considering) (?:that|how))\b", re.IGNORECASE
)
_ASIDE = re.compile(
    r"\b(?:ignoring|disregarding|leaving|setting|putting|regardless|whatever|without)\b[^,.;:!?]*",
    re.IGNORECASE,
)
_STOOD_AT = re.compile(
    r"\b(?:at|from|for|around|beside|near|next to|ahead of)\s+(?:where\s+)?(?:(?:the|an?)\s+(?:[\w-]+\s+){0,3})?"
    r"(?:<region|Region \[)([0-9]+)",
    re.IGNORECASE,
)
_LOOKED_AT = re.compile(
    r"\b(?:look|search|head|aim|point|turn|ask)\w*\s+(?:straight\s+)?(?:at|for)\b", re.IGNORECASE
)
_REFERRED_TO = re.compile(
    r"\b(?:of|than|above|below|behind|beneath|under|over|from|with|to|beside|against|past)\s*$", re.IGNORECASE
)
_CLAUSE_START = re.compile(r"(?:^|[,;:.!?(–—-]|\b(?:because|since|that|as))\s*$", re.IGNORECASE)
_HAS = re.compile(r"\b(?:has|have|having|with|sees?|finds?)\b", re.IGNORECASE)
_ITS = re.compile(r"\bits\b", re.IGNORECASE)
_HEDGE = re.compile(
    r"(?:\b(?:not|than|under|over|above|below|beyond|within|least|most|almost|nearly|exceed\w*|up to)|n['’]t)"
    r"\s+(?:an?\s+|the\s+)?$",
    re.IGNORECASE,
)


# Reading what the model wrote -----------------------------------------------------------------------------


def read_fields(text: str, fields: Sequence[str]) -> dict[str, str] | str:
    """Read the JSON object that a model was asked for, or return the reason why it cannot be read.

    Words, a code fence or a model's thoughts around the object do no harm; other or missing keys do.
    """
    text = text.rsplit("</think>", 1)[-1][:20_000]
    decoder = json.JSONDecoder()
    reason = "not-json"
    for start in [m.start() for m in re.finditer(r"\{", text)][:20]:
        try:
            found, _ = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            continue
        if set(found) == set(fields) and all(isinstance(v, str) for v in found.values()):
            return dict(found)
        reason = "wrong-schema"
    return reason


def tidy_question(text: str) -> str:
    """Write a question in one line, and every mention of a region as ``<regionK>``."""
    return _tidy(text, "<region{}>")


def tidy_answer(text: str) -> str:
    """Write an answer in one line, and every mention of a region as ``Region [K]``."""
    return _tidy(text, "Region [{}]")


def _tidy(text: str, form: str) -> str:
    def write(match: re.Match[str]) -> str:
        return form.format(int(next(g for g in match.groups() if g is not None)))

    return _MENTION.sub(write, " ".join(text.split()))


# Comparing it with the template ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Limits:
    """What a rewrite must keep to beside its template.

    ``forbidden`` are names of objects that must not be said; ``free_question`` holds where the question asks
    for the same answer in another way (mode ``reason``).
    """

    max_characters: int = 400
    forbidden: Collection[str] = ()
    free_question: bool = False


def problem(template: Turn, rewrite: Turn, limits: Limits) -> str | None:
    """Return why ``rewrite`` must not stand in for ``template``, one of :data:`REASONS`; None where it may.

    Both texts must be tidy. What is equal to the template's own is not looked at.
    """
    asked, said = rewrite.question != template.question, rewrite.answer != template.answer
    if not asked and not said:
        return "unchanged"
    texts = [t for t, new in ((rewrite.question, asked), (rewrite.answer, said)) if new]
    found = next(filter(None, (_form_problem(t, limits) for t in texts)), None)
    if found is None and asked:
        found = _question_problem(template, rewrite, limits)
    if found is None and said:
        found = _answer_problem(template, rewrite)
    if found is None and _names(" ".join(texts), limits.forbidden) - _names(
        _both(template), limits.forbidden
    ):
        found = "category-named"
    return found


def _both(turn: Turn) -> str:
    return f"{turn.question} {turn.answer}"


def _form_problem(text: str, limits: Limits) -> str | None:
    if not text:
        return "empty"
    if len(text) > limits.max_characters:
        return "too-long"
    if any(_odd(c) for c in text):
        return "odd-characters"
    bare = _SAID.sub(" ", _ASKED.sub(" ", text))
    if _MARKUP.search(bare) or _NAMED.search(bare):
        return "stray-markup"
    return None


def _odd(character: str) -> bool:
    """Whether a character is invisible, half of one, of another script, or a digit that no rule here reads."""
    kind = unicodedata.category(character)[0]
    if kind == "L":
        return not unicodedata.name(character, "").startswith("LATIN ")
    return kind == "C" or (kind == "N" and character not in "0123456789")


def _question_problem(template: Turn, rewrite: Turn, limits: Limits) -> str | None:
    old, new = template.question, rewrite.question
    if (old.endswith("?") or limits.free_question) and not new.endswith("?"):
        return "not-a-question"
    if _SAID.search(new):
        return "stray-markup"
    before, after = _ASKED.findall(old), _ASKED.findall(new)
    if Counter(before) != Counter(after) or list(dict.fromkeys(before)) != list(dict.fromkeys(after)):
        return "regions-changed"
    if quantities(old) != quantities(new):
        added = quantities(new) - quantities(old)
        return "answer-in-question" if added & quantities(template.answer) else "numbers-changed"
    if _leaks(template, new):
        return "answer-in-question"
    if _moves_viewer(template, new) or _denies(template, " ".join(_asking(new)), " ".join(_asking(old))):
        return "relation-changed"
    if not limits.free_question:
        if _changes_quantity(template, new, asked=True):
            return "quantity-changed"
        axis = _axis(template.category)
        if (_sides(old, axis) and _sides(new, axis) != _sides(old, axis)) or _adds_place(template, new):
            return "relation-changed"
    return None


def _leaks(template: Turn, question: str) -> bool:
    """Whether a question tells an answer that is no measured quantity (those are compared as numbers)."""
    unit, words = template.unit, [w.lower() for w in _WORD.findall(question)]
    old = [w.lower() for w in _WORD.findall(template.question)]
    if unit == "count" and template.value is not None and 0 <= template.value < len(NUMBERS):
        name = NUMBERS[int(template.value)]
        return name in words and name not in old
    if unit not in ("truth", "region", "order"):
        return False
    if ("yes" in words) != ("no" in words) or _TAG.search(question):
        return True
    if _GIVEN.search(question) and not _GIVEN.search(template.question):
        return True
    return _told(question) > _told(template.question)


def _told(question: str) -> int:
    """Count the sentences of a question that ask nothing and yet speak of a region."""
    sentences = _SENTENCE_END.split(question)
    return sum(bool(_ASKED.search(s)) and not s.endswith("?") for s in sentences)


def _answer_problem(template: Turn, rewrite: Turn) -> str | None:
    old, new = template.answer, rewrite.answer
    if "?" in new:
        return "not-an-answer"
    if _ASKED.search(new):
        return "stray-markup"
    known = set(_ASKED.findall(template.question))
    before, after = list(dict.fromkeys(_SAID.findall(old))), list(dict.fromkeys(_SAID.findall(new)))
    if not set(after) <= known | set(before):
        return "regions-changed"
    chosen = template.unit in ("region", "order") or template.category.endswith("_choice")
    free = not chosen and template.unit in ("truth", "metres")  # "Yes, it is.", "About 2 meters."
    if not set(before) <= set(after) and not (free and set(after) <= set(before)):
        return "regions-changed"
    order = [k for k in before if k in after]
    if not chosen and template.unit != "truth" and [k for k in after if k in before] != order:
        return "regions-changed"
    if quantities(old) != quantities(new) or (_hedged(new) and not _hedged(old)):
        return "numbers-changed"
    if template.category in UNIT_OF:
        value = read_value(old, template.category)
        if value is not None and read_value(new, template.category) != value:
            return "value-changed"
        if template.unit == "truth" and not chosen and parse_yes_no(new) not in (None, value):
            return "value-changed"  # "No, ..., so yes."
    if _changes_quantity(template, new, asked=False):
        return "quantity-changed"
    if _adds_place(template, new) or _moves_viewer(template, new):
        return "relation-changed"
    if template.value == 1.0 and _denies(template, new, old):  # "Yes, it is out of reach."
        return "relation-changed"
    return _relation_problem(template, new)


# Numbers --------------------------------------------------------------------------------------------------

_NUMBER = re.compile(r"(?P<sign>(?<![^\s(])[-−])?(?P<digits>[0-9]+(?:[.,][0-9]+)*)")
_CLOCK = re.compile(rf"\b(?:{'|'.join(NUMBERS[1:])})[\s-]*o\s?['’‘`´]?\s?clock\b", re.IGNORECASE)


def quantities(text: str) -> Counter[tuple[str, str]]:
    """Count the numbers in a text, each with its unit: metres in one of it, ``clock``, or nothing.

    A unit without a number ("a meter", "three feet") counts as well, so that no quantity comes or goes
    unnoticed. Numbers that name regions do not count. ``1.50 m`` equals ``1.5 meters``.
    """
    text = _SAID.sub(" ; ", _ASKED.sub(" ; ", text))
    found: Counter[tuple[str, str]] = Counter()
    for match in _CLOCK.finditer(text):
        found[f"{parse_clock(match[0]):g}", "clock"] += 1
    text = _CLOCK.sub(" ; ", text)
    taken: set[int] = set()
    for match in _NUMBER.finditer(text):
        rest = re.match(r"[^0-9.,;:!?]{0,24}", text[match.end() :])
        after = rest[0] if rest else ""
        unit = ""
        if parse_clock(f"1{after}") is not None:
            unit = "clock"
        elif (factor := parse_length(f"1{after}")) is not None:
            unit = f"{factor:g}"
            word = _WORD.search(text, match.end())
            taken |= {word.start()} if word else set()
        found[_number(match), unit] += 1
    for match in _WORD.finditer(text):
        if match.start() not in taken and (factor := _unit_word(match[0])) is not None:
            found["", f"{factor:g}"] += 1
    return found


def _number(match: re.Match[str]) -> str:
    digits = match["digits"]
    if re.fullmatch(r"[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]+)?", digits):
        digits = digits.replace(",", "")
    whole, point, decimals = digits.partition(".")
    if point and decimals.isdigit():
        digits = f"{whole}.{decimals.rstrip('0')}".rstrip(".")
    return ("-" if match["sign"] else "") + (digits.lstrip("0") or "0")


@lru_cache(maxsize=4096)
def _unit_word(word: str) -> float | None:
    """Return the metres in a unit that is written out; shorter ones are too often other words."""
    return parse_length(f"1 {word}") if len(word) > 3 else None


def _hedged(text: str) -> bool:
    """Whether a number is no longer stated but bounded: "less than 2 meters", "not 3 o'clock"."""
    text = _SAID.sub(" ; ", text)
    return any(_HEDGE.search(text[: m.start()]) for m in _NUMBER.finditer(text))


# Comparisons ----------------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def words() -> dict[str, Any]:
    """Return the prompts and word lists of rephrasing, as ``rephrasing.yaml`` has them."""
    text = (resources.files("srgpt.curation") / "rephrasing.yaml").read_text(encoding="utf-8")
    data: dict[str, Any] = yaml.safe_load(text)
    return data


@dataclass(frozen=True)
class _Axis:
    """Words of a comparison, each with its side, +1 or -1; ``of`` are parts of the categories that make it."""

    of: frozenset[str]
    side: Mapping[str, int]
    place: bool
    """Whether it says where something is."""


@lru_cache(maxsize=1)
def _axes() -> tuple[_Axis, ...]:
    return tuple(
        _Axis(
            frozenset(row["of"]),
            {**dict.fromkeys(row["one"], 1), **dict.fromkeys(row["other"], -1)},
            row["place"],
        )
        for row in words()["opposites"]
    )


def _axis(category: str) -> _Axis | None:
    parts = set(category.split("_"))
    return next((axis for axis in _axes() if parts & axis.of), None)


def _sides(text: str, axis: _Axis | None) -> set[int]:
    """Return which sides of a comparison a text names; a negation turns the rest of its clause."""
    sides: set[int] = set()
    if axis is None:
        return sides
    for clause in _CLAUSE.split(_SAID.sub(" ", _ASKED.sub(" ", text))):
        sign = 1
        for word in (w.lower().replace("’", "'") for w in _WORD.findall(clause)):
            if word in _NEGATIONS or word.endswith("n't"):
                sign = -sign
            elif word in axis.side:
                sides.add(sign * axis.side[word])
    return sides


def _adds_place(template: Turn, text: str) -> bool:
    """Whether a text about a quantity says where something is, of which its template knows nothing."""
    if template.unit not in ("metres", "clock_hours", "ratio"):
        return False
    text = _FROM_ABOVE.sub(" ", text)
    places = [axis for axis in _axes() if axis.place]
    return any(len(_sides(text, a)) == 1 and not _sides(_both(template), a) for a in places)


def _relation_problem(template: Turn, answer: str) -> str | None:
    """Compare what both answers state: "A is left of B" and "B is right of A" agree, "A is right of B" does not.

    Only where the template names one side; an answer that names none ("Yes, it is.") is fine, unless it is to
    state the side (``*_fact``) or speaks of the other region.
    """
    old, new = _stated(template.answer), _stated(answer)
    axis, fact = _axis(template.category), template.category.endswith("_fact")
    before, after = _sides(old, axis), _sides(new, axis)
    if axis is None or len(before) != 1:
        return None
    if fact and _other_sides(new, axis) - _other_sides(old, axis):
        return "relation-changed"
    pair = (template.unit == "truth" or fact) and len(template.regions) == 2
    if pair and not template.category.endswith("_choice"):
        return None if _agrees(old, new, axis, silent=not fact) else "relation-changed"
    if not after:
        return None
    expected = {-side for side in before} if pair and _subject(old) != _subject(new) else before
    return None if expected <= after else "relation-changed"


def _agrees(old: str, new: str, axis: _Axis, silent: bool) -> bool:
    """Whether two statements about two regions agree; ``silent`` allows the new one to name no side."""
    before, after = _sides(old, axis), _sides(new, axis)
    subjects = _subject(old), _subject(new)
    mentions = list(_SAID.finditer(new))
    between = new[mentions[0].end() : mentions[1].start()] if len(mentions) > 1 else ""
    if after and (_ITS.search(between) or (_HAS.search(between) and not _sides(between, axis))):
        return False  # "A has B to its left", "A has to its left B"
    if after and subjects[1] is None and subjects[0] in [m[1] for m in mentions]:
        return False  # "it is left of A", of A itself
    if None in subjects or subjects[0] == subjects[1]:
        return before <= after or (silent and not after)
    # the other way round only in the plain form "B is right of A": in others, rules mistake who is meant
    first = mentions[0]
    said = between or new[first.end() :]
    plain = _CLAUSE_START.search(new[: first.start()]) and re.match(r"\s+\w", said)
    return bool(plain) and after == _sides(said, axis) == {-side for side in before}


def _subject(text: str) -> str | None:
    """Return the first region named that is not one to compare with ("left of Region [1]")."""
    found = (m[1] for m in _SAID.finditer(text) if not _REFERRED_TO.search(text[: m.start()]))
    return next(found, None)


def _other_sides(text: str, axis: _Axis) -> set[tuple[int, int]]:
    """Return the sides that a text names of comparisons other than its own."""
    text = re.sub(
        r"\b(?:further|farther|farthest|furthest)\b(?=\s+(?:to the )?(?:left|right|up|down)\b)", " ", text
    )
    own = re.compile(rf"\b(?:{'|'.join(axis.side)})\b", re.IGNORECASE)
    bare = own.sub(" ", text)
    return {(i, side) for i, a in enumerate(_axes()) if a is not axis for side in _sides(bare, a)}


def _stated(answer: str) -> str:
    """Return an answer without what it concludes after "so"."""
    concluded = verdict(answer)
    return answer if concluded == answer else answer.removesuffix(concluded)


# Quantities and who looks -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Measure:
    """Words that name a quantity; ``of`` are parts of the categories that may be put in them."""

    of: frozenset[str]
    named: re.Pattern[str]
    asked: bool
    """Whether it says alone what a question of these categories asks for."""
    rest: str | None
    """The quantity that is meant where this one is left aside ("ignoring height")."""


@lru_cache(maxsize=1)
def _measures() -> dict[str, _Measure]:
    return {
        name: _Measure(
            frozenset(row["of"]),
            re.compile(rf"\b(?:{'|'.join(row['words'])})\b", re.IGNORECASE),
            row["asked"],
            row.get("rest"),
        )
        for name, row in words()["measures"].items()
    }


def _named_measures(text: str) -> set[str]:
    """Return the quantities that a text speaks of, by their names in ``rephrasing.yaml``."""
    text = _SAID.sub(" ; ", _ASKED.sub(" ; ", text)).replace("-", " ")
    aside, rest = " ; ".join(m[0] for m in _ASIDE.finditer(text)), _ASIDE.sub(" ", text)
    found = {name for name, m in _measures().items() if m.named.search(rest)}
    return found | {m.rest for m in _measures().values() if m.rest and m.named.search(aside)}


def _changes_quantity(template: Turn, text: str, asked: bool) -> bool:
    """Whether a text speaks of a quantity that is not its template's; a question must also name its own."""
    if template.unit not in ("metres", "ratio") and not template.category.endswith("_fact"):
        return False
    parts, named = set(template.category.split("_")), _named_measures(text)
    own = {name for name, m in _measures().items() if m.of & parts}
    if named - own - _named_measures(_both(template)):
        return True
    needed = {name for name in own if _measures()[name].asked}
    return asked and template.unit != "region" and bool(needed) and not named & needed


def _moves_viewer(template: Turn, text: str) -> bool:
    """Whether a text about a direction does not stand at the question's first region, where it names it."""
    if template.category != "direction":
        return False
    stood = set(_STOOD_AT.findall(_LOOKED_AT.sub(" ", text)))
    named = set(_ASKED.findall(text)) | set(_SAID.findall(text))
    return stood != named & {"0"}


def _asking(question: str) -> list[str]:
    return [s for s in _SENTENCE_END.split(question) if s.endswith("?")]


def _denies(template: Turn, new: str, old: str) -> bool:
    """Whether a text about what can be done (reach, fit) denies it, unlike the old one."""
    if template.unit != "truth" or _axis(template.category) is not None:
        return False
    denial = re.compile(rf"\b(?:{'|'.join(words()['denials'])})\b|n['’]t\b", re.IGNORECASE)
    new = re.sub(r"\byes or no\b", " ", new, flags=re.IGNORECASE)
    return bool(denial.search(new)) and not denial.search(old)


# Names ----------------------------------------------------------------------------------------------------

_NO_NAMES = frozenset({"object", "region", "thing", "item", "box", "area", "other", ""})
"""Words that say nothing about what a region shows."""


def _names(text: str, names: Collection[str]) -> set[str]:
    """Return which of ``names`` a text says, as whole words, in singular or plural."""
    folded = f" {' '.join(w.lower() for w in _WORD.findall(text))} "
    return {n for n in names if any(f" {form} " in folded for form in _forms(n))}


def _forms(name: str) -> Iterator[str]:
    """Yield a name, its last word ("office chair", "chair"), and their plurals."""
    tokens = [w.lower() for w in _WORD.findall(name)]
    for form in {" ".join(tokens), *tokens[-1:]} - _NO_NAMES:
        yield from (form, f"{form}s", f"{form}es", f"{form[:-1]}ies")
