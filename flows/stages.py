"""Tasks: one per stage, each a ``dvc repro --single-item`` in the workspace, and promotion.

DVC decides whether a stage has anything to do; Prefect gives it a name, a log, retries where they help, and a
place in the run. Tasks are called directly, never submitted, so that they run in the flow's own thread and a
cancellation, which Prefect delivers as an exception there, ends their child processes.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger
from prefect.states import State

from srgpt import process
from srgpt.errors import SrgptError

CURATION = ("ingest", "perceive", "lift", "ask", "validate")
CHAIN = (*CURATION, "train", "evaluate", "export")

_TRANSIENT = (
    "is busy, it is being blocked by",  # DVC's path locks
    "Unable to acquire lock",  # DVC's repository lock
    "database is locked",
    "does not answer",  # the tracking server, in srgpt.tracking's words
    "did not answer",  # the object store, in srgpt.storage's words
    "Connection reset by peer",
    "Connection refused",
    "Temporary failure in name resolution",
    "timed out",
)
_HINTS = (
    "To track the changes with git, run:",
    "\tgit add ",
    "To enable auto staging, run:",
    "\tdvc config core.autostage",
    "Use `dvc push` to send",
)
"""What DVC tells a person at a terminal after each stage, and a log need not hold."""
_COLOUR = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_RAN = re.compile(r"^Running stage '([^']+)'")
_MAPPED = re.compile(r"^(\w+) (\S+): \d+ scenes in [\d.]+ s, ([\d.]+) scenes/s$")
"""What a stage that maps over scenes says at its end, in srgpt.progress' words."""
_SKIPPED = re.compile(r"^Stage '([^']+)' (?:didn't change|is cached)")


class StageError(SrgptError):
    """A stage failed; ``lines`` are its last lines."""

    def __init__(self, stage: str, code: int, lines: Sequence[str]) -> None:
        self.stage = stage
        self.code = code
        self.lines = list(lines)
        super().__init__(stage, code, self.lines)

    def __str__(self) -> str:
        shown = "".join(f"\n  | {line}" for line in self.lines if line.strip())
        return f"{self.stage} failed (exit code {self.code}). Its last lines:{shown}"


@dataclass(frozen=True)
class Outcome:
    """What DVC did about one stage, by its targets (``ingest@train``); ``rates`` are scenes per second."""

    ran: tuple[str, ...]
    unchanged: tuple[str, ...]
    rates: dict[str, float] = field(default_factory=dict)


def worth_retrying(task: Any, task_run: Any, state: State[Any]) -> bool:
    """Return whether doing the same again may help: a lock or a network in the way, not wrong input."""
    error = state.result(raise_on_failure=False)
    return isinstance(error, StageError) and any(t in line for line in error.lines for t in _TRANSIENT)


@task(
    retries=2,
    retry_delay_seconds=[5, 30],
    retry_condition_fn=worth_retrying,
    cache_policy=NO_CACHE,
    task_run_name="{stage}",
)
def reproduce(stage: str, workspace: Path, *, force: bool = False) -> Outcome:
    """Bring the outputs of one stage, for all its datasets, up to date; ``force`` runs it in any case."""
    command = [sys.executable, "-m", "dvc", "repro", "--single-item", *(["--force"] if force else []), stage]
    lines = _stream(stage, command, workspace)
    ran = [m[1] for m in map(_RAN.match, lines) if m]
    unchanged = [m[1] for m in map(_SKIPPED.match, lines) if m]
    get_run_logger().info("%s: %s ran, %s unchanged", stage, len(ran), len(unchanged))
    rates = {f"{m[1]}@{m[2]}": float(m[3]) for m in map(_MAPPED.match, lines) if m}
    return Outcome(tuple(ran), tuple(unchanged), rates)


def reproduce_all(stages: Sequence[str], workspace: Path, *, force: Sequence[str] = ()) -> dict[str, Outcome]:
    """Bring stages up to date, one task after the other, each under its own name."""
    return {
        stage: reproduce.with_options(name=stage)(stage, workspace, force=stage in force) for stage in stages
    }


@task(retries=1, retry_delay_seconds=10, retry_condition_fn=worth_retrying, cache_policy=NO_CACHE)
def verb(name: str, workspace: Path, *, force: bool = False) -> str:
    """Run ``srgpt <name>`` (promote, rollback) in the workspace; return the last line that it said.

    ``force`` is for promote: it overrides the benchmark comparison, and no other gate.
    """
    command = [sys.executable, "-m", "srgpt.cli", name, *(["--force"] if force else [])]
    lines = _stream(name, command, workspace)
    return lines[-1] if lines else ""


def act(name: str, workspace: Path, *, force: bool = False) -> str:
    """Run a verb that acts on the world as a task of its name."""
    return verb.with_options(name=name, task_run_name=name)(name, workspace, force=force)


@task(retries=2, retry_delay_seconds=[5, 30], retry_condition_fn=worth_retrying, cache_policy=NO_CACHE)
def push(workspace: Path) -> None:
    """Send what was made to the DVC remote."""
    _stream("push", [sys.executable, "-m", "dvc", "push"], workspace)


def _stream(name: str, command: Sequence[str], workspace: Path) -> list[str]:
    """Run a command with its output in the run's log; return the output."""
    logger = get_run_logger()
    lines: list[str] = []

    def on_line(line: str) -> None:
        text = _COLOUR.sub("", line).rstrip()
        if text and not text.startswith(_HINTS):
            lines.append(text)
            logger.info("%s", text)

    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", "")))
    try:
        process.run(
            command,
            cwd=workspace,
            env={"PATH": path, "PYTHONUNBUFFERED": "1", "COLUMNS": "120"},
            on_line=on_line,
        )
    except process.CommandError as error:
        raise StageError(name, error.code, lines[-20:]) from None
    return lines
