"""Segmentation: the mask of what a box holds (SAM 2, SAM-HQ, SAM), and the subtraction of contained objects."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from srgpt.errors import InputError
from srgpt.params import SegmentationParams
from srgpt.perception.detection import area, intersection
from srgpt.perception.roles import BBox, Segmenter
from srgpt.perception.weights import Loaded, load

if TYPE_CHECKING:
    from PIL.Image import Image

Masks = NDArray[np.bool_]
"""(boxes, height, width)."""

CONTAINED = 0.05
"""A box lies in another one where it fills less than this share of the other, and more than this of itself."""


class SamSegmenter:
    """Prompts a SAM model with all boxes of a picture at once and takes each box's best-scored mask."""

    def __init__(self, loaded: Loaded) -> None:
        self._loaded = loaded

    def segment(self, pictures: Sequence[Image], boxes: Sequence[Sequence[BBox]]) -> list[Masks]:
        """Return the masks of each picture's boxes, (boxes, height, width)."""
        return [self._masks(picture, own) for picture, own in zip(pictures, boxes, strict=True)]

    def _masks(self, picture: Image, boxes: Sequence[BBox]) -> Masks:
        import torch

        if not boxes:
            return np.zeros((0, picture.height, picture.width), dtype=bool)
        loaded = self._loaded
        inputs = loaded.processor(
            images=picture, input_boxes=[[[float(v) for v in box] for box in boxes]], return_tensors="pt"
        )
        sizes = [inputs["original_sizes"]]
        if "reshaped_input_sizes" in inputs:  # SAM and SAM-HQ pad to a square; SAM 2 squeezes
            sizes.append(inputs["reshaped_input_sizes"])
        pixels = loaded.place(inputs)["pixel_values"]
        prompts = inputs["input_boxes"].to(loaded.device, torch.float32)  # half precision would be pixels off
        with torch.inference_mode():
            outputs = loaded.model(pixel_values=pixels, input_boxes=prompts, multimask_output=True)
        best = outputs.iou_scores[0].float().argmax(dim=-1)  # (boxes,)
        masks = outputs.pred_masks[0].float()[torch.arange(len(boxes), device=best.device), best]
        whole = loaded.processor.post_process_masks([masks[:, None].cpu()], *sizes)[0]
        return whole[:, 0].numpy().astype(bool)


def subtract_contained(masks: Masks, boxes: Sequence[BBox]) -> Masks:
    """Take the masks of contained objects out of those that contain them; (boxes, height, width) both.

    Box j lies in box i where their intersection is less than :data:`CONTAINED` of i and more than that of j (the
    reference's rule): a cup goes out of the mask of its table, so that the table's points are the table's. What
    is taken out are the masks as they came, not as they were left.
    """
    result = masks.copy()
    for i, outer in enumerate(boxes):
        for j, inner in enumerate(boxes):
            shared = intersection(outer, inner)
            if i != j and shared < CONTAINED * area(outer) and shared > CONTAINED * area(inner):
                result[i] &= ~masks[j]
    return result


@lru_cache(maxsize=8)
def load_segmenter(params: SegmentationParams, device: str = "auto") -> Segmenter:
    """Load the segmenter, once per process and settings."""
    loaded = load("MaskGeneration", params, device)
    if not loaded.kind.startswith("sam"):
        raise InputError(
            f"perceive.segmentation.model = {params.model!r} is a {loaded.kind} model. Expected SAM 2, SAM-HQ or SAM."
        )
    return SamSegmenter(loaded)
