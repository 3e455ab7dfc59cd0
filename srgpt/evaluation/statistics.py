"""Figures from graded predictions: accuracies per group, averages, errors, intervals, paired comparisons.

Metric names are the same for every model, input and dataset; a figure without questions is left out.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, median

from srgpt.records import GROUP_OF, QUALITATIVE, QUANTITATIVE, Prediction

Metrics = dict[str, float]

Z95 = 1.959963984540054
"""Two-sided 95 % point of the normal distribution."""

DEGREES_PER_HOUR = 30.0

HEADLINES = ("qualitative_micro", "quantitative_micro", "quantitative_macro_6", "quantitative_macro_5")
"""The averages that a model is known by."""


def score_name(group: str) -> str:
    """Return the name of a group's score: ``left_right_accuracy``, ``distance_success``."""
    return f"{group}_accuracy" if group in QUALITATIVE else f"{group}_success"


GROUPS = (*QUALITATIVE, *QUANTITATIVE)
"""The twelve groups, qualitative first."""


def measure(predictions: Iterable[Prediction]) -> Metrics:
    """Return every metric of one model with one kind of input, by flat name; shares are 0 to 1.

    Per group: score with ``_low`` and ``_high`` (95 % Wilson), ``_count``, ``_unreadable``; lengths also
    ``_abs_rel`` (mean of ``|predicted - truth| / truth`` over readable answers, as the reference reports it)
    and ``_abs_rel_median``; ``direction_error_degrees`` likewise. ``*_micro`` averages over questions,
    ``*_macro*`` over groups: ``quantitative_macro_6`` all six, ``quantitative_macro_5`` without direction; a
    macro average exists only where all of its groups have questions.
    """
    by_group: dict[str, list[Prediction]] = defaultdict(list)
    for prediction in predictions:
        by_group[GROUP_OF[prediction.category]].append(prediction)
    metrics: Metrics = {}
    for group in GROUPS:
        if by_group[group]:
            metrics |= _group_metrics(group, by_group[group])
    for kind, groups in (("qualitative", tuple(QUALITATIVE)), ("quantitative", tuple(QUANTITATIVE))):
        pooled = [p for g in groups for p in by_group[g]]
        if pooled:
            metrics |= _share(f"{kind}_micro", [p.success for p in pooled])
            metrics |= {f"{kind}_count": len(pooled), f"{kind}_unreadable": _unreadable(pooled)}
    lengths = tuple(g for g in QUANTITATIVE if g != "direction")
    for name, groups in (
        ("qualitative_macro", tuple(QUALITATIVE)),
        ("quantitative_macro_6", tuple(QUANTITATIVE)),
        ("quantitative_macro_5", lengths),
    ):
        if all(by_group[g] for g in groups):
            metrics[name] = fmean(metrics[score_name(g)] for g in groups)
    everything = [p for group in GROUPS for p in by_group[group]]
    return {**metrics, "questions": len(everything), "unreadable": _unreadable(everything)}


def _group_metrics(group: str, predictions: Sequence[Prediction]) -> Metrics:
    metrics = _share(score_name(group), [p.success for p in predictions])
    metrics |= {f"{group}_count": len(predictions), f"{group}_unreadable": _unreadable(predictions)}
    errors = [p.error for p in predictions if p.error is not None]
    if group in QUANTITATIVE and errors:
        name, factor = ("error_degrees", DEGREES_PER_HOUR) if group == "direction" else ("abs_rel", 1.0)
        metrics |= {
            f"{group}_{name}": factor * fmean(errors),
            f"{group}_{name}_median": factor * median(errors),
        }
    return metrics


def _share(name: str, successes: Sequence[bool]) -> Metrics:
    low, high = wilson(sum(successes), len(successes))
    return {name: sum(successes) / len(successes), f"{name}_low": low, f"{name}_high": high}


def _unreadable(predictions: Sequence[Prediction]) -> int:
    return sum(p.predicted_value is None for p in predictions)


