"""Collation: from samples to one batch of tensors, with modality dropout.

Every batch has an image, a mask and a depth image, so that every rank runs every branch of the model,
whatever its samples are: sharded training would otherwise wait for ever.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
"""The model's inputs by name, and ``keys`` and ``families``, which are not for the model."""

Augment = Callable[[Picture, np.random.Generator], Picture]
"""Changes a picture at random; what it draws from is seeded by the sample."""

_INPUTS, _AUGMENTATION = 1, 2
"""Purposes of random draws."""


class Collator:
    """Packs samples into one row; picks the inputs of every sample by its (seed, epoch, index).

    ``augment`` changes each picture before it is stacked: never in place, for pictures are kept and come again.
    """

    def __init__(
        self,
        packer: Packer,
        *,
        seed: int,
        rgb_share: float,
        blind_share: float,
        augment: Augment | None = None,
    ) -> None:
        self.packer, self.augment = packer, augment
        self.seed, self.rgb_share, self.blind_share = seed, rgb_share, blind_share

    def inputs_of(self, sample: Sample) -> Inputs:
        """Return what the model gets to see of a sample: everything, no depth, or nothing but the text."""
        draw = self._rng(sample, _INPUTS).random()
        if draw < self.blind_share or sample.picture is None:
            return "blind"
        return "rgb" if draw < self.blind_share + self.rgb_share or sample.picture.depth is None else "rgbd"

    def __call__(self, samples: Sequence[Sample]) -> Batch:
        """Return the model's inputs: one row of all tokens, with ``labels``, ``loss_weights`` and ``packing``.

        Besides, ``keys`` has each sample's key, and ``families`` (1, N) each label's index in ``FAMILIES``.
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
            pictures.append(self._picture(sample, sample.picture))
            regions += len(sample.picture.region_ids)
        if not regions:
            pictures.append(self._blank())
        return {**self.packer.processor.pixel_inputs(pictures), **index_inputs(mentions)}

    def _picture(self, sample: Sample, picture: Picture) -> Picture:
        return picture if self.augment is None else self.augment(picture, self._rng(sample, _AUGMENTATION))

    def _rng(self, sample: Sample, purpose: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, purpose, sample.epoch, sample.index])

    def _blank(self) -> Picture:
        size = self.packer.processor.image_size
        full = np.full((1, size, size), 255, np.uint8)
        return Picture(np.zeros((size, size, 3), np.uint8), None, full, (0,))


def to_device(batch: Batch, device: torch.device | str) -> Batch:
    """Return a batch whose tensors are on a device; from pinned memory they are copied while the host goes on."""
    return {k: v.to(device, non_blocking=True) if hasattr(v, "to") else v for k, v in batch.items()}


def model_inputs(batch: Batch) -> Batch:
    """Return what of a batch the model takes."""
    return {k: v for k, v in batch.items() if k not in {"keys", "families"}}


def _joined(rows: Sequence[Sequence[Any]], dtype: Any = np.int64) -> torch.Tensor:
    return torch.from_numpy(np.concatenate([np.asarray(r, dtype=dtype) for r in rows]))[None]
