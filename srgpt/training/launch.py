"""Launching a training job: one child process per rank, output passed on, errors readable."""

from __future__ import annotations

import json
import os
import socket
import sys
from pathlib import Path

from srgpt.errors import InputError, SrgptError
from srgpt.process import CommandError, run
from srgpt.training.worker import ERROR_MARK, Job

_MODULE = "srgpt.training.worker"


def launch(job: Job, ranks: int, path: Path) -> None:
    """Run ``job`` on ``ranks`` processes to its end; ``path`` is where its description is put.

    Raises what a rank raised, with its message.
    """
    job.write(path)
    env = {"TOKENIZERS_PARALLELISM": "false"}
    if ranks == 1:
        command = [sys.executable, "-m", _MODULE, str(path)]
        env |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1"}
        env["MASTER_PORT"] = str(free_port())
    else:
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        command = [*torchrun, f"--nproc-per-node={ranks}", "-m", _MODULE, str(path)]
        env["OMP_NUM_THREADS"] = str(max(1, len(os.sched_getaffinity(0)) // ranks))
    errors: list[dict[str, str]] = []

    def show(line: str) -> None:
        if line.startswith(ERROR_MARK):
            errors.append(json.loads(line.removeprefix(ERROR_MARK)))
        else:
            sys.stderr.write(f"{line}\n")

    try:
        run(command, env=env, on_line=show)
    except CommandError:
        if not errors:
            raise
        kind = InputError if errors[0]["kind"] == "input" else SrgptError
        raise kind(errors[0]["message"]) from None


def free_port() -> int:
    """Return a TCP port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
