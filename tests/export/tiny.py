"""A tiny benchmark, checkpoint and export, made once per test process."""

from __future__ import annotations

import atexit
import json
import shutil
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import torch

from srgpt.dataset.collator import Collator, model_inputs
from srgpt.dataset.packing import Packer
from srgpt.dataset.reading import ConversationDataset
from srgpt.export import LINEAGE, PARITY
from srgpt.params import ModelParams, Params, TextParams, build
from srgpt.records import AskedRegion, Conversation, Region, Scene, Turn, encode_depth, encode_png, encode_rle
from srgpt.serving.bundle import MANIFEST, bundle_hash, file_hash
from srgpt.storage import TableWriter, input_url, shard_name, write_shard
from tests.model.tiny import TINY, make_tiny

# the ONNX attention wants heads of a multiple of eight
MODEL = ModelParams(
    vision=TINY.vision,
    text=TextParams(vocab_size=320, hidden_size=32, layers=2, heads=2, mlp_size=48, max_length=256),
)
QUESTIONS = (
    ("Is <region0> to the left of <region1>?", "Yes, Region [0] is.", "left_predicate", (0, 1), "truth"),
    ("How wide is <region0>?", "The width of Region [0] is 1.25 meters.", "width_data", (1,), "metres"),
    ("Which is taller, <region1> or <region0>?", "Region [0] is taller.", "tall_choice", (1, 0), "truth"),
)


RUN = "5" * 32
"""Id of the training run that the checkpoint says it comes from."""


def params(**sections: object) -> Params:
    return build({"evaluate": {"max_new_tokens": 8}, "export": {"parity_questions": 6}, **sections})


@cache
def workplace() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="srgpt-tests-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@cache
def scenes() -> tuple[Scene, ...]:
    rng = np.random.default_rng(3)
    result = []
    for number in range(4):
        rgb = rng.integers(0, 256, (40, 56, 3), dtype=np.uint8)
        depth = None if number == 3 else encode_depth(rng.uniform(0.5, 5, (40, 56)))
        masks = [np.zeros((40, 56), bool) for _ in range(2)]
        masks[0][4 : 14 + number, 3:20] = True
        masks[1][20:33, 30 - number : 50] = True
        regions = tuple(
            Region(
                k,
                "chair",
                "chair",
                (3.0, 4.0, 20.0, 14.0) if k == 0 else (30.0, 20.0, 50.0, 33.0),
                encode_rle(m),
                "given",
            )
            for k, m in enumerate(masks)
        )
        result.append(Scene("bench", f"s{number}", 56, 40, encode_png(rgb), regions, depth))
    return tuple(result)


@cache
def benchmark() -> str:
    """Two shards of conversations over two shards of perceived scenes; the last scene has no depth."""
    perceived, talks = str(workplace() / "perceived"), str(workplace() / "conversations")
    names = [shard_name(i) for i in range(2)]
    writer = TableWriter(perceived, "scenes", stage="perceive", dataset="bench", params={})
    for i, name in enumerate(names):
        write_shard(writer.work, name, "scenes", [s.to_row() for s in scenes()[2 * i : 2 * i + 2]])
    writer.commit(names)
    writer = TableWriter(
        talks, "conversations", stage="ask", dataset="bench", params={}, inputs={"perceived": perceived}
    )
    for i, name in enumerate(names):
        rows = [conversation(s).to_row() for s in scenes()[2 * i : 2 * i + 2]]
        write_shard(writer.work, name, "conversations", rows)
    writer.commit(names)
    return talks


def conversation(scene: Scene) -> Conversation:
    asked = tuple(AskedRegion(r.id, r.category, r.rle, r.bbox) for r in scene.regions)
    turns = tuple(Turn(q, a, c, regions, 1.0, unit) for q, a, c, regions, unit in QUESTIONS)
    return Conversation("bench", scene.scene_id, f"{scene.scene_id}-0", "cuboids", 56, 40, asked, turns)


@cache
def checkpoint() -> Path:
    return write_checkpoint(workplace() / "model")


@cache
def trained_checkpoint() -> Path:
    """A model that knows the benchmark's answers by heart."""
    return write_checkpoint(workplace() / "trained", steps=60)


def write_checkpoint(folder: Path, steps: int = 0) -> Path:
    model, processor = make_tiny(params=MODEL)
    if steps:
        dataset = ConversationDataset(benchmark(), input_url(benchmark(), "perceived"), processor)
        collator = Collator(Packer(processor), seed=0, shares={})
        batch = collator([dataset[0, k] for k in range(len(dataset))])
        optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
        for _ in range(steps):
            optimizer.zero_grad()
            model(**model_inputs(batch)).loss.backward()
            optimizer.step()
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    lineage = {"commit": "abc123", "profile": "demo", "params_hash": "0" * 16, "data": {"train": "f" * 64}}
    lineage["run_id"] = RUN
    (folder / "lineage.json").write_text(json.dumps(lineage))
    return folder


@cache
def export() -> Path:
    """A finished export of a random model."""
    from srgpt.stages.export import run

    out = workplace() / "export"
    run(params(), source=str(checkpoint()), benchmark=benchmark(), out=str(out))
    return out


@cache
def another_export() -> Path:
    """An export with another identity and the same answers: exporting takes long, a file more does not."""
    out = workplace() / "another-export"
    shutil.copytree(export(), out)
    shell = out / "triton" / "srgpt" / "1" / "model.py"
    shell.write_text(f"{shell.read_text()}# another export\n")
    rehash(out)
    return out


def rehash(folder: Path) -> None:
    """Make an export whole again whose shell or runtime was changed: as if it had been exported so."""
    version = folder / "triton" / "srgpt" / "1"
    manifest = json.loads((version / MANIFEST).read_text())
    for name in manifest["files"]:
        manifest["files"][name] = {"sha256": file_hash(version / name)}
    (version / MANIFEST).write_text(json.dumps(manifest))
    for name in (PARITY, LINEAGE):
        record = {**json.loads((folder / name).read_text()), "export_hash": bundle_hash(manifest)}
        (folder / name).write_text(json.dumps(record))
