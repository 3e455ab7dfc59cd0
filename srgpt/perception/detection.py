"""Detection: boxes for words (Grounding DINO, OWLv2), and the reference's rules for which of them to keep."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from srgpt.errors import InputError
from srgpt.params import DetectionParams
from srgpt.perception.roles import BBox, Detection, Detector
from srgpt.perception.weights import Loaded, load
from srgpt.perception.words import words_of

if TYPE_CHECKING:
    from PIL.Image import Image


class _ZeroShotDetector(ABC):
    """Runs every picture once per chunk of its tags, in batches as large as the pictures that came."""

    def __init__(self, loaded: Loaded, params: DetectionParams) -> None:
        self._loaded = loaded
        self._params = params

    def detect(self, pictures: Sequence[Image], tags: Sequence[Sequence[str]]) -> list[list[Detection]]:
        """Return the boxes of each picture for its own tags, most certain first."""
        asked = [(i, chunk) for i, own in enumerate(tags) for chunk in self._chunks(own)]
        found: list[list[Detection]] = [[] for _ in pictures]
        for start in range(0, len(asked), len(pictures) or 1):
            batch = asked[start : start + len(pictures)]
            results = self._run([pictures[i] for i, _ in batch], [chunk for _, chunk in batch])
            for (index, _), detections in zip(batch, results, strict=True):
                found[index] += detections
        return [sorted(own, key=lambda d: -d.score) for own in found]

    def _chunks(self, tags: Sequence[str]) -> list[list[str]]:
        """Split tags so that the model reads each chunk whole; no tags give no chunk."""
        return [list(tags)] if tags else []

    @abstractmethod
    def _run(self, pictures: list[Image], tags: list[list[str]]) -> list[list[Detection]]:
        """Run the model on pictures with their tags, none of them without one."""


class GroundingDinoDetector(_ZeroShotDetector):
    """Grounding DINO and MM Grounding DINO: the tags are one text, and boxes come with the words that fit.

    Only pictures of the same size share a batch: smaller ones would be padded, which changes what is found in them.
    """

    def _chunks(self, tags: Sequence[str]) -> list[list[str]]:
        tokenizer = self._loaded.processor.tokenizer
        limit = self._loaded.model.config.max_text_len - 2  # [CLS] and [SEP]
        chunks: list[list[str]] = []
        used = limit
        for tag in tags:
            length = len(tokenizer(tag, add_special_tokens=False)["input_ids"]) + 1  # the full stop
            if used + length > limit:
                chunks.append([])
                used = 0
            chunks[-1].append(tag)
            used += length
        return chunks

    def _run(self, pictures: list[Image], tags: list[list[str]]) -> list[list[Detection]]:
        groups: dict[tuple[int, int], list[int]] = {}
        for index, picture in enumerate(pictures):
            groups.setdefault(picture.size, []).append(index)
        found: dict[int, list[Detection]] = {}
        for indices in groups.values():
            results = self._run_one_size([pictures[i] for i in indices], [tags[i] for i in indices])
            found.update(zip(indices, results, strict=True))
        return [found[index] for index in range(len(pictures))]

    def _run_one_size(self, pictures: list[Image], tags: list[list[str]]) -> list[list[Detection]]:
        import torch

        loaded = self._loaded
        inputs = loaded.processor(
            images=pictures, text=tags, padding=True, truncation=True, return_tensors="pt"
        )
        with torch.inference_mode():
            outputs = loaded.model(**loaded.place(inputs))
        results = loaded.processor.post_process_grounded_object_detection(
            _as_float32(outputs),
            inputs["input_ids"],
            threshold=self._params.box_threshold,
            text_threshold=self._params.text_threshold,
            target_sizes=[(p.height, p.width) for p in pictures],
        )
        return [
            [
                Detection(box, tag, score)
                for box, words, score in zip(boxes, result["text_labels"], scores, strict=True)
                if (tag := match_tag(words, own)) is not None
            ]
            for result, own, picture in zip(results, tags, pictures, strict=True)
            for boxes, scores in [_boxes_and_scores(result, picture)]
        ]


class Owlv2Detector(_ZeroShotDetector):
    """OWLv2 and OWL-ViT: every tag is a query of its own."""

    def _run(self, pictures: list[Image], tags: list[list[str]]) -> list[list[Detection]]:
        import torch

        loaded = self._loaded
        most = max(map(len, tags))
        # all pictures of a batch need as many queries; a repeated one can win only where the first one does
        padded = [own + own[:1] * (most - len(own)) for own in tags]
        inputs = loaded.processor(images=pictures, text=padded, truncation=True, return_tensors="pt")
        with torch.inference_mode():
            outputs = loaded.model(**loaded.place(inputs))
        results = loaded.processor.post_process_grounded_object_detection(
            _as_float32(outputs),
            threshold=self._params.box_threshold,
            target_sizes=[(p.height, p.width) for p in pictures],
            text_labels=padded,
        )
        return [
            [
                Detection(box, tag, score)
                for box, tag, score in zip(boxes, result["text_labels"], scores, strict=True)
            ]
            for result, picture in zip(results, pictures, strict=True)
            for boxes, scores in [_boxes_and_scores(result, picture)]
        ]


def _as_float32(outputs: Any) -> Any:
    """Turn what post-processing reads into float32 on the CPU: boxes in half precision would be pixels off."""
    outputs.logits = outputs.logits.float().cpu()
    outputs.pred_boxes = outputs.pred_boxes.float().cpu()
    return outputs


def _boxes_and_scores(result: dict[str, Any], picture: Image) -> tuple[list[BBox], list[float]]:
    """Read a post-processed result; boxes are cut at the picture's edges."""
    boxes = result["boxes"].numpy().astype(np.float64)
    boxes[:, 0::2] = boxes[:, 0::2].clip(0, picture.width)
    boxes[:, 1::2] = boxes[:, 1::2].clip(0, picture.height)
    return [(b[0], b[1], b[2], b[3]) for b in boxes.tolist()], result["scores"].tolist()


