"""What a reading process keeps in memory: encoded shards while they are in use, prepared pictures while there is room.

Both start empty in every process, however it came to its copy: nothing is handed over to workers.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Generic, TypeVar

from srgpt.model.pixels import Picture

V = TypeVar("V")


class _OfThisProcess:
    """Has its state made anew in a process that got it by pickling or by a fork."""

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        self._pid = os.getpid()

    def _check(self) -> None:
        if self._pid != os.getpid():
            self._reset()

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in vars(self).items() if not k.startswith("_")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._reset()


class ShardCache(_OfThisProcess, Generic[V]):
    """Keeps the ``limit`` values that were used last; one thread may make values ahead of their use."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        super().__init__()

    def _reset(self) -> None:
        super()._reset()
        self._lock = threading.Lock()
        self._kept: OrderedDict[Any, Future[V]] = OrderedDict()
        self._thread: ThreadPoolExecutor | None = None

    def get(self, key: Any, make: Callable[[], V]) -> V:
        """Return the value of ``key``, made by ``make`` where it is not here; what ``make`` raises is not kept."""
        future, is_new = self._entry(key)
        if is_new:
            self._fill(key, future, make)
        return future.result()

    def ahead(self, key: Any, make: Callable[[], V]) -> None:
        """Begin to make the value of ``key`` in the background."""
        future, is_new = self._entry(key)
        if is_new:
            if self._thread is None:
                self._thread = ThreadPoolExecutor(1, thread_name_prefix="srgpt-read-ahead")
            self._thread.submit(self._fill, key, future, make)

    def _entry(self, key: Any) -> tuple[Future[V], bool]:
        self._check()
        with self._lock:
            is_new = key not in self._kept
            if is_new:
                self._kept[key] = Future()
                while len(self._kept) > self.limit:
                    self._kept.popitem(last=False)
            self._kept.move_to_end(key)
            return self._kept[key], is_new

    def _fill(self, key: Any, future: Future[V], make: Callable[[], V]) -> None:
        try:
            future.set_result(make())
        except BaseException as error:
            with self._lock:
                self._kept.pop(key, None)
            future.set_exception(error)

    def __len__(self) -> int:
        self._check()
        return len(self._kept)


class PictureCache(_OfThisProcess):
    """Keeps prepared pictures until they take ``limit`` bytes, and from then on those that it has.

    Training passes over all data before it comes back to a picture: a cache that made room for the latest would drop
    each just before its use.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        super().__init__()

    def _reset(self) -> None:
        super()._reset()
        self.nbytes = 0
        self._kept: dict[Any, Picture] = {}

    def get(self, key: Any, make: Callable[[], Picture]) -> Picture:
        """Return the picture of ``key``, made by ``make`` where it is not here."""
        self._check()
        picture = self._kept.get(key)
        if picture is None:
            picture = make()
            if self.nbytes + picture.nbytes <= self.limit:
                self._kept[key] = picture
                self.nbytes += picture.nbytes
        return picture

    def __len__(self) -> int:
        self._check()
        return len(self._kept)
