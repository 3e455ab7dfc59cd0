"""What a training run reports: loss, learning rate, gradient norm and speed, from rank 0 only."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

Log = Callable[[Mapping[str, float], int], None]


@dataclass
class Speed:
    """Counts between two reports."""

    tokens: int = 0
    samples: int = 0
    waited: float = 0.0
    steps: int = 0
    since: float = field(default_factory=time.perf_counter)


class Reporter:
    """Collects steps and hands their means to ``log`` every ``every`` steps."""

    def __init__(self, log: Log, every: int) -> None:
        self._log = log
        self._every = every
        self._speed = Speed()
        self._losses: list[float] = []

    def step(
        self, step: int, *, loss: float, rate: float, norm: float, tokens: int, samples: int, waited: float
    ) -> None:
        """Count one optimizer step: ``step`` is the number of steps done with it."""
        speed = self._speed
        speed.tokens += tokens
        speed.samples += samples
        speed.waited += waited
        speed.steps += 1
        self._losses.append(loss)
        if step % self._every == 0:
            self.flush(step, rate, norm)

    def flush(self, step: int, rate: float, norm: float) -> None:
        """Report the means since the last report."""
        speed, losses = self._speed, self._losses
        if not losses:
            return
        seconds = max(time.perf_counter() - speed.since, 1e-9)
        self._log(
            {
                "train/loss": sum(losses) / len(losses),
                "train/learning_rate": rate,
                "train/gradient_norm": norm,
                "train/tokens_per_second": speed.tokens / seconds,
                "train/samples_per_second": speed.samples / seconds,
                "train/step_seconds": seconds / speed.steps,
                "train/data_wait_share": speed.waited / seconds,
            },
            step,
        )
        self._speed, self._losses = Speed(), []
