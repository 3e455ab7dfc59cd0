"""Region features: the refined map, pooling under masks, and one connector each for RGB and depth.

    tower tokens (I, g*g, C) --refine--> hi-res map (I, C, 4g, 4g) --pool under masks--> rgb_projector -->
    <mask>
                                              `--average 4x4--> (I, C, g, g) --> image tokens (connector)
    depth tower tokens (I, g*g, C) ------------------------------ pool under masks--> depth_projector -->
    <depth>
    or points of the regions (R, N, 3) ------------------------------------------- point_encoder --> <depth>

Tensor names are those of the reference's ``region_extractor``, which knows no points.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from srgpt.model.configuration import MaskPooling
from srgpt.model.pixels import DepthInput
from srgpt.model.points import PointEncoder

UPSAMPLING = 4
"""The refinement's upsampling along each side: two transposed convolutions of stride two."""


class LayerNorm2d(nn.Module):
    """Normalise every pixel of a map (I, C, H, W) over its channels."""

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels))
        self.bias = nn.Parameter(torch.empty(channels))
        self.eps = eps
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start as a plain normalisation."""
        nn.init.ones_(self.weight)
        nn.init.zeros_(self.bias)

    def forward(self, x_ICHW: Tensor) -> Tensor:
        """Return the normalised map, same shape."""
        x_IHWC = x_ICHW.permute(0, 2, 3, 1)
        normal = functional.layer_norm(x_IHWC, self.weight.shape, self.weight, self.bias, self.eps)
        return normal.permute(0, 3, 1, 2)


class RegionExtractor(nn.Module):
    """Refines the RGB map; turns masks over it, and the depth of regions, into embeddings."""

    def __init__(
        self,
        channels: int,
        hidden: int,
        pooling: MaskPooling = "area",
        depth: DepthInput = "relative",
        point_channels: int = 128,
    ) -> None:
        super().__init__()
        self.pooling: MaskPooling = pooling
        self.feature_refinement_module = nn.Sequential(
            nn.ConvTranspose2d(channels, channels, kernel_size=2, stride=2),
            LayerNorm2d(channels),
            nn.GELU(),
            nn.ConvTranspose2d(channels, channels, kernel_size=2, stride=2),
            nn.GELU(),
        )
        self.rgb_projector = nn.Linear(channels, hidden)
        if depth == "relative":
            self.depth_projector = nn.Linear(channels, hidden)
        elif depth == "metric":
            self.point_encoder = PointEncoder(hidden, point_channels)

    @property
    def depth_head(self) -> nn.Linear:
        """The last layer before the depth embeddings, of a model that is told of depth."""
        if hasattr(self, "point_encoder"):
            return cast(nn.Linear, self.point_encoder.region_mlp[-1])
        return self.depth_projector

    def refine(self, tokens_ILC: Tensor, grid: int) -> tuple[Tensor, Tensor]:
        """Return the hi-res tokens (I, 16 L, C) and their averages at the tower's resolution (I, L, C)."""
        count, _, channels = tokens_ILC.shape
        maps = tokens_ILC.transpose(1, 2).reshape(count, channels, grid, grid)
        hires = self.feature_refinement_module(maps)
        lowres = functional.avg_pool2d(hires, UPSAMPLING)
        return hires.flatten(2).transpose(1, 2), lowres.flatten(2).transpose(1, 2)

    def pool(self, tokens_ILC: Tensor, masks_RHW: Tensor, images_R: Tensor, grid: int) -> Tensor:
        """Return the mean feature under each mask, (R, C), of the image that the mask belongs to."""
        # half precision loses small shares, and in float16 turns the reference's 1e-8 into 0
        dtype = tokens_ILC.dtype if self.pooling == "reference" else torch.float32
        weights_RL = pooling_weights(masks_RHW, grid, self.pooling, dtype).flatten(1)
        count, length, channels = tokens_ILC.shape
        # one product over all images, zero outside of a mask's own, instead of a copy of the map for every mask
        own_RI = torch.arange(count, device=images_R.device) == images_R.unsqueeze(1)
        weights = (own_RI.unsqueeze(2) * weights_RL.unsqueeze(1)).reshape(-1, count * length)
        return (weights @ tokens_ILC.to(dtype).reshape(count * length, channels)).to(tokens_ILC.dtype)


def pooling_weights(
    masks_RHW: Tensor, grid: int, method: MaskPooling, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Return how much every feature cell counts for every mask, (R, grid, grid), summing to one.

    ``area``: the part of the cell that the mask covers; not a single mask pixel is lost, however coarse the
    grid. ``reference``: SpatialRGPT's samples of the mask (bilinear, align_corners False, no antialiasing), summed in
    ``dtype``; they miss masks that are small against a cell, which then weigh nothing, as an empty one does.
    """
    masks = masks_RHW.float()
    if method == "reference":
        sampled = functional.interpolate(masks[:, None], size=(grid, grid), mode="bilinear")[:, 0].to(dtype)
        return sampled / (sampled.sum((1, 2), keepdim=True) + 1e-8)
    rows = coverage(masks.shape[1], grid, masks.device)
    columns = coverage(masks.shape[2], grid, masks.device)
    area = rows @ masks @ columns.T
    return (area / area.sum((1, 2), keepdim=True).clamp_min(1e-8)).to(dtype)


def coverage(pixels: int, cells: int, device: torch.device) -> Tensor:
    """Return the share of each cell that each pixel covers along one side, (cells, pixels)."""
    step = pixels / cells
    start = torch.arange(cells, device=device, dtype=torch.float32)[:, None] * step
    pixel = torch.arange(pixels, device=device, dtype=torch.float32)[None]
    return (torch.minimum(start + step, pixel + 1) - torch.maximum(start, pixel)).clamp_min(0) / step
