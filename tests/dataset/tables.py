"""Small tables of conversations and their scenes, at any URL."""

from __future__ import annotations

import numpy as np

from srgpt.dataset.mixture import Mixture
from srgpt.dataset.source import MixtureSource
from srgpt.model.processing import SrgptProcessor
from srgpt.records import AskedRegion, Conversation, Region, Scene, Turn, encode_depth, encode_png, encode_rle
from srgpt.storage import TableWriter, shard_name, write_shard

SIZE = 28


def write_tables(
    url: str,
    *,
    name: str = "train",
    shards: int = 2,
    rows: int = 3,
    depth: bool = True,
    image: bool = True,
    regions: bool = True,
) -> MixtureSource:
    """Write ``url/scenes`` and ``url/conversations``; return them as a source of a mixture."""
    scenes, talks = f"{url}/scenes", f"{url}/conversations"
    pairs = [[_pair(name, s * rows + r, depth, image, regions) for r in range(rows)] for s in range(shards)]
    names = [shard_name(i) for i in range(shards)]
    pixels = TableWriter(scenes, "scenes", stage="perceive", dataset=name, params={})
    for shard, found in zip(names, pairs, strict=True):
        write_shard(pixels.work, shard, "scenes", [scene.to_row() for scene, _ in found])
    pixels.commit(names)
    writer = TableWriter(
        talks, "conversations", stage="ask", dataset=name, params={}, inputs={"perceived": scenes}
    )
    for shard, found in zip(names, pairs, strict=True):
        write_shard(writer.work, shard, "conversations", [talk.to_row() for _, talk in found])
    writer.commit(names)
    return MixtureSource(talks, scenes)


def _pair(name: str, number: int, depth: bool, image: bool, regions: bool) -> tuple[Scene, Conversation]:
    rng = np.random.default_rng([number, len(name)])
    masks = [rng.random((SIZE, SIZE)) > 0.7 for _ in range(2 if regions else 0)]
    found = tuple(
        Region(k, "box", "box", (0.0, 0.0, 8.0, 8.0), encode_rle(m), "given") for k, m in enumerate(masks)
    )
    scene = Scene(
        name, f"{name}-{number}", SIZE, SIZE,
        encode_png(rng.integers(0, 255, (SIZE, SIZE, 3), dtype=np.uint8)) if image else b"", found,
        encode_depth(rng.uniform(1, 5, (SIZE, SIZE))) if depth and image else None, "given",
    )  # fmt: skip
    asked = tuple(AskedRegion(r.id, r.category, r.rle, r.bbox) for r in found)
    turns = (
        (Turn("How wide is <region0>?", f"{number}.25 meters.", "width_data", (1,), number + 0.25, "metres"),)
        if regions
        else (Turn("What is this?", f"Picture {number}.", "caption", (), None, "text"),)
    )
    return scene, Conversation(
        name, scene.scene_id, f"talk-{name}-{number}", "cuboids", SIZE, SIZE, asked, turns * 2
    )


def mixture(processor: SrgptProcessor, *sources: MixtureSource, **options: int) -> Mixture:
    """Return the sources as one dataset."""
    return Mixture(sources, processor, **options)
