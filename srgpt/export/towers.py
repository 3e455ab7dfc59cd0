"""The vision side as ONNX graphs: tower, connector, and one region graph each for RGB and depth, where there is any.

    pixels (N, 3, S, S) --tower--> features (N, L, C) --connector--> tokens (N, T, D), map (N, 16 L, C)
    map of one image (16 L, C), masks (R, S, S) --region--------> (R, D)
    depth features (L, C), masks (R, S, S) ------depth_region---> (R, D)
    or points of regions (R, N, 3) --------------points---------> (R, D)

RGB and depth images go through the same tower, so that a server runs both in one batch.
"""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import Dim

from srgpt.model.modeling import SrgptForConditionalGeneration
from srgpt.model.pixels import POINTS
from srgpt.model.region import UPSAMPLING, RegionExtractor, pooling_weights
from srgpt.model.vision import tower_features

OPSET = 20
"""Within reach of the ONNX Runtime that Triton's container carries."""

_EXAMPLE = 3
"""Size of a dynamic axis in the example: not 0 or 1, which the exporter would take for constants."""


class TowerGraph(nn.Module):
    """The vision tower up to its patch features."""

    def __init__(self, model: SrgptForConditionalGeneration) -> None:
        super().__init__()
        self.tower = model.vision_tower
        self.layer = model.config.feature_layer
        self.grid = model.config.grid

    def forward(self, pixels: Tensor) -> Tensor:
        """Map (N, 3, S, S) to (N, L, C)."""
        return tower_features(self.tower, pixels, self.layer, self.grid)


class ConnectorGraph(nn.Module):
    """Refinement and the image connector."""

    def __init__(self, model: SrgptForConditionalGeneration) -> None:
        super().__init__()
        self.extractor = model.region_extractor
        self.projector = model.mm_projector
        self.grid = model.config.grid

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Map (N, L, C) to image tokens (N, T, D) and the refined map (N, 16 L, C)."""
        hires, lowres = self.extractor.refine(features, self.grid)
        return self.projector(lowres), hires


class RegionGraph(nn.Module):
    """Mask pooling over one image's map, and one of the two region connectors."""

    def __init__(self, extractor: RegionExtractor, projector: nn.Linear, grid: int) -> None:
        super().__init__()
        self.pooling = extractor.pooling
        self.projector = projector
        self.grid = grid

    def forward(self, map: Tensor, masks: Tensor) -> Tensor:  # noqa: A002 (the name of the graph's input)
        """Map a feature map (cells, C) and masks (R, S, S) to (R, D)."""
        weights = pooling_weights(masks, self.grid, self.pooling).flatten(1)
        projected: Tensor = self.projector(weights @ map)
        return projected


def export_towers(model: SrgptForConditionalGeneration, folder: Path) -> None:
    """Write the graphs of ``model`` (in float32, on the CPU) into ``folder``."""
    config, extractor = model.config, model.region_extractor
    size, channels, grid = config.image_size, config.vision_config.hidden_size, config.grid
    fine = UPSAMPLING * grid
    images, regions = Dim("images"), Dim("regions")
    masks = torch.ones(_EXAMPLE, size, size)
    _export(
        TowerGraph(model),
        {"pixels": (torch.zeros(_EXAMPLE, 3, size, size), {0: images})},
        ["features"],
        folder / "tower.onnx",
    )
    _export(
        ConnectorGraph(model),
        {"features": (torch.zeros(_EXAMPLE, grid * grid, channels), {0: images})},
        ["tokens", "map"],
        folder / "connector.onnx",
    )
    pooled = [("region.onnx", extractor.rgb_projector, fine)]
    if config.depth == "relative":
        pooled.append(("depth_region.onnx", extractor.depth_projector, grid))
    for name, projector, cells in pooled:
        _export(
            RegionGraph(extractor, projector, cells),
            {"map": (torch.zeros(cells * cells, channels), {}), "masks": (masks, {0: regions})},
            ["embeddings"],
            folder / name,
        )
    if config.depth == "metric":
        _export(
            extractor.point_encoder,
            {"points_RN3": (torch.ones(_EXAMPLE, POINTS, 3), {0: regions})},
            ["embeddings"],
            folder / "points.onnx",
        )


def _export(
    module: nn.Module, inputs: dict[str, tuple[Tensor, dict[int, Dim]]], outputs: list[str], path: Path
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noisy = logging.getLogger("torch.onnx")
    level = noisy.level
    noisy.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                module.eval(),
                tuple(tensor for tensor, _ in inputs.values()),
                str(path),
                dynamo=True,
                opset_version=OPSET,
                input_names=list(inputs),
                output_names=outputs,
                dynamic_shapes={name: dims for name, (_, dims) in inputs.items()},
                external_data=True,
                verbose=False,
            )
    finally:
        noisy.setLevel(level)
