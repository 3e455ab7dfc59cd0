"""A first look at every picture of a source, before its work is dealt out in shards.

It finds what no single shard can know: which pictures look like an earlier one, and the hash of all content, by
which a killed run knows that its input is still the same. Pictures are read and decoded in worker processes, so that
one that crashes its decoder is set aside, or in threads of this process (decoders release Python's lock). They are
judged in order, so that the outcome does not depend on timing. What cannot be used is set aside here already, so
that a broken picture never displaces a sound one that looks the same.
"""

from __future__ import annotations

import hashlib
import itertools
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

from PIL import Image

from srgpt.engine.local import map_local
from srgpt.engine.task import Done, Mark, Order, taken
from srgpt.params import EngineParams
from srgpt.progress import progress_bar, tally
from srgpt.records import Rejected
from srgpt.sources.duplicates import DuplicateIndex, perceptual_hash
from srgpt.sources.pictures import UnusableError

_WINDOW = 256
_MAX_THREADS = 8
"""As many decoded pictures are in memory at a time, however many cores there are."""


class Item(Protocol):
    """What a source knows of one picture before it is read: a dataclass of plain values."""

    @property
    def scene_id(self) -> str:
        """Id of the scene that it becomes."""
        ...


T = TypeVar("T")
ItemT = TypeVar("ItemT", bound=Item)

Look = Callable[[], tuple[str, Callable[[], Image.Image]]]
"""Reads a picture with all that belongs to it; returns the SHA-256 of that and what decodes the picture. Both raise
:class:`UnusableError` for what is to be set aside."""


@dataclass
class Survey(Generic[ItemT]):
    """The items in order, those to set aside with their reasons, and the SHA-256 of items and all content."""

    items: list[ItemT | Rejected] = field(default_factory=list)
    sha256: str = ""

    def shards(self, size: int) -> Iterator[tuple[ItemT | Rejected, ...]]:
        """Yield the items, ``size`` at a time."""
        for start in range(0, len(self.items), size):
            yield tuple(self.items[start : start + size])


def survey(
    candidates: Iterable[tuple[ItemT, Look] | Rejected],
    *,
    max_distance: int | None,
    total: int,
    description: str,
    engine: EngineParams | None = None,
) -> Survey[ItemT]:
    """Look at every candidate: in ``engine.workers`` processes of this machine, else in at most eight threads.

    ``max_distance`` is that of :class:`DuplicateIndex`; None keeps duplicates, and then nothing is decoded here. For
    processes, looks must be picklable.
    """
    index = None if max_distance is None else DuplicateIndex(max_distance)
    content = hashlib.sha256()
    result: Survey[ItemT] = Survey()
    if engine is None or engine.workers == 1:
        seen = _in_threads(candidates, index is not None, total, description)
    else:
        seen = _in_processes(candidates, index is not None, total, description, engine)
    for item, sha256, value in seen:
        kept = item
        if index is not None and value is not None and not isinstance(item, Rejected):
            twin = index.add(item.scene_id, value)
            if twin is not None:
                kept = Rejected(item.scene_id, "duplicate", f"looks like {twin}, which is kept")
        result.items.append(kept)
        content.update(f"{kept!r}\0{sha256}\0".encode())
    result.sha256 = content.hexdigest()
    return result


Seen = tuple[Any, str, int | None]
"""The item or why it is set aside, the SHA-256 of its content, and its perceptual hash where that is wanted."""


def _in_threads(candidates: Iterable[Any], hashed: bool, total: int, description: str) -> Iterator[Seen]:
    threads = min(_MAX_THREADS, (os.cpu_count() or 1) + 4)
    with (
        progress_bar(description, total=total, unit="pictures") as advance,
        ThreadPoolExecutor(threads) as pool,
    ):
        for window in _windows(candidates):
            yield from pool.map(partial(_examine, hashed=hashed), window)
            advance(len(window))


def _in_processes(
    candidates: Iterable[Any], hashed: bool, total: int, description: str, engine: EngineParams
) -> Iterator[Seen]:
    tasks = [_Looks(f"{description}, part {i}", tuple(w)) for i, w in enumerate(_windows(candidates))]
    if tasks:
        with tally(description, total=total, unit="pictures") as counted:
            done = map_local(_LookJob(hashed), tasks, engine, counted, device="cpu")
        for part in done:
            assert isinstance(part, _Looked)
            yield from part.seen


@dataclass(frozen=True)
class _Looks:
    """One worker's worth of candidates."""

    name: str
    candidates: tuple[Any, ...]

    @property
    def size(self) -> int:
        return len(self.candidates)

    def items(self) -> Iterator[tuple[str, Any]]:
        for candidate in self.candidates:
            yield item_id(candidate if isinstance(candidate, Rejected) else candidate[0]), candidate


@dataclass(frozen=True)
class _Looked(Done):
    """What was seen of each candidate, in order."""

    seen: tuple[Seen, ...]


@dataclass(frozen=True)
class _LookJob:
    hashed: bool

    def run(self, order: Order, on_mark: Callable[[Mark], object]) -> _Looked:
        """Look at the candidates of a task one after the other."""
        quarantined: list[Rejected] = []
        looks = taken(order, quarantined, on_mark)
        seen = [_examine(candidate, hashed=self.hashed) for candidate in looks]
        for place, killer in zip(sorted(order.without), quarantined, strict=False):
            seen.insert(place, (killer, "", None))
        reasons = Counter(item.reason for item, _, _ in seen if isinstance(item, Rejected))
        return _Looked(order.task.size, reasons, tuple(seen))


def _examine(candidate: Any, *, hashed: bool) -> Seen:
    """Look at a candidate, ``(item, look)`` or rejected already."""
    if isinstance(candidate, Rejected):
        return candidate, "", None
    item, look = candidate
    sha256 = ""
    try:
        sha256, decode = look()
        return item, sha256, perceptual_hash(decode()) if hashed else None
    except UnusableError as error:
        return Rejected(item.scene_id, error.reason, error.detail), sha256, None


def _windows(candidates: Iterable[T]) -> Iterator[list[T]]:
    """Yield lists of candidates: as many as are in memory at a time."""
    rest = iter(candidates)
    while window := list(itertools.islice(rest, _WINDOW)):
        yield window


def item_id(item: Item | Rejected) -> str:
    """Return the id of a scene, or of what was set aside."""
    return item.id if isinstance(item, Rejected) else item.scene_id
