"""Map tasks in processes of this machine: one per core, or one per GPU."""

from __future__ import annotations

import os
import queue
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed

from srgpt.engine.task import Done, Job, Mark, Order, Task, counting
from srgpt.engine.worker import ONE_THREAD, Worker
from srgpt.params import EngineParams
from srgpt.progress import Tally


def map_local(job: Job, tasks: Sequence[Task], engine: EngineParams, tally: Tally, *, gpu: bool) -> None:
    """Run every task in ``engine.workers`` processes (0: one per core or GPU; 1: in this one).

    With ``gpu`` each process gets ``engine.gpus_per_worker`` of the GPUs where there are any.
    """
    if engine.workers == 1:
        for task in tasks:
            heard = counting(tally.count)
            tally.reject(job.run(Order(task), heard).rejected)
            heard(Mark(task.size - 1))
        return
    places = worker_environments(engine, gpu=gpu)[: len(tasks)]
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
        finally:
            for future in futures:
                future.cancel()
            for worker in workers:
                worker.close()


def worker_environments(engine: EngineParams, *, gpu: bool) -> list[dict[str, str]]:
    """Return what each worker process has in its environment: one thread, and its GPUs."""
    cores = len(os.sched_getaffinity(0))
    gpus = _gpus() if gpu and engine.gpus_per_worker else []
    fitting = int(len(gpus) / engine.gpus_per_worker) if gpus else cores
    count = engine.workers or max(fitting, 1)
    if not gpus:
        return [ONE_THREAD] * count
    return [
        {**ONE_THREAD, "CUDA_VISIBLE_DEVICES": _share(gpus, engine.gpus_per_worker, i)} for i in range(count)
    ]


def _gpus() -> list[str]:
    """Return the names of the GPUs that this process may use."""
    import torch

    count = torch.cuda.device_count()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return visible.split(",")[:count] if visible else [str(i) for i in range(count)]


def _share(gpus: Sequence[str], each: float, index: int) -> str:
    """Return the GPUs of worker ``index``: some of its own, or one that it shares; round again at the end."""
    if each < 1:
        return gpus[int(index * each) % len(gpus)]
    first = index * int(each)
    return ",".join(gpus[i % len(gpus)] for i in range(first, first + int(each)))
