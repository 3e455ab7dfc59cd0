"""A worker: a child process that runs one task after the other, and is replaced when it dies.

A process can die of its input (a crash in native code) or of its surroundings (out of memory, ``kill -9``). The
child says which item it takes before it works on it, so that its parent knows where it died and tries that item
alone. If that kills a second process, the item is quarantined: set aside with the reason ``kills-worker``, and
the shard is made without it. If it does not, the shard is simply tried again; a second death at the same place
looks for a single item to blame among all that were taken, which finds it where a transform works on many
items at once.
"""

from __future__ import annotations

import os
import signal
import threading
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from multiprocessing.pool import ExceptionWithTraceback  # type: ignore[attr-defined]
from multiprocessing.reduction import ForkingPickler
from typing import Any

from srgpt.engine.task import Done, Mark, Order, Runs, Task, counting
from srgpt.errors import SrgptError

MAX_DEATHS = 10
"""So many deaths over one shard without an item to blame mean that the machine is at fault, not the input."""

MAX_QUARANTINED = 10
"""So many items of one shard that kill a worker mean the same."""

ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
"""Environment of a worker: it has one core, and sums in one order, however many workers there are."""

VISIBLE_GPUS = "CUDA_VISIBLE_DEVICES"

_processes = threading.Lock()
"""``multiprocessing`` keeps one list of children and looks after all of them whenever one is started."""


class StoppedError(Exception):
    """The worker was closed while it worked."""


class Worker:
    """One child process with what it loaded (models), and the rules for when it dies.

    ``environment`` is set in the child before the job's modules are imported. ``on_items`` is called with the
    number of items that were newly begun; ``say`` with a line for people when a process has died.
    """

    def __init__(
        self,
        job: Runs,
        environment: Mapping[str, str],
        *,
        on_items: Callable[[int], object] = lambda _: None,
        say: Callable[[str], object] = lambda _: None,
    ) -> None:
        self._job = job
        self._environment = dict(environment)
        self._on_items = on_items
        self._say = say
        self._closed = False
        self._process: Any = None
        self._connection: Connection | None = None

    def run(self, task: Task) -> Done:
        """Do one task, whatever it takes.

        Raises what the transform raises, and :class:`SrgptError` where processes keep dying without an item
        that explains it.
        """
        heard = counting(self._on_items)
        guilty: set[int] = set()
        deaths = Counter[Mark]()
        while True:
            outcome = self._attempt(Order(task, without=frozenset(guilty)), heard)
            if isinstance(outcome, Done):
                heard(Mark(task.size - 1))
                return outcome
            deaths[outcome] += 1
            self._say(
                f"{task.name}: a worker died {_place(outcome)}; it is replaced, and the shard tried again"
            )
            found = self._find(task, outcome, guilty, repeated=deaths[outcome] > 1)
            if found is not None:
                self._say(f"{task.name}: item {found} kills workers and is set aside")
                guilty.add(found)
                deaths.clear()
            if deaths.total() >= MAX_DEATHS or len(guilty) >= MAX_QUARANTINED:
                raise SrgptError(
                    f"{task.name}: worker processes keep dying (out of memory, or a broken installation?). "
                    "Finished shards are kept; run the same command again with fewer engine.workers or "
                    "smaller shards (ingest.shard_scenes)."
                )

    def close(self) -> None:
        """End the child, whatever it is doing; nothing of a finished shard is lost."""
        self._closed = True
        self._end()

    def _find(self, task: Task, mark: Mark, guilty: set[int], *, repeated: bool) -> int | None:
        """Return an item that kills a process by itself; None where there is none."""
        if mark.item >= 0 and not mark.all_taken and self._kills(task, [mark.item]):
            return mark.item
        suspects = [i for i in range(mark.item + 1) if i not in guilty]
        if not repeated or not self._kills(task, suspects):
            return None
        while len(suspects) > 1:
            half = len(suspects) // 2
            suspects = suspects[:half] if self._kills(task, suspects[:half]) else suspects[half:]
        return suspects[0] if self._kills(task, suspects) else None

    def _kills(self, task: Task, items: Iterable[int]) -> bool:
        chosen = frozenset(items)
        return bool(chosen) and isinstance(self._attempt(Order(task, only=chosen)), Mark)

    def _attempt(self, order: Order, heard: Callable[[Mark], object] = lambda _: None) -> Done | Mark:
        """Let the child carry out an order; return how far it came if it dies on the way."""
        mark = Mark()
        try:
            connection = self._connection or self._start()
            connection.send(order)
            while isinstance(told := connection.recv(), Mark):
                mark = told
                heard(mark)
        except (EOFError, ConnectionError) as error:
            self._end()
            if self._closed:
                raise StoppedError from error
            return mark
        if isinstance(told, Exception):
            raise told
        return told

    def _start(self) -> Connection:
        # forkserver: fsspec's event loop and Embree's threads do not survive a fork.
        context = get_context("forkserver")
        ours, theirs = context.Pipe()
        with _processes:
            if self._closed:
                raise StoppedError
            self._process = context.Process(target=_serve, args=(theirs,), daemon=True)
            with _environment_of(ONE_THREAD):
                self._process.start()
        theirs.close()
        self._connection = ours
        ours.send(self._environment)
        ours.send(self._job)
        return ours

    def _end(self) -> None:
        with _processes:
            if self._process is not None:
                self._process.kill()
                self._process.join()
            self._process = self._connection = None


@contextmanager
def _environment_of(values: Mapping[str, str]) -> Iterator[None]:
    """Set variables of this process within.

    BLAS reads its threads when a child imports numpy, which comes before the child's own environment. The server
    that children are forked from, and with it all of them, has the environment in which the first was started.
    """
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _place(mark: Mark) -> str:
    if mark.all_taken:
        return "after its last item"
    return "before its first item" if mark.item < 0 else f"at item {mark.item}"


def _serve(connection: Connection) -> None:
    """Carry out orders until the parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    threading.Thread(target=_die_with_parent, daemon=True).start()
    os.environ.update(connection.recv())
    try:
        try:
            job: Runs = connection.recv()
        except (ImportError, AttributeError) as error:
            connection.send(_portable(error))
            return
        while True:
            connection.send(_outcome(job, connection.recv(), connection))
    except (EOFError, ConnectionError):
        return


def _outcome(job: Runs, order: Order, connection: Connection) -> Done | ExceptionWithTraceback:
    try:
        return job.run(order, connection.send)
    except Exception as error:
        return _portable(error)


def _portable(error: Exception) -> ExceptionWithTraceback:
    """Return the error as it can travel: itself with its traceback as a note, or at least its words."""
    wrapped = ExceptionWithTraceback(error, error.__traceback__)
    try:
        ForkingPickler.loads(ForkingPickler.dumps(wrapped))
    except Exception:
        plain = SrgptError("".join(traceback.format_exception(error)))
        return ExceptionWithTraceback(plain, error.__traceback__)
    return wrapped


def _die_with_parent() -> None:
    """Leave at once when the parent is killed: a shard that the next run makes is not this process's any more."""
    parent = parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