def match_tag(words: str, tags: Sequence[str]) -> str | None:
    """Return the tag that a box's words mean, None where they mean none.

    Grounding DINO marks words of the whole text, so that a box may come with part of a tag or with words of two.
    The tag with the largest share of its words among them wins; of equals the longer one, then the first.
    """
    found = set(words_of(words))
    best, best_rank = None, (0.0, 0)
    for tag in tags:
        own = words_of(tag)
        shared = sum(word in found for word in own)
        rank = (shared / len(own) if own else 0.0, shared)
        if rank > best_rank:
            best, best_rank = tag, rank
    return best


def select(
    detections: Sequence[Detection], size: tuple[int, int], params: DetectionParams
) -> list[Detection]:
    """Apply the reference's rules to the boxes of a picture of ``size`` (width, height), most certain first.

    Boxes that are less certain than ``min_score``, empty, or over more than ``max_box_share`` of the picture go;
    so do those that overlap a more certain one by more than ``nms_iou``, whatever their words (class-agnostic
    non-maximum suppression).
    """
    ranked = sorted(detections, key=lambda d: -d.score)
    largest = params.max_box_share * size[0] * size[1]
    kept: list[Detection] = []
    for one in ranked:
        if one.score < params.min_score or not 0 < area(one.bbox) <= largest:
            continue
        if all(iou(one.bbox, other.bbox) <= params.nms_iou for other in kept):
            kept.append(one)
    return kept


def area(box: BBox) -> float:
    """Return the area of a box in square pixels, 0 where it is empty."""
    return max(box[2] - box[0], 0.0) * max(box[3] - box[1], 0.0)


def intersection(a: BBox, b: BBox) -> float:
    """Return the area that two boxes share, square pixels."""
    return area((max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])))


def iou(a: BBox, b: BBox) -> float:
    """Return the intersection over union of two boxes, 0 where both are empty."""
    shared = intersection(a, b)
    union = area(a) + area(b) - shared
    return shared / union if union > 0 else 0.0


@lru_cache(maxsize=8)
def load_detector(params: DetectionParams, device: str = "auto") -> Detector:
    """Load the detector, once per process and settings."""
    loaded = load("ZeroShotObjectDetection", params, device)
    if loaded.kind in ("grounding-dino", "mm-grounding-dino"):
        return GroundingDinoDetector(loaded, params)
    if loaded.kind in ("owlv2", "owlvit"):
        return Owlv2Detector(loaded, params)
    raise InputError(
        f"perceive.detection.model = {params.model!r} is a {loaded.kind} model. Expected Grounding DINO, MM Grounding "
        "DINO, OWLv2 or OWL-ViT."
    )
