"""What every source offers to *ingest*."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from srgpt.records import Rejected, Scene


@dataclass
class Loaded:
    """One shard's worth of a source: its scenes in order, and what was set aside."""

    scenes: list[Scene] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)

    def add(self, item: Scene | Rejected) -> None:
        """Keep a scene, or set a rejected one aside."""
        if isinstance(item, Scene):
            self.scenes.append(item)
        else:
            self.rejected.append(item)


class Work(Protocol):
    """One shard's worth of work: small, picklable, and loaded in any process with the same result."""

    def load(self) -> Loaded:
        """Load or make the scenes."""
        ...


@runtime_checkable
class Divisible(Protocol):
    """Work that can be done one picture at a time, so that a picture that crashes its decoder is known."""

    def load(self) -> Loaded:
        """Load or make the scenes."""
        ...

    def pieces(self) -> Sequence[tuple[str, Work]]:
        """Return the work in pieces of one picture, each with its scene's id.

        Loading them in order gives what loading the whole does.
        """
        ...


class Source(Protocol):
    """A place that scenes come from."""

    def shards(self) -> Sequence[Work]:
        """Return the work in shards, in order."""
        ...

    def identity(self) -> dict[str, Any]:
        """Return what the scenes are a function of (settings, hashes; no paths), for the manifest."""
        ...

    def statistics(self, set_aside: Collection[str]) -> dict[str, Any]:
        """Return counts for the manifest: what was read, and ``objects`` and ``dropped`` where a source drops some.

        ``set_aside`` holds the ids of the scenes that could not be loaded: what was in them does not count.
        """
        ...
