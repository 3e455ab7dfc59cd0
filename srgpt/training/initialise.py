"""Start values of a model built from scratch, without which a small one does not learn to relate regions.

Two things hold a tiny model back for thousands of steps: a language model whose weights are so small that its
attention starts out blind to what differs between tokens, and region embeddings that hardly differ from each
other, because the connectors' biases outweigh what was pooled. The first is a matter of scale; the second is
set from data: each connector's last layer is rescaled so that its output has mean 0 and a given deviation over
a first batch (after Mishkin and Matas, "All you need is a good init", ICLR 2016).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import torch
from torch import Tensor, nn

from srgpt.model.modeling import SrgptForConditionalGeneration
from srgpt.model.region import RegionExtractor

SPREAD = 0.3
"""Standard deviation of token embeddings, image tokens and region embeddings alike."""


@torch.no_grad()
def initialise(model: SrgptForConditionalGeneration, batch: dict[str, Tensor], seed: int) -> None:
    """Set a new model's start values in place; ``batch`` (from the collator) holds pictures with depth.

    The same model, batch and seed give the same values, so every rank of a run does.
    """
    generator = torch.Generator().manual_seed(seed)
    _draw(cast(nn.Embedding, model.get_input_embeddings()).weight, SPREAD, generator)
    extractor = model.region_extractor
    for module in extractor.modules():
        if isinstance(module, nn.ConvTranspose2d):  # kernels do not overlap, so the fan-in is the channels
            _draw(module.weight, (2 / module.in_channels) ** 0.5, generator)
            nn.init.zeros_(module.bias)  # type: ignore[arg-type]
    images, rgb, depth = _encode(model, batch)
    _scale(cast(nn.Linear, model.mm_projector.layers[-1]), float(images.std()))
    for layer, values in _regions(extractor, rgb, depth):
        _scale(layer, float(values.std(0).mean()))
    _, rgb, depth = _encode(model, batch)
    for layer, values in _regions(extractor, rgb, depth):
        layer.bias.sub_(values.mean(0))


def _regions(
    extractor: RegionExtractor, rgb: Tensor, depth: Tensor | None
) -> Iterator[tuple[nn.Linear, Tensor]]:
    """Yield the last layer of each region connector with its output, where there is enough to measure."""
    if len(rgb) > 1:
        yield extractor.rgb_projector, rgb
    if depth is not None and len(depth) > 1:
        yield extractor.depth_head, depth


def _draw(weight: Tensor, deviation: float, generator: torch.Generator) -> None:
    weight.copy_(torch.empty_like(weight).normal_(0, deviation, generator=generator))


def _scale(layer: nn.Linear, deviation: float) -> None:
    layer.weight.mul_(SPREAD / max(deviation, 1e-6))


def _encode(
    model: SrgptForConditionalGeneration, batch: dict[str, Tensor]
) -> tuple[Tensor, Tensor, Tensor | None]:
    names = ("pixel_values", "depth_values", "region_masks", "region_images", "region_points")
    images, rgb, depth = model.encode_images(*(batch.get(name) for name in names))  # type: ignore[arg-type]
    return images.flatten(0, 1), rgb, depth
