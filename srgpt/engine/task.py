"""One shard's worth of work: rows go in one by one, kept rows and rejected ones come out, and a shard is written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

from srgpt.records import Rejected
from srgpt.storage import Shard, read_shard, write_shard

Row = dict[str, Any]

Device = Literal["cpu", "auto", "cuda"]
"""What a stage works on, as in ``perceive.device``: the CPU, a GPU where there is one, or a GPU that must be there."""

KILLS_WORKER = "kills-worker"
"""Reason of a row that is set aside because a worker process died on it twice."""

_ROWS_AT_ONCE = 16
"""Rows that are plain Python values at a time; all others stay Arrow, which is compact."""


class Mapped(NamedTuple):
    """What a transform makes of a shard: the rows to write, what was set aside, and counts that rows do not tell.

    Counts add up over shards (:meth:`TableWriter.counts`); they may differ from run to run, rows may not.
    """

    rows: list[Row]
    rejected: list[Rejected]
    counts: Mapping[str, int] | None = None


Transform = Callable[[Iterator[Any]], Mapped]
"""What a stage does with one shard: a module-level function, or a ``functools.partial`` of one.

It sees the shard's items in order, and its result depends on nothing else. An item is best taken when it is
worked on, so that the engine knows whose fault it is if the process dies.
"""


class Task(Protocol):
    """One shard's worth of input: small and picklable; ``name`` is the shard that is written."""

    @property
    def name(self) -> str:
        """File name of the shard."""
        ...

    @property
    def size(self) -> int:
        """Number of items."""
        ...

    def items(self) -> Iterator[tuple[str, Any]]:
        """Yield what the transform sees, each with the id that it is set aside under."""
        ...


@dataclass(frozen=True)
class TableTask:
    """The rows of one shard of the table at ``url``; ``columns`` limits what is decoded."""

    url: str
    table: str
    shard: Shard
    columns: tuple[str, ...] | None = None

    @property
    def name(self) -> str:
        """The shard that is written has the name of the one that is read."""
        return self.shard.name

    @property
    def size(self) -> int:
        """Number of rows."""
        return self.shard.rows

    def items(self) -> Iterator[tuple[str, Row]]:
        """Yield each row with its scene's id."""
        columns = None if self.columns is None else list(self.columns)
        table = read_shard(self.url, self.shard, self.table, columns)
        for batch in table.to_batches(max_chunksize=_ROWS_AT_ONCE):
            for row in batch.to_pylist():
                yield row["scene_id"], row


class Mark(NamedTuple):
    """How far a transform came: the item that it took last, -1 for none; ``all_taken`` once there is no other."""

    item: int = -1
    all_taken: bool = False


def counting(on_items: Callable[[int], object]) -> Callable[[Mark], None]:
    """Return a listener to the marks of one task that passes on how many items are new; retries are not."""
    seen = 0

    def on_mark(mark: Mark) -> None:
        nonlocal seen
        if mark.item >= seen:
            on_items(mark.item + 1 - seen)
            seen = mark.item + 1

    return on_mark


@dataclass(frozen=True)
class Order:
    """What to do with a task: all of it but ``without``; or, for a trial that writes nothing, only ``only``."""

    task: Task
    without: AbstractSet[int] = frozenset()
    only: AbstractSet[int] | None = None


@dataclass(frozen=True)
class Done:
    """A finished shard: how many items it was made of, and how many were set aside, by reason."""

    items: int
    rejected: Counter[str]


class Runs(Protocol):
    """What is done with every task: picklable, and loaded once in each process."""

    def run(self, order: Order, on_mark: Callable[[Mark], object]) -> Done:
        """Do one task; ``on_mark`` hears of each item before it is worked on."""
        ...


@dataclass(frozen=True)
class Job:
    """What is done with every task of a table: the transform, and the work folder and table that its rows go to."""

    transform: Transform
    work: str
    table: str

    def run(self, order: Order, on_mark: Callable[[Mark], object]) -> Done:
        """Map one task and write its shard; ``on_mark`` hears of each item before it is worked on."""
        quarantined: list[Rejected] = []
        mapped = self.transform(taken(order, quarantined, on_mark))
        rejected = [*mapped.rejected, *quarantined]
        if order.only is None:
            write_shard(self.work, order.task.name, self.table, mapped.rows, rejected, mapped.counts)
        return Done(order.task.size, Counter(r.reason for r in rejected))


def taken(order: Order, quarantined: list[Rejected], on_mark: Callable[[Mark], object]) -> Iterator[Any]:
    """Yield the items to work on, telling of each; those to go without are added to ``quarantined``."""
    index = -1
    for index, (item_id, item) in enumerate(order.task.items()):
        if order.only is not None and index not in order.only:
            continue
        if index in order.without:
            quarantined.append(Rejected(item_id, KILLS_WORKER, _DETAIL))
            continue
        on_mark(Mark(index))
        yield item
    on_mark(Mark(index, all_taken=True))


_DETAIL = (
    "the process that worked on it died, and did so again when it was tried alone "
    "(a crash in native code, or out of memory)"
)


def table_tasks(
    url: str, table: str, shards: Iterable[Shard], columns: Iterable[str] | None = None
) -> list[TableTask]:
    """Return one task per shard of the table at ``url``."""
    chosen = None if columns is None else tuple(columns)
    return [TableTask(url, table, shard, chosen) for shard in shards]
