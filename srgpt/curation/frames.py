"""Flatten the tables of the chain into frames, one row per thing that a rule can judge, shard by shard.

Pixels never enter a frame. Each picture, depth map and mask is decoded once, in passing, and leaves a few
figures and a *problem*: None, or a sentence that says what is wrong with it. Every stage keeps the names of the
shards that it reads, so what belongs together is in shards of one name, and only these are in memory at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from srgpt import storage
from srgpt.curation import checks
from srgpt.curation.store import Store

Row = dict[str, Any]

TABLES = {"scenes": "scenes", "perceived": "scenes", "graphs": "graphs", "conversations": "conversations"}
"""Role of a table in the chain, upstream first -> the table's kind."""

_MASKS_KEPT = 50_000
_THREADS = 4
_CHUNK = 32
_BOUNDLESS = (2**31, 2**31)
"""The size of a picture of which none is known: boxes must have an area, and can end anywhere."""


@dataclass
class Part:
    """What shards of one name hold: the rows of each table that the chain has, as they are stored.

    ``scenes`` are the perceived ones, or the ingested ones where nothing was perceived.
    """

    scenes: list[Row] = field(default_factory=list)
    graphs: list[Row] = field(default_factory=list)
    conversations: list[Row] = field(default_factory=list)


@dataclass
class Frames:
    """Fills the frames of a dataset, and knows of the shards at hand what tables downstream refer to."""

    store: Store
    roles: frozenset[str] = frozenset(TABLES)
    """The tables that the chain has: what a table lacks that is not there at all is nobody's fault."""
    check_facts: bool = True
    """Whether values are facts of the graphs' boxes (and not SpatialRGPT's own definitions, by points)."""
    imported: bool = False
    """Whether the conversations are an import, which may do without pictures, and so without their sizes."""
    synthetic: bool = True
    """Whether every picture was generated."""
    truths: set[str] = field(default_factory=set)
    """Where the conversations' facts came from."""
    scenes: dict[str, Row] = field(default_factory=dict)
    """Scene id -> size, gravity and region ids in the shard of perceived scenes."""
    graphs: dict[str, Row] = field(default_factory=dict)
    """Scene id -> the graph's row in the shard of graphs."""
    masks: dict[Any, tuple[str | None, int]] = field(default_factory=dict)
    """Masks checked already: one mask passes through four tables."""

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


def collect(frames: Frames, urls: Mapping[str, str], advance: Callable[..., None]) -> Iterator[Part]:
    """Fill the frames from the tables at ``urls`` (by role) and yield what each group of shards holds.

    ``advance`` is called once per shard. Raises :class:`InputError` where a file is not what its manifest says.
    """
    manifests = {role: storage.read_manifest(url, TABLES[role]) for role, url in urls.items()}
    shards = {role: {shard.name: shard for shard in m.shards} for role, m in manifests.items()}
    upstream = "perceived" if "perceived" in urls else "scenes"
    for name in sorted({name for known in shards.values() for name in known}):
        frames.scenes, frames.graphs = {}, {}
        part = Part()
        for role, kind in TABLES.items():
            if role not in urls or name not in shards[role]:
                continue
            rows = storage.read_shard(urls[role], shards[role][name], kind).to_pylist()
            file = f"{role}/{name}"
            if kind == "scenes":
                # an import knows the pictures of one shard at a time, and others' rows repeat them
                scope = file if manifests[role].stage == "import" else role
                add_scenes(frames, rows, role, file, scope=scope, known=role == upstream)
                if role == upstream:
                    part.scenes = rows
            elif kind == "graphs":
                add_graphs(frames, rows, file)
                part.graphs = rows
            else:
                add_conversations(frames, rows, file)
                part.conversations = rows
            advance(1, role)
        yield part


# Scenes -----------------------------------------------------------------------------------------------------


