"""Metric geometry: from the points of a region's surface, in metres, to its depth embedding.

    points (R, N, 3) --logarithms, waves--> (R, N, F) --MLP for each point--> (R, N, C) --max, mean over points--.
                  `-- bounds, centre, extents (R, G) --waves----------------------------------> MLP --> (R, D)

A set of points is read as PointNet does (Qi et al., CVPR 2017): every point alone, then what is largest over all.
Coordinates go in from the camera and from the region's centre, on a signed logarithmic scale, since an error of a
tenth matters as much for a cup as for a street; and as sines and cosines (Vaswani et al. 2017, Mildenhall et al.
2020), since the digits of an answer turn on small differences. On the logarithmic scale these have periods of a
decade and its halves, as digits do; the centre has them in metres, too, by whose products distances are told.

R regions, N points, F features of a point, G of a region, C channels, D the language model's width.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

UNIT = 0.01
"""Metres up to which the scale is about linear."""

DECADES = tuple(2 * math.pi / math.log(10) * 2.0**k for k in range(-2, 3))
"""Radians per unit of the natural logarithm: periods of 4, 2, 1, 1/2 and 1/4 decades."""

METRES = tuple(2 * math.pi / (0.5 * 2.0**k) for k in range(9))
"""Radians per metre: periods from half a metre to 128."""

_POINT = 6 * (1 + 2 * len(DECADES))
"""Features of a point: three coordinates from the camera, three from its region's centre."""

_REGION = (3 * 6 + 3) * (1 + 2 * len(DECADES)) + 3 * (1 + 2 * len(METRES))
"""Features of a region: greatest, least and mean coordinates, extents, and the centre in metres."""


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
        centre = points.mean(1, keepdim=True)
        scaled = logarithmic(torch.cat([points, points - centre], dim=-1))
        extents = logarithmic(points.amax(1) - points.amin(1))
        bounds = torch.cat([scaled.amax(1), scaled.amin(1), scaled.mean(1), extents], dim=-1)
        dtype = self.unknown.dtype
        features = self.point_mlp(waves(scaled, DECADES).to(dtype))
        region = torch.cat([waves(bounds, DECADES), waves(centre[:, 0] / 10, METRES, 10.0)], dim=-1)
        pooled = torch.cat([features.amax(1), features.mean(1), region.to(dtype)], dim=-1)
        return torch.where(known, self.region_mlp(pooled), self.unknown)


def logarithmic(metres: Tensor) -> Tensor:
    """Return ``sign(x) log(1 + |x| / UNIT)``."""
    return metres.sign() * torch.log1p(metres.abs() / UNIT)


def waves(values: Tensor, frequencies: tuple[float, ...], unit: float = 1.0) -> Tensor:
    """Append to values (..., F) sines and cosines of ``unit * value * frequency``: (..., F (1 + 2 K))."""
    scale = torch.tensor(frequencies, device=values.device, dtype=values.dtype) * unit
    angles = (values.unsqueeze(-1) * scale).flatten(-2)
    return torch.cat([values, angles.sin(), angles.cos()], dim=-1)
