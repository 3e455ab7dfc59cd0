"""Segmentation: the mask of what a box holds (SAM 2, SAM-HQ, SAM), and the subtraction of contained objects."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from srgpt.errors import InputError
from srgpt.params import SegmentationParams
from srgpt.perception.detection import area, intersection
from srgpt.perception.pixels import Squeeze
from srgpt.perception.roles import BBox, Segmenter
from srgpt.perception.weights import Loaded, load

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

Masks = NDArray[np.bool_]
"""(boxes, height, width)."""

CONTAINED = 0.05
"""A box lies in another one where it fills less than this share of the other, and more than this of itself."""


class _Sam(ABC):
    """Prompts a model with all boxes of a picture at once and takes each box's best-scored mask."""

    def __init__(self, loaded: Loaded) -> None:
        self._loaded = loaded

    def segment(self, pictures: Sequence[Image], boxes: Sequence[Sequence[BBox]]) -> list[Masks]:
        """Return the masks of each picture's boxes, (boxes, height, width)."""
        return [
            self._masks(picture, own) if own else np.zeros((0, picture.height, picture.width), dtype=bool)
            for picture, own in zip(pictures, boxes, strict=True)
        ]

    @abstractmethod
    def _masks(self, picture: Image, boxes: Sequence[BBox]) -> Masks:
        """Segment at least one box."""

    def _best(self, pixels: Tensor, boxes: Tensor) -> Tensor:
        """Return logits (boxes, 1, h, w) of the best-scored masks; ``boxes`` (1, boxes, 4) in the model's pixels."""
        import torch

        place = self._loaded
        # half precision would put a box pixels off
        prompts = boxes.to(place.device, torch.float32)
        with torch.inference_mode():
            outputs = place.model(
                pixel_values=pixels.to(place.device, place.dtype), input_boxes=prompts, multimask_output=True
            )
        best = outputs.iou_scores[0].float().argmax(dim=-1)  # (boxes,)
        rows = torch.arange(len(best), device=best.device)
        return outputs.pred_masks[0].float()[rows, best][:, None].cpu()


class SamHQSegmenter(_Sam):
    """SAM-HQ and SAM, which see a picture in its proportions, padded to a square."""

    def _masks(self, picture: Image, boxes: Sequence[BBox]) -> Masks:
        processor = self._loaded.processor
        prompts = [[[float(v) for v in box] for box in boxes]]
        inputs = processor(images=picture, input_boxes=prompts, return_tensors="pt")
        logits = self._best(inputs["pixel_values"], inputs["input_boxes"])
        masks = processor.post_process_masks(
            [logits], inputs["original_sizes"], inputs["reshaped_input_sizes"]
        )
        return np.asarray(masks[0][:, 0].numpy(), dtype=bool)


class Sam2Segmenter(_Sam):
    """SAM 2 and 2.1, which see a picture squeezed to a square."""

    def _masks(self, picture: Image, boxes: Sequence[BBox]) -> Masks:
        import torch

        squeeze: Squeeze = self._loaded.processor
        height, width = squeeze.size
        scale = torch.tensor([width / picture.width, height / picture.height] * 2, dtype=torch.float64)
        logits = self._best(squeeze([picture]), torch.tensor([boxes], dtype=torch.float64) * scale)
        masks = torch.nn.functional.interpolate(
            logits, (picture.height, picture.width), mode="bilinear", align_corners=False
        )
        return np.asarray((masks[:, 0] > 0).numpy(), dtype=bool)


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
    if loaded.kind in ("sam2", "sam2_video"):
        return Sam2Segmenter(loaded)
    if loaded.kind in ("sam_hq", "sam"):
        return SamHQSegmenter(loaded)
    raise InputError(
        f"perceive.segmentation.model = {params.model!r} is a {loaded.kind} model. Expected SAM 2, SAM-HQ or SAM."
    )
