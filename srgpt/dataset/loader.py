"""The loader: a sampler's batches, read, prepared and collated ahead of their use."""

from __future__ import annotations

import os
import signal
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from srgpt.dataset.collator import Batch, Collator
from srgpt.dataset.mixture import Mixture
from srgpt.dataset.reading import Sample
from srgpt.dataset.sampler import Key, PermutationSampler
from srgpt.errors import SrgptError

READ_AHEAD = 8
"""Batches before its first use at which a shard begins to be read."""

PREFETCH = 4
"""Batches that each worker has ready."""

AHEAD = 2
"""Batches that are ready, or being made, while a step is taken."""

Request = tuple[Sequence[Key], Sequence[Key]]
"""Keys of a batch, and of one that comes later."""


class BatchReader(Dataset[Sample]):
    """Reads the samples of a batch; what a later one needs begins to be read in the background."""

    def __init__(self, mixture: Mixture) -> None:
        self.mixture = mixture

    def __getitems__(self, request: Request) -> list[Sample]:
        """Return the samples of a batch."""
        keys, later = request
        for key in later:
            self.mixture.ahead(key)
        return [self.mixture[key] for key in keys]

    def __getitem__(self, key: Key) -> Sample:
        return self.mixture[key]


class Requests:
    """The sampler's batches, each with the keys of the batch ``READ_AHEAD`` places later."""

    def __init__(self, sampler: PermutationSampler) -> None:
        self.sampler = sampler

    def __iter__(self) -> Iterator[Request]:
        waiting: deque[list[Key]] = deque()
        for keys in self.sampler:
            waiting.append(keys)
            if len(waiting) > READ_AHEAD:
                yield waiting.popleft(), keys


def batches(
    mixture: Mixture, sampler: PermutationSampler, collator: Collator, *, workers: int = 0
) -> Iterator[Batch]:
    """Yield this rank's batches from where the sampler stands, without end.

    ``workers`` processes read, decode and collate ahead; without any, a thread of this process does. On a GPU batches
    are in pinned memory. The order is the sampler's, whatever the workers do. Raises
    :class:`InputError` where a shard or a picture is broken.
    """
    loader: DataLoader[Any] = DataLoader(
        BatchReader(mixture),
        batch_sampler=Requests(sampler),  # type: ignore[arg-type]
        collate_fn=collator,
        num_workers=workers,
        worker_init_fn=_outlast_signals,
        prefetch_factor=PREFETCH if workers else None,
        # a fork would copy the event loop of the object store's client, and torch's threads
        multiprocessing_context="spawn" if workers else None,
        pin_memory=torch.cuda.is_available(),
    )
    stream = iter(loader)
    with ThreadPoolExecutor(1, thread_name_prefix="srgpt-loader") as thread:
        ready = deque(thread.submit(next, stream) for _ in range(AHEAD))
        while True:
            try:
                batch = ready.popleft().result()
            except SrgptError as error:
                raise _of_worker(error) if workers else error from None
            ready.append(thread.submit(next, stream))
            yield batch


def _outlast_signals(worker: int) -> None:
    """Leave it to the rank to end this worker: it may want batches yet, after it is asked to stop.

    torchrun signals a rank's whole group, which this worker leaves; schedulers signal each process besides.
    """
    os.setsid()

    def take_note(number: int, frame: object) -> None:
        signal.signal(number, signal.SIG_DFL)

    signal.signal(signal.SIGTERM, take_note)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _of_worker(error: SrgptError) -> SrgptError:
    """Return an error as the worker raised it: torch hands on its kind, with the worker's traceback as message."""
    kind = type(error)
    return kind(str(error).rpartition(f"{kind.__module__}.{kind.__qualname__}: ")[2].strip())
