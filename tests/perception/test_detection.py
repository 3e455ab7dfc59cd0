"""Detection: transformers' own answers, the reference's rules, and tags that fit what was found."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForZeroShotObjectDetection, AutoProcessor, pipeline

from srgpt.errors import InputError
from srgpt.params import DetectionParams
from srgpt.perception.detection import area, iou, load_detector, match_tag, select
from srgpt.perception.roles import Detection

OPEN = {"box_threshold": 0.0, "text_threshold": 0.0, "min_score": 0.0}
FAMILIES = ("grounding_dino", "mm_grounding_dino", "owlv2")


@pytest.mark.parametrize("name", FAMILIES)
def test_every_picture_is_searched_for_its_own_tags(name, checkpoint, pictures):
    tags = [["chair", "red cup", "lamp"], ["floor"], []]
    found = load_detector(DetectionParams(model=checkpoint(name), **OPEN)).detect(pictures, tags)
    assert [bool(own) for own in found] == [True, True, False]
    for picture, own, allowed in zip(pictures, found, tags, strict=True):
        assert {d.tag for d in own} <= set(allowed)
        assert [d.score for d in own] == sorted((d.score for d in own), reverse=True)
        for d in own:
            assert 0 <= d.bbox[0] <= d.bbox[2] <= picture.width
            assert 0 <= d.bbox[1] <= d.bbox[3] <= picture.height


def test_owlv2_finds_what_its_pipeline_finds(checkpoint, pictures):
    folder = checkpoint("owlv2")
    own = load_detector(DetectionParams(model=folder, box_threshold=0.1)).detect(
        pictures[:1], [["chair", "cup"]]
    )
    reference = pipeline("zero-shot-object-detection", model=folder)
    expected = reference(pictures[0], candidate_labels=["chair", "cup"], threshold=0.1)
    # the pipeline lets a box count for every label
    scores = {(e["label"], round(e["score"], 3)) for e in expected}
    found = {(d.tag, round(d.score, 3)) for d in own[0]}
    assert {tag for tag, _ in found} == {"chair", "cup"}
    assert found <= scores


@pytest.mark.parametrize("name", ["grounding_dino", "mm_grounding_dino"])
def test_grounding_dino_keeps_what_its_post_processing_keeps(name, checkpoint, pictures):
    folder = checkpoint(name)
    model = AutoModelForZeroShotObjectDetection.from_pretrained(folder).eval()
    processor = AutoProcessor.from_pretrained(folder, backend="pil")
    inputs = processor(images=pictures[0], text="chair. cup.", return_tensors="pt")
    with torch.inference_mode():
        outputs = model(**inputs)
    scores = outputs.logits.sigmoid().max(-1).values[0]
    middle = float(scores.median())
    (expected,) = processor.post_process_grounded_object_detection(
        outputs, inputs["input_ids"], threshold=middle, text_threshold=0.0, target_sizes=[(60, 80)]
    )
    params = DetectionParams(model=folder, box_threshold=middle, text_threshold=0.0)
    (found,) = load_detector(params).detect(pictures[:1], [["chair", "cup"]])
    assert 0 < len(found) == len(expected["scores"]) < len(scores)
    np.testing.assert_allclose(sorted(d.score for d in found), sorted(expected["scores"].tolist()), atol=1e-5)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_batch_finds_what_its_pictures_find_alone(name, checkpoint, pictures):
    detector = load_detector(DetectionParams(model=checkpoint(name), **OPEN))
    tags = [["chair"], ["cup", "table", "lamp"], ["road", "car"]]
    together = detector.detect(pictures, tags)
    for picture, own, expected in zip(pictures, tags, together, strict=True):
        (alone,) = detector.detect([picture], [own])
        assert [d.tag for d in alone] == [d.tag for d in expected]
        np.testing.assert_allclose([d.score for d in alone], [d.score for d in expected], atol=1e-4)
        np.testing.assert_allclose([d.bbox for d in alone], [d.bbox for d in expected], atol=1e-2)


def test_more_tags_than_the_text_holds_are_asked_for_in_several_rounds(checkpoint, pictures):
    detector = load_detector(DetectionParams(model=checkpoint("grounding_dino"), **OPEN))
    tags = ["chair", "table", "cup", "floor", "lamp", "street", "road", "car"] * 3
    chunks = detector._chunks(tags)
    assert len(chunks) == 2
    assert [tag for chunk in chunks for tag in chunk] == tags
    limit = detector._loaded.model.config.max_text_len
    for chunk in chunks:
        encoded = detector._loaded.processor(images=pictures[0], text=[chunk], return_tensors="pt")
        assert encoded["input_ids"].shape[1] <= limit
    (found,) = detector.detect(pictures[:1], [tags])
    assert len(found) == 2 * 12, "each round brings its own boxes"


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_runs(name, dtype, checkpoint, pictures):
    detector = load_detector(DetectionParams(model=checkpoint(name), dtype=dtype, **OPEN))
    (found,) = detector.detect(pictures[:1], [["chair"]])
    assert found
    assert all(np.isfinite([*d.bbox, d.score]).all() for d in found)


def test_another_kind_of_model_is_refused(monkeypatch):
    class Other:
        kind = "omdet-turbo"

    monkeypatch.setattr("srgpt.perception.detection.load", lambda *_: Other())
    with pytest.raises(InputError, match=r"omdet-turbo model\. Expected Grounding DINO"):
        load_detector(DetectionParams(model="x/y"))


# Words that fit a box ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "tags", "expected"),
    [
        ("chair", ["table", "chair"], "chair"),
        ("red cup", ["cup", "red cup"], "red cup"),
        ("cup", ["red cup", "cup"], "cup"),
        ("dining", ["dining table", "cup"], "dining table"),
        ("chair table", ["table", "chair"], "table"),
        ("seat", ["sea"], None),
        ("##r", ["chair"], None),
        ("", ["chair"], None),
        ("chair", [], None),
    ],
)
def test_the_tag_with_the_largest_share_of_its_words_wins(words, tags, expected):
    assert match_tag(words, tags) == expected


@given(st.text(max_size=30), st.lists(st.text(max_size=12), max_size=4))
def test_any_words_match_a_tag_or_none(words, tags):
    assert match_tag(words, tags) in {*tags, None}


# The reference's rules --------------------------------------------------------------------------------------

SIZE = (100, 80)


def box(x0, y0, x1, y1, score=0.9, tag="cup"):
    return Detection((float(x0), float(y0), float(x1), float(y1)), tag, score)


def test_defaults_are_the_reference_s():
    params = DetectionParams()
    assert (params.box_threshold, params.text_threshold, params.nms_iou) == (0.25, 0.2, 0.5)
    assert (params.max_box_share, params.min_score) == (0.75, 0.3)


def test_large_uncertain_and_empty_boxes_go():
    kept = box(0, 0, 75, 80)
    detections = [
        kept,
        box(0, 0, 76, 80, tag="too large"),
        box(0, 0, 5, 5, score=0.29, tag="uncertain"),
        box(9, 9, 9, 20, tag="empty"),
    ]
    assert select(detections, SIZE, DetectionParams()) == [kept]


def test_overlapping_boxes_of_different_words_are_one_object():
    best, worse = box(0, 0, 20, 20, 0.8, "sofa"), box(1, 1, 21, 21, 0.7, "couch")
    beside = box(20, 0, 40, 20, 0.5, "sofa")
    assert select([worse, beside, best], SIZE, DetectionParams()) == [best, beside]


detections = st.lists(
    st.builds(
        lambda x, y, w, h, s: box(x, y, min(x + w, 100), min(y + h, 80), s / 100),
        st.integers(0, 90), st.integers(0, 70), st.integers(1, 60), st.integers(1, 60), st.integers(0, 100),
    ),
    max_size=12,
)  # fmt: skip


@given(detections)
def test_selection_is_ordered_apart_and_complete(found):
    params = DetectionParams()
    kept = select(found, SIZE, params)
    assert [d.score for d in kept] == sorted((d.score for d in kept), reverse=True)
    for i, one in enumerate(kept):
        assert one.score >= params.min_score
        assert all(iou(one.bbox, other.bbox) <= params.nms_iou for other in kept[:i])
    for one in found:  # what is gone has a reason
        if one not in kept:
            small = one.score < params.min_score or area(one.bbox) > params.max_box_share * 8000
            assert small or any(iou(one.bbox, k.bbox) > params.nms_iou and k.score >= one.score for k in kept)
    assert select(kept, SIZE, params) == kept
