"""A model trains on imported conversations: about regions with relative depth, and about whole pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from srgpt import storage
from srgpt.dataset.collator import Collator, model_inputs
from srgpt.dataset.packing import Packer
from srgpt.dataset.reading import ConversationDataset
from srgpt.evaluation.controls import variants_of
from srgpt.exchange.importing import Source, run
from srgpt.model.pixels import encode_depth_image, without_scale
from srgpt.model.processing import Question
from srgpt.records import encode_png
from srgpt.stages import train
from tests.exchange.rows import llava_row, osd_row, write_pictures, write_rows
from tests.model.tiny import TINY, make_tiny
from tests.training.data import tiny_params


def import_osd(folder: Path, count: int = 8) -> str:
    rows = [osd_row(i) for i in range(count)]
    images, depth = write_pictures(folder, [r["filename"] for r in rows])
    run(Source(write_rows(folder / "osd.json", rows), "osd", "osd", images, depth), str(folder / "osd"))
    return str(folder / "osd" / "conversations")


def import_llava(folder: Path, count: int = 8) -> str:
    images, _ = write_pictures(folder, [f"coco/{i:04d}" for i in range(count)])
    url = write_rows(folder / "llava.json", [llava_row(i) for i in range(count)])
    run(Source(url, "llava", "llava", images), str(folder / "llava"))
    return str(folder / "llava" / "conversations")


def import_captions(folder: Path, count: int = 8) -> str:
    images, _ = write_pictures(folder, [f"{i:04d}" for i in range(count)])
    rows = [{"image": f"{i:04d}.jpg", "caption": f"Noise, number {i}."} for i in range(count)]
    run(Source(write_rows(folder / "c.json", rows), "captions", "c", images), str(folder / "c"))
    return str(folder / "c" / "conversations")


@pytest.fixture(scope="module")
def captions(tmp_path_factory: pytest.TempPathFactory) -> str:
    return import_captions(tmp_path_factory.mktemp("captions"))


@pytest.fixture(scope="module")
def osd(tmp_path_factory: pytest.TempPathFactory) -> str:
    return import_osd(tmp_path_factory.mktemp("osd"))


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> str:
    return import_llava(tmp_path_factory.mktemp("llava"))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["osd", "llava", "captions"])
def test_the_stage_trains_on_it(name: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    params = tiny_params(tmp_path, steps=3)
    summary = train.run(params, source=request.getfixturevalue(name), out=str(tmp_path / "model"))
    assert np.isfinite(summary["final_loss"])
    assert summary["steps"] == 3


def test_regions_and_relative_depth_reach_the_model(osd: str) -> None:
    model, processor = make_tiny(params=TINY.model_copy(update={"depth": "relative"}))
    dataset = ConversationDataset(osd, storage.scenes_of(osd), processor)
    samples = [dataset[0, k] for k in range(4)]
    for sample in samples:
        assert sample.picture.depth is not None
        assert len(sample.picture.region_ids) == 2
    batch = Collator(Packer(processor), seed=0, shares={})(samples)
    assert len(batch["mask_index"]) == len(batch["depth_index"]) == 4 * 5
    assert np.isfinite(float(model(**model_inputs(batch)).loss))


def test_a_model_that_sees_metres_is_not_shown_relative_depth(osd: str) -> None:
    _, processor = make_tiny()
    assert ConversationDataset(osd, storage.scenes_of(osd), processor)[0, 0].picture.has_depth is False
    assert variants_of(storage.scenes_of(osd), "metric").main == "rgb"
    assert variants_of(storage.scenes_of(osd), "relative").main == "rgbd"


def test_conversations_without_regions_are_learnt_and_asked(llava: str) -> None:
    model, processor = make_tiny()
    dataset = ConversationDataset(llava, storage.scenes_of(llava), processor)
    samples = [dataset[0, k] for k in range(4)]
    batch = Collator(Packer(processor), seed=0, shares={})(samples)
    assert len(batch["mask_index"]) == 0
    assert np.isfinite(float(model(**model_inputs(batch)).loss))
    turns = samples[0].conversation.turns
    asked = processor.batch([Question(t.question, t.regions, samples[0].picture) for t in turns], "rgb")
    with torch.inference_mode():
        answers = model.generate(**asked, do_sample=False, max_new_tokens=2)
    assert len(processor.answers(answers, asked["input_ids"].shape[1])) == len(turns)


def test_relative_depth_looks_like_the_metric_depth_that_it_comes_from() -> None:
    metres = np.random.default_rng(0).uniform(0.5, 9, (12, 10))
    inverse = 1 / metres
    relative = np.rint(1 + 65534 * (inverse - inverse.min()) / np.ptp(inverse)).astype(np.uint16)
    relative[0, 0] = 0
    metres[0, 0] = 0
    found = encode_depth_image(without_scale(encode_png(relative)))
    np.testing.assert_allclose(found, encode_depth_image(metres), atol=1)