def add_scenes(frames: Frames, rows: list[Row], role: str, file: str, *, scope: str, known: bool) -> None:
    """Add the ``scenes`` and ``regions`` rows of a shard; ``known``: tables downstream refer to these scenes.

    Scene ids are unique within ``scope``.
    """
    with ThreadPoolExecutor(_THREADS) as pool:  # decoding PNG and JPEG releases the interpreter
        describe = partial(_pixel_columns, need_pictures=not frames.imported)
        parts = pool.map(describe, (rows[i : i + _CHUNK] for i in range(0, len(rows), _CHUNK)))
        pixels = [columns for part in parts for columns in part]
    for index, row in enumerate(rows):
        place = {"file": file, "row": index, "scene_id": row["scene_id"]}
        key = f"{scope}/{row['scene_id']}"
        frames.store.add(
            "scenes", {**place, "table": role, "key": key, **_scene_columns(row), **pixels[index]}
        )
        for region in row["regions"] or []:
            columns = _region_columns(frames, region, row)
            frames.store.add("regions", {**place, "key": f"{key}/{region['id']}", **columns})
        frames.synthetic &= str(row["uri"]).startswith("procedural://")
        if known:
            frames.scenes[row["scene_id"]] = {
                "size": (row["width"], row["height"]),
                "gravity": row["gravity"],
                "regions": {r["id"] for r in row["regions"] or []},
            }


def _pixel_columns(rows: list[Row], need_pictures: bool) -> list[Row]:
    return [
        {
            "image_problem": checks.image_problem(row["image"], row["width"], row["height"])
            if row["image"] or need_pictures
            else None,
            **checks.depth_columns(row["depth"], row["width"], row["height"]),
        }
        for row in rows
    ]


def _scene_columns(row: Row) -> Row:
    return {
        "dataset": row["dataset"],
        "intrinsics_problem": checks.intrinsics_problem(row["intrinsics"]),
        "gravity_problem": checks.gravity_problem(row["gravity"]),
        "provenance_problem": checks.provenance_problem(row),
    }


def _region_columns(frames: Frames, region: Row, scene: Row) -> Row:
    return {
        "region": region["id"],
        "category": region["category"] or None,
        "bbox_problem": checks.bbox_problem(region["bbox"], *_size(frames, scene)),
        **frames.mask(region["rle"], scene["width"], scene["height"]),
        "cuboid_problem": checks.box_problem(region["cuboid"]),
        **{name: region[name] for name in ("visibility", "truncation", "score")},
    }


def _size(frames: Frames, row: Row) -> tuple[int, int]:
    """Return the size of a scene's or a conversation's picture: width, height."""
    return (row["width"], row["height"]) if row["width"] or not frames.imported else _BOUNDLESS


# Graphs -----------------------------------------------------------------------------------------------------


def add_graphs(frames: Frames, rows: list[Row], file: str) -> None:
    """Add the ``graphs`` and ``nodes`` rows of a shard; its perceived scenes must be known already."""
    for index, row in enumerate(rows):
        scene = frames.scenes.get(row["scene_id"])
        place = {"file": file, "row": index, "scene_id": row["scene_id"]}
        frames.store.add("graphs", {**place, **_graph_columns(row, scene)})
        for node in row["nodes"] or []:
            key = f"{row['scene_id']}/{node['id']}"
            frames.store.add("nodes", {**place, "key": key, **_node_columns(frames, node, row, scene)})
        frames.graphs[row["scene_id"]] = row


def _graph_columns(row: Row, scene: Row | None) -> Row:
    return {
        "dataset": row["dataset"],
        "scene_problem": _scene_problem(row, None if scene is None else scene["size"], "perceived"),
        "rotation_problem": checks.rotation_problem(
            row["rotation"], None if scene is None else scene["gravity"]
        ),
    }


def _scene_problem(row: Row, size: tuple[int, int] | None, upstream: str) -> str | None:
    if size is None:
        return f"no such scene in the {upstream} table, in the shard of this name"
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
        "sigma_problem": checks.sigma_problem(*(node["center_sigma"] or ()), *(node["size_sigma"] or ())),
        **{name: node[name] for name in ("mask_points", "kept_points", "depth_coverage", "cluster_share")},
    }


