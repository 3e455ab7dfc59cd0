"""Map a function over shards in processes of this machine, with progress."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import TypeVar

from srgpt.errors import SrgptError
from srgpt.progress import progress_bar

Task = TypeVar("Task")


def worker_count(requested: int) -> int:
    """Return ``requested``, or the cores that this process may use where it is 0."""
    return requested or len(os.sched_getaffinity(0))


def map_shards(
    function: Callable[[Task], object], tasks: Sequence[Task], *, workers: int = 0, description: str = ""
) -> None:
    """Call ``function`` once per task, in ``workers`` processes (0: one per core; 1: in this process).

    The function must be importable (a module-level function or a ``functools.partial`` of one) and write its own
    result; the order of completion is free, so results must not depend on it. The first error stops the rest.
    """
    count = min(worker_count(workers), len(tasks))
    with progress_bar(description, total=len(tasks), unit="shards") as advance:
        if count <= 1:
            for task in tasks:
                function(task)
                advance(1)
            return
        # forkserver: fsspec's event loop and Embree's threads do not survive a fork.
        with ProcessPoolExecutor(count, mp_context=get_context("forkserver")) as pool:
            futures = [pool.submit(function, task) for task in tasks]
            try:
                for future in as_completed(futures):
                    future.result()
                    advance(1)
            except BrokenProcessPool as error:
                raise SrgptError(
                    f"{description}: a worker process was killed (out of memory?). Finished shards are kept; "
                    "run the same command again, with fewer engine.workers if memory is short."
                ) from error
            finally:
                for future in futures:
                    future.cancel()
