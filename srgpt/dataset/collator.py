"""Collation: from samples to one batch of tensors, with modality dropout.

Every batch has an image, a mask and what tells of depth, so that every rank runs every branch of the model,
whatever its samples are: sharded training would otherwise wait for ever.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from srgpt.dataset.packing import Packer, Row
from srgpt.dataset.reading import Sample
from srgpt.model.attention import packed_layout
from srgpt.model.pixels import Picture
from srgpt.model.processing import Mentions, index_inputs
from srgpt.model.prompts import Inputs

Batch = dict[str, Any]
"""The model's inputs by name, and what is not for the model."""

NOT_FOR_THE_MODEL = frozenset({"keys", "families", "left_out"})

INPUTS_DRAWN = 1
"""Purpose of the random draw of a sample's inputs."""


class Collator:
    """Packs samples into one row; picks the inputs of every sample by its (seed, epoch, index)."""

    def __init__(self, packer: Packer, *, seed: int, shares: Mapping[Inputs, float]) -> None:
        self.packer = packer
        self.seed, self.shares = seed, dict(shares)

    def inputs_of(self, sample: Sample) -> Inputs:
        """Return what the model gets to see of a sample, drawn by ``shares``; the rest is shown all there is."""
        if sample.picture is None:
            return "blind"
        draw = np.random.default_rng([self.seed, INPUTS_DRAWN, sample.epoch, sample.index]).random()
        for inputs, share in self.shares.items():
            if draw < share:
                return inputs
            draw -= share
        return "rgbd" if sample.picture.has_depth else "rgb"

    def __call__(self, samples: Sequence[Sample]) -> Batch:
        """Return the model's inputs: one row of all tokens, with ``labels``, ``loss_weights`` and ``packing``.

        Besides, ``keys`` has each sample's key, ``families`` (1, N) each label's index in ``FAMILIES``, and
        ``left_out`` is how many turns did not fit.
        """
        rows = [self.packer.pack(s.conversation, self.inputs_of(s), history=s.history) for s in samples]
        return {
            "input_ids": _joined([r.ids for r in rows]),
            "labels": _joined([r.labels for r in rows]),
            "loss_weights": _joined([r.weights for r in rows], np.float32),
            "position_ids": _joined([r.positions for r in rows]),
            "packing": packed_layout([r.prefix for r in rows], [r.segments for r in rows]),
            "families": _joined([r.families for r in rows]),
            "keys": [s.key for s in samples],
            "left_out": sum(r.left_out for r in rows),
            **self._pixels(samples, rows),
        }

    def _pixels(self, samples: Sequence[Sample], rows: Sequence[Row]) -> dict[str, torch.Tensor]:
        mentions = Mentions([], [], [])
        pictures: list[Picture] = []
        regions = 0
        for sample, row in zip(samples, rows, strict=True):
            if row.inputs == "blind" or sample.picture is None:
                continue
            mentions.images.append(len(pictures))
            chosen = [regions + k for k in row.regions]
            mentions.masks.extend(chosen)
            mentions.depths.extend(chosen[: row.depths])
            pictures.append(sample.picture)
            regions += len(sample.picture.region_ids)
        if not regions:
            pictures.append(self._blank())
        return {**self.packer.processor.pixel_inputs(pictures), **index_inputs(mentions)}

    def _blank(self) -> Picture:
        size = self.packer.processor.image_size
        full = np.full((1, size, size), 255, np.uint8)
        return Picture(np.zeros((size, size, 3), np.uint8), full, (0,))


def to_device(batch: Batch, device: torch.device | str) -> Batch:
    """Return a batch whose tensors are on a device; from pinned memory they are copied while the host goes on."""
    return {k: v.to(device, non_blocking=True) if hasattr(v, "to") else v for k, v in batch.items()}


def model_inputs(batch: Batch) -> Batch:
    """Return what of a batch the model takes."""
    return {k: v for k, v in batch.items() if k not in NOT_FOR_THE_MODEL}


def _joined(rows: Sequence[Sequence[Any]], dtype: Any = np.int64) -> torch.Tensor:
    return torch.from_numpy(np.concatenate([np.asarray(r, dtype=dtype) for r in rows]))[None]
