"""Conversations joined with the pixels they ask about, by position.

A shard of conversations and the shard of scenes it came from carry the same name, so a join never looks
further than one pair of files.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from srgpt.dataset.sampler import WINDOW, Key
from srgpt.errors import InputError
from srgpt.model.pixels import Picture
from srgpt.model.processing import SrgptProcessor
from srgpt.records import Conversation, Scene
from srgpt.storage import read_manifest, read_rows, read_shard


@dataclass(frozen=True)
class Sample:
    """One conversation with its picture; ``epoch`` and ``index`` seed what is random about it."""

    epoch: int
    index: int
    picture: Picture
    conversation: Conversation


class ConversationDataset:
    """A map-style dataset of one conversations table, read shard by shard and kept in memory while used.

    ``source`` is the conversations table, ``scenes`` the perceived table that it was made from. At most one
    sampler window of shards is kept, as uint8.
    """

    def __init__(self, source: str, scenes: str, processor: SrgptProcessor) -> None:
        self.source, self.scenes, self.processor = source, scenes, processor
        manifest, pixels = read_manifest(source, "conversations"), read_manifest(scenes, "scenes")
        self.fingerprint = manifest.fingerprint
        self.shards = manifest.shards
        self._pixels = {s.name: s for s in pixels.shards}
        missing = [s.name for s in self.shards if s.name not in self._pixels]
        if missing:
            raise InputError(f"{source}: shard(s) {missing[:3]} have no counterpart in {scenes}")
        self.starts = np.concatenate([[0], np.cumsum(self.shard_rows)])
        self._kept: OrderedDict[int, list[tuple[Picture, Conversation]]] = OrderedDict()

    @property
    def shard_rows(self) -> list[int]:
        """Number of conversations in each shard."""
        return [s.rows for s in self.shards]

    def __len__(self) -> int:
        return int(self.starts[-1])

    def __getitem__(self, key: Key) -> Sample:
        epoch, index = key
        number = int(np.searchsorted(self.starts, index, side="right")) - 1
        picture, conversation = self._shard(number)[index - int(self.starts[number])]
        return Sample(epoch, index, picture, conversation)

    def name_of(self, key: Key) -> str:
        """Return the id of a sample's conversation."""
        return self[key].conversation.conversation_id

    def _shard(self, number: int) -> list[tuple[Picture, Conversation]]:
        if number in self._kept:
            self._kept.move_to_end(number)
            return self._kept[number]
        while len(self._kept) >= WINDOW:
            self._kept.popitem(last=False)
        self._kept[number] = rows = self._read(number)
        return rows

    def _read(self, number: int) -> list[tuple[Picture, Conversation]]:
        shard = self.shards[number]
        talks = read_shard(self.source, shard, "conversations").to_pylist()
        conversations = [Conversation.from_row(r) for r in talks]
        wanted = {c.scene_id for c in conversations}
        scenes: dict[str, Scene] = {}
        for row in read_shard(self.scenes, self._pixels[shard.name], "scenes").to_pylist():
            if row["scene_id"] in wanted:
                scenes[row["scene_id"]] = Scene.from_row(row)
        lost = wanted - set(scenes)
        if lost:
            raise InputError(f"{self.scenes}/{shard.name}: lacks scene(s) {sorted(lost)[:3]}")
        return [(self.processor.picture_of(scenes[c.scene_id], c), c) for c in conversations]


def conversation_texts(source: str) -> Iterator[str]:
    """Yield every question and answer of a conversations table, in order: what a tokenizer is trained on."""
    for row in read_rows(source, "conversations", ["turns"]):
        for turn in row["turns"]:
            yield turn["question"]
            yield turn["answer"]
