"""Progress for people: bars on a terminal, sparse lines in a log; with rate, time left and what was set aside."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

console = Console(stderr=True)
"""Everything said to a person goes here (stderr), so that stdout stays for results."""

_LOG_EVERY = 5.0


class _Rate(ProgressColumn):
    """Steps per second."""

    def render(self, task: Task) -> Text:
        return Text("" if task.speed is None else f"{task.speed:.1f}/s")


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
            TextColumn("{task.fields[unit]}"),
            _Rate(),
            TextColumn("{task.fields[note]}"),
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
            rate = f"{done / max(now - started, 1e-9):.1f}/s"
            times = f"({now - started:.0f} s, {rate}, {left:.0f} s left)"
            words = (f"{description}:", f"{done}/{total}", unit, note, times)
            sys.stderr.write(" ".join(filter(None, words)) + "\n")
            sys.stderr.flush()

    yield advance


class Tally:
    """Counts what goes through a stage and shows it, from any thread."""

    def __init__(self, advance: Callable[..., None] = lambda steps, note: None) -> None:
        self.items = 0
        self.rejected: Counter[str] = Counter()
        self._advance = advance
        self._lock = threading.Lock()

    def count(self, items: int) -> None:
        """So many items more were begun."""
        with self._lock:
            self.items += items
            self._advance(items, note=counts(self.rejected, "set aside"))

    def reject(self, reasons: Mapping[str, int]) -> None:
        """So many items were set aside, by reason."""
        with self._lock:
            self.rejected.update(reasons)

    def say(self, line: str) -> None:
        """Say something to people without disturbing the bar."""
        with self._lock:
            console.print(escape(line), highlight=False, soft_wrap=True)


def counts(reasons: Mapping[str, int], what: str = "") -> str:
    """Return counts in words, the most frequent first: ``3 set aside (2 no-objects, 1 broken-depth)``."""
    if not reasons:
        return ""
    ordered = sorted(reasons.items(), key=lambda pair: (-pair[1], pair[0]))
    return f"{sum(reasons.values())} {what} ({', '.join(f'{n} {reason}' for reason, n in ordered)})"


@contextlib.contextmanager
def tally(description: str, *, total: int, unit: str) -> Iterator[Tally]:
    """Show how a stage comes along; at the end, say in one line how much it did and how fast."""
    started = time.monotonic()
    with progress_bar(description, total=total, unit=unit) as advance:
        found = Tally(advance)
        yield found
    seconds = time.monotonic() - started
    found.say(f"{description}: {found.items} {unit} in {seconds:.1f} s, {found.items / seconds:.1f} {unit}/s")
