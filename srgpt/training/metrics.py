"""What a training run reports, from rank 0 only: loss, learning rate, gradient norm and speed, delivered or kept."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from srgpt.errors import SrgptError
from srgpt.storage import write_json

log = logging.getLogger(__name__)

Log = Callable[[Mapping[str, float], int], None]

UNDELIVERED = "undelivered.json"
"""Points that never got to the tracking server: a list of ``[step, {name: value}]``."""

_PAUSE = 60.0
"""Seconds between attempts while the server does not answer: each may hold up the training."""


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


class Delivery:
    """Sends points to the tracking server; where that fails they wait for later ones, and the training goes on."""

    def __init__(self, send: Log, pause: float = _PAUSE) -> None:
        self._send = send
        self._pause = pause
        self._waiting: list[tuple[int, dict[str, float]]] = []
        self._failed_at: float | None = None

    def __call__(self, values: Mapping[str, float], step: int) -> None:
        """Send the ``values`` of ``step`` after those that wait."""
        self._waiting.append((step, dict(values)))
        if self._failed_at is None or time.monotonic() - self._failed_at >= self._pause:
            self._flush()

    def close(self, path: Path) -> None:
        """Try once more; write what still waits to the file ``path``, and say so."""
        self._flush()
        if self._waiting:
            write_json(str(path), self._waiting)
            log.warning(
                "%d points did not get to the tracking server; they are in %s", len(self._waiting), path
            )

    def _flush(self) -> None:
        try:
            while self._waiting:
                step, values = self._waiting[0]
                self._send(values, step)
                del self._waiting[0]
        except SrgptError as error:
            if self._failed_at is None:
                log.warning("%s\nThe training goes on; its metrics are kept and sent later.", error)
            self._failed_at = time.monotonic()
        else:
            self._failed_at = None
