"""One rank of a training job: ``python -m srgpt.training.worker JOB.json``.

The process group and the accelerator belong to this process alone and end with it.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import logging
import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from srgpt.errors import InputError, SrgptError
from srgpt.params import build
from srgpt.training.stopping import StoppedError, StopRequest

CHECKPOINTS = "checkpoints"
"""The folder of checkpoints within a job's folder."""

ERROR_MARK = "srgpt-error: "
"""Starts the line on which a rank leaves its error: its kind and its message."""

KINDS: dict[str, type[SrgptError]] = {"input": InputError, "stopped": StoppedError, "work": SrgptError}
"""Errors by the kind that the line says, the base class last."""

_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Job:
    """What the ranks need to know of one stage. ``folder`` is where checkpoints and the finished model go."""

    params: dict[str, Any]
    stage: int
    """Number of the stage, from 0."""
    sources: list[dict[str, Any]]
    """Tables of the mixture: ``url``, ``scenes``, ``weight`` and ``history`` of each."""
    data: dict[str, str]
    """Fingerprints of what the whole training reads, for its lineage."""
    folder: str
    run_id: str
    init: str | None = None
    """The model folder to start from; None builds the model of ``params``."""
    first_step: int = 0
    """Steps of the stages before, to which this one's are added where they are reported."""

    def write(self, path: Path) -> None:
        """Write the job for the ranks to read."""
        path.write_text(json.dumps(asdict(self), indent=2, sort_keys=True))

    @classmethod
    def read(cls, path: Path) -> Job:
        """Read what :meth:`write` wrote."""
        return cls(**json.loads(path.read_text()))


def main(path: str) -> None:
    """Run this rank to its end; errors leave a message for the launcher, not a traceback."""
    _end_with_parent()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    try:
        run(Path(path))
    except SrgptError as error:
        _leave(error)


def run(path: Path) -> None:
    """Train as one rank the job described at ``path`` and, as rank 0, write the model."""
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    stop = StopRequest(path.parent, watch=rank == 0)
    stop.install()
    with process_group():
        job = Job.read(path)  # not earlier: node 0 has written it when all ranks have met
        params = build(job.params)
        from srgpt.training.session import Session

        Session(job, params, rank, world, stop).run()


@contextlib.contextmanager
def process_group() -> Iterator[None]:
    """Meet the other ranks."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))  # before any model is put on one
    else:
        os.environ["DS_ACCELERATOR"] = "cpu"
    import deepspeed
    import torch.distributed as dist

    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    # On a CPU DeepSpeed would compile a shared-memory collective for a minute before the first step; gloo does.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.init_distributed(dist_backend="nccl" if torch.cuda.is_available() else "gloo", verbose=False)
    try:
        yield
    finally:
        dist.destroy_process_group()


def _end_with_parent() -> None:
    """Have the kernel (of Linux) kill this process when its parent, the launcher or torchrun, dies.

    torchrun puts ranks into groups of their own, so that ending its group does not end them.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))


def _leave(error: SrgptError) -> None:
    """End with a message that the launcher shows; torchrun would not pass on an exit code that says its kind."""
    kind = next(k for k, t in KINDS.items() if isinstance(error, t))
    sys.stderr.write(f"{ERROR_MARK}{json.dumps({'kind': kind, 'message': str(error)})}\n")
    sys.stderr.flush()
    # the other ranks may be waiting for this one: leave at once, the launcher ends them; but where all stop
    # together, none must be ended while it still delivers its metrics
    os._exit(0 if kind == "stopped" else 1)


if __name__ == "__main__":
    main(sys.argv[1])
