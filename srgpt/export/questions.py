"""The questions that an export is proven with, and that travel with it as its smoke test.

smoke/
  questions.json    question, regions, category, expected answer, and which pictures it is about
  000.jpg|png       the picture, as the benchmark stores it
  000_depth.png
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from srgpt.errors import InputError
from srgpt.model.prompts import Inputs
from srgpt.records import Conversation, Scene
from srgpt.serving.protocol import AskedArea, AskedCamera, Request
from srgpt.storage import Shard, read_manifest, read_shard, scenes_of, write_bytes, write_json

FILE = "questions.json"
_PNG = b"\x89PNG"


@dataclass(frozen=True)
class AskedTurn:
    """One benchmark question with its scene, as it stands in the tables."""

    scene: Scene
    conversation: Conversation
    turn: int

    def request(self) -> Request:
        """Return it as a client would send it."""
        turn = self.conversation.turns[self.turn]
        regions = {r.id: AskedArea(tuple(r.bbox), r.rle) for r in self.conversation.regions}  # type: ignore[arg-type]
        scene = self.scene
        return Request(
            scene.image,
            turn.question,
            tuple(regions[i] for i in turn.regions),
            scene.depth,
            AskedCamera(scene.intrinsics, scene.gravity),
        )


@dataclass(frozen=True)
class SmokeQuestion:
    """A request, the model's own answer to it by what it saw, and which question of the benchmark it is."""

    request: Request
    category: str
    answer: str
    conversation_id: str
    turn: int
    inputs: Inputs


def sample(benchmark: str, count: int) -> list[AskedTurn]:
    """Return ``count`` questions, spread evenly over conversations and over their turns."""
    manifest = read_manifest(benchmark, "conversations")
    if manifest.rows == 0:
        raise InputError(f"{benchmark}: holds no conversations, so parity cannot be shown")
    scenes_url = scenes_of(benchmark)
    pixels = {s.name: s for s in read_manifest(scenes_url, "scenes").shards}
    wanted = np.linspace(0, manifest.rows - 1, min(count, manifest.rows)).round().astype(int).tolist()
    each, more = divmod(count, len(wanted))
    chosen: list[AskedTurn] = []
    start = seen = 0
    for shard in manifest.shards:
        rows = [i - start for i in wanted if start <= i < start + shard.rows]
        start += shard.rows
        if not rows:
            continue
        conversations = _read_conversations(benchmark, shard, rows)
        scenes = _read_scenes(scenes_url, pixels[shard.name], {c.scene_id for c in conversations})
        for conversation in conversations:
            turns = len(conversation.turns)
            # another turn of each conversation, so that all categories come up
            picked = [(seen + k) % turns for k in range(min(each + (seen < more), turns))]
            chosen += [AskedTurn(scenes[conversation.scene_id], conversation, turn) for turn in picked]
            seen += 1
    return chosen


def _read_conversations(url: str, shard: Shard, rows: list[int]) -> list[Conversation]:
    table = read_shard(url, shard, "conversations").take(rows)
    return [Conversation.from_row(row) for row in table.to_pylist()]


def _read_scenes(url: str, shard: Shard, ids: set[str]) -> dict[str, Scene]:
    table = read_shard(url, shard, "scenes").to_pylist()
    return {row["scene_id"]: Scene.from_row(row) for row in table if row["scene_id"] in ids}


def write_smoke(questions: Sequence[SmokeQuestion], folder: Path) -> None:
    """Write questions and their pictures into ``folder``."""
    rows: list[dict[str, Any]] = []
    for number, item in enumerate(questions):
        request = item.request
        suffix = "png" if request.image.startswith(_PNG) else "jpg"
        image = f"{number:03d}.{suffix}"
        write_bytes(str(folder / image), request.image)
        depth = None if request.depth is None else f"{number:03d}_depth.png"
        if depth is not None and request.depth is not None:
            write_bytes(str(folder / depth), request.depth)
        rows.append(
            {
                "image": image,
                "depth": depth,
                "camera": request.camera.to_json(),
                "regions": [r.to_json() for r in request.regions],
                "question": request.question,
                "category": item.category,
                "answer": item.answer,
                "conversation_id": item.conversation_id,
                "turn": item.turn,
                "inputs": item.inputs,
            }
        )
    write_json(str(folder / FILE), rows)


def read_smoke(folder: Path, count: int) -> list[SmokeQuestion]:
    """Read ``count`` questions, spread evenly over those in ``folder`` (all where there are fewer)."""
    path = folder / FILE
    try:
        rows = json.loads(path.read_text())
        indices = np.unique(np.linspace(0, len(rows) - 1, min(count, len(rows))).round().astype(int))
        return [_read(rows[i], folder) for i in indices]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}: the export's smoke questions cannot be read ({error}); export again"
        ) from error


def _read(row: dict[str, Any], folder: Path) -> SmokeQuestion:
    areas = tuple(AskedArea(**r) for r in row["regions"])
    depth = (folder / row["depth"]).read_bytes() if row["depth"] else None
    image, camera = (folder / row["image"]).read_bytes(), AskedCamera(**row["camera"])
    request = Request(image, row["question"], areas, depth, camera)
    own = {name: row[name] for name in ("category", "answer", "conversation_id", "turn", "inputs")}
    return SmokeQuestion(request, **own)
