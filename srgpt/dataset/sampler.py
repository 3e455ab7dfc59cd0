"""A sampler without state: which sample comes when is a pure function of the seed and the position.

Resuming needs the number of samples consumed and nothing else, on any number of ranks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from srgpt.errors import InputError

Key = tuple[int, int]
"""Epoch and index of a sample."""

WINDOW = 16
"""Shards that are shuffled together, and so must be at hand together; fewer shards are one window."""


def permutation(shard_rows: Sequence[int], seed: int, epoch: int, window: int = WINDOW) -> NDArray[np.int64]:
    """Return the order of all samples in one epoch.

    Shards are shuffled, then the samples within every ``window`` consecutive shards, so that data larger than
    memory is read window by window, and smaller data is shuffled throughout.
    """
    rng = np.random.default_rng([seed, epoch])
    starts = np.concatenate([[0], np.cumsum(shard_rows)]).astype(np.int64)
    shards = rng.permutation(len(shard_rows))
    parts = []
    for begin in range(0, len(shards), window):
        rows = [np.arange(starts[s], starts[s + 1]) for s in shards[begin : begin + window]]
        parts.append(rng.permutation(np.concatenate(rows)))
    return np.concatenate(parts)


@dataclass(frozen=True)
class SamplerState:
    """Where training stands in the data: whose data, and how many samples were consumed over all ranks."""

    fingerprint: str
    consumed: int

    def to_json(self) -> dict[str, Any]:
        """Convert to plain data."""
        return asdict(self)


class PermutationSampler:
    """Yields for ever the keys of this rank's batches.

    All ranks together consume ``batch * world`` samples a step: rank r takes the r-th ``batch`` of them.
    """

    def __init__(
        self,
        shard_rows: Sequence[int],
        *,
        batch: int,
        seed: int,
        fingerprint: str,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.shard_rows = tuple(shard_rows)
        self.rows = sum(shard_rows)
        if self.rows == 0:
            raise InputError("the dataset has no conversations to train on")
        self.batch, self.seed, self.rank, self.world = batch, seed, rank, world
        self.state = SamplerState(fingerprint, 0)

    def resume(self, state: SamplerState) -> None:
        """Go on after ``state``; data that differs from what was trained on is an error."""
        if state.fingerprint != self.state.fingerprint:
            raise InputError(
                f"the checkpoint was trained on data {state.fingerprint[:12]}, but the dataset is "
                f"{self.state.fingerprint[:12]}; remove the work folder to start again"
            )
        self.state = state

    def __iter__(self) -> Iterator[list[Key]]:
        position = self.state.consumed
        epoch, order = -1, np.empty(0, np.int64)
        while True:
            keys = []
            for place in range(position + self.rank * self.batch, position + (self.rank + 1) * self.batch):
                if place // self.rows != epoch:
                    epoch = place // self.rows
                    order = permutation(self.shard_rows, self.seed, epoch)
                keys.append((epoch, int(order[place % self.rows])))
            yield keys
            position += self.batch * self.world
