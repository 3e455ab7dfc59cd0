"""Progress for people: bars on a terminal, sparse lines in a log."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

console = Console(stderr=True)
"""Everything said to a person goes here (stderr), so that stdout stays for results."""

_LOG_EVERY = 5.0


@contextlib.contextmanager
def progress_bar(description: str, *, total: int, unit: str = "") -> Iterator[Callable[..., None]]:
    """Show progress over ``total`` steps; yields ``advance(steps=1, note="")``.

    On a terminal this is a live bar; elsewhere (a Prefect log, CI) a line at most every five seconds.
    """
    if console.is_terminal:
        columns = (
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[unit]} {task.fields[note]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=console) as bar:
            task = bar.add_task(description, total=total, unit=unit, note="")
            yield lambda steps=1, note="": bar.update(task, advance=steps, note=note)
        return
    started = spoke = time.monotonic()
    done = 0

    def advance(steps: int = 1, note: str = "") -> None:
        nonlocal done, spoke
        done += steps
        now = time.monotonic()
        if now - spoke >= _LOG_EVERY or (done >= total and now - started >= 2):
            spoke = now
            left = (now - started) / max(done, 1) * max(total - done, 0)
            times = f"({now - started:.0f} s, {left:.0f} s left)"
            words = (f"{description}:", f"{done}/{total}", unit, note, times)
            sys.stderr.write(" ".join(filter(None, words)) + "\n")
            sys.stderr.flush()

    yield advance
