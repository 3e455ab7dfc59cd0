"""The gates that a candidate passes before it serves, each a pure function of figures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from srgpt.errors import InputError
from srgpt.params import PromoteParams

BENCHMARK_METRICS = ("qualitative_micro", "quantitative_micro")
"""Shares of successes that must not fall behind the champion's."""

SHOWN = 3
"""Differing smoke answers that an error quotes."""


@dataclass(frozen=True)
class Gate:
    """One gate's verdict, with its figures in words."""

    name: str
    passed: bool
    detail: str


@dataclass(frozen=True)
class Score:
    """A share of successes and how many questions it stands on."""

    share: float
    count: int

    @property
    def variance(self) -> float:
        """Variance of the share, with one success and one failure added (Agresti and Coull): never zero."""
        count = self.count + 2
        share = (self.share * self.count + 1) / count
        return share * (1 - share) / count


@dataclass(frozen=True)
class SmokeAnswer:
    """One smoke question on the server: what was expected, what came, and after how long."""

    question: str
    expected: str
    found: str
    milliseconds: float


def read_scores(metrics: Mapping[str, Any], where: str) -> dict[str, Score]:
    """Return the averages in an evaluation's flat metrics; raise :class:`InputError` where there are none."""
    scores = {}
    for name in BENCHMARK_METRICS:
        count = metrics.get(f"{name.removesuffix('_micro')}_count")
        if name in metrics and count:
            scores[name] = Score(float(metrics[name]), int(count))
    if not scores:
        raise InputError(
            f"{where}: holds neither {' nor '.join(BENCHMARK_METRICS)}. Run `srgpt evaluate` again."
        )
    return scores


def parity_gate(parity: Mapping[str, Any], export_hash: str) -> Gate:
    """The export says what PyTorch says, and it is this export that was compared."""
    if parity.get("export_hash") != export_hash:
        found = str(parity.get("export_hash"))[:12]
        return Gate(
            "parity",
            False,
            f"parity.json is of export {found}, the files are of {export_hash[:12]}; export again",
        )
    detail = (
        f"max relative logit error {parity['max_logit_error']:.2g} "
        f"(allowed {parity['max_logit_error_allowed']:g}), "
        f"{parity['same_answers']} of {parity['questions']} answers the same"
    )
    return Gate("parity", bool(parity["passed"]), detail)


def benchmark_gate(
    candidate: Mapping[str, Score], champion: Mapping[str, Score] | None, params: PromoteParams
) -> Gate:
    """The candidate is not worse than the champion beyond noise.

    With shares p and questions n, the standard error of the difference is the root of the two variances'
    sum. That takes the two measurements as independent, and so errs on the candidate's side when both
    answered the same questions. A first model has no champion and passes.
    """
    if champion is None:
        return Gate("benchmark", True, "no champion yet: " + _listed(candidate))
    lines, passed = [], True
    for name, theirs in champion.items():
        ours = candidate.get(name)
        if ours is None:
            lines.append(f"{name}: the champion has {theirs.share:.1%}, the candidate was not measured")
            passed = False
            continue
        error = math.sqrt(ours.variance + theirs.variance)
        floor = theirs.share - params.noise_sigmas * error
        passed = passed and ours.share >= floor
        lines.append(
            f"{name}: {ours.share:.1%} of {ours.count} against the champion's {theirs.share:.1%} of "
            f"{theirs.count}; at least {floor:.1%} was needed ({params.noise_sigmas:g} standard errors)"
        )
    return Gate("benchmark", passed, "; ".join(lines))


def smoke_gate(answers: Sequence[SmokeAnswer], params: PromoteParams) -> Gate:
    """The served model answers as the evaluated one did."""
    differing = [a for a in answers if a.found != a.expected]
    agreement = 1 - len(differing) / len(answers) if answers else 0.0
    needed = f"needed: {params.min_smoke_agreement:.0%}"
    detail = f"{len(answers) - len(differing)} of {len(answers)} answers as evaluated ({needed})"
    for answer in differing[:SHOWN]:
        detail += f"; {answer.question!r}: expected {answer.expected!r}, served {answer.found!r}"
    return Gate("smoke", bool(answers) and agreement >= params.min_smoke_agreement, detail)


def latency_gate(milliseconds: Sequence[float], params: PromoteParams) -> Gate:
    """The 95th percentile of one question's latency on the server stays within its bound."""
    if not milliseconds:
        return Gate("latency", False, "nothing was measured")
    p50, p95 = (float(np.percentile(milliseconds, q)) for q in (50, 95))
    figures = f"p95 {p95:.1f} ms (allowed {params.max_latency_ms:g}), p50 {p50:.1f} ms"
    detail = f"{figures} over {len(milliseconds)} requests"
    return Gate("latency", p95 <= params.max_latency_ms, detail)


def _listed(scores: Mapping[str, Score]) -> str:
    return ", ".join(f"{name} {s.share:.1%} of {s.count}" for name, s in scores.items())
