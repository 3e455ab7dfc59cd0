"""What stops a training that goes wrong."""

from __future__ import annotations

import math
from itertools import chain, repeat

import pytest

from srgpt.training.guards import WARM_UP, WINDOW, Guard


def fed(factor: float | None, losses: list[float]) -> Guard:
    guard = Guard(factor)
    assert [guard.check(loss, 1.0) for loss in losses] == [None] * len(losses)
    return guard


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_stops(bad: float) -> None:
    assert Guard(None).check(bad, 1.0) == f"the loss is {bad}"
    assert Guard(None).check(1.0, bad) == f"the gradient's norm is {bad}"


def test_a_jump_is_known_by_the_median_of_the_last_losses() -> None:
    guard = fed(3.0, [2.0] * WARM_UP)
    assert guard.check(6.0, 1.0) is None
    assert guard.check(6.1, 1.0) == "the loss jumped to 6.1, more than 3 times the usual 2"
    # what is usual changes with the training
    later = fed(3.0, [2.0] * WINDOW + [0.5] * WINDOW)
    assert later.check(1.6, 1.0) is not None


def test_a_young_training_may_jump_and_no_factor_lets_all_go_on() -> None:
    fed(3.0, [1.0] * (WARM_UP - 1) + [50.0])
    fed(None, list(chain(repeat(1.0, 100), [1e6])))


def test_a_resumed_training_knows_its_losses() -> None:
    guard = Guard(3.0, fed(3.0, [1.0] * WARM_UP).losses)
    assert guard.check(4.0, 1.0) is not None
