"""Child processes: the only module that starts them.

A command runs in its own process group, so that ending it ends everything it started: when the block that
started it is left, by whatever exception, in whatever thread; when this process gets SIGTERM; and, through
``guard.py``, when this process is killed outright. Services that are meant to outlive their starter come from
:func:`spawn`.
"""

from __future__ import annotations

import codecs
import contextlib
import io
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from srgpt.errors import SrgptError

_GRACE = float(os.environ.get("SRGPT_GRACE") or 10.0)
"""Seconds that what is ended gets to end by itself; a scheduler may give a training more, for its checkpoint."""
_POLL = 0.2
_MAX_LINE = 1 << 16
_SERVICE = "SRGPT_SERVICE"
"""Set in the environment of services, which ending their starter does not end."""


class CommandError(SrgptError):
    """A command ended with another exit code than 0."""

    def __init__(self, command: Sequence[str], code: int, lines: Sequence[str]) -> None:
        """``lines`` are the last lines of its output, where it was read."""
        self.command = list(command)
        self.code = code
        self.lines = list(lines)
        super().__init__(self.command, code, self.lines)

    def __str__(self) -> str:
        ended = self.code >= 0
        how = (
            f"ended with exit code {self.code}"
            if ended
            else f"was ended by {signal.Signals(-self.code).name}"
        )
        return f"`{' '.join(self.command)}` {how}" + "".join(f"\n  | {line}" for line in self.lines)


