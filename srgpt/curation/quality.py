"""Curation quality: what was perceived against the truth, fact by fact, where a source knows the truth.

Over all objects that have both boxes. A relation is measured on every unordered pair that *ask* would ask about
(perceived outside its tie margins, and known well enough), for its sign decides the answer; *clear* pairs are
outside the margins in truth, too, so that a coin's toss between equals does not count as an error. Lengths are
measured by relative error, each size once per object; directions by hours on the clock over ordered pairs.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import combinations, islice, permutations
from typing import Any

import numpy as np

from srgpt.curation import facts
from srgpt.curation.facts import Spread, Subject
from srgpt.geometry.directions import hour_difference
from srgpt.params import AskParams
from srgpt.records import QUALITATIVE, QUANTITATIVE, Box, Node

MAX_SCENES = 500
"""Larger datasets are measured on this many scenes, evenly spread: more would not move the figures."""

MIN_COUNT = 50
"""Facts measured on fewer pairs or objects are shown and not judged."""

CAUSES: Mapping[str, Callable[[Node], bool]] = {
    "all": lambda node: True,
    "whole in view": lambda node: node.visibility >= 0.9 and 0 <= node.truncation <= 0.05,
    "partly hidden (visibility below 90 %)": lambda node: 0 <= node.visibility < 0.9,
    "cut off by the picture (truncation above 5 %)": lambda node: node.truncation > 0.05,
    "sparse depth (below half of the mask)": lambda node: node.depth_coverage < 0.5,
    "few points (below 100)": lambda node: node.kept_points < 100,
}
"""What keeps perceived boxes from true ones -> whether it applies to an object; an object may have several."""

_APART = 1e-6
"""Metres on the ground; from a place to itself there is no direction."""

Pair = tuple[Subject, Box]
"""What was perceived of one object, with its uncertainty, and its true box."""


class Measure:
    """Compares what was perceived with the truth, graph by graph; ``report`` says what came of it."""

    def __init__(self, params: AskParams) -> None:
        self._params = params
        self._labels: dict[str, list[tuple[bool, bool]]] = defaultdict(list)
        self._errors: dict[str, list[float]] = defaultdict(list)
        self._ratios: dict[str, list[list[float]]] = defaultdict(list)
        self.scenes = 0
        self.objects = 0

    def add(self, graph: dict[str, Any]) -> None:
        """Add the objects of one graph's row."""
        self.scenes += 1
        known = _known(graph)
        self.compare(known)
        for said, true in known:
            ratios = [*(said.box.size / true.size), float(np.linalg.norm(said.box.center - true.center))]
            for cause, applies in CAUSES.items():
                if applies(said.node):
                    self._ratios[cause].append(ratios)

    def compare(self, known: Sequence[Pair]) -> None:
        """Add the objects of one scene."""
        self.objects += len(known)
        for said, true in known:
            for category, quantity in facts.SINGLE.items():
                _add_relative(self._errors[category], quantity(said.box), quantity(true))
        for a, b in combinations(known, 2):
            self._compare_pair(a, b)
        for a, b in permutations(known, 2):
            apart = facts.horizontal_distance(a[1], b[1]) > _APART
            if apart and facts.is_clear("direction", a[0], b[0], self._params):
                said_hour, true_hour = facts.direction(a[0].box, b[0].box), facts.direction(a[1], b[1])
                self._errors["direction"].append(hour_difference(said_hour, true_hour))

    def _compare_pair(self, a: Pair, b: Pair) -> None:
        params = self._params
        for group, (category, *_) in QUALITATIVE.items():
            if facts.is_clear(category, a[0], b[0], params):
                right = facts.fact(category, a[0].box, b[0].box) == facts.fact(category, a[1], b[1])
                self._labels[group].append((right, not facts.is_tie(category, a[1], b[1], params)))
        for category, quantity in facts.PAIRED.items():
            if category != "direction" and not facts.is_tie(category, a[1], b[1], params):
                _add_relative(self._errors[category], quantity(a[0].box, b[0].box), quantity(a[1], b[1]))

    def report(self, total: int) -> dict[str, Any]:
        """Return what was measured, of ``total`` scenes.

        ``available`` (whether there was any truth to measure against), ``note`` (for a person), ``objects``,
        ``labels`` (per relation: count, accuracy, clear_count, clear_accuracy), ``metrics`` (per length: count,
        median and mean relative error), ``direction`` (count, mean hours off, share within one hour) and ``causes``
        (per cause: count, median ratio of perceived to true width, height and depth, median metres between centres).
        """
        note = (
            f"Perceived boxes against the true ones, over {self.objects:,} objects that have both, in "
            f"{self.scenes:,} of {total:,} scenes."
            if self.objects
            else "No object has both a perceived and a true box, so the quality of curation cannot be measured."
        )
        return {
            "available": self.objects > 0,
            "note": note,
            "objects": self.objects,
            **self.figures(),
            "causes": [_cause_row(cause, self._ratios[cause]) for cause in CAUSES if self._ratios[cause]],
        }

    def figures(self) -> dict[str, Any]:
        """Return ``labels``, ``metrics`` and ``direction`` of :meth:`report`."""
        return {
            "labels": [_label_row(group, self._labels[group]) for group in QUALITATIVE],
            "metrics": [
                _metric_row(f, self._errors[c]) for f, (c,) in QUANTITATIVE.items() if f != "direction"
            ],
            "direction": _direction_row(self._errors["direction"]),
        }


