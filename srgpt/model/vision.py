"""The vision tower: any SigLIP- or CLIP-like vision model of transformers, as a square map of features."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from srgpt.model.configuration import FeatureLayer


def tower_features(tower: Any, pixels_I3HW: Tensor, layer: FeatureLayer, grid: int) -> Tensor:
    """Return the patch features of images, (I, grid * grid, C), row-major and without a class token.

    ``last`` is the output of the last layer under the tower's final norm (SigLIP applies it itself; CLIP
    applies it to its class token only, so it is applied here). ``penultimate`` is the output of the layer
    before, without a norm.
    """
    if layer == "penultimate":
        features = tower(pixel_values=pixels_I3HW, output_hidden_states=True).hidden_states[-2]
    else:
        features = tower(pixel_values=pixels_I3HW).last_hidden_state
        if tower.config.model_type.startswith("clip"):
            features = tower.post_layernorm(features)
    return features[:, features.shape[1] - grid * grid :]


POSITION_SCALE = 2.0
"""Amplitude of fixed positions: where a patch lies must at first outweigh what it shows."""


def sincos_positions(grid: int, dim: int) -> Tensor:
    """Return fixed 2-D sine-cosine positions, (grid * grid, dim), row-major.

    A quarter of the channels each: sin and cos of the row, sin and cos of the column (Vaswani et al. 2017, in
    two dimensions as in MoCo v3), at frequencies that fall geometrically from 1 to 1 / grid radians per cell.
    The usual base of 10,000 is made for long sequences: over so few cells most channels would not vary.
    """
    if dim % 4:
        raise ValueError(f"the hidden size of a tower from scratch must be a multiple of 4, not {dim}")
    frequencies = float(grid) ** -(torch.arange(dim // 4, dtype=torch.float64) / (dim // 4))
    angles = torch.arange(grid, dtype=torch.float64)[:, None] * frequencies
    waves = POSITION_SCALE * torch.cat([angles.sin(), angles.cos()], dim=1)  # (grid, dim / 2)
    rows = waves[:, None].expand(grid, grid, -1)
    columns = waves[None].expand(grid, grid, -1)
    return torch.cat([rows, columns], dim=2).reshape(grid * grid, dim).float()


def fix_positions(tower: PreTrainedModel, grid: int) -> None:
    """Give a tower from scratch fixed positions: learned ones of small scale keep it at chance for long."""
    weight = tower.get_parameter("embeddings.position_embedding.weight")
    with torch.no_grad():
        weight.copy_(sincos_positions(grid, weight.shape[1]))
    weight.requires_grad_(False)