def wilson(successes: int, count: int) -> tuple[float, float]:
    """Return the 95 % Wilson score interval of a share (Wilson 1927); ``count`` must be at least 1."""
    if not 0 <= successes <= count or count < 1:
        raise ValueError(f"{successes} successes of {count}")
    share, square = successes / count, Z95**2
    middle = (share + square / (2 * count)) / (1 + square / count)
    half = Z95 / (1 + square / count) * math.sqrt(share * (1 - share) / count + square / (4 * count**2))
    return max(0.0, middle - half), min(1.0, middle + half)


@dataclass(frozen=True)
class Comparison:
    """A model against a control on the same questions.

    ``difference`` is the model's share of successes minus the control's. Its ``standard_error`` counts the
    questions of one scene as one cluster, since they are not independent (``low`` and ``high``: 95 %); 0
    where there is a single scene. ``p_value`` is McNemar's exact two-sided test over questions.
    """

    questions: int
    difference: float
    standard_error: float
    low: float
    high: float
    only_model: int
    """Questions that only the model answered right."""
    only_control: int
    p_value: float

    def to_json(self) -> dict[str, float]:
        """Convert to plain data."""
        return asdict(self)


def compare(model: Iterable[Prediction], control: Iterable[Prediction]) -> Comparison:
    """Compare two sets of predictions, question by question.

    Raises :class:`ValueError` where they do not answer the same questions or answer none.
    """
    theirs = {_key(p): p.success for p in control}
    ours = {_key(p): p.success for p in model}
    if ours.keys() != theirs.keys() or not ours:
        raise ValueError(f"not the same questions: {len(ours)} of the model, {len(theirs)} of the control")
    clusters: dict[tuple[str, str], list[int]] = defaultdict(list)
    for key, success in ours.items():
        clusters[key[:2]].append(int(success) - int(theirs[key]))
    changes = [d for cluster in clusters.values() for d in cluster]
    mean, error = fmean(changes), _clustered_error(list(clusters.values()))
    gained, lost = changes.count(1), changes.count(-1)
    return Comparison(
        len(changes), mean, error, mean - Z95 * error, mean + Z95 * error, gained, lost, mcnemar(gained, lost)
    )


def compare_groups(model: Sequence[Prediction], control: Sequence[Prediction]) -> dict[str, Comparison]:
    """Return the comparison over each group with questions, and over ``qualitative`` and ``quantitative``."""
    result = {}
    kinds: Mapping[str, tuple[str, ...]] = {
        **{g: (g,) for g in GROUPS}, "qualitative": tuple(QUALITATIVE), "quantitative": tuple(QUANTITATIVE),
    }  # fmt: skip
    for name, groups in kinds.items():
        ours = [p for p in model if GROUP_OF[p.category] in groups]
        if ours:
            result[name] = compare(ours, [p for p in control if GROUP_OF[p.category] in groups])
    return result


def mcnemar(gained: int, lost: int) -> float:
    """Return McNemar's exact two-sided p-value: are ``gained`` and ``lost`` draws of a fair coin?"""
    count = gained + lost
    if count == 0:
        return 1.0
    logs = [
        math.lgamma(count + 1) - math.lgamma(k + 1) - math.lgamma(count - k + 1)
        for k in range(min(gained, lost) + 1)
    ]
    return min(1.0, 2 * math.fsum(math.exp(v - count * math.log(2)) for v in logs))


def _clustered_error(clusters: Sequence[Sequence[int]]) -> float:
    """Standard error of the mean over all members, with whole clusters as the independent draws."""
    count, size = len(clusters), sum(map(len, clusters))
    if count < 2:
        return 0.0
    mean = sum(map(sum, clusters)) / size
    squares = math.fsum((sum(c) - mean * len(c)) ** 2 for c in clusters)
    return math.sqrt(squares * count / (count - 1)) / size


def _key(prediction: Prediction) -> tuple[str, str, str, int]:
    return prediction.dataset, prediction.scene_id, prediction.conversation_id, prediction.turn
