"""Filtering: the same probabilities as transformers' own pipeline, and what is made of them."""

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModel, AutoProcessor, pipeline

from srgpt.params import FilteringParams
from srgpt.perception.filtering import load_filter
from srgpt.perception.words import word_lists

LABELS = {"positive": ("a room", "a street"), "negative": ("a screenshot", "a drawing", "text")}


def test_clip_gives_the_probabilities_of_its_pipeline(checkpoint, pictures):
    folder = checkpoint("clip")
    found = load_filter(FilteringParams(model=folder, **LABELS)).judge(pictures)
    labels = [*LABELS["positive"], *LABELS["negative"]]
    reference = pipeline("zero-shot-image-classification", model=folder)
    for picture, verdict in zip(pictures, found, strict=True):
        expected = reference(picture, candidate_labels=labels, hypothesis_template="{}")
        positive = sum(e["score"] for e in expected if e["label"] in LABELS["positive"])
        assert verdict.positive == pytest.approx(positive, abs=1e-5)


def test_siglip_reads_texts_at_full_length(checkpoint, pictures):
    folder = checkpoint("siglip")
    model, processor = AutoModel.from_pretrained(folder), AutoProcessor.from_pretrained(folder, backend="pil")
    labels = [*LABELS["positive"], *LABELS["negative"]]
    inputs = processor(images=pictures, text=labels, padding="max_length", max_length=64, return_tensors="pt")
    with torch.inference_mode():
        expected = model(**inputs).logits_per_image.softmax(-1)[:, :2].sum(-1)
    found = load_filter(FilteringParams(model=folder, **LABELS)).judge(pictures)
    np.testing.assert_allclose([v.positive for v in found], expected, atol=1e-5)


@pytest.mark.parametrize("name", ["clip", "siglip"])
def test_the_threshold_decides_and_the_best_description_of_that_side_is_the_reason(
    name, checkpoint, pictures
):
    params = FilteringParams(model=checkpoint(name), **LABELS)
    (kept,) = load_filter(params.model_copy(update={"min_positive": 0.0})).judge(pictures[:1])
    (dropped,) = load_filter(params.model_copy(update={"min_positive": 1.0})).judge(pictures[:1])
    assert (kept.keep, dropped.keep) == (True, False)
    assert kept.description in LABELS["positive"]
    assert dropped.description in LABELS["negative"]
    assert 0 < kept.positive == dropped.positive < 1


@pytest.mark.parametrize("name", ["clip", "siglip"])
def test_a_batch_is_judged_as_each_picture_is_alone(name, checkpoint, pictures):
    judge = load_filter(FilteringParams(model=checkpoint(name), **LABELS)).judge
    alone = [judge([picture])[0].positive for picture in pictures]
    np.testing.assert_allclose([v.positive for v in judge(pictures)], alone, atol=1e-5)
    assert len(set(alone)) == 3


def test_default_descriptions_are_those_of_the_word_list(checkpoint, pictures):
    lists = word_lists()["filtering"]
    (verdict,) = load_filter(FilteringParams(model=checkpoint("clip"))).judge(pictures[:1])
    assert verdict.description in lists["positive" if verdict.keep else "negative"]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_judges_alike(dtype, checkpoint, pictures):
    params = FilteringParams(model=checkpoint("clip"), **LABELS)
    full = load_filter(params).judge(pictures)
    half = load_filter(params.model_copy(update={"dtype": dtype})).judge(pictures)
    np.testing.assert_allclose([v.positive for v in half], [v.positive for v in full], atol=0.05)


def test_grey_and_transparent_pictures_are_read_as_rgb(checkpoint):
    judge = load_filter(FilteringParams(model=checkpoint("clip"), **LABELS)).judge
    grey = Image.new("RGB", (40, 40), (90, 90, 90))
    assert judge([grey.convert("L").convert("RGB")]) == judge([grey])
