"""Augmentation: what a sensor, a depth model or a person's finger may do to a picture's depth and regions.

Each change is drawn anew for every sample of every epoch, from the generator that it is given.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from srgpt.dataset.sampler import Key
from srgpt.model.pixels import box_mask, scribble_mask
from srgpt.model.processing import View
from srgpt.params import AugmentParams

_PURPOSE = 2
"""Sets these draws apart from those of a sample's inputs."""

_HOLE = (0.05, 0.25)
"""Sides of a hole, as shares of the picture's."""

_STROKE_POINTS = 4
"""Points through which a scribble is drawn."""


@dataclass(frozen=True)
class Augmentation:
    """Changes the picture of each sample as its (seed, epoch, index) has it."""

    params: AugmentParams
    seed: int

    def __call__(self, view: View, key: Key) -> View:
        """Return a changed copy."""
        return augment(view, self.params, np.random.default_rng([self.seed, _PURPOSE, *key]))


def augment(view: View, params: AugmentParams, rng: np.random.Generator) -> View:
    """Return a changed copy of a picture: another form of its regions, another depth."""
    masks = view.masks
    forms = {form: share for form, share in params.shapes.items() if share > 0}
    if forms:
        shares = np.array(list(forms.values()))
        # one form for all regions of a picture, as in SpatialRGPT
        form = list(forms)[int(rng.choice(len(forms), p=shares / shares.sum()))]
        masks = {k: reshape(mask, form, rng) for k, mask in masks.items()}
    depth = None if view.depth is None else change_depth(view.depth, params, rng)
    return replace(view, masks=masks, depth=depth)


def reshape(mask_HW: NDArray[np.bool_], form: str, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Return a region as a person might have given it: its ``mask``, ``box``, or a ``point`` or ``scribble`` on it."""
    rows, columns = np.nonzero(mask_HW)
    if form == "mask" or len(rows) == 0:
        return mask_HW
    height, width = mask_HW.shape
    if form == "box":
        box = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        return box_mask(tuple(float(v) for v in box), width, height)  # type: ignore[arg-type]
    chosen = rng.integers(0, len(rows), 1 if form == "point" else _STROKE_POINTS)
    return scribble_mask([(float(columns[k]), float(rows[k])) for k in chosen], width, height)


def change_depth(
    metres_HW: NDArray[np.floating[Any]], params: AugmentParams, rng: np.random.Generator
) -> NDArray[np.floating[Any]]:
    """Return depth (H, W) in metres of another scale, with noise, and with holes of no reading (0)."""
    factor = np.exp(params.depth_scale * rng.standard_normal())
    noise = 1 + params.depth_noise * rng.standard_normal(metres_HW.shape)
    changed = metres_HW * factor * np.maximum(noise, 0.01)
    height, width = metres_HW.shape
    for _ in range(rng.poisson(params.depth_holes)):
        tall, wide = (rng.uniform(*_HOLE, 2) * (height, width)).round().astype(int)
        top, left = rng.integers(0, height - tall + 1), rng.integers(0, width - wide + 1)
        changed[top : top + tall, left : left + wide] = 0
    return changed
