"""What a training run reports, from rank 0 only: losses, rates, gradient norm, speed, memory."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

Log = Callable[[Mapping[str, float], int], None]


@dataclass(frozen=True)
class Step:
    """One optimizer step, over all ranks."""

    loss: float
    norm: float
    """Of the gradient, before clipping."""
    tokens: int = 0
    labels: int = 0
    """Tokens that are learnt."""
    samples: int = 0
    left_out: int = 0
    """Turns that did not fit, or not whole."""
    flops: float = 0.0
    stop: bool = False
    """Whether any rank was asked to stop."""
    families: dict[str, tuple[float, float]] = field(default_factory=dict)
    """Weighted sum of losses and weight, by family of questions."""


@dataclass
class Sums:
    """Counts between two reports."""

    steps: int = 0
    loss: float = 0.0
    tokens: int = 0
    labels: int = 0
    samples: int = 0
    left_out: int = 0
    flops: float = 0.0
    waited: float = 0.0
    families: dict[str, list[float]] = field(default_factory=lambda: defaultdict(lambda: [0.0, 0.0]))
    since: float = field(default_factory=time.perf_counter)

    def add(self, step: Step, waited: float) -> None:
        """Count a step and the seconds that it waited for data."""
        self.steps += 1
        self.waited += waited
        for name in ("loss", "tokens", "labels", "samples", "left_out", "flops"):
            setattr(self, name, getattr(self, name) + getattr(step, name))
        for name, (total, weight) in step.families.items():
            self.families[name][0] += total
            self.families[name][1] += weight


class Reporter:
    """Collects steps and hands their means to ``log`` every ``every`` steps.

    Steps are the step of every point; ``train/tokens_seen`` and ``train/hours`` are metrics beside it, which
    MLflow's charts take as x-axis ("Metric").
    """

    def __init__(
        self,
        log: Log,
        every: int,
        *,
        families: Sequence[str] = (),
        peak: float = 0.0,
        memory: Callable[[], Mapping[str, float]] = dict,
    ) -> None:
        """``families`` are the names that the batches count from 0, ``peak`` the FLOPs per second of all devices."""
        self.families = tuple(families)
        self._log, self._every, self._peak, self._memory = log, every, peak, memory
        self._sums = Sums()
        self._last: tuple[Mapping[str, float], float, int, float] = ({}, 0.0, 0, 0.0)

    def step(
        self,
        number: int,
        step: Step,
        *,
        rates: Mapping[str, float],
        waited: float = 0.0,
        tokens_seen: int = 0,
        seconds: float = 0.0,
    ) -> None:
        """Count one optimizer step: ``number`` is the number of steps done with it.

        ``rates`` are the learning rates by part of the model, ``waited`` the step's seconds without data,
        ``tokens_seen`` and ``seconds`` those of the whole training.
        """
        self._sums.add(step, waited)
        self._last = rates, step.norm, tokens_seen, seconds
        if number % self._every == 0:
            self.flush(number)

    def flush(self, number: int) -> None:
        """Report the means since the last report."""
        sums = self._sums
        if not sums.steps:
            return
        rates, norm, tokens_seen, seconds = self._last
        values = {"loss": sums.loss / sums.steps, "gradient_norm": norm, "learning_rate": max(rates.values())}
        if len(rates) > 1:
            values |= {f"learning_rate/{part}": rate for part, rate in rates.items()}
        values |= {f"loss/{name}": total / weight for name, (total, weight) in sums.families.items()}
        values |= self._speed(sums) | dict(self._memory())
        values |= {"tokens_seen": tokens_seen, "hours": seconds / 3600, "turns_left_out": sums.left_out}
        self._log({f"train/{name}": value for name, value in values.items()}, number)
        self._sums = Sums()

    def _speed(self, sums: Sums) -> dict[str, float]:
        seconds = max(time.perf_counter() - sums.since, 1e-9)
        speed = {
            "tokens_per_second": sums.tokens / seconds,
            "label_tokens_per_second": sums.labels / seconds,
            "samples_per_second": sums.samples / seconds,
            "step_seconds": seconds / sums.steps,
            "data_wait_share": sums.waited / seconds,
        }
        return speed | ({"mfu": sums.flops / seconds / self._peak} if self._peak else {})
