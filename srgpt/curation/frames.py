"""Flatten the tables of the chain into pandas frames, one row per thing that a rule can judge.

Pixels never enter a frame. Each picture, depth map and mask is decoded once, in passing, and leaves a few
figures and a *problem*: None, or a sentence that says what is wrong with it. The first columns of every frame
say where its row came from (``KEYS``), so that a broken rule can name file and row.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from srgpt import storage
from srgpt.curation import checks

KEYS = {
    "scenes": ("file", "row", "scene_id"),
    "regions": ("file", "row", "scene_id", "region"),
    "graphs": ("file", "row", "scene_id"),
    "nodes": ("file", "row", "scene_id", "region"),
    "conversations": ("file", "row", "scene_id", "conversation_id"),
    "asked_regions": ("file", "row", "scene_id", "conversation_id", "region"),
    "turns": ("file", "row", "scene_id", "conversation_id", "turn"),
    "tables": ("table",),
    "balance": ("category",),
    "quality": ("fact",),
}
"""Frame -> the columns that identify one of its rows. ``file`` is ``ROLE/SHARD``."""

Row = dict[str, Any]

_MASKS_KEPT = 200_000
_THREADS = 4
_CHUNK = 32


@dataclass
class Frames:
    """Rows collected so far, by frame, and what the tables downstream need to know of those upstream."""

    rows: dict[str, list[Row]] = field(default_factory=dict)
    scenes: dict[str, Row] = field(default_factory=dict)
    """Scene id -> size, gravity and region ids in the perceived table."""
    graphs: dict[str, Row] = field(default_factory=dict)
    """Scene id -> the graph's row."""
    synthetic: bool = True
    """Whether every picture was generated."""
    truths: set[str] = field(default_factory=set)
    """Where the conversations' facts came from."""
    masks: dict[Any, tuple[str | None, int]] = field(default_factory=dict)
    """Masks checked already: one mask passes through four tables."""

    def add(self, frame: str, row: Row) -> None:
        """Append one row to a frame."""
        self.rows.setdefault(frame, []).append(row)

    def frame(self, name: str) -> pd.DataFrame:
        """Return one frame."""
        return pd.DataFrame(self.rows.get(name, []))

    def mask(self, rle: Row | None, width: int, height: int) -> Row:
        """Return the columns that describe one mask."""
        if rle is None:
            return {"mask_problem": None, "mask_pixels": None}
        key = (rle["counts"], tuple(rle["size"] or ()), width, height)
        if key not in self.masks:
            if len(self.masks) > _MASKS_KEPT:
                self.masks.clear()
            self.masks[key] = checks.mask_columns(rle, width, height)
        problem, pixels = self.masks[key]
        return {"mask_problem": problem, "mask_pixels": pixels}


def collect(urls: dict[str, str], advance: Callable[..., None]) -> Frames:
    """Flatten the tables at ``urls`` (scenes, perceived, graphs, conversations); raises InputError on broken
    files.

    ``advance`` is called once per shard.
    """
    frames = Frames()
    add_scenes(frames, urls["scenes"], "scenes", advance)
    add_scenes(frames, urls["perceived"], "perceived", advance)
    add_graphs(frames, urls["graphs"], advance)
    add_conversations(frames, urls["conversations"], advance)
    return frames


# Scenes -----------------------------------------------------------------------------------------------------


def add_scenes(frames: Frames, url: str, role: str, advance: Callable[..., None]) -> None:
    """Add the ``scenes`` and ``regions`` rows of a scenes table; ``role`` is ``scenes`` or ``perceived``."""
    with ThreadPoolExecutor(_THREADS) as pool:  # decoding PNG and JPEG releases the interpreter
        for shard in storage.read_manifest(url, "scenes").shards:
            rows = storage.read_shard(url, shard, "scenes").to_pylist()
            parts = pool.map(_pixel_columns, (rows[i : i + _CHUNK] for i in range(0, len(rows), _CHUNK)))
            pixels = [columns for part in parts for columns in part]
            for index, row in enumerate(rows):
                place = {
                    "file": f"{role}/{shard.name}",
                    "row": index,
                    "scene_id": row["scene_id"],
                    "table": role,
                }
                frames.add("scenes", {**place, **_scene_columns(row), **pixels[index]})
                for region in row["regions"] or []:
                    frames.add("regions", {**place, **_region_columns(frames, region, row)})
                frames.synthetic &= str(row["uri"]).startswith("procedural://")
                if role == "perceived":
                    frames.scenes[row["scene_id"]] = {
                        "size": (row["width"], row["height"]),
                        "gravity": row["gravity"],
                        "regions": {r["id"] for r in row["regions"] or []},
                    }
            advance(1, role)


def _pixel_columns(rows: list[Row]) -> list[Row]:
    return [
        {
            "image_problem": checks.image_problem(row["image"], row["width"], row["height"]),
            **checks.depth_columns(row["depth"], row["width"], row["height"]),
        }
        for row in rows
    ]


def _scene_columns(row: Row) -> Row:
    return {
        "dataset": row["dataset"],
        "width": row["width"],
        "height": row["height"],
        "regions": len(row["regions"] or []),
        "intrinsics_problem": checks.intrinsics_problem(row["intrinsics"]),
        "gravity_problem": checks.gravity_problem(row["gravity"]),
        "provenance_problem": checks.provenance_problem(row),
    }


def _region_columns(frames: Frames, region: Row, scene: Row) -> Row:
    return {
        "region": region["id"],
        "category": region["category"] or None,
        "bbox_problem": checks.bbox_problem(region["bbox"], scene["width"], scene["height"]),
        **frames.mask(region["rle"], scene["width"], scene["height"]),
        "cuboid_problem": checks.box_problem(region["cuboid"]),
        **{name: region[name] for name in ("visibility", "truncation", "score")},
    }


