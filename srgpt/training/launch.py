"""Launching a training job: one child process per rank, output passed on, errors readable.

Several nodes meet at the first one's address. It alone has the job; on the others the ranks read it from the
shared folder, once all of them have met.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from dataclasses import dataclass
from pathlib import Path

from srgpt.errors import InputError
from srgpt.params import TrainParams
from srgpt.process import CommandError, run
from srgpt.training import checkpoint
from srgpt.training.stopping import STOP, patient
from srgpt.training.worker import CHECKPOINTS, ERROR_MARK, KINDS, Job

_MODULE = "srgpt.training.worker"
_PORT = 29500
_WAITING = (
    "asked to stop; the ranks write a checkpoint after the current step (again: stop at once, without one)"
)


@dataclass(frozen=True)
class Node:
    """This machine among those that train together."""

    rank: int = 0
    count: int = 1
    address: str = "127.0.0.1"
    """Of node 0, reachable from all."""
    port: int = 0

    @classmethod
    def find(cls, params: TrainParams, rank: int | None = None) -> Node:
        """Find out which node this is: ``rank``, else ``NODE_RANK``; node 0 is at ``MASTER_ADDR``:``MASTER_PORT``.

        Raises :class:`InputError` where several nodes are to train and that is not known.
        """
        if params.nodes == 1:
            if rank:
                raise InputError(f"--node-rank {rank}: train.nodes is 1; set it to the number of nodes")
            return cls()
        number = _number("NODE_RANK") if rank is None else rank
        address = os.environ.get("MASTER_ADDR")
        if number is None or not address:
            raise InputError(
                f"train.nodes is {params.nodes}: give each node its number with --node-rank or NODE_RANK, and all the "
                "address of node 0 in MASTER_ADDR (and a free port of it in MASTER_PORT)"
            )
        if not 0 <= number < params.nodes:
            raise InputError(f"node rank {number}: expected 0 to {params.nodes - 1}, as train.nodes says")
        return cls(number, params.nodes, address, _number("MASTER_PORT") or _PORT)


def launch(job: Job, params: TrainParams, path: Path, node: Node = Node()) -> None:
    """Run ``job`` on the ranks of this node to its end; ``path`` is where its description is put.

    Raises what a rank raised, with its message, and :class:`~srgpt.training.stopping.StoppedError` where the training
    was asked to stop (SIGTERM or SIGINT to this process or to a rank).
    """
    folder = path.parent
    (folder / STOP).unlink(missing_ok=True)
    checkpoint.convert(folder / CHECKPOINTS, params)
    job.write(path)
    _run(params, path, node)


def join(params: TrainParams, path: Path, node: Node) -> None:
    """Run this node's ranks of the job whose description node 0 puts at ``path``."""
    _run(params, path, node)


def _run(params: TrainParams, path: Path, node: Node) -> None:
    errors: list[dict[str, str]] = []

    def show(line: str) -> None:
        if line.startswith(ERROR_MARK):
            errors.append(json.loads(line.removeprefix(ERROR_MARK)))
        else:
            sys.stderr.write(f"{line}\n")

    try:
        with patient(path.parent, _WAITING):
            run(_command(params.ranks, path, node), env=_environment(params, node), on_line=show)
    except CommandError:
        if not errors:
            raise
    if errors:
        raise KINDS[errors[0]["kind"]](errors[0]["message"]) from None


def _command(ranks: int, path: Path, node: Node) -> list[str]:
    python, worker = [sys.executable, "-m"], [_MODULE, str(path)]
    if node.count * ranks == 1:
        return [*python, *worker]
    meeting = ["--standalone"]
    if node.count > 1:
        meeting = [f"--nnodes={node.count}", f"--node-rank={node.rank}"]
        meeting += [f"--master-addr={node.address}", f"--master-port={node.port}"]
    return [*python, "torch.distributed.run", *meeting, f"--nproc-per-node={ranks}", "-m", *worker]


def _environment(params: TrainParams, node: Node) -> dict[str, str]:
    environment = {"TOKENIZERS_PARALLELISM": "false"}
    if grace := os.environ.get("SRGPT_GRACE"):
        # torchrun, signalled itself, would kill its ranks after 30 seconds
        environment["TORCH_ELASTIC_SHUTDOWN_TIMEOUT"] = str(round(float(grace)))
    if params.threads or "OMP_NUM_THREADS" not in os.environ:
        shared = max(1, len(os.sched_getaffinity(0)) // params.ranks)
        environment["OMP_NUM_THREADS"] = str(params.threads or shared)
    if node.count * params.ranks == 1:
        environment |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1"}
        return environment | {"MASTER_ADDR": node.address, "MASTER_PORT": str(free_port())}
    return environment


def _number(name: str) -> int | None:
    text = os.environ.get(name)
    if not text:
        return None
    if not text.isdigit():
        raise InputError(f"{name}={text}: expected a number")
    return int(text)


def free_port() -> int:
    """Return a TCP port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
