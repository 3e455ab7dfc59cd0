"""A sampler without state: which sample comes when is a pure function of the seed and the position.

Resuming needs the number of samples consumed and nothing else, on any number of ranks, with any number of readers.

The order of a table passes over all its rows again and again, each pass in an order of its own: shards are shuffled,
and each row is moved at random within a window that slides over them, so that data larger than memory is read shard by
shard and smaller data is shuffled throughout. An epoch of a mixture takes ``weight`` passes of every table, spread
evenly, so that any stretch of it has about the shares of the whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from srgpt.errors import InputError

Key = tuple[int, int]
"""How often the sample was seen before, and its index: what is random about a sample is seeded by both."""

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Stream:
    """One table of a mixture: the rows of its shards, how often an epoch sees each, shards shuffled together."""

    shard_rows: tuple[int, ...]
    weight: float = 1.0
    window: int = 16

    @property
    def rows(self) -> int:
        """Rows of the table."""
        return sum(self.shard_rows)

    @property
    def per_epoch(self) -> int:
        """Samples that an epoch takes from the table."""
        return max(1, round(self.weight * self.rows)) if self.rows else 0


def permutation(shard_rows: Sequence[int], seed: Sequence[int], window: int) -> Ints:
    """Return the order of all rows in one pass over a table, (rows,).

    A row's place is that of its shard in the shuffled shards and its own in the shuffled shard, moved forward at
    random by up to ``window - 1`` shards: at any moment, about ``window`` shards are in use. With no more shards than
    that, the order is uniform.
    """
    rng = np.random.default_rng(seed)
    rows = np.array(shard_rows, dtype=np.int64)
    shards = rng.permutation(len(rows))
    total = int(rows.sum())
    if len(rows) <= window:
        return rng.permutation(total)
    starts = np.cumsum(rows) - rows
    lengths = rows[shards]
    order = np.repeat(starts[shards] - (np.cumsum(lengths) - lengths), lengths) + np.arange(total)
    place = np.repeat(np.arange(len(rows)), lengths) + rng.random(total)
    place += (window - 1) * rng.random(total)
    return order[np.argsort(place)]


def epoch_order(streams: Sequence[Stream], seed: int, epoch: int) -> tuple[Ints, Ints]:
    """Return, for each sample of an epoch, how often it was seen before, and its index over all tables; (samples,)."""
    passes, indices, places = [], [], []
    offset = 0
    for number, stream in enumerate(streams):
        count, rows = stream.per_epoch, stream.rows
        if count:
            rng = np.random.default_rng([seed, number, epoch, 1])
            position = epoch * count + np.arange(count)
            done = position // rows
            order = np.concatenate(
                [permutation(stream.shard_rows, [seed, number, p], stream.window) for p in np.unique(done)]
            )
            passes.append(done)
            indices.append(offset + order[position - done[0] * rows])
            places.append((np.arange(count) + rng.random(count)) / count)
        offset += rows
    merged = np.argsort(np.concatenate(places), kind="stable")
    return np.concatenate(passes)[merged], np.concatenate(indices)[merged]


@dataclass(frozen=True)
class SamplerState:
    """Where training stands in the data: whose data, and how many samples were consumed over all ranks."""

    fingerprint: str
    consumed: int


class PermutationSampler:
    """Yields for ever the keys of this rank's batches.

    All ranks together consume ``batch * world`` samples a step: rank r takes the r-th ``batch`` of them. What was
    consumed is for the training loop to say: readers that run ahead change nothing.
    """

    def __init__(
        self,
        streams: Sequence[Stream],
        *,
        batch: int,
        seed: int,
        fingerprint: str,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.streams = tuple(streams)
        self.epoch_samples = sum(s.per_epoch for s in self.streams)
        if self.epoch_samples == 0:
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
        epoch, passes, indices = -1, np.empty(0, np.int64), np.empty(0, np.int64)
        while True:
            keys = []
            for place in range(position + self.rank * self.batch, position + (self.rank + 1) * self.batch):
                if place // self.epoch_samples != epoch:
                    epoch = place // self.epoch_samples
                    passes, indices = epoch_order(self.streams, self.seed, epoch)
                row = place % self.epoch_samples
                keys.append((int(passes[row]), int(indices[row])))
            yield keys
            position += self.batch * self.world