# Graphs -----------------------------------------------------------------------------------------------------


def add_graphs(frames: Frames, url: str, advance: Callable[..., None]) -> None:
    """Add the ``graphs`` and ``nodes`` rows of a graphs table; the perceived scenes must be known already."""
    for shard in storage.read_manifest(url, "graphs").shards:
        for index, row in enumerate(storage.read_shard(url, shard, "graphs").to_pylist()):
            scene = frames.scenes.get(row["scene_id"])
            place = {"file": f"graphs/{shard.name}", "row": index, "scene_id": row["scene_id"]}
            frames.add("graphs", {**place, **_graph_columns(row, scene)})
            for node in row["nodes"] or []:
                frames.add("nodes", {**place, **_node_columns(frames, node, row, scene)})
            frames.graphs[row["scene_id"]] = row
        advance(1, "graphs")


def _graph_columns(row: Row, scene: Row | None) -> Row:
    return {
        "dataset": row["dataset"],
        "scene_problem": _scene_problem(row, None if scene is None else scene["size"], "perceived"),
        "rotation_problem": checks.rotation_problem(
            row["rotation"], None if scene is None else scene["gravity"]
        ),
        "nodes": len(row["nodes"] or []),
    }


def _scene_problem(row: Row, size: tuple[int, int] | None, upstream: str) -> str | None:
    if size is None:
        return f"no such scene in the {upstream} table"
    own = (row["width"], row["height"])
    return None if own == size else f"size {own[0]} x {own[1]}, {size[0]} x {size[1]} in the {upstream} table"


def _node_columns(frames: Frames, node: Row, graph: Row, scene: Row | None) -> Row:
    known = set() if scene is None else scene["regions"]
    given, dropped = node["perceived"] is not None, node["dropped"] is not None
    return {
        "region": node["id"],
        "category": node["category"] or None,
        "region_problem": None
        if node["id"] in known
        else f"region {node['id']} is not in the perceived scene",
        "bbox_problem": checks.bbox_problem(node["bbox"], graph["width"], graph["height"]),
        **frames.mask(node["rle"], graph["width"], graph["height"]),
        "perceived_problem": checks.box_problem(node["perceived"]),
        "oriented_problem": checks.box_problem(node["oriented"]),
        "truth_problem": checks.box_problem(node["truth"]),
        "dropped_problem": "it has a perceived box and a reason for having none"
        if given and dropped
        else None,
        **{name: node[name] for name in ("mask_points", "kept_points", "depth_coverage", "cluster_share")},
    }


# Conversations ----------------------------------------------------------------------------------------------


def add_conversations(frames: Frames, url: str, advance: Callable[..., None]) -> None:
    """Add the ``conversations``, ``asked_regions`` and ``turns`` rows; the graphs must be known already."""
    for shard in storage.read_manifest(url, "conversations").shards:
        for index, row in enumerate(storage.read_shard(url, shard, "conversations").to_pylist()):
            place = {
                "file": f"conversations/{shard.name}",
                "row": index,
                "scene_id": row["scene_id"],
                "conversation_id": row["conversation_id"],
            }
            _add_conversation(frames, row, place)
        advance(1, "conversations")


def _add_conversation(frames: Frames, row: Row, place: Row) -> None:
    frames.truths.add(row["truth"])
    graph = frames.graphs.get(row["scene_id"])
    regions, turns = row["regions"] or [], row["turns"] or []
    size = None if graph is None else (graph["width"], graph["height"])
    frames.add(
        "conversations",
        {
            **place,
            "dataset": row["dataset"],
            "truth": row["truth"],
            "scene_problem": _scene_problem(row, size, "graphs"),
            "regions": len(regions),
            "turns": len(turns),
        },
    )
    nodes = {} if graph is None else {n["id"]: n for n in graph["nodes"] or []}
    for region in regions:
        frames.add("asked_regions", {**place, **_asked_columns(frames, region, row, nodes)})
    known = {r["id"] for r in regions}
    for number, turn in enumerate(turns):
        frames.add("turns", {**place, "turn": number, **turn_columns(turn, known, nodes, row["truth"])})


def _asked_columns(frames: Frames, region: Row, row: Row, nodes: dict[int, Row]) -> Row:
    problem = None if region["id"] in nodes else f"region {region['id']} is not in the scene graph"
    if problem is None and region["rle"] != nodes[region["id"]]["rle"]:
        problem = f"the mask of region {region['id']} is not the one in the scene graph"
    return {
        "region": region["id"],
        "region_problem": problem,
        "bbox_problem": checks.bbox_problem(region["bbox"], row["width"], row["height"]),
        **frames.mask(region["rle"], row["width"], row["height"]),
    }


def turn_columns(turn: Row, known: set[int], nodes: dict[int, Row], truth: str) -> Row:
    """Describe one turn: what it asks, what it answers, and what is wrong with it."""
    return {
        "category": turn["category"],
        "question": turn["question"] or None,
        "answer": turn["answer"] or None,
        "value": turn["value"],
        "unit_problem": checks.unit_problem(turn),
        "value_problem": checks.value_problem(turn),
        "regions_problem": checks.regions_problem(turn, known),
        "region_count_problem": checks.region_count_problem(turn),
        "mentions_problem": checks.mentions_problem(turn),
        "answer_problem": checks.answer_problem(turn),
        "fact_problem": checks.fact_problem(turn, nodes, truth),
    }
