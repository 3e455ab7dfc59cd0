"""The image connector: space-to-depth over 2x2 cells, then a small MLP into the language model's space."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional


class DownSampleBlock(nn.Module):
    """Join 2x2 neighbouring cells: (I, g*g, C) row-major to (I, ceil(g/2)**2, 4 C).

    An odd grid gets a row and a column of zeros at its end. As in the reference, the channels of the cell at
    row block i and column block j are those of (2i, 2j), (2i, 2j+1), (2i+1, 2j), (2i+1, 2j+1), and the tokens
    come column by column: token ``j * ceil(g/2) + i``.
    """

    def forward(self, tokens_ILC: Tensor) -> Tensor:
        """Return the joined tokens."""
        count, length, channels = tokens_ILC.shape
        grid = round(length**0.5)
        half = (grid + 1) // 2
        cells = tokens_ILC.reshape(count, grid, grid, channels)
        cells = functional.pad(cells, (0, 0, 0, 2 * half - grid, 0, 2 * half - grid))
        blocks = cells.reshape(count, half, 2, half, 2, channels).permute(0, 3, 1, 2, 4, 5)
        return blocks.reshape(count, half * half, 4 * channels)


class Connector(nn.Module):
    """The reference's ``mlp_downsample`` projector, (I, g*g, C) to (I, T, D), with its tensor names."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            DownSampleBlock(),
            nn.LayerNorm(4 * channels),
            nn.Linear(4 * channels, hidden),
            nn.GELU(),
            nn.Linear(hidden, hidden),
        )

    def forward(self, tokens_ILC: Tensor) -> Tensor:
        """Return the image tokens."""
        projected: Tensor = self.layers(tokens_ILC)
        return projected
