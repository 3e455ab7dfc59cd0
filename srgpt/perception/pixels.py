"""Pictures to tensors, for the models that squeeze a picture to one fixed size whatever its proportions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

SQUEEZED = {"depth_pro": False, "sam2": True, "sam2_video": True}
"""Model types that read pictures so, and whether they smooth before they make them smaller, as when trained."""


@dataclass(frozen=True)
class Squeeze:
    """Resizes bilinearly to ``size`` (height, width) and normalises with a mean and deviation per channel."""

    size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    antialias: bool

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any], antialias: bool) -> Squeeze:
        """Read the settings of ``preprocessor_config.json``; :class:`KeyError` where one is missing."""
        size = settings["size"]
        return cls(
            (int(size["height"]), int(size["width"])),
            tuple(map(float, settings["image_mean"])),
            tuple(map(float, settings["image_std"])),
            antialias,
        )

    def __call__(self, pictures: Sequence[Image]) -> torch.Tensor:
        """Return float32 pixels (pictures, 3, height, width)."""
        import torch

        return torch.cat([self._one(picture) for picture in pictures])

    def _one(self, picture: Image) -> torch.Tensor:
        import torch

        pixels_HWC = torch.from_numpy(np.array(picture.convert("RGB"), dtype=np.float32) / 255)
        mean, std = torch.tensor(self.mean), torch.tensor(self.std)
        pixels = ((pixels_HWC - mean) / std).permute(2, 0, 1)[None]
        return torch.nn.functional.interpolate(
            pixels, self.size, mode="bilinear", align_corners=False, antialias=self.antialias
        )
