"""The vision tower: SigLIP, SigLIP 2, CLIP, DINOv2 or DINOv3 of transformers, as a square map of features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.image_processing_base import ImageProcessingMixin

from srgpt.errors import InputError
from srgpt.model.configuration import FeatureLayer
from srgpt.model.pixels import MEAN, STD, Channels

CLASS_TOKENS = {
    "siglip_vision_model": 0,
    "siglip2_vision_model": 0,
    "clip_vision_model": 1,
    "dinov2": 1,
    "dinov2_with_registers": 1,
    "dinov3_vit": 1,
}
"""Towers that are supported, and how many class tokens come before their registers and patches."""

INTERPOLATES = ("siglip_vision_model", "clip_vision_model")
"""Towers that take pictures of another size than their own only if told to."""

NAFLEX = "siglip2_vision_model"
"""The tower that takes patches instead of pictures, of any aspect ratio; here of a square."""

UNUSED = ("head.", "embeddings.mask_token")
"""Beginnings of names of a tower's weights that features never depend on: a pooling head, what hides patches."""


# Features -------------------------------------------------------------------------------------------------


def tower_features(tower: Any, pixels_I3HW: Tensor, layer: FeatureLayer, grid: int) -> Tensor:
    """Return the patch features of images, (I, grid * grid, C), row-major, without class and register tokens.

    ``last`` is the output of the last layer under the tower's final norm (all apply it themselves but CLIP, which does
    so to its class token only; here it is applied to all). ``penultimate`` is the output of the layer before, without
    a norm. Raises :class:`InputError` where the tower gives another number of tokens than a square of ``grid`` cells.
    """
    inputs = _inputs(tower.config, pixels_I3HW)
    if layer == "penultimate":
        features = tower(**inputs, output_hidden_states=True).hidden_states[-2]
    else:
        features = tower(**inputs).last_hidden_state
        if tower.config.model_type == "clip_vision_model":
            features = tower.post_layernorm(features)
    before = features.shape[1] - grid * grid
    if before != tokens_before_patches(tower.config):
        raise InputError(
            f"the vision tower ({tower.config.model_type}) gives {features.shape[1]} tokens for a picture, and "
            f"{grid} x {grid} patches after {tokens_before_patches(tower.config)} others were expected"
        )
    return features[:, before:]


def tokens_before_patches(config: PreTrainedConfig) -> int:
    """Return the number of class and register tokens with which a tower's output begins."""
    return CLASS_TOKENS[config.model_type] + int(getattr(config, "num_register_tokens", 0))


def _inputs(config: PreTrainedConfig, pixels_I3HW: Tensor) -> dict[str, Any]:
    """Return a tower's arguments for square pictures."""
    if config.model_type == NAFLEX:
        patches, grid = _patches(pixels_I3HW, config.patch_size)
        shapes = torch.full((len(patches), 2), grid, dtype=torch.long, device=patches.device)
        # no padding, so that no mask is needed: of all ones it would cost a mask of L by L
        return {"pixel_values": patches, "pixel_attention_mask": None, "spatial_shapes": shapes}
    if config.model_type in INTERPOLATES and pixels_I3HW.shape[-1] != config.image_size:
        return {"pixel_values": pixels_I3HW, "interpolate_pos_encoding": True}
    return {"pixel_values": pixels_I3HW}


def _patches(pixels_I3HW: Tensor, size: int) -> tuple[Tensor, int]:
    """Cut pictures into patches, (I, grid * grid, size * size * 3): row, column, channel."""
    count, channels, side, _ = pixels_I3HW.shape
    grid = side // size
    cells = pixels_I3HW[..., : grid * size, : grid * size].reshape(count, channels, grid, size, grid, size)
    return cells.permute(0, 2, 4, 3, 5, 1).reshape(count, grid * grid, size * size * channels), grid


# Pretrained towers ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Normalisation:
    """How a tower wants its pictures: the mean and deviation of each channel of pixels in 0..1."""

    mean: Channels = MEAN
    std: Channels = STD


def tower_config(name: str) -> PreTrainedConfig:
    """Return the configuration of a pretrained tower, that of the vision half where it is of a pair.

    Raises :class:`InputError` where there is none, or it is of a kind that gives no square map of patches.
    """
    try:
        config = AutoConfig.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise InputError(
            f"train.model.vision.pretrained = {name!r}: not a model that can be read ({error})"
        ) from None
    config = getattr(config, "vision_config", config)
    if config.model_type not in CLASS_TOKENS:
        raise InputError(
            f"train.model.vision.pretrained = {name!r}: a tower of type {config.model_type!r} is not supported; "
            f"allowed: {', '.join(CLASS_TOKENS)}"
        )
    square_side(getattr(config, "image_size", 0), "image_size")
    square_side(config.patch_size, "patch_size")
    return config


def square_side(size: int | Sequence[int], name: str) -> int:
    """Return the side of a square that a configuration may give as two numbers; :class:`InputError` if no square."""
    sides = {size} if isinstance(size, int) else {int(s) for s in size}
    if len(sides) != 1:
        raise InputError(
            f"the vision tower's {name} is {list(size)}: only square pictures of square patches are "  # type: ignore[arg-type]
            "supported, for regions are pooled over a square grid"
        )
    return sides.pop()


def own_size(name: str, config: PreTrainedConfig) -> int:
    """Return the side of the pictures that a pretrained tower was made for, by its preprocessor or configuration."""
    if config.model_type == NAFLEX:
        return int(int(config.num_patches) ** 0.5) * int(config.patch_size)
    found = _preprocessor(name)
    size = found.get("crop_size") if found.get("do_center_crop") else found.get("size")
    size = size if size is not None else config.image_size
    if isinstance(size, dict):
        size = list({size[k] for k in ("height", "width", "shortest_edge") if k in size}) or config.image_size
    return square_side(size, "picture size")


def normalisation(name: str) -> Normalisation:
    """Return what a pretrained tower's ``preprocessor_config.json`` says about its pictures' normalisation."""
    found = _preprocessor(name)
    try:
        mean, std = ([float(v) for v in found[k]] for k in ("image_mean", "image_std"))
        if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
            raise ValueError
    except (KeyError, TypeError, ValueError):
        raise InputError(
            f"{name}: preprocessor_config.json lacks image_mean and image_std, three numbers each"
        ) from None
    return Normalisation(tuple(mean), tuple(std))  # type: ignore[arg-type]


def _preprocessor(name: str) -> dict[str, Any]:
    try:
        found: dict[str, Any] = ImageProcessingMixin.get_image_processor_dict(name)[0]
    except (OSError, ValueError):
        raise InputError(
            f"{name}: has no readable preprocessor_config.json, which says how the tower's pictures are normalised; "
            "copy it from where the weights come from"
        ) from None
    return found


def load_tower(name: str, config: PreTrainedConfig) -> PreTrainedModel:
    """Return a pretrained tower in float32."""
    tower: PreTrainedModel = AutoModel.from_pretrained(name, config=config, dtype=torch.float32)
    return tower


# From scratch ---------------------------------------------------------------------------------------------

POSITIONS = "embeddings.position_embedding.weight"

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
    weight = tower.get_parameter(POSITIONS)
    with torch.no_grad():
        weight.copy_(sincos_positions(grid, weight.shape[1]))
    weight.requires_grad_(False)
