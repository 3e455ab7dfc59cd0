"""Small hand-made tables: pictures of two coloured blocks, and questions about them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from srgpt.records import (
    CATEGORIES,
    AskedRegion,
    Conversation,
    Prediction,
    Region,
    Scene,
    Turn,
    encode_depth,
    encode_png,
    encode_rle,
)
from srgpt.storage import TableWriter, shard_name, write_shard

SIZE = 32


def make_scene(index: int, *, depth: bool = True) -> Scene:
    """A picture with a red block on the left and a blue one on the right."""
    rng = np.random.default_rng(index)
    rgb = rng.integers(90, 160, (SIZE, SIZE, 3), dtype=np.uint8)
    metres = np.full((SIZE, SIZE), 4.0)
    regions = []
    for number, (x, colour) in enumerate(((3, (220, 40, 40)), (19, (40, 60, 220)))):
        mask = np.zeros((SIZE, SIZE), dtype=bool)
        top = int(rng.integers(4, 14))
        mask[top : top + 12, x : x + 9] = True
        rgb[mask] = colour
        metres[mask] = 1.5 + number
        box = (float(x), float(top), float(x + 9), float(top + 12))
        regions.append(Region(number + 5, ("chair", "lamp")[number], "", box, encode_rle(mask), "given"))
    return Scene(
        "bench", f"s{index:03d}", SIZE, SIZE, encode_png(rgb), tuple(regions),
        depth=encode_depth(metres) if depth else None, depth_source="given" if depth else None,
    )  # fmt: skip


def make_turns(index: int, count: int) -> tuple[Turn, ...]:
    """Questions of all categories in turn, starting anywhere."""
    turns = []
    for k in range(count):
        category = CATEGORIES[(index * count + k) % len(CATEGORIES)]
        if category == "direction":
            turns.append(
                Turn("Where is <region1> from <region0>?", "3 o'clock", category, (5, 6), 3.0, "clock_hours")
            )
        elif category.endswith("_data"):
            turns.append(Turn("How wide is <region0>?", "1.25 meters", category, (5,), 1.25, "metres"))
        elif category.endswith("_choice"):
            turns.append(
                Turn("Which is it, <region0> or <region1>?", "Region [1]", category, (6, 5), 0.0, "truth")
            )
        else:
            turns.append(Turn("Is <region0> so beside <region1>?", "Yes.", category, (5, 6), 1.0, "truth"))
    return tuple(turns)


def make_conversation(scene: Scene, index: int, turns: int = 8) -> Conversation:
    """A conversation about a scene of :func:`make_scene`."""
    regions = tuple(AskedRegion(r.id, r.category, r.rle, r.bbox) for r in scene.regions)
    return Conversation(
        scene.dataset, scene.scene_id, f"{scene.scene_id}-0", "cuboids", SIZE, SIZE, regions,
        make_turns(index, turns),
    )  # fmt: skip


def write_tables(
    folder: Path, scenes: int = 6, *, shards: int = 2, depth: bool = True, turns: int = 8
) -> str:
    """Write perceived scenes and conversations; return the conversations' URL."""
    perceived, conversations = str(folder / "perceived" / "bench"), str(folder / "conversations" / "bench")
    made = [make_scene(i, depth=depth) for i in range(scenes)]
    asked = [make_conversation(s, i, turns) for i, s in enumerate(made)]
    names = [shard_name(k) for k in range(shards)]
    for url, table, stage, rows, inputs in (
        (perceived, "scenes", "perceive", made, {}),
        (conversations, "conversations", "ask", asked, {"perceived": perceived}),
    ):
        writer = TableWriter(url, table, stage=stage, dataset="bench", params={}, inputs=inputs)
        for k, name in enumerate(names):
            write_shard(writer.work, name, table, [r.to_row() for r in rows[k::shards]])
        writer.commit(names)
    return conversations


def prediction(
    category: str, *, success: bool, turn: int = 0, scene: str = "s0", inputs: str = "rgbd", **changes: object
) -> Prediction:
    """A graded answer."""
    fields = {
        "dataset": "bench", "scene_id": scene, "conversation_id": f"{scene}-0", "turn": turn,
        "category": category, "question": "?", "answer": "yes", "prediction": "yes", "value": 1.0,
        "unit": "truth",
        "predicted_value": 1.0, "success": success, "error": None, "inputs": inputs, "regions": (5,),
    }  # fmt: skip
    return Prediction(**{**fields, **changes})  # type: ignore[arg-type]
