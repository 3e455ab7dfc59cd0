"""What perception is asked to do: one small protocol per role, batched over pictures.

Every role takes a list of RGB pictures (PIL images of any sizes) and returns one result per picture, in order.
Implementations are chosen by the model that ``perceive.<role>.model`` names.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL.Image import Image

BBox = tuple[float, float, float, float]
"""``xyxy`` in pixels of the picture: left, top, right and bottom edge."""


@dataclass(frozen=True)
class Verdict:
    """Whether a picture is kept, the description that fits best on the losing or winning side, its probability."""

    keep: bool
    description: str
    positive: float
    """Probability of all positive descriptions together, 0 to 1."""


@dataclass(frozen=True)
class Detection:
    """One box, the word that it was found by, and how certain the model is (0 to 1)."""

    bbox: BBox
    tag: str
    score: float


@dataclass(frozen=True)
class DepthEstimate:
    """Depth of one picture.

    ``values`` (height, width) float32 are metres of z-depth from a metric model, and inverse depth of unknown
    scale and offset (larger is nearer) from a relative one. ``fov_degrees`` is the horizontal field of view that
    the model saw, None where it does not estimate one.
    """

    values: NDArray[np.float32]
    fov_degrees: float | None = None


class Filter(Protocol):
    """Tells photographs of scenes from other pictures."""

    def judge(self, pictures: Sequence[Image]) -> list[Verdict]:
        """Return a verdict per picture."""
        ...


class Tagger(Protocol):
    """Names what pictures show."""

    def tag(self, pictures: Sequence[Image]) -> list[tuple[str, ...]]:
        """Return the tags of each picture, lower-case and distinct, unfiltered."""
        ...


class Detector(Protocol):
    """Finds objects by words."""

    def detect(self, pictures: Sequence[Image], tags: Sequence[Sequence[str]]) -> list[list[Detection]]:
        """Return the boxes of each picture for its own tags, most certain first, before any suppression."""
        ...


class Segmenter(Protocol):
    """Turns boxes into masks."""

    def segment(self, pictures: Sequence[Image], boxes: Sequence[Sequence[BBox]]) -> list[NDArray[np.bool_]]:
        """Return the masks of each picture's boxes, (boxes, height, width)."""
        ...


class DepthEstimator(Protocol):
    """Estimates depth from single pictures."""

    def estimate(
        self, pictures: Sequence[Image], focals: Sequence[float | None] | None = None
    ) -> list[DepthEstimate]:
        """Return each picture's depth; a focal length in pixels, where known, replaces the model's own guess."""
        ...
