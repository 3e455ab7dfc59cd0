"""Guards against a training that goes wrong: numbers that are none, and a loss that jumps."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from statistics import median

WINDOW = 64
"""Losses that the usual one is the median of."""

WARM_UP = 20
"""A jump is told from noise only after so many losses."""


class Guard:
    """Says of every step whether the training may go on after it.

    A loss is a spike where it is more than ``spike_factor`` times the median of the last losses (null: never).
    """

    def __init__(self, spike_factor: float | None, losses: Iterable[float] = ()) -> None:
        """``losses`` are those before, of a training that is resumed."""
        self.factor = spike_factor
        self.losses = deque(losses, maxlen=WINDOW)

    def check(self, loss: float, norm: float) -> str | None:
        """Return what is wrong with a step by its loss and gradient norm, over all ranks, or None."""
        if not math.isfinite(loss):
            return f"the loss is {loss}"
        if not math.isfinite(norm):
            return f"the gradient's norm is {norm}"
        usual = median(self.losses) if len(self.losses) >= WARM_UP else math.inf
        if self.factor is not None and loss > self.factor * usual:
            return f"the loss jumped to {loss:.4g}, more than {self.factor:g} times the usual {usual:.4g}"
        self.losses.append(loss)
        return None
