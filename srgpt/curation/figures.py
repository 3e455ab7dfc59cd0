"""What a dataset holds, counted in passing: objects, distances, sizes, questions, answers, templates, units.

Nothing here grows with the number of scenes: lengths go into bins of an eighth of an octave, from which
quantiles are read to within 5 %, and everything else is counted.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from srgpt.curation.checks import box_problem
from srgpt.curation.frames import Part
from srgpt.curation.phrasing import templates
from srgpt.geometry.units import METRES_PER
from srgpt.records import UNIT_OF

Row = dict[str, Any]

SHOWN_NAMES = 25
"""Object categories that are named one by one."""

_PER_OCTAVE, _PER_BAR = 8, 4
_NOTHING = -(10**6)
"""The bin of lengths that are 0 or less."""

_REGIONS = r"<region\d+>"
_LIST = re.compile(rf"{_REGIONS}(?:(?:,| and|, and| or|, or) {_REGIONS})*")
_PLACE = re.compile(r"\\{\w+\\}")
_UNIT = re.compile("|".join((*METRES_PER, "o'clock")))

REWORDED = -1
"""In place of a template's number: the question is in other words."""


@dataclass
class Lengths:
    """A distribution of lengths in metres."""

    bins: Counter[int] = field(default_factory=Counter)

    def add(self, metres: float) -> None:
        """Count one length."""
        self.bins[math.floor(math.log2(metres) * _PER_OCTAVE) if metres > 1e-9 else _NOTHING] += 1

    def quantile(self, share: float) -> float | None:
        """Return the length that ``share`` of all lengths do not exceed, to within a bin; None where there are none."""
        wanted, seen = share * self.bins.total(), 0
        for index in sorted(self.bins):
            seen += self.bins[index]
            if seen >= wanted:
                return 0.0 if index == _NOTHING else 2 ** ((index + 0.5) / _PER_OCTAVE)
        return None

    def to_json(self) -> dict[str, Any]:
        """Return count, median, 5 % and 95 % quantiles, and bars of half an octave: (from, to, count)."""
        bars: Counter[int] = Counter()
        for index, count in self.bins.items():
            if index != _NOTHING:
                bars[index // _PER_BAR] += count
        step = _PER_BAR / _PER_OCTAVE
        span = range(min(bars), max(bars) + 1) if bars else range(0)
        return {
            "count": self.bins.total(),
            **{
                name: _rounded(self.quantile(q)) for name, q in (("median", 0.5), ("p5", 0.05), ("p95", 0.95))
            },
            "bars": [[_rounded(2 ** (i * step)), _rounded(2 ** ((i + 1) * step)), bars[i]] for i in span],
        }


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")


SIZES = ("width", "height", "depth")
"""The extents of a canonical box, x, y, z."""


@dataclass
class Figures:
    """The figures of a dataset, filled part by part."""

    scenes: int = 0
    regions: int = 0
    """Of the perceived scenes."""
    masked: int = 0
    """Regions with a mask."""
    nodes: int = 0
    perceived: int = 0
    """Nodes with a perceived box."""
    true: int = 0
    """Nodes with a true box."""
    asked_objects: int = 0
    """Objects that at least one question is about."""
    dropped: Counter[str] = field(default_factory=Counter)
    """Nodes without a perceived box, by reason."""
    names: Counter[str] = field(default_factory=Counter)
    """Object categories: of the graphs, else of the scenes, else of the conversations."""
    camera: Lengths = field(default_factory=Lengths)
    """Distance of objects from the camera."""
    sizes: dict[str, Lengths] = field(default_factory=lambda: {name: Lengths() for name in SIZES})
    asked: Counter[str] = field(default_factory=Counter)
    """Questions by category."""
    positive: Counter[str] = field(default_factory=Counter)
    """Of these, answered yes, or by the first region."""
    said: dict[str, Counter[float]] = field(default_factory=dict)
    """Answers that are no lengths and no truths, by category: hours, counts, regions."""
    lengths: dict[str, Lengths] = field(default_factory=dict)
    """Answers that are lengths, by category."""
    phrased: dict[str, Counter[int]] = field(default_factory=dict)
    """Questions by category and number of the template."""
    units: Counter[str] = field(default_factory=Counter)
    """Units that answers are written in."""
    turns: Counter[int] = field(default_factory=Counter)
    """Scenes by number of questions."""

    def add(self, part: Part) -> None:
        """Count what a group of shards holds."""
        self.scenes += len(part.scenes)
        for scene in part.scenes:
            regions = scene["regions"] or []
            self.regions += len(regions)
            self.masked += sum(region["rle"] is not None for region in regions)
            if not part.graphs:
                self.names.update(region["category"] or "" for region in regions)
        for graph in part.graphs:
            for node in graph["nodes"] or []:
                self._add_node(node)
        self._add_conversations(part)

    def _add_node(self, node: Row) -> None:
        self.nodes += 1
        self.names[node["category"] or ""] += 1
        self.true += node["truth"] is not None
        if node["dropped"] is not None:
            self.dropped[node["dropped"]] += 1
        self.perceived += node["perceived"] is not None
        box = node["perceived"] or node["truth"]
        if box is not None and box_problem(box) is None:
            self.camera.add(math.hypot(*box["center"]))
            for name, metres in zip(SIZES, box["size"], strict=True):
                self.sizes[name].add(metres)

    def _add_conversations(self, part: Part) -> None:
        about: set[tuple[str, int]] = set()
        questions: Counter[str] = Counter()
        for conversation in part.conversations:
            turns = conversation["turns"] or []
            questions[conversation["scene_id"]] += len(turns)
            about |= {(conversation["scene_id"], r) for turn in turns for r in turn["regions"] or []}
            for turn in turns:
                self._add_turn(turn)
            if not part.graphs and not part.scenes:
                self.names.update(region["category"] or "" for region in conversation["regions"] or [])
        self.asked_objects += len(about)
        self.turns.update(questions.values())

    def _add_turn(self, turn: Row) -> None:
        category, value = turn["category"] or "", turn["value"]
        self.asked[category] += 1
        self.phrased.setdefault(category, Counter())[template_of(category, turn["question"] or "")] += 1
        unit = turn["unit"]
        if value is None or not math.isfinite(value):
            return
        if unit == "truth":
            self.positive[category] += value == 1.0
        elif unit == "metres":
            self.lengths.setdefault(category, Lengths()).add(value)
            found = _UNIT.search(turn["answer"] or "")
            self.units[found[0] if found else "other"] += 1
        elif unit == "ratio":
            pass
        else:
            self.said.setdefault(category, Counter())[value] += 1

    def to_json(self) -> dict[str, Any]:
        """Return what ``summary.json`` holds of the distributions."""
        named = sorted(self.names.items(), key=lambda item: (-item[1], item[0]))
        return {
            "objects": {
                "named": [[name, count] for name, count in named[:SHOWN_NAMES]],
                "other": sum(count for _, count in named[SHOWN_NAMES:]),
                "categories": len(named),
            },
            "camera_distance": self.camera.to_json(),
            "sizes": {name: lengths.to_json() for name, lengths in self.sizes.items()},
            "questions": {category: self.asked[category] for category in self._categories()},
            "answers": {category: self.lengths[category].to_json() for category in sorted(self.lengths)},
            "said": {
                category: [[value, count] for value, count in sorted(self.said[category].items())[:20]]
                for category in sorted(self.said)
            },
            "units": dict(sorted(self.units.items(), key=lambda item: (-item[1], item[0]))),
            "turns": [[number, self.turns[number]] for number in sorted(self.turns)],
            "templates": {category: self._templates(category) for category in self._categories()},
        }

    def _categories(self) -> Iterator[str]:
        """Yield the categories asked about: the known ones in their own order, then others by count."""
        yield from (category for category in UNIT_OF if self.asked[category])
        others = [c for c in self.asked if c not in UNIT_OF]
        yield from sorted(others, key=lambda c: (-self.asked[c], c))[:SHOWN_NAMES]

    def _templates(self, category: str) -> dict[str, Any]:
        known = templates().get(category, {}).get("questions", [])
        used = self.phrased.get(category, Counter())
        return {
            "known": len(known),
            "used": sum(used[i] > 0 for i in range(len(known))),
            "reworded": used[REWORDED],
            "counts": [[words, used[i]] for i, words in enumerate(known)],
        }


# Templates ------------------------------------------------------------------------------------------------


def template_of(category: str, question: str) -> int:
    """Return the number of the template that a question was phrased from, or :data:`REWORDED`."""
    plain = _LIST.sub("<>", question)
    fixed, patterns = _matchers(category)
    if plain in fixed:
        return fixed[plain]
    return next((i for i, pattern in patterns if pattern.fullmatch(plain)), REWORDED)


@cache
def _matchers(category: str) -> tuple[Mapping[str, int], tuple[tuple[int, re.Pattern[str]], ...]]:
    """Return the templates of a category as texts with ``<>`` for regions, and as patterns where numbers go in."""
    fixed: dict[str, int] = {}
    patterns = []
    for index, words in enumerate(templates().get(category, {}).get("questions", [])):
        regions = re.sub(r"\{(?:[A-H]|all|others)\}", "<region0>", words)
        plain = _LIST.sub("<>", regions)
        if "{" in plain:
            patterns.append((index, re.compile(_PLACE.sub(".+?", re.escape(plain)))))
        else:
            fixed.setdefault(plain, index)
    return fixed, tuple(patterns)
