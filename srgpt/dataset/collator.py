"""Collation: from samples to one batch of tensors, with modality dropout.

Every batch has an image, a mask and a depth image, so that every rank runs every branch of the model,
whatever its samples are: sharded training would otherwise wait for ever.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from srgpt.dataset.packing import IGNORE, PADDING, Packer, Row, block_mask
from srgpt.dataset.reading import Sample
from srgpt.model.pixels import Picture
from srgpt.model.processing import Mentions, index_inputs
from srgpt.model.prompts import Inputs


class Collator:
    """Packs samples and stacks them; picks the inputs of every sample by its (seed, epoch, index)."""

    def __init__(self, packer: Packer, *, seed: int, rgb_share: float, blind_share: float) -> None:
        self.packer = packer
        self.seed, self.rgb_share, self.blind_share = seed, rgb_share, blind_share

    def inputs_of(self, sample: Sample) -> Inputs:
        """Return what the model gets to see of a sample: everything, no depth, or nothing but the text."""
        draw = np.random.default_rng([self.seed, 1, sample.epoch, sample.index]).random()
        if draw < self.blind_share:
            return "blind"
        return "rgb" if draw < self.blind_share + self.rgb_share or sample.picture.depth is None else "rgbd"

    def __call__(self, samples: Sequence[Sample]) -> dict[str, Any]:
        """Return the model's inputs, with ``labels``, ``loss_weights`` and a block attention mask.

        Beside them are the samples' ``keys`` and the labels' ``families``, which the model does not take.
        """
        rows = [self.packer.pack(s.conversation, self.inputs_of(s)) for s in samples]
        pad = self.packer.processor.tokenizer.pad_token_id
        segments = _stack([r.segments for r in rows], PADDING)
        allowed = torch.from_numpy(block_mask(segments))
        return {
            "input_ids": torch.from_numpy(_stack([r.ids for r in rows], pad)),
            "labels": torch.from_numpy(_stack([r.labels for r in rows], IGNORE)),
            "loss_weights": torch.from_numpy(_stack([r.weights for r in rows], 0.0, np.float32)),
            "position_ids": torch.from_numpy(_stack([r.positions for r in rows], 0)),
            "attention_mask": torch.where(allowed, 0.0, torch.finfo(torch.float32).min)[:, None],
            **self._pixels(samples, rows),
            "families": torch.from_numpy(_stack([r.families for r in rows], -1)),
            "keys": [(s.epoch, s.index) for s in samples],
        }

    def _pixels(self, samples: Sequence[Sample], rows: Sequence[Row]) -> dict[str, torch.Tensor]:
        mentions = Mentions([], [], [])
        pictures: list[Picture] = []
        regions = 0
        for sample, row in zip(samples, rows, strict=True):
            if row.inputs == "blind":
                continue
            mentions.images.append(len(pictures))
            mentions.masks.extend(regions + k for k in row.regions)
            if row.inputs == "rgbd":
                mentions.depths.extend(regions + k for k in row.regions)
            pictures.append(sample.picture)
            regions += len(sample.picture.region_ids)
        if not regions:
            pictures.append(self._blank())
        return {**self.packer.processor.pixel_inputs(pictures), **index_inputs(mentions)}

    def _blank(self) -> Picture:
        size = self.packer.processor.image_size
        full = np.full((1, size, size), 255, np.uint8)
        return Picture(np.zeros((size, size, 3), np.uint8), None, full, (0,))


def _stack(rows: Sequence[Sequence[Any]], fill: Any, dtype: Any = np.int64) -> np.ndarray[Any, Any]:
    result = np.full((len(rows), max(len(r) for r in rows)), fill, dtype=dtype)
    for line, row in zip(result, rows, strict=True):
        line[: len(row)] = row
    return result
