"""Facts in words: templates are data, one list of phrasings per category and answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib import resources

import numpy as np
import yaml

from srgpt.curation.facts import Subject
from srgpt.geometry.units import Units, format_clock, format_length
from srgpt.records import UNIT_OF, Turn

_FILES = ("templates.yaml", "reasoning.yaml")
_NAMES = "ABCDEFGH"


@lru_cache(maxsize=1)
def templates() -> dict[str, dict[str, list[str]]]:
    """Return the phrasings of questions and answers by category: of the benchmark's, then of those beyond."""
    merged: dict[str, dict[str, list[str]]] = {}
    for name in _FILES:
        merged.update(yaml.safe_load((resources.files("srgpt.curation") / name).read_text(encoding="utf-8")))
    return merged


def phrase(
    category: str,
    subjects: Sequence[Subject],
    value: float,
    rng: np.random.Generator,
    *,
    words: Mapping[str, str],
    sigma: float | None,
) -> Turn:
    """Put a question and its answer into words drawn from the templates; ``words`` fill their other places."""
    lists = templates()[category]
    kind = "answers" if "answers" in lists else "positive" if value else "negative"
    count = len(subjects)
    tags = [f"<region{k}>" for k in range(count)]
    asked = {
        **words,
        **dict(zip(_NAMES, tags, strict=False)),
        "all": listed(tags),
        "others": listed(tags[1:]),
    }
    said = {**words, **{name: f"Region [{k}]" for k, name in zip(range(count), _NAMES, strict=False)}}
    return Turn(
        _draw(lists["questions"], rng).format(**asked),
        _draw(lists[kind], rng).format(**said),
        category,
        tuple(s.node.id for s in subjects),
        float(value),
        UNIT_OF[category],
        sigma,
    )


def state(
    category: str,
    subjects: Sequence[Subject],
    value: float,
    rng: np.random.Generator,
    *,
    sigma: float | None,
    units: Units = "everyday",
) -> Turn:
    """Put a fact of one of the benchmark's categories into words."""
    words = {}
    if UNIT_OF[category] == "clock_hours":
        words["X"] = format_clock(int(value))
    elif UNIT_OF[category] == "metres":
        words["X"] = format_length(value, rng, units)
    return phrase(category, subjects, value, rng, words=words, sigma=sigma)


def listed(names: Sequence[str]) -> str:
    """Join names as in a sentence: ``a, b and c``."""
    return f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else "".join(names)


def _draw(options: Sequence[str], rng: np.random.Generator) -> str:
    return options[int(rng.integers(len(options)))]
