"""``srgpt publish``: conversations, and the pictures that they are about, in a form for other programs.

Tables are walked shard by shard, each with its shard of scenes, so that no more than one is in memory.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from srgpt import __version__
from srgpt.errors import InputError
from srgpt.records import Conversation, Rejected, Scene
from srgpt.sources.pictures import UnusableError
from srgpt.storage import (
    REJECTED,
    Manifest,
    read_manifest,
    read_shard,
    scenes_of,
    staged_folder,
    write_json,
)

FORMATS = ("osd", "huggingface")

PUBLICATION = "publication.json"

Pair = tuple[Conversation, Scene | None]


@dataclass
class Publication:
    """What is being published and where to. ``scenes`` is None where pictures are left out."""

    manifest: Manifest
    source: str
    scenes: str | None
    folder: Path
    licence: str = ""
    rows: int = 0
    turns: int = 0
    regions: int = 0
    categories: Counter[str] = field(default_factory=Counter)
    licences: Counter[str] = field(default_factory=Counter)
    rejected: list[Rejected] = field(default_factory=list)

    def shards(self) -> Iterator[list[Pair]]:
        """Yield the conversations of each shard, each with its scene."""
        pictured = (
            {} if self.scenes is None else {s.name: s for s in read_manifest(self.scenes, "scenes").shards}
        )
        for shard in self.manifest.shards:
            rows = read_shard(self.source, shard, "conversations").to_pylist()
            scenes: dict[str, Scene] = {}
            if self.scenes is not None:
                if shard.name not in pictured:
                    raise InputError(
                        f"{self.scenes}: has no shard {shard.name}, from which {self.source} was made"
                    )
                found = read_shard(self.scenes, pictured[shard.name], "scenes").to_pylist()
                scenes = {row["scene_id"]: Scene.from_row(row) for row in found}
            talks = [Conversation.from_row(row) for row in rows]
            yield [(talk, self._scene(scenes, talk)) for talk in talks]

    def _scene(self, scenes: dict[str, Scene], talk: Conversation) -> Scene | None:
        if self.scenes is None:
            return None
        if talk.scene_id not in scenes:
            raise InputError(
                f"{self.scenes}: lacks scene {talk.scene_id} of conversation {talk.conversation_id}"
            )
        scene = scenes[talk.scene_id]
        if not scene.image:
            raise InputError(f"{self.scenes}: was imported without pictures. Publish with --without-images.")
        return scene

    def count(self, talk: Conversation, scene: Scene | None) -> None:
        """Add a published conversation to the statistics."""
        self.rows += 1
        self.turns += len(talk.turns)
        self.regions += len(talk.regions)
        self.categories.update(turn.category for turn in talk.turns)
        if scene is not None:
            self.licences[scene.licence or "not stated"] += 1

    def set_aside(self, talk: Conversation, error: UnusableError) -> None:
        """Leave a conversation out."""
        self.rejected.append(Rejected(talk.conversation_id, error.reason, error.detail))

    def record(self, form: str) -> dict[str, Any]:
        """Return what ``publication.json`` holds."""
        return {
            "format": form,
            "dataset": self.manifest.dataset,
            "fingerprint": self.manifest.fingerprint,
            "code_version": __version__,
            "rows": self.rows,
            "turns": self.turns,
            "regions": self.regions,
            "pictures": self.scenes is not None,
            "categories": dict(sorted(self.categories.items())),
            "licences": dict(sorted(self.licences.items())),
            "rejected": dict(sorted(Counter(r.reason for r in self.rejected).items())),
        }


def run(source: str, out: str, form: str, *, images: bool = True, licence: str = "") -> dict[str, Any]:
    """Publish the conversations at ``source`` as the folder ``out``; return what its ``publication.json`` says.

    ``form`` is ``osd`` or ``huggingface``. What the format cannot say is set aside in ``rejected.jsonl``. Raises
    :class:`InputError` where there is nothing to publish, or no pictures although ``images`` asks for them.
    """
    if form not in FORMATS:
        raise InputError(f"{form!r} is not a format that is written; allowed: {', '.join(FORMATS)}")
    manifest = read_manifest(source, "conversations")
    scenes = scenes_of(source) if images else None
    reads = [url for url in (source, scenes) if url is not None]
    with staged_folder(out, reads=reads) as folder:
        publication = Publication(manifest, source, scenes, folder, licence)
        _writer(form)(publication)
        if not publication.rows:
            raise InputError(f"{source}: not one of {manifest.rows} conversations can be published as {form}")
        if publication.rejected:
            lines = "".join(json.dumps(asdict(r), sort_keys=True) + "\n" for r in publication.rejected)
            (folder / REJECTED).write_text(lines, encoding="utf-8")
        record = publication.record(form)
        write_json(str(folder / PUBLICATION), record)
    return record


def _writer(form: str) -> Callable[[Publication], None]:
    from srgpt.exchange import huggingface, osd_folder

    return {"osd": osd_folder.write, "huggingface": huggingface.write}[form]
