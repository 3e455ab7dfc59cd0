"""Procedural scenes: physically placed composite objects, rendered with exact ground truth.

``catalog`` says what there is, ``shapes`` what it is made of, ``backdrop`` and ``families`` where it
stands, ``placement`` keeps it physical, ``camera``, ``mesh``, ``textures`` and ``render`` picture it,
``generate`` makes one scene of it all.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

from srgpt.params import IngestParams, ProceduralParams
from srgpt.sources.base import Loaded


@dataclass(frozen=True)
class ProceduralWork:
    """Scenes ``start`` to ``stop`` of a dataset."""

    params: ProceduralParams
    seed: int
    dataset: str
    start: int
    stop: int

    def load(self) -> Loaded:
        """Generate the scenes."""
        from srgpt.sources.procedural.generate import generate

        loaded = Loaded()
        for index in range(self.start, self.stop):
            loaded.add(generate(self.params, self.seed, self.dataset, index))
        return loaded

    def pieces(self) -> Sequence[tuple[str, ProceduralWork]]:
        """Return the work scene by scene."""
        from srgpt.sources.procedural.generate import scene_id

        indices = range(self.start, self.stop)
        return [(scene_id(self.params, i), replace(self, start=i, stop=i + 1)) for i in indices]


class ProceduralSource:
    """Makes ``ingest.scenes`` scenes; each a function of seed, dataset name, index and settings."""

    def __init__(self, params: IngestParams, seed: int, dataset: str) -> None:
        self.params = params
        self.seed = seed
        self.dataset = dataset

    def shards(self) -> Sequence[ProceduralWork]:
        """Return ranges of ``ingest.shard_scenes`` scenes."""
        step, total = self.params.shard_scenes, self.params.scenes
        return [
            ProceduralWork(self.params.procedural, self.seed, self.dataset, start, min(start + step, total))
            for start in range(0, total, step)
        ]

    def identity(self) -> dict[str, Any]:
        """Return seed, number of scenes and generator settings."""
        return {
            "source": "procedural",
            "seed": self.seed,
            "scenes": self.params.scenes,
            "shard_scenes": self.params.shard_scenes,
            "procedural": self.params.procedural.model_dump(mode="json"),
        }

    def statistics(self, set_aside: Collection[str]) -> dict[str, Any]:
        """Return how many scenes were asked for."""
        return {"asked_scenes": self.params.scenes}
