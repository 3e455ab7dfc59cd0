"""A small dataset on disk: a perceived table and the conversations about it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from srgpt.params import Params, build
from srgpt.records import AskedRegion, Conversation, Region, Scene, Turn, encode_depth, encode_png, encode_rle
from srgpt.storage import TableWriter, scenes_of, shard_name, write_shard
from srgpt.training.worker import Job

SIZE = 28
OVERRIDES = {
    "seed": 3,
    "train": {
        "steps": 6,
        "batch_images": 4,
        "learning_rate": 5e-3,
        "checkpoint_steps": 2,
        "log_steps": 2,
        "data_workers": 0,
        "rgb_share": 0.2,
        "blind_share": 0.2,
        "model": {
            "vision": {"image_size": SIZE, "patch_size": 7, "hidden_size": 16, "layers": 1, "heads": 2, "mlp_size": 32},
            "text": {"vocab_size": 300, "hidden_size": 16, "layers": 1, "heads": 2, "mlp_size": 32, "max_length": 512},
        },
    },
}  # fmt: skip


def tiny_params(folder: Path, **train: object) -> Params:
    """Return parameters of a model that trains in a moment, tracked in ``folder``."""
    section = {**OVERRIDES["train"], **train}  # type: ignore[dict-item]
    tracking = {"uri": f"sqlite:///{folder}/mlflow.db"}
    return build({**OVERRIDES, "train": section, "tracking": tracking})


def tiny_job(params: Params, source: str, folder: Path) -> Job:
    """Return the job of the only stage of ``params``, in ``folder``."""
    table = {"url": source, "scenes": scenes_of(source), "weight": 1.0}
    return Job(params.dump(), 0, [table], {}, str(folder), "")


def write_dataset(folder: Path, shards: int = 2, scenes: int = 6) -> str:
    """Write two tables below ``folder``; return the URL of the conversations."""
    perceived, conversations = str(folder / "perceived"), str(folder / "conversations")
    pixels = TableWriter(perceived, "scenes", stage="perceive", dataset="train", params={})
    names = [shard_name(i) for i in range(shards)]
    pairs = [[_pair(10 * i + k) for k in range(scenes)] for i in range(shards)]
    for name, rows in zip(names, pairs, strict=True):
        write_shard(pixels.work, name, "scenes", [scene.to_row() for scene, _ in rows])
    pixels.commit(names)
    talks = TableWriter(
        conversations,
        "conversations",
        stage="ask",
        dataset="train",
        params={},
        inputs={"perceived": perceived},
    )
    for name, rows in zip(names, pairs, strict=True):
        write_shard(talks.work, name, "conversations", [talk.to_row() for _, talk in rows])
    talks.commit(names)
    return conversations


def _pair(seed: int) -> tuple[Scene, Conversation]:
    rng = np.random.default_rng(seed)
    masks = [np.zeros((SIZE, SIZE), bool) for _ in range(2)]
    left = int(rng.integers(0, 2))
    for k, mask in enumerate(masks):
        column = 3 if k == left else 17
        mask[8:18, column : column + 8] = True
    regions = tuple(
        Region(k, "box", "box", (0.0, 0.0, 8.0, 8.0), encode_rle(m), "given") for k, m in enumerate(masks)
    )
    scene = Scene(
        "train", f"scene-{seed}", SIZE, SIZE,
        encode_png(rng.integers(0, 255, (SIZE, SIZE, 3), dtype=np.uint8)), regions,
        encode_depth(rng.uniform(1, 5, (SIZE, SIZE))), "given",
    )  # fmt: skip
    asked = tuple(AskedRegion(r.id, r.category, r.rle, r.bbox) for r in regions)
    turns = (
        Turn(
            "Is <region0> to the left of <region1>?", "Yes." if left == 0 else "No.", "left_predicate",
            (0, 1), float(left == 0), "truth",
        ),
        Turn("How wide is <region0>?", f"{seed % 7 + 1}.25 meters.", "width_data", (1,), seed % 7 + 1.25, "metres"),
    )  # fmt: skip
    talk = Conversation("train", scene.scene_id, f"talk-{seed}", "cuboids", SIZE, SIZE, asked, turns)
    return scene, talk