def capture(command: Sequence[str], *, cwd: Path | None = None, timeout: float = 60.0) -> str | None:
    """Return the stripped output of a short command, or None where it fails or is not installed."""
    try:
        done = subprocess.run(
            command,
            cwd=cwd,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=timeout,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def run(
    command: Sequence[str],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    on_line: Callable[[str], None] | None = None,
    tail: int = 30,
) -> None:
    """Run a command to its end, passing its output (stdout and stderr, line by line) to ``on_line``.

    Without ``on_line`` the output goes to this process's own. However this call is left (an exception, a
    signal that raises), the command's whole process group is ended. Raises :class:`CommandError` with the
    last ``tail`` lines where it exits with another code than 0.
    """
    lines: deque[str] = deque(maxlen=tail)
    with start(command, cwd=cwd, env=env, pipe=on_line is not None) as process:
        if on_line is not None:
            for line in _lines(process):
                lines.append(line)
                on_line(line)
        code = _wait(process)
    if code != 0:
        raise CommandError(command, code, lines)


@contextlib.contextmanager
def start(
    command: Sequence[str],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    pipe: bool = False,
    log: Path | None = None,
) -> Iterator[subprocess.Popen[str]]:
    """Start a command in its own process group and end the group when the block is left."""
    with contextlib.ExitStack() as stack:
        output = subprocess.PIPE if pipe else (stack.enter_context(log.open("a")) if log else None)
        try:
            process = subprocess.Popen(
                list(command),
                cwd=cwd,
                env={**os.environ, **(env or {})},
                stdout=output,
                stderr=subprocess.STDOUT if output is not None else None,
                stdin=subprocess.DEVNULL,
                encoding="utf-8",
                errors="replace",
                start_new_session=True,
            )
        except OSError as error:
            raise SrgptError(f"cannot start `{command[0]}`: {error.strerror}") from None
        if process.stdout is not None:
            stack.callback(process.stdout.close)
        with _terminable(), _guarded(process):
            yield process


def spawn(
    command: Sequence[str], *, cwd: Path | None = None, env: Mapping[str, str] | None = None, log: Path
) -> int:
    """Start a service that outlives this process, its output appended to ``log``; return its process id."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as output:
        try:
            process = subprocess.Popen(
                list(command),
                cwd=cwd,
                env={**os.environ, **(env or {}), _SERVICE: "1"},
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError as error:
            raise SrgptError(f"cannot start `{command[0]}`: {error.strerror}") from None
    return process.pid


def end_group(group: int, process: subprocess.Popen[str] | None = None, grace: float = _GRACE) -> None:
    """End a process group: SIGTERM, then SIGKILL to what is left after ``grace`` seconds.

    Descendants that moved to groups of their own are expected to be ended by their parents, as this module
    does; those that were not are ended after the group.
    """
    if process is not None and process.poll() is not None and not group_alive(group):
        return
    family = _descendants(group)
    _signal_group(group, signal.SIGTERM)
    deadline = time.monotonic() + grace
    orphaned = False
    while time.monotonic() < deadline:
        if process is not None:
            process.poll()
        if not group_alive(group):
            left = _still_there(family)
            if not left:
                return
            if not orphaned:
                orphaned = True
                _signal_each(left, signal.SIGTERM)
        time.sleep(0.02)
    family |= _descendants(group)
    _signal_group(group, signal.SIGKILL)
    _signal_each(_still_there(family), signal.SIGKILL)
    deadline = time.monotonic() + _GRACE
    while time.monotonic() < deadline and (group_alive(group) or _still_there(family)):
        if process is not None:
            process.poll()
        time.sleep(0.01)


def group_alive(group: int) -> bool:
    """Return whether any process of the group still runs (one that only waits to be reaped does not)."""
    processes = _processes()
    if processes is not None:
        return any(p.group == group for p in processes)
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


# Reading output ---------------------------------------------------------------------------------------------


def _lines(process: subprocess.Popen[str]) -> Iterator[str]:
    """Yield lines as they come, until end-of-file, or until the command ended and nothing more arrives.

    Something left in the background may hold the pipe open, so end-of-file alone is not waited for. The short
    waits let exceptions that are raised into this thread from outside come through.
    """
    assert process.stdout is not None
    descriptor = process.stdout.fileno()
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    decoder = io.IncrementalNewlineDecoder(codecs.getincrementaldecoder("utf-8")("replace"), translate=True)
    pending = ""
    while True:
        if poll.poll(_POLL * 1000):
            data = os.read(descriptor, _MAX_LINE)
            *lines, pending = (pending + decoder.decode(data, final=not data)).split("\n")
            yield from lines
            if len(pending) > _MAX_LINE:
                yield pending
                pending = ""
            if not data:
                break
        elif process.poll() is not None:
            break
    if pending:
        yield pending


def _wait(process: subprocess.Popen[str]) -> int:
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.wait(timeout=_POLL)


# Ending -----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM unwind this block like an exception, then have the effect that it would have had without.

    Only the main thread may install handlers; elsewhere whoever stops the thread's work raises into it. A
    handler that someone else installed (Prefect's raises, too) stays.
    """
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    received = False

    def handler(number: int, frame: object) -> None:
        nonlocal received
        if not received:  # a second signal must not cut the ending of the children short
            received = True
            raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if received:
            os.kill(os.getpid(), signal.SIGTERM)


@contextlib.contextmanager
def _guarded(process: subprocess.Popen[str]) -> Iterator[None]:
    """End the process's group when the block is left, and have the guard do it where this process cannot."""
    reading, writing = os.pipe()
    guard = None
    try:
        guard = subprocess.Popen(
            [
                sys.executable,
                "-I",
                "-S",
                str(Path(__file__).with_name("guard.py")),
                str(process.pid),
                str(_GRACE),
            ],
            stdin=reading,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        yield
    finally:
        os.close(reading)
        try:
            end_group(process.pid, process)
            with contextlib.suppress(BrokenPipeError):
                os.write(writing, b"x")
        finally:
            os.close(writing)
            if guard is not None:
                guard.wait()


def _signal_group(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, number)


def _signal_each(processes: set[_Process], number: signal.Signals) -> None:
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, number)


# Who runs (Linux; elsewhere only process groups are known) --------------------------------------------------


class _Process(NamedTuple):
    pid: int
    parent: int
    group: int
    started: int


def _processes() -> list[_Process] | None:
    """Return the running processes, without those waiting to be reaped; None where /proc is missing."""
    root = Path("/proc")
    if not (root / "self" / "stat").exists():
        return None
    found = []
    for folder in root.iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                # the name, in parentheses, may hold anything, a parenthesis too
                fields = (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()
                if fields[0] not in "ZX":
                    found.append(_Process(int(folder.name), int(fields[1]), int(fields[2]), int(fields[19])))
    return found


def _descendants(root: int) -> set[_Process]:
    """Return what ``root`` and its children started, directly or not, without services."""
    children: dict[int, list[_Process]] = {}
    for process in _processes() or ():
        children.setdefault(process.parent, []).append(process)
    found: set[_Process] = set()
    queue = [root]
    while queue:
        for child in children.get(queue.pop(), ()):
            if not _is_service(child.pid):
                found.add(child)
                queue.append(child.pid)
    return found


def _is_service(pid: int) -> bool:
    try:
        for _ in range(10):
            environment = Path(f"/proc/{pid}/environ").read_bytes()
            if environment:
                return f"{_SERVICE}=1".encode() in environment.split(b"\0")
            time.sleep(0.005)  # empty for a moment while one program replaces another in the process
    except OSError:
        pass
    return False


def _still_there(family: set[_Process]) -> set[_Process]:
    running = {(p.pid, p.started) for p in _processes() or ()}  # a number alone may have been given anew
    return {p for p in family if (p.pid, p.started) in running}
