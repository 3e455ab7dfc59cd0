"""Metric geometry: from the points of a region's surface, in metres, to its depth embedding.

    points (R, N, 3) --logarithms, waves--> (R, N, F) --MLP for each point--> (R, N, C) --max, mean over points--.
                  `-- bounds, centre, extents (R, G) --waves----------------------------------> MLP --> (R, D)

A set of points is read as PointNet does (Qi et al., CVPR 2017): every point alone, then what is largest over all.
Coordinates go in from the camera and from the region's centre, on a signed logarithmic scale, since an error of a
tenth matters as much for a cup as for a street; and as sines and cosines (Vaswani et al. 2017, Mildenhall et al.
2020), since the digits of an answer turn on small differences, with periods of a decade and its halves, as digits have.

R regions, N points, F features of a point, G of a region, C channels, D the language model's width.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

NEAR = 0.1
"""Metres up to which the scale of coordinates is about linear: what lies beside the axis is neither left nor right."""

SMALL = 0.01
"""The same for extents, which have no sign."""

DECADES = tuple(2 * math.pi / math.log(10) * 2.0**k for k in range(-2, 3))
"""Radians per unit of the natural logarithm: periods of 4, 2, 1, 1/2 and 1/4 decades."""

_POINT = 6 * (1 + 2 * len(DECADES))
"""Features of a point: three coordinates from the camera, three from its region's centre."""

_REGION = (3 * 6 + 3) * (1 + 2 * len(DECADES))
"""Features of a region: greatest, least and mean coordinates, and extents."""


class PointEncoder(nn.Module):
    """Embeds the points of regions; a region without any reading gets an embedding of its own."""

    def __init__(self, hidden: int, channels: int) -> None:
        super().__init__()
        self.point_mlp = nn.Sequential(nn.Linear(_POINT, channels), nn.GELU(), nn.Linear(channels, channels))
        self.region_mlp = nn.Sequential(
            nn.Linear(2 * channels + _REGION, 2 * channels), nn.GELU(), nn.Linear(2 * channels, hidden)
        )
        self.unknown = nn.Parameter(torch.zeros(hidden))

    def forward(self, points_RN3: Tensor) -> Tensor:
        """Map points in metres (R, N, 3), all zeros where there is no reading, to embeddings (R, D)."""
        known = points_RN3.any(-1).any(-1, keepdim=True)  # a region's points are all readings, or none is
        points = points_RN3.float()
        local = points - points.mean(1, keepdim=True)
        scaled = logarithmic(torch.cat([points, local], dim=-1), NEAR)
        extents = logarithmic(points.amax(1) - points.amin(1), SMALL)
        bounds = torch.cat([scaled.amax(1), scaled.amin(1), scaled.mean(1), extents], dim=-1)
        dtype = self.unknown.dtype
        features = self.point_mlp(waves(scaled).to(dtype))
        pooled = torch.cat([features.amax(1), features.mean(1), waves(bounds).to(dtype)], dim=-1)
        return torch.where(known, self.region_mlp(pooled), self.unknown)


def logarithmic(metres: Tensor, unit: float) -> Tensor:
    """Return ``sign(x) log(1 + |x| / unit)``, which is about linear up to ``unit``."""
    return metres.sign() * torch.log1p(metres.abs() / unit)


def waves(values: Tensor) -> Tensor:
    """Append to values (..., F) sines and cosines with the periods of ``DECADES``: (..., F (1 + 2 K))."""
    scale = torch.tensor(DECADES, device=values.device, dtype=values.dtype)
    angles = (values.unsqueeze(-1) * scale).flatten(-2)
    return torch.cat([values, angles.sin(), angles.cos()], dim=-1)
