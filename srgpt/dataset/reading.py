"""Conversations joined with the pixels they ask about, by position.

A shard of conversations and the shard of scenes it came from carry the same name, so a join never looks
further than one pair of files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from srgpt.dataset.cache import PictureCache, ShardCache
from srgpt.dataset.sampler import Key
from srgpt.errors import InputError, SrgptError
from srgpt.model.pixels import Picture
from srgpt.model.processing import SrgptProcessor, View
from srgpt.records import Conversation, Scene
from srgpt.storage import Shard, join, read_manifest, read_rows, read_shard

Change = Callable[[View, Key], View]
"""Changes a picture; whatever is random about it comes from the key."""

SHARDS_KEPT = 16
"""Shards of encoded rows that a table by itself keeps in memory."""

PICTURE_BYTES = 2**30

_EXPANSION = 6
"""About how many times larger a shard of text is in memory than on disk; pictures are compressed in both."""


@dataclass(frozen=True)
class Sample:
    """One conversation with its picture, None where there is none; ``epoch`` and ``index`` seed what is random.

    With ``history`` a turn sees the turns before it.
    """

    epoch: int
    index: int
    picture: Picture | None
    conversation: Conversation
    history: bool = False

    @property
    def key(self) -> Key:
        """What the sampler calls it."""
        return self.epoch, self.index


@dataclass(frozen=True)
class EncodedShard:
    """The rows of one shard as they are stored: pictures as files, text as Arrow."""

    talks: pa.Table
    scenes: pa.Table
    scene_rows: dict[str, int]

    def row(self, number: int) -> tuple[Conversation, Scene]:
        """Return one conversation and its scene."""
        (talk,) = self.talks.slice(number, 1).to_pylist()
        (scene,) = self.scenes.slice(self.scene_rows[talk["scene_id"]], 1).to_pylist()
        return Conversation.from_row(talk), Scene.from_row(scene)


class ConversationDataset:
    """A map-style dataset of one conversations table.

    ``source`` is the conversations table, ``scenes`` the table of pictures that it was made from; either may be on an
    object store. Only manifests are read at first; shards are read when a sample of theirs is asked for, in whichever
    process asks, and pictures are decoded one by one. ``change`` changes each picture at random, as its key has it.
    """

    def __init__(
        self,
        source: str,
        scenes: str,
        processor: SrgptProcessor,
        *,
        history: bool = False,
        change: Change | None = None,
        shards: ShardCache[EncodedShard] | None = None,
        pictures: PictureCache | None = None,
    ) -> None:
        self.source, self.scenes, self.processor = source, scenes, processor
        self.history, self.change = history, change
        manifest, pixels = read_manifest(source, "conversations"), read_manifest(scenes, "scenes")
        self.name, self.shards = manifest.dataset, manifest.shards
        self.fingerprint, self.pixels_fingerprint = manifest.fingerprint, pixels.fingerprint
        by_name = {s.name: s for s in pixels.shards}
        missing = [s.name for s in self.shards if s.name not in by_name]
        if missing:
            raise InputError(f"{source}: shard(s) {missing[:3]} have no counterpart in {scenes}")
        self._scene_shards: list[Shard] = [by_name[s.name] for s in self.shards]
        self.starts = np.concatenate([[0], np.cumsum(self.shard_rows)])
        self._encoded = ShardCache(SHARDS_KEPT) if shards is None else shards
        self._pictures = PictureCache(PICTURE_BYTES) if pictures is None else pictures

    @property
    def shard_rows(self) -> list[int]:
        """Number of conversations in each shard."""
        return [s.rows for s in self.shards]

    @property
    def nbytes(self) -> int:
        """About the memory that all encoded rows would take."""
        return sum(_EXPANSION * s.bytes for s in self.shards) + sum(s.bytes for s in self._scene_shards)

    def __len__(self) -> int:
        return int(self.starts[-1])

    def __getitem__(self, key: Key) -> Sample:
        epoch, index = key
        number, row = self._place(index)
        conversation, scene = self._shard(number).row(row)
        picture = None
        if scene.image:
            where = f"{join(self.scenes, self.shards[number].name)}: scene {scene.scene_id}"
            picture = self._picture(key, scene, conversation, where)
        return Sample(epoch, index, picture, conversation, self.history)

    def _picture(self, key: Key, scene: Scene, conversation: Conversation, where: str) -> Picture:
        """Return a prepared picture: kept and given again, or, where it is changed at random, made anew."""

        def prepare() -> Picture:
            try:
                view = self.processor.view_of(scene, conversation)
                return self.processor.picture(view if self.change is None else self.change(view, key))
            except (SrgptError, OSError, ValueError) as error:
                raise InputError(
                    f"{where} of conversation {conversation.conversation_id}: its picture cannot be prepared "
                    f"({error}). Make the table again, or leave the conversation out."
                ) from error

        return prepare() if self.change is not None else self._pictures.get((self.source, key[1]), prepare)

    def name_of(self, key: Key) -> str:
        """Return the id of a sample's conversation, for messages."""
        number, row = self._place(key[1])
        return str(self._shard(number).talks["conversation_id"][row].as_py())

    def ahead(self, index: int) -> None:
        """Begin to read the shard of a sample that will be asked for soon."""
        number, _ = self._place(index)
        self._encoded.ahead((self.source, number), lambda: self._read(number))

    def _place(self, index: int) -> tuple[int, int]:
        number = int(np.searchsorted(self.starts, index, side="right")) - 1
        return number, index - int(self.starts[number])

    def _shard(self, number: int) -> EncodedShard:
        return self._encoded.get((self.source, number), lambda: self._read(number))

    def _read(self, number: int) -> EncodedShard:
        shard = self.shards[number]
        talks = read_shard(self.source, shard, "conversations")
        scenes = read_shard(self.scenes, self._scene_shards[number], "scenes")
        rows = {scene: k for k, scene in enumerate(scenes["scene_id"].to_pylist())}
        lost = set(talks["scene_id"].to_pylist()) - set(rows)
        if lost:
            raise InputError(f"{self.scenes}/{shard.name}: lacks scene(s) {sorted(lost)[:3]}")
        return EncodedShard(talks, scenes, rows)


def conversation_texts(source: str) -> Iterator[str]:
    """Yield every question and answer of a conversations table, in order: what a tokenizer is trained on."""
    for row in read_rows(source, "conversations", ["turns"]):
        for turn in row["turns"]:
            yield turn["question"]
            yield turn["answer"]
