"""A training that is killed outright, again and again: ``python -m tests.training.kills FOLDER SOURCE KILLS``.

What takes long to import is imported once; every attempt is a fork of it that trains, and is killed with SIGKILL
some moment between a step drawn at random and the next, often while it writes a checkpoint. Every logged loss, of
repeated steps too, goes to ``losses.txt``.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from srgpt.training.launch import free_port
from srgpt.training.worker import CHECKPOINTS, process_group
from tests.training.data import tiny_job, tiny_params

STEPS = 60

LAST_KILL = 40
"""Kills come before this step, so that none of their delays, however they add up, reaches the end."""


def attempt(folder: Path, source: str, log: Path) -> None:
    """Train from the last checkpoint to the end, and write every step's loss to ``log``."""
    from srgpt.training.engine import start_engine
    from srgpt.training.loop import train
    from srgpt.training.metrics import Reporter
    from srgpt.training.session import Session

    params = tiny_params(
        folder,
        steps=STEPS,
        checkpoint_steps=1,
        rates={"vision_tower": 0.5, "region_extractor": 0.5},
        muon=["llm.model.layers"],
        weight_decay=0.1,
    )
    alone = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1"}
    os.environ.update({**alone, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())})
    with process_group(), log.open("a", buffering=1) as file:
        session = Session(tiny_job(params, source, folder), params, 0, 1)
        engine = start_engine(session.model, params.train)
        reporter = Reporter(lambda v, step: print(step, v["train/loss"].hex(), file=file), 1)
        train(
            engine, session.batches, session.sampler, params.train,
            checkpoints=folder / CHECKPOINTS, reporter=reporter,
        )  # fmt: skip


def forked(work: Callable[[], None]) -> int:
    """Do some work in a child process; return its id."""
    pid = os.fork()
    if pid:
        return pid
    try:
        work()
    except BaseException:
        import traceback

        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def steps_in(log: Path) -> list[int]:
    """Return the steps logged so far."""
    return [int(line.split()[0]) for line in log.read_text().splitlines()] if log.exists() else []


def main(folder: Path, source: str, kills: int) -> None:
    """Train once undisturbed and once with ``kills`` kills."""
    import deepspeed  # noqa: F401
    import transformers.models.llama.modeling_llama
    import transformers.models.siglip.modeling_siglip  # noqa: F401

    import srgpt.training.session  # noqa: F401

    whole, cut = folder / "whole.txt", folder / "losses.txt"
    for name in ("whole", "cut"):
        (folder / name).mkdir()
    assert (
        os.waitstatus_to_exitcode(os.waitpid(forked(lambda: attempt(folder / "whole", source, whole)), 0)[1])
        == 0
    )
    draw = random.Random(5)
    done = 0
    for target in sorted(draw.sample(range(1, LAST_KILL), kills)):
        before = len(steps_in(cut))
        pid = forked(lambda: attempt(folder / "cut", source, cut))
        # the attempt before may have been killed beyond this target already
        while not (own := steps_in(cut)[before:]) or own[-1] < target:
            assert os.waitpid(pid, os.WNOHANG)[0] == 0, "the training ended by itself"
            time.sleep(0.001)
        end = time.monotonic() + draw.uniform(0, 0.05)
        while time.monotonic() < end and steps_in(cut)[-1] == own[-1]:
            time.sleep(0.001)
        os.kill(pid, signal.SIGKILL)
        ended = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        done += ended == -signal.SIGKILL
    os.waitpid(forked(lambda: attempt(folder / "cut", source, cut)), 0)
    sys.stdout.write(f"{done} kills\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
