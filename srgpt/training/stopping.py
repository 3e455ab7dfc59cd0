"""Stopping on request: a signal to the stage or to any rank ends the training after its current step.

The stage, which the ranks share a folder with (on every node), leaves a file there; a rank that is signalled
itself only takes note. All ranks agree on it once a step, so that they write one checkpoint together.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from srgpt.errors import SrgptError

STOP = "stop"
"""The file in a job's folder that asks its ranks to stop."""

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StoppedError(SrgptError):
    """The training was asked to stop, and did after writing a checkpoint."""


class StopRequest:
    """Whether this rank was asked to stop; install it in the process's main thread."""

    def __init__(self, folder: Path, *, watch: bool) -> None:
        """With ``watch`` (one rank is enough) the file in ``folder`` counts, too."""
        self._file = folder / STOP if watch else None
        self._signalled = False

    def install(self) -> None:
        """Take note of signals from now on, instead of ending by them."""
        for number in SIGNALS:
            signal.signal(number, self._note)

    def __call__(self) -> bool:
        """Return whether this rank was asked to stop."""
        return self._signalled or (self._file is not None and self._file.exists())

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._signalled = True


@contextlib.contextmanager
def patient(folder: Path, said: str) -> Iterator[None]:
    """Within this block, have the first SIGTERM or SIGINT ask the ranks working in ``folder`` to stop.

    ``said`` is then written to stderr. A second signal has the effect that it would have had without. A handler
    that somebody else installed stays, and so does all in other threads than the main one.
    """
    defaults = (signal.SIG_DFL, signal.default_int_handler)
    main = threading.current_thread() is threading.main_thread()
    before = {n: signal.getsignal(n) for n in SIGNALS} if main else {}
    mine = [n for n, handler in before.items() if handler in defaults]

    def ask(number: int, frame: FrameType | None) -> None:
        import sys

        if not folder.is_dir():  # on another node than the first: nobody has begun there yet
            raise SystemExit(128 + number)
        (folder / STOP).touch()
        for each in mine:
            signal.signal(each, _unwind if each == signal.SIGTERM else before[each])
        sys.stderr.write(f"{signal.Signals(number).name}: {said}\n")
        sys.stderr.flush()

    for number in mine:
        signal.signal(number, ask)
    try:
        yield
    finally:
        for number in mine:
            signal.signal(number, before[number])


def _unwind(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)
