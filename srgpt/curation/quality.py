"""Curation quality: what was perceived against the truth, fact by fact, where a source knows the truth.

Over all objects that have both boxes. A relation is measured on every unordered pair that *ask* would ask
about (perceived outside its tie margins), for its sign decides the answer; *clear* pairs are outside the
margins in truth, too, so that a coin's toss between equals does not count as an error. Lengths are measured
by relative error, each size once per object; directions by hours on the clock over ordered pairs.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection
from itertools import combinations, islice, permutations
from typing import Any

import numpy as np

from srgpt.curation import facts
from srgpt.geometry.directions import hour_difference
from srgpt.params import AskParams
from srgpt.records import QUALITATIVE, QUANTITATIVE, Box

MAX_SCENES = 1000
"""Larger datasets are measured on this many scenes, evenly spread: more would not move the figures."""

MIN_COUNT = 50
"""Facts measured on fewer pairs or objects are shown and not judged."""

Pair = tuple[Box, Box]
"""The perceived and the true box of one object."""


def measure(graphs: Collection[dict[str, Any]], params: AskParams) -> dict[str, Any]:
    """Measure perception over graph rows.

    Returns ``available`` (whether there was any truth to measure against), ``note`` (for a person),
    ``objects``, ``labels`` (per relation: count, accuracy, clear_count, clear_accuracy), ``metrics`` (per
    length: count, median and mean relative error) and ``direction`` (count, mean hours off, share within one
    hour).
    """
    labels: dict[str, list[tuple[bool, bool]]] = defaultdict(list)
    errors: dict[str, list[float]] = defaultdict(list)
    objects = 0
    stride = math.ceil(len(graphs) / MAX_SCENES) or 1
    for graph in islice(graphs, 0, None, stride):
        known = _known(graph)
        objects += len(known)
        for a in known:
            for category, quantity in facts.SINGLE.items():
                _add_relative(errors[category], quantity(a[0]), quantity(a[1]))
        for a, b in combinations(known, 2):
            _compare_pair(labels, errors, a, b, params)
        for a, b in permutations(known, 2):
            if not facts.is_tie("direction", a[0], b[0], params):
                said, true = facts.direction(a[0], b[0]), facts.direction(a[1], b[1])
                errors["direction"].append(hour_difference(said, true))
    note = (
        f"Perceived boxes against the true ones, over {objects:,} objects that have both, in "
        f"{math.ceil(len(graphs) / stride):,} of {len(graphs):,} scenes."
        if objects
        else "No object has both a perceived and a true box, so the quality of curation cannot be measured."
    )
    return {
        "available": objects > 0,
        "note": note,
        "objects": objects,
        "labels": [_label_row(group, labels[group]) for group in QUALITATIVE],
        "metrics": [_metric_row(f, errors[c]) for f, (c,) in QUANTITATIVE.items() if f != "direction"],
        "direction": _direction_row(errors["direction"]),
    }


def _known(graph: dict[str, Any]) -> list[Pair]:
    nodes = [n for n in graph["nodes"] or [] if n["perceived"] is not None and n["truth"] is not None]
    pairs = [(Box.from_row(n["perceived"]), Box.from_row(n["truth"])) for n in nodes]
    # a broken box breaks a rule elsewhere; here it would only turn every mean into NaN
    return [pair for pair in pairs if all(_whole(box) for box in pair)]


def _whole(box: Box) -> bool:
    numbers = np.concatenate([box.center, box.size])
    return numbers.shape == (6,) and bool(np.isfinite(numbers).all()) and bool((box.size > 0).all())


def _compare_pair(
    labels: dict[str, list[tuple[bool, bool]]],
    errors: dict[str, list[float]],
    a: Pair,
    b: Pair,
    params: AskParams,
) -> None:
    for group, (category, *_) in QUALITATIVE.items():
        if not facts.is_tie(category, a[0], b[0], params):
            right = facts.fact(category, a[0], b[0]) == facts.fact(category, a[1], b[1])
            labels[group].append((right, not facts.is_tie(category, a[1], b[1], params)))
    for category, quantity in facts.PAIRED.items():
        if category != "direction" and not facts.is_tie(category, a[1], b[1], params):
            _add_relative(errors[category], quantity(a[0], b[0]), quantity(a[1], b[1]))


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
