"""Map tasks over a Ray cluster with Ray Data: the same rows and bytes as on one machine.

A dataset of shard names is mapped over a pool of actors that grows with the work::

    shard names -> [actor: read shard -> transform -> write shard] x 1..n -> counts

Only names and counts travel. Pixels stay inside the one operator: an actor reads its shard from the table's URL
and writes the new one to the work folder's, so both must be reachable from every node (``s3://``, a shared disk).
Each actor holds one :class:`Worker`, so that an item which crashes its process is found and set aside as on one
machine; Ray itself replaces actors whose node is lost.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import sys
from collections import Counter
from collections.abc import Sequence
from typing import Any

import ray
import ray.data

from srgpt.engine.task import Device, Job, Task
from srgpt.engine.worker import ONE_THREAD, VISIBLE_GPUS, Worker
from srgpt.errors import InputError, SrgptError
from srgpt.params import EngineParams
from srgpt.progress import Tally

_STORE_BYTES = 100 * 2**20
"""Object store of a cluster of our own: it holds names and counts."""

_ACTOR_DEATHS = 3
"""So often may one shard lose its actor (to a lost node, or to Ray's memory monitor) before the run ends."""


def map_ray(job: Job, tasks: Sequence[Task], engine: EngineParams, tally: Tally, *, device: Device) -> None:
    """Run every task on the cluster at ``engine.ray_address``, or on one of this process where that is null.

    At most ``engine.workers`` actors (0: as many as the cluster has cores or GPUs for now) hold a core each, and
    ``engine.gpus_per_worker`` GPUs where ``device`` is cuda, or auto and the cluster has GPUs now. A cluster that
    grows on demand brings what the actors hold.
    """
    _join(engine)
    gpus = _gpus_each(engine, device)
    hidden = {VISIBLE_GPUS: ""} if device != "cpu" and engine.gpus_per_worker == 0 else {}
    pool = ray.data.ActorPoolStrategy(min_size=1, max_size=min(_most(engine, gpus), len(tasks)))
    names = ray.data.from_items([{"name": task.name} for task in tasks], override_num_blocks=len(tasks))
    results = names.map(
        _Actor,  # type: ignore[arg-type]
        compute=pool,
        fn_constructor_args=(job, {task.name: task for task in tasks}, os.getcwd(), hidden),  # noqa: PTH109
        num_cpus=1,
        num_gpus=gpus or None,
        max_restarts=-1,
        max_task_retries=_ACTOR_DEATHS,
    )
    try:
        for result in results.iter_rows():
            _take(result, tally)
    except ray.exceptions.RayActorError as error:
        raise SrgptError(
            f"Ray lost the actor of a shard {_ACTOR_DEATHS + 1} times ({type(error).__name__}); out of memory? "
            "Finished shards are kept; run the same command again, with fewer engine.workers or smaller shards."
        ) from error


class _Actor:
    """One worker process, under Ray's care."""

    def __init__(self, job: Job, tasks: dict[str, Task], folder: str, environment: dict[str, str]) -> None:
        with contextlib.suppress(FileNotFoundError):  # a node without it can still reach URLs
            os.chdir(folder)
        # Else the worker process would import Ray's own main script, and with it Ray: a second, and 100 MB.
        sys.modules["__main__"].__dict__.pop("__file__", None)
        self._tasks = tasks
        self._said: list[str] = []
        self._worker = Worker(job, {**ONE_THREAD, **environment}, say=self._said.append)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Make one shard; an error for people is a result as well, so that it arrives as what it is."""
        task = self._tasks[row["name"]]
        self._said.clear()
        result = {"items": task.size, "rejected": "{}", "error": "", "message": ""}
        try:
            result["rejected"] = json.dumps(self._worker.run(task).rejected)
        except SrgptError as error:
            result |= {"error": "input" if isinstance(error, InputError) else "other", "message": str(error)}
        return result | {"said": "\n".join(self._said)}


def _take(result: dict[str, Any], tally: Tally) -> None:
    if result["said"]:
        tally.say(result["said"])
    if result["error"]:
        raise (InputError if result["error"] == "input" else SrgptError)(result["message"])
    tally.reject(Counter(json.loads(result["rejected"])))
    tally.count(result["items"])


def _join(engine: EngineParams) -> None:
    """Join the cluster, or start one: no dashboard, no usage statistics, quiet."""
    if not ray.is_initialized():
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
        if engine.ray_address is None:
            quiet |= {"num_cpus": max(engine.workers, len(os.sched_getaffinity(0))),
                      "include_dashboard": False, "object_store_memory": _STORE_BYTES}  # fmt: skip
        try:
            _reach(engine.ray_address)
            ray.init(address=engine.ray_address or "local", **quiet)
        except (OSError, ValueError) as error:
            raise InputError(
                f"engine.ray_address = {engine.ray_address}: no Ray cluster answers there ({error}). "
                "Start one with `ray start --head`, or set it to null for one of this process."
            ) from error
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False


def _reach(address: str | None) -> None:
    """Raise :class:`OSError` where nobody listens at ``host:port``; Ray itself would try for minutes."""
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host, int(port)), timeout=10).close()


def _gpus_each(engine: EngineParams, device: Device) -> float:
    """Return how many GPUs an actor holds."""
    here = device == "cuda" or (device == "auto" and ray.cluster_resources().get("GPU"))
    return engine.gpus_per_worker if here else 0.0


def _most(engine: EngineParams, gpus: float) -> int:
    """Return how many actors the cluster has room for, or ``engine.workers``."""
    have = ray.cluster_resources()
    room = have.get("GPU", 0) / gpus if gpus else have.get("CPU", 1)
    return engine.workers or max(int(room), 1)