def stride(total: int, most: int) -> int:
    """Return n such that every n-th of ``total`` scenes are at most ``most``, evenly spread."""
    return math.ceil(total / most) or 1


def measure(graphs: Collection[dict[str, Any]], params: AskParams) -> dict[str, Any]:
    """Measure perception over graph rows, all at hand; see :meth:`Measure.report`."""
    found = Measure(params)
    for graph in islice(graphs, 0, None, stride(len(graphs), MAX_SCENES)):
        found.add(graph)
    return found.report(len(graphs))


def _known(graph: dict[str, Any]) -> list[Pair]:
    pairs = []
    scale = graph.get("scale_sigma") or 0.0
    for row in graph["nodes"] or []:
        if row["perceived"] is None or row["truth"] is None:
            continue
        said, true = Box.from_row(row["perceived"]), Box.from_row(row["truth"])
        # a broken box breaks a rule elsewhere; here it would only turn every mean into NaN
        if is_whole(said) and is_whole(true):
            pairs.append((_subject(row, said, scale), true))
    return pairs


def _subject(row: dict[str, Any], box: Box, scale: float) -> Subject:
    node = Node.from_row(row)
    whole = len(node.center_sigma or ()) == len(node.size_sigma or ()) == 3
    return Subject(node, box, Spread.of(node, scale) if whole else None)


def is_whole(box: Box) -> bool:
    """Return whether a box is one: finite numbers, positive sizes."""
    numbers = np.concatenate([box.center, box.size])
    return numbers.shape == (6,) and bool(np.isfinite(numbers).all()) and bool((box.size > 0).all())


def _add_relative(errors: list[float], said: float, true: float) -> None:
    if true > 0:
        errors.append(abs(said - true) / true)


def _label_row(group: str, found: list[tuple[bool, bool]]) -> dict[str, Any]:
    clear = [right for right, is_clear in found if is_clear]
    return {
        "fact": group,
        "count": len(found),
        "accuracy": _mean([right for right, _ in found]),
        "clear_count": len(clear),
        "clear_accuracy": _mean(clear),
    }


def _metric_row(fact: str, errors: list[float]) -> dict[str, Any]:
    median = round(float(np.median(errors)), 6) if errors else None
    return {"fact": fact, "count": len(errors), "median_abs_rel": median, "mean_abs_rel": _mean(errors)}


def _direction_row(hours: list[float]) -> dict[str, Any]:
    near = [h <= 1 for h in hours]
    return {
        "fact": "direction",
        "count": len(hours),
        "mean_hours": _mean(hours),
        "within_one_hour": _mean(near),
    }


def _cause_row(cause: str, ratios: list[list[float]]) -> dict[str, Any]:
    medians = np.round(np.median(np.array(ratios), axis=0), 6).tolist()
    return {
        "cause": cause,
        "count": len(ratios),
        **dict(zip(("width", "height", "depth", "center"), medians, strict=True)),
    }


def _mean(values: Collection[float]) -> float | None:
    return round(float(np.mean(list(values))), 6) if values else None


def rows(measured: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of the ``quality`` frame: the judged columns are empty below :data:`MIN_COUNT`."""
    result = []
    for fact in (*measured["labels"], *measured["metrics"], measured["direction"]):
        # a direction within one hour of the true one is a right answer in the benchmark
        accuracy = fact.get("accuracy", fact.get("within_one_hour"))
        error = fact.get("median_abs_rel")
        enough = fact["count"] >= MIN_COUNT
        result.append(
            {
                "fact": fact["fact"],
                "count": fact["count"],
                "judged_accuracy": accuracy if enough and accuracy is not None else np.nan,
                "judged_abs_rel": error if enough and error is not None else np.nan,
            }
        )
    return result


def judged(truths: Collection[str], *, synthetic: bool) -> bool:
    """Return whether bad perception fails the dataset: where facts rest on it and the truth is exact.

    The truth of a photograph is an annotator's, and its depth may be sparse, so it is measured and shown
    only.
    """
    return synthetic and "perceived" in truths
