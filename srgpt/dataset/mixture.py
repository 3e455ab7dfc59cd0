"""A mixture: several tables of conversations as one dataset, each seen so many times an epoch."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import replace

from srgpt.dataset.cache import PictureCache, ShardCache
from srgpt.dataset.reading import Change, ConversationDataset, EncodedShard, Sample
from srgpt.dataset.sampler import Key, Stream
from srgpt.dataset.source import MixtureSource
from srgpt.errors import InputError
from srgpt.model.processing import SrgptProcessor
from srgpt.storage import digest

_MB = 2**20


class Mixture:
    """A map-style dataset over the rows of all tables, one after the other.

    Rows are shuffled within windows of shards that take about ``window_mb`` in memory, encoded; a process that reads
    keeps so much, and up to ``cache_mb`` of prepared pictures, unless ``change`` changes these every time.
    """

    def __init__(
        self,
        sources: Sequence[MixtureSource],
        processor: SrgptProcessor,
        *,
        change: Change | None = None,
        cache_mb: int = 1024,
        window_mb: int = 1024,
    ) -> None:
        if not sources:
            raise InputError("a mixture needs at least one table of conversations")
        wrong = [s.url for s in sources if not 0 < s.weight < float("inf")]
        if wrong:
            raise InputError(f"{wrong[0]}: its weight in the mixture must be more than 0")
        self.sources = tuple(sources)
        shards: ShardCache[EncodedShard] = ShardCache(1)
        pictures = PictureCache(cache_mb * _MB)
        self.tables = [
            ConversationDataset(
                s.url,
                s.scenes,
                processor,
                history=s.history,
                change=change,
                shards=shards,
                pictures=pictures,
            )
            for s in sources
        ]
        self.starts = [0]
        for table in self.tables:
            self.starts.append(self.starts[-1] + len(table))
        share = window_mb * _MB / max(1, sum(t.nbytes for t in self.tables))
        self.streams = tuple(
            Stream(tuple(t.shard_rows), s.weight, max(1, min(len(t.shards), int(share * len(t.shards)))))
            for s, t in zip(sources, self.tables, strict=True)
        )
        # what is in use, and for each table a shard that is read ahead
        shards.limit = sum(s.window + 2 for s in self.streams)

    @property
    def fingerprint(self) -> str:
        """Identity of the data and of its order but for the seed; no place is part of it."""
        parts = [
            [table.fingerprint, table.pixels_fingerprint, source.weight, source.history, stream.window]
            for source, table, stream in zip(self.sources, self.tables, self.streams, strict=True)
        ]
        return digest(parts)

    def __len__(self) -> int:
        return self.starts[-1]

    def __getitem__(self, key: Key) -> Sample:
        table, row = self._place(key)
        return replace(table[row], index=key[1])

    def name_of(self, key: Key) -> str:
        """Return the id of a sample's conversation, for messages."""
        table, row = self._place(key)
        return table.name_of(row)

    def ahead(self, key: Key) -> None:
        """Begin to read what a sample needs that will be asked for soon."""
        table, row = self._place(key)
        table.ahead(row[1])

    def _place(self, key: Key) -> tuple[ConversationDataset, Key]:
        number = bisect_right(self.starts, key[1]) - 1
        return self.tables[number], (key[0], key[1] - self.starts[number])
