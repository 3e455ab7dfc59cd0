"""Metric geometry: from the points of a region's surface, in metres, to its depth embedding.

    points (R, N, 3) --logarithms, waves--> (R, N, F) --MLP for each point--> (R, N, C) --max, mean over points--.
                  `-- least, largest, mean coordinates, extents (R, 21) --waves--------------------> MLP --> (R, D)

A set of points is read as PointNet does (Qi et al., CVPR 2017): every point alone, then what is largest over all.
Coordinates go in twice, from the camera and from the region's centre, on a signed logarithmic scale, since an error
of a tenth matters as much for a cup as for a street; and as sines and cosines of that scale (Vaswani et al. 2017,
Mildenhall et al. 2020), since the digits of an answer turn on small differences.

R regions, N points, F features of a point, C channels, D the language model's width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

UNIT = 0.1
"""Metres up to which the scale is about linear."""

WAVES = 5
"""Octaves of sines and cosines; the shortest wave spans a factor of e**(2 pi / 16), about 1.5."""

_COORDINATES = 6
"""A point's: three from the camera, three from the centre of its region."""


class PointEncoder(nn.Module):
    """Embeds the points of regions; a region without any reading gets an embedding of its own."""

    def __init__(self, hidden: int, channels: int) -> None:
        super().__init__()
        self.point_mlp = nn.Sequential(
            nn.Linear(_COORDINATES * (1 + 2 * WAVES), channels),
            nn.GELU(),
            nn.Linear(channels, channels),
        )
        self.region_mlp = nn.Sequential(
            nn.Linear(2 * channels + (3 * _COORDINATES + 3) * (1 + 2 * WAVES), 2 * channels),
            nn.GELU(),
            nn.Linear(2 * channels, hidden),
        )
        self.unknown = nn.Parameter(torch.zeros(hidden))

    def forward(self, points_RN3: Tensor) -> Tensor:
        """Map points in metres (R, N, 3), all zeros where there is no reading, to embeddings (R, D)."""
        known = points_RN3.any(-1).any(-1, keepdim=True)  # a region's points are all readings, or none is
        points = points_RN3.float()
        local = points - points.mean(1, keepdim=True)
        scaled = logarithmic(torch.cat([points, local], dim=-1))
        dtype = self.unknown.dtype
        features = self.point_mlp(waves(scaled).to(dtype))
        extents = logarithmic(points.amax(1) - points.amin(1))
        spread = torch.cat([scaled.amax(1), scaled.amin(1), scaled.mean(1), extents], dim=-1)
        pooled = torch.cat([features.amax(1), features.mean(1), waves(spread).to(dtype)], dim=-1)
        return torch.where(known, self.region_mlp(pooled), self.unknown)


def logarithmic(metres: Tensor) -> Tensor:
    """Return ``sign(x) log(1 + |x| / UNIT)``."""
    return metres.sign() * torch.log1p(metres.abs() / UNIT)


def waves(values: Tensor) -> Tensor:
    """Append sines and cosines at 1, 2, 4, ... radians per unit to values (..., F): (..., F (1 + 2 WAVES))."""
    angles = (values.unsqueeze(-1) * 2.0 ** torch.arange(WAVES, device=values.device)).flatten(-2)
    return torch.cat([values, angles.sin(), angles.cos()], dim=-1)
