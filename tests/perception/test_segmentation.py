"""Segmentation: the best mask of each box, and the reference's subtraction."""

import numpy as np
import pytest
import torch
from transformers import AutoModelForMaskGeneration, AutoProcessor

from srgpt.errors import InputError
from srgpt.params import SegmentationParams
from srgpt.perception.pixels import Squeeze
from srgpt.perception.segmentation import load_segmenter, subtract_contained

BOXES = [(5.0, 5.0, 40.0, 50.0), (0.0, 0.0, 80.0, 60.0), (30.0, 20.0, 70.0, 55.0)]
FAMILIES = ("sam_hq", "sam2", "sam2_video")


@pytest.mark.parametrize("name", FAMILIES)
def test_masks_are_at_the_pictures_own_size_one_per_box(name, checkpoint, pictures):
    segmenter = load_segmenter(SegmentationParams(model=checkpoint(name)))
    found = segmenter.segment(pictures, [BOXES, [], BOXES[:1]])
    assert [masks.shape for masks in found] == [(3, 60, 80), (0, 70, 50), (1, 60, 80)]
    assert {masks.dtype for masks in found} == {np.dtype(bool)}
    assert 0 < found[0].mean() < 1, "masks of random weights hold something and not everything"


@pytest.mark.parametrize("name", FAMILIES)
def test_all_boxes_at_once_give_what_each_gives_alone(name, checkpoint, pictures):
    segmenter = load_segmenter(SegmentationParams(model=checkpoint(name)))
    (together,) = segmenter.segment(pictures[:1], [BOXES])
    for mask, box in zip(together, BOXES, strict=True):
        ((alone,),) = segmenter.segment(pictures[:1], [[box]])
        assert np.mean(mask != alone) < 0.01


@pytest.mark.parametrize("name", FAMILIES)
def test_a_batch_gives_what_each_picture_gives_alone(name, checkpoint, pictures):
    segmenter = load_segmenter(SegmentationParams(model=checkpoint(name)))
    for picture, together in zip(pictures, segmenter.segment(pictures, [BOXES] * 3), strict=True):
        np.testing.assert_array_equal(segmenter.segment([picture], [BOXES])[0], together)


def test_sam_hq_takes_the_best_scored_mask_at_the_pictures_size(checkpoint, pictures):
    folder = checkpoint("sam_hq")
    model = AutoModelForMaskGeneration.from_pretrained(folder).eval()
    processor = AutoProcessor.from_pretrained(folder, backend="pil")
    inputs = processor(images=pictures[1], input_boxes=[[list(b) for b in BOXES]], return_tensors="pt")
    boxes = inputs["input_boxes"].float()
    with torch.inference_mode():
        outputs = model(pixel_values=inputs["pixel_values"], input_boxes=boxes)
    (every,) = processor.post_process_masks(
        outputs.pred_masks, inputs["original_sizes"], inputs["reshaped_input_sizes"]
    )
    best = outputs.iou_scores[0].argmax(-1)
    (found,) = load_segmenter(SegmentationParams(model=folder)).segment(pictures[1:2], [BOXES])
    for mask, masks, index in zip(found, every, best, strict=True):
        np.testing.assert_array_equal(mask, masks[index].numpy())


def test_sam_2_takes_the_best_scored_mask_of_the_squeezed_picture(checkpoint, pictures):
    folder = checkpoint("sam2")
    model = AutoModelForMaskGeneration.from_pretrained(folder).eval()
    squeeze = Squeeze((64, 64), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), antialias=True)
    boxes = torch.tensor([BOXES]) * torch.tensor([64 / 80, 64 / 60, 64 / 80, 64 / 60])
    with torch.inference_mode():
        outputs = model(pixel_values=squeeze([pictures[0]]), input_boxes=boxes)
    best = outputs.iou_scores[0].argmax(-1)
    logits = outputs.pred_masks[0, torch.arange(3), best][:, None]
    expected = torch.nn.functional.interpolate(logits, (60, 80), mode="bilinear")[:, 0] > 0
    (found,) = load_segmenter(SegmentationParams(model=folder)).segment(pictures[:1], [BOXES])
    assert np.mean(found != expected.numpy()) < 1e-3


def test_sam_2_sees_what_the_processor_that_needs_torchvision_makes(checkpoint, pictures, torchvision):
    processor = AutoProcessor.from_pretrained(checkpoint("sam2"), backend="torchvision")
    inputs = processor(images=pictures[0], input_boxes=[[list(b) for b in BOXES]], return_tensors="pt")
    squeeze = Squeeze((64, 64), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), antialias=True)
    assert (inputs["pixel_values"] - squeeze([pictures[0]])).abs().max() < 0.05, "two grey levels of 8 bits"


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_runs(name, dtype, checkpoint, pictures):
    segmenter = load_segmenter(SegmentationParams(model=checkpoint(name), dtype=dtype))
    (masks,) = segmenter.segment(pictures[:1], [BOXES])
    assert masks.shape == (3, 60, 80)


def test_another_kind_of_model_is_refused(monkeypatch):
    class Other:
        kind = "edgetam"

    monkeypatch.setattr("srgpt.perception.segmentation.load", lambda *_: Other())
    with pytest.raises(InputError, match=r"edgetam model. Expected SAM 2, SAM-HQ or SAM"):
        load_segmenter(SegmentationParams(model="x/y"))


def filled(*boxes):
    masks = np.zeros((len(boxes), 60, 100), dtype=bool)
    for mask, (x0, y0, x1, y1) in zip(masks, boxes, strict=True):
        mask[y0:y1, x0:x1] = True
    return masks


def test_a_cup_is_taken_out_of_its_table_and_not_the_table_out_of_the_cup():
    table, cup = (0, 0, 100, 50), (10, 10, 20, 20)
    masks = filled(table, cup)
    result = subtract_contained(masks, [table, cup])
    assert not (result[0] & masks[1]).any()
    assert result[0].sum() == 5000 - 100
    np.testing.assert_array_equal(result[1], masks[1])


@pytest.mark.parametrize(
    ("outer", "inner", "contained"),
    [
        ((0, 0, 100, 50), (0, 0, 50, 10), False),  # a tenth of the outer one: too large for a part of it
        ((0, 0, 100, 50), (90, 44, 100, 60), True),  # sticks out, with more than a twentieth of itself inside
        ((0, 0, 50, 50), (49, 0, 100, 50), False),  # hardly touches
    ],
)
def test_what_is_contained_goes_out_of_what_contains_it(outer, inner, contained):
    masks = filled(outer, inner)
    result = subtract_contained(masks, [outer, inner])
    assert bool((result[0] & masks[1]).any()) == (not contained)
    np.testing.assert_array_equal(result[1], masks[1])


def test_apart_and_single_boxes_keep_their_masks():
    boxes = [(0, 0, 10, 10), (50, 0, 60, 10)]
    masks = filled(*boxes)
    np.testing.assert_array_equal(subtract_contained(masks, boxes), masks)
    np.testing.assert_array_equal(subtract_contained(masks[:0], []), masks[:0])
