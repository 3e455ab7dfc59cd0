"""Filtering: keep photographs of scenes with objects, by zero-shot classification (CLIP, SigLIP)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from srgpt.params import FilteringParams
from srgpt.perception.roles import Filter, Verdict
from srgpt.perception.weights import Loaded, load
from srgpt.perception.words import chosen

if TYPE_CHECKING:
    from PIL.Image import Image


class ZeroShotFilter:
    """Compares a picture with descriptions to keep and descriptions to set aside.

    The probability of a description is the softmax over all of them, also for SigLIP, whose own sigmoids do not
    compete; a picture is kept where the positive ones together reach ``min_positive``.
    """

    def __init__(
        self, loaded: Loaded, positive: Sequence[str], negative: Sequence[str], threshold: float
    ) -> None:
        self._loaded = loaded
        self._labels = (*positive, *negative)
        self._positives = len(positive)
        self._threshold = threshold

    def judge(self, pictures: Sequence[Image]) -> list[Verdict]:
        """Return a verdict per picture."""
        import torch

        loaded = self._loaded
        inputs = loaded.processor(
            images=list(pictures),
            text=list(self._labels),
            # SigLIP was trained on texts padded to its full length
            padding="max_length" if loaded.kind.startswith("siglip") else True,
            max_length=loaded.model.config.text_config.max_position_embeddings,
            truncation=True,
            return_tensors="pt",
        )
        with torch.inference_mode():
            logits = loaded.model(**loaded.place(inputs)).logits_per_image
        probabilities = logits.float().softmax(dim=-1).cpu().tolist()
        return [self._verdict(row) for row in probabilities]

    def _verdict(self, probabilities: Sequence[float]) -> Verdict:
        positive = sum(probabilities[: self._positives])
        keep = positive >= self._threshold
        side = range(self._positives) if keep else range(self._positives, len(self._labels))
        best = max(side, key=lambda index: probabilities[index])
        return Verdict(keep, self._labels[best], positive)


@lru_cache(maxsize=8)
def load_filter(params: FilteringParams, device: str = "auto") -> Filter:
    """Load the filter, once per process and settings."""
    return ZeroShotFilter(
        load("ZeroShotImageClassification", params, device, "bfloat16"),
        chosen(params.positive, "filtering", "positive"),
        chosen(params.negative, "filtering", "negative"),
        params.min_positive,
    )
