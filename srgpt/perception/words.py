"""The word lists of ``words.yaml``, and how a tag becomes a plain noun."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from importlib import resources
from typing import Any

import yaml

_ARTICLES = ("a", "an", "the", "some", "two", "three", "several", "many")
_PREPOSITIONS = (
    "above", "against", "among", "at", "behind", "beside", "between", "by", "for", "from", "in", "inside", "near",
    "next", "of", "on", "over", "that", "to", "under", "which", "with",
)  # fmt: skip


@lru_cache(maxsize=1)
def word_lists() -> dict[str, dict[str, list[str]]]:
    """Return the lists by role and name, as ``words.yaml`` has them."""
    text = (resources.files("srgpt.perception") / "words.yaml").read_text(encoding="utf-8")
    data: dict[str, Any] = yaml.safe_load(text)
    return data


def chosen(given: Sequence[str] | None, role: str, name: str) -> tuple[str, ...]:
    """Return the words that a setting gives, or the list of that role and name where it is null."""
    return tuple(word_lists()[role][name] if given is None else given)


def words_of(text: str) -> tuple[str, ...]:
    """Split a text into lower-case words of letters, digits, hyphens and apostrophes."""
    return tuple(re.findall(r"\w+(?:['’-]\w+)*", text.lower()))


def noun(phrase: str) -> str:
    """Return the thing that a phrase names: "A man in a red shirt." is "man"; "" where nothing is left."""
    words = list(words_of(phrase))
    while words and words[0] in _ARTICLES:
        words.pop(0)
    for index, word in enumerate(words):
        if word in _PREPOSITIONS:
            words = words[:index]
            break
    return " ".join(words)


def ends_in(tag: str, words: Iterable[str]) -> bool:
    """Tell whether a tag's last whole words are one of ``words``: the noun that it is about.

    A "blue sky" is a sky, and so are "skies"; an "office chair" is no office, and a "seat" no sea.
    """
    own = _one_of(words_of(tag))
    return any((tail := _one_of(words_of(word))) and own[-len(tail) :] == tail for word in words)


def _one_of(words: tuple[str, ...]) -> tuple[str, ...]:
    """Put the last word into the singular, by its spelling."""
    if not words:
        return words
    last = words[-1]
    if re.search(r"[^aeiou]ies$", last):
        last = last[:-3] + "y"
    elif re.search(r"(s|x|z|ch|sh)es$", last):
        last = last[:-2]
    elif re.search(r"[^su]s$", last):
        last = last[:-1]
    return (*words[:-1], last)


def keep_tags(tags: Iterable[str], removed: Sequence[str], limit: int) -> tuple[str, ...]:
    """Return the distinct nouns among tags that do not end in a removed word, in order, at most ``limit``."""
    kept: dict[str, None] = {}
    for tag in tags:
        name = noun(tag)
        if name and not ends_in(name, removed):
            kept[name] = None
    return tuple(kept)[:limit]
