"""Prediction with a tiny random model: batches change nothing, images are encoded once, trouble is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from srgpt.errors import InputError
from srgpt.evaluation.predict import Asked, Predictor, batches
from srgpt.model.prompts import Inputs
from tests.evaluation.tables import make_conversation, make_scene


@pytest.fixture(scope="module")
def predictor(checkpoint: Path) -> Predictor:
    return Predictor.load(checkpoint, batch_size=16, max_new_tokens=6)


@pytest.fixture(scope="module")
def asked(predictor: Predictor) -> list[Asked]:
    scenes = {s.scene_id: s for s in (make_scene(i) for i in range(5))}
    conversations = [make_conversation(s, i, turns=5) for i, s in enumerate(scenes.values())]
    found, rejected = predictor.prepare(conversations, scenes)
    assert rejected == []
    return found


@pytest.mark.parametrize("inputs", ["rgbd", "rgb", "blind"])
def test_answers_do_not_depend_on_the_batch_size(
    predictor: Predictor, asked: list[Asked], inputs: Inputs
) -> None:
    whole = predictor.predict(asked, inputs)
    assert [(p.conversation_id, p.turn) for p in whole] == [
        (f"s{i:03d}-0", t) for i in range(5) for t in range(5)
    ]
    assert {p.inputs for p in whole} == {inputs}
    for size in (1, 3, 7):
        other = Predictor(predictor.model, predictor.processor, batch_size=size, max_new_tokens=6)
        assert other.predict(asked, inputs) == whole


def test_inputs_matter(predictor: Predictor, asked: list[Asked]) -> None:
    logits = {}
    for inputs in ("rgbd", "rgb", "blind"):
        batch = predictor.processor.batch(asked[0].questions(inputs)[:1], inputs)  # type: ignore[arg-type]
        logits[inputs] = predictor.model(**batch).logits[0, -1].tolist()
    assert logits["rgbd"] != logits["rgb"] != logits["blind"]


def test_an_image_is_encoded_once_for_its_questions(
    predictor: Predictor, asked: list[Asked], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    encode = type(predictor.model).encode_images

    def counting(self, pixel_values, *rest):
        seen.append(len(pixel_values))
        return encode(self, pixel_values, *rest)

    monkeypatch.setattr(type(predictor.model), "encode_images", counting)
    predictor.predict(asked, "rgbd")
    # 16 questions hold three conversations of five
    assert seen == [3, 2]


def test_progress_tells_every_question(predictor: Predictor, asked: list[Asked]) -> None:
    steps: list[int] = []
    predictor.predict(asked, "blind", steps.append)
    assert sum(steps) == 25


def test_batches_keep_conversations_whole_unless_too_large(asked: list[Asked]) -> None:
    sizes = [[len(a.turns) for a in b] for b in batches(asked, 12)]
    assert sizes == [[5, 5], [5, 5], [5]]
    sizes = [[len(a.turns) for a in b] for b in batches(asked[:2], 3)]
    assert sizes == [[3], [2], [3], [2]]
    turns = [(a.conversation.conversation_id, t) for b in batches(asked, 4) for a in b for t in a.turns]
    assert turns == [(a.conversation.conversation_id, t) for a in asked for t in a.turns]


def test_a_limit_takes_the_first_questions(predictor: Predictor) -> None:
    scenes = {s.scene_id: s for s in (make_scene(i) for i in range(3))}
    found, _ = predictor.prepare([make_conversation(s, 0, turns=5) for s in scenes.values()], scenes, 7)
    assert [len(a.turns) for a in found] == [5, 2]


def test_an_unreadable_picture_is_set_aside(predictor: Predictor) -> None:
    good, cut, empty = make_scene(0), make_scene(1), make_scene(2)
    cut = cut.replace(image=cut.image[:60])
    conversations = [make_conversation(s, 0) for s in (good, cut, empty)]
    region = conversations[2].regions[0]
    broken = type(region)(region.id, region.category, {"size": [32, 32], "counts": "1"}, region.bbox)
    conversations[2] = type(conversations[2])(
        **{**vars(conversations[2]), "regions": (broken, conversations[2].regions[1])}
    )
    found, rejected = predictor.prepare(conversations, {s.scene_id: s for s in (good, cut, empty)})
    assert [a.conversation.scene_id for a in found] == ["s000"]
    assert [(r.id, r.reason) for r in rejected] == [
        ("s001-0", "picture-unusable"),
        ("s002-0", "picture-unusable"),
    ]
    assert "broken RLE" in rejected[1].detail


def test_a_missing_scene_is_an_error(predictor: Predictor) -> None:
    with pytest.raises(InputError, match=r"scene s001 .* not among the perceived"):
        predictor.prepare([make_conversation(make_scene(1), 0)], {})


def test_a_folder_that_is_no_model_is_an_error(tmp_path: Path, checkpoint: Path) -> None:
    with pytest.raises(InputError, match=r"not a model folder .*config.json.* missing"):
        Predictor.load(tmp_path)
    for file in checkpoint.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(InputError, match=r"cannot be loaded"):
        Predictor.load(tmp_path)