# Conversations ----------------------------------------------------------------------------------------------


def add_conversations(frames: Frames, rows: list[Row], file: str) -> None:
    """Add the ``conversations``, ``asked_regions`` and ``turns`` rows of a shard; its graphs must be known."""
    for index, row in enumerate(rows):
        place = {
            "file": file,
            "row": index,
            "scene_id": row["scene_id"],
            "conversation_id": row["conversation_id"],
        }
        _add_conversation(frames, row, place)


def _add_conversation(frames: Frames, row: Row, place: Row) -> None:
    graph = frames.graphs.get(row["scene_id"])
    regions, turns = row["regions"] or [], row["turns"] or []
    frames.truths.add(row["truth"])
    columns = {
        "dataset": row["dataset"],
        "truth": row["truth"],
        "scene_problem": _upstream_problem(frames, row, graph),
        "turns": len(turns),
    }
    frames.store.add("conversations", {**place, **columns})
    nodes = None
    if "graphs" in frames.roles:
        nodes = {n["id"]: n for n in graph["nodes"] or []} if graph else {}
    for region in regions:
        key = f"{row['conversation_id']}/{region['id']}"
        frames.store.add("asked_regions", {**place, "key": key, **_asked_columns(frames, region, row, nodes)})
    known = {r["id"] for r in regions}
    for number, turn in enumerate(turns):
        facts = nodes if frames.check_facts else None
        frames.store.add("turns", {**place, "turn": number, **turn_columns(turn, known, facts, row["truth"])})


def _upstream_problem(frames: Frames, row: Row, graph: Row | None) -> str | None:
    """Say where a conversation's graph (its scene, where the chain has no graphs) is missing or of another size."""
    if "graphs" in frames.roles:
        return _scene_problem(row, (graph["width"], graph["height"]) if graph else None, "graphs")
    if {"scenes", "perceived"} & frames.roles:
        scene = frames.scenes.get(row["scene_id"])
        if scene and _size(frames, row) is _BOUNDLESS:  # another row of the picture may have said its size
            return None
        return _scene_problem(row, scene["size"] if scene else None, "scenes")
    return None


def _asked_columns(frames: Frames, region: Row, row: Row, nodes: Mapping[int, Row] | None) -> Row:
    problem = None
    if nodes is not None and region["id"] not in nodes:
        problem = f"region {region['id']} is not in the scene graph"
    elif nodes is not None and region["rle"] != nodes[region["id"]]["rle"]:
        problem = f"the mask of region {region['id']} is not the one in the scene graph"
    return {
        "region": region["id"],
        "region_problem": problem,
        "bbox_problem": checks.bbox_problem(region["bbox"], *_size(frames, row)),
        **frames.mask(region["rle"], row["width"], row["height"]),
    }


def turn_columns(turn: Row, known: set[int], nodes: Mapping[int, Row] | None, truth: str) -> Row:
    """Describe one turn: what it asks, what it answers, and what is wrong with it.

    ``nodes`` are those of the scene's graph, by id; None where there is no graph to hold the value against.
    """
    return {
        "category": turn["category"],
        "question": turn["question"] or None,
        "answer": turn["answer"] or None,
        "category_problem": checks.category_problem(turn),
        "unit_problem": checks.unit_problem(turn),
        "value_problem": checks.value_problem(turn),
        "sigma_problem": checks.sigma_problem(turn["sigma"]),
        "regions_problem": checks.regions_problem(turn, known),
        "region_count_problem": checks.region_count_problem(turn),
        "mentions_problem": checks.mentions_problem(turn),
        "answer_problem": checks.answer_problem(turn),
        "fact_problem": None if nodes is None else checks.fact_problem(turn, nodes, truth),
    }
