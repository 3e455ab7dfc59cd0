from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srgpt.errors import InputError
from srgpt.params import PromoteParams
from srgpt.promotion.gate import (
    Score,
    SmokeAnswer,
    benchmark_gate,
    latency_gate,
    parity_gate,
    read_scores,
    smoke_gate,
)

PARAMS = PromoteParams(noise_sigmas=2, min_smoke_agreement=0.9, max_latency_ms=100)
PARITY = {
    "passed": True, "export_hash": "a" * 64, "max_logit_error": 1e-6, "max_logit_error_allowed": 1e-3,
    "same_answers": 50, "questions": 50,
}  # fmt: skip


def scores(qualitative: float, quantitative: float = 0.5, count: int = 398) -> dict[str, Score]:
    return {"qualitative_micro": Score(qualitative, count), "quantitative_micro": Score(quantitative, count)}


def test_variance_by_hand() -> None:
    # (0.8 * 398 + 1) / 400 = 0.7985; 0.7985 * 0.2015 / 400
    assert Score(0.8, 398).variance == pytest.approx(0.7985 * 0.2015 / 400)
    assert Score(1.0, 10).variance > 0


def test_the_benchmark_gate_allows_noise_and_no_more() -> None:
    champion = scores(0.8)
    # two standard errors of the difference of 0.8 and 0.745, both of 398, are about 0.0592
    assert benchmark_gate(scores(0.745), champion, PARAMS).passed
    worse = benchmark_gate(scores(0.735), champion, PARAMS)
    assert not worse.passed
    assert "qualitative_micro: 73.5% of 398 against the champion's 80.0%" in worse.detail
    assert not benchmark_gate(scores(0.9, quantitative=0.3), champion, PARAMS).passed
    assert benchmark_gate(scores(0.735), champion, PARAMS.model_copy(update={"noise_sigmas": 3})).passed
    assert not benchmark_gate(scores(0.745, count=4000), scores(0.8, count=4000), PARAMS).passed


def test_a_first_model_has_no_champion() -> None:
    verdict = benchmark_gate(scores(0.1), None, PARAMS)
    assert verdict.passed
    assert "no champion yet" in verdict.detail


def test_a_figure_that_the_champion_has_must_be_there() -> None:
    verdict = benchmark_gate({"quantitative_micro": Score(0.9, 100)}, scores(0.1), PARAMS)
    assert not verdict.passed
    assert "the candidate was not measured" in verdict.detail


@given(st.floats(0, 1), st.floats(0, 1), st.integers(1, 5000))
def test_an_equal_or_better_candidate_always_passes(share: float, more: float, count: int) -> None:
    better = scores(share + (1 - share) * more, count=count)
    assert benchmark_gate(better, scores(share, count=count), PARAMS).passed


def test_parity_gate() -> None:
    assert parity_gate(PARITY, "a" * 64).passed
    assert not parity_gate({**PARITY, "passed": False}, "a" * 64).passed
    other = parity_gate(PARITY, "b" * 64)
    assert not other.passed
    assert "parity.json is of export aaaaaaaaaaaa" in other.detail


def test_smoke_gate() -> None:
    good = [SmokeAnswer("q", "a", "a", 1.0)] * 9
    bad = SmokeAnswer("How wide?", "1 m", "2 m", 1.0)
    assert smoke_gate([*good, bad], PARAMS).passed
    verdict = smoke_gate([*good[:8], bad], PARAMS)
    assert not verdict.passed
    assert "'How wide?': expected '1 m', served '2 m'" in verdict.detail
    assert not smoke_gate([], PARAMS).passed


def test_latency_gate() -> None:
    assert latency_gate([*[10.0] * 99, 5000.0], PARAMS).passed
    assert not latency_gate([*[10.0] * 90, *[101.0] * 10], PARAMS).passed
    assert not latency_gate([], PARAMS).passed


def test_reading_scores() -> None:
    metrics = {"qualitative_micro": 0.7, "qualitative_count": 100}
    assert read_scores(metrics, "x") == {"qualitative_micro": Score(0.7, 100)}
    with pytest.raises(InputError, match="neither qualitative_micro nor quantitative_micro"):
        read_scores({"qualitative_micro": 0.7}, "x")
