"""Map tasks in processes of this machine: one per core, or one per GPU."""

from __future__ import annotations

import os
import queue
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed

from srgpt.engine.task import Device, Done, Mark, Order, Runs, Task, counting
from srgpt.engine.worker import ONE_THREAD, VISIBLE_GPUS, Worker
from srgpt.errors import InputError
from srgpt.params import EngineParams
from srgpt.progress import Tally


def map_local(
    job: Runs, tasks: Sequence[Task], engine: EngineParams, tally: Tally, *, device: Device
) -> list[Done]:
    """Run every task in ``engine.workers`` processes (0: one per core or GPU; 1: in this one); return what each did.

    Where ``device`` is no CPU, each process gets ``engine.gpus_per_worker`` of the GPUs where there are any, and
    there are no more processes than that leaves room for.
    """
    if engine.workers == 1:
        found = []
        for task in tasks:
            heard = counting(tally.count)
            found.append(job.run(Order(task), heard))
            tally.reject(found[-1].rejected)
            heard(Mark(task.size - 1))
        return found
    places = worker_environments(engine, device=device)[: len(tasks)]
    workers = [Worker(job, place, on_items=tally.count, say=tally.say) for place in places]
    idle: queue.SimpleQueue[Worker] = queue.SimpleQueue()
    for worker in workers:
        idle.put(worker)

    def run(task: Task) -> Done:
        worker = idle.get()
        try:
            return worker.run(task)
        finally:
            idle.put(worker)

    with ThreadPoolExecutor(len(workers)) as threads:  # each waits for one process
        futures = [threads.submit(run, task) for task in tasks]
        try:
            for future in as_completed(futures):
                tally.reject(future.result().rejected)
            return [future.result() for future in futures]
        finally:
            for future in futures:
                future.cancel()
            for worker in workers:
                worker.close()


def worker_environments(engine: EngineParams, *, device: Device) -> list[dict[str, str]]:
    """Return what each worker process has in its environment: one thread, and its GPUs.

    Raises :class:`InputError` where a worker would need more GPUs than there are.
    """
    each = engine.gpus_per_worker
    count = engine.workers or len(os.sched_getaffinity(0))
    if device == "cpu":
        return [ONE_THREAD] * count
    if each == 0:
        return [{**ONE_THREAD, VISIBLE_GPUS: ""}] * count
    gpus = _gpus()
    if not gpus:
        return [ONE_THREAD] * count
    if each > len(gpus):
        raise InputError(
            f"engine.gpus_per_worker = {each:g}: this machine has {len(gpus)} GPUs. Expected at most that many."
        )
    shares = _shares(gpus, each)
    return [{**ONE_THREAD, VISIBLE_GPUS: share} for share in shares[: engine.workers or len(shares)]]


def _gpus() -> list[str]:
    """Return the names of the GPUs that this process may use."""
    import torch

    count = torch.cuda.device_count()
    visible = os.environ.get(VISIBLE_GPUS)
    return visible.split(",")[:count] if visible else [str(i) for i in range(count)]


def _shares(gpus: Sequence[str], each: float) -> list[str]:
    """Divide GPUs: ``each`` of them to a worker, or as many workers on one as have room; none has too many."""
    if each < 1:
        room = int(1 / each + 1e-9)  # 1 / (1 / 3) may fall short of 3
        return [gpu for _ in range(room) for gpu in gpus]
    size = int(each)
    return [",".join(gpus[i : i + size]) for i in range(0, len(gpus) - size + 1, size)]
