"""Depth from one picture: metric (Depth Pro, Depth Anything V2 metric, ZoeDepth) or relative (Depth Anything)."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from srgpt.errors import InputError
from srgpt.geometry.camera import focal_of
from srgpt.params import CalibrationParams, MetricDepthParams, RelativeDepthParams
from srgpt.perception.roles import DepthEstimate, DepthEstimator
from srgpt.perception.weights import Loaded, load
from srgpt.records import encode_png

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

DEPTH_PRO, ZOE, DEPTH_ANYTHING = "depth_pro", "zoedepth", "depth_anything"

MIN_FOV, MAX_FOV = 5.0, 170.0
"""Degrees. A field of view outside is no photograph's, and counts as none."""


class _Estimator(ABC):
    """Pictures of the same size share a batch, as processors keep proportions."""

    def __init__(self, loaded: Loaded) -> None:
        self._loaded = loaded

    def estimate(
        self, pictures: Sequence[Image], focals: Sequence[float | None] | None = None
    ) -> list[DepthEstimate]:
        """Return each picture's depth; Depth Pro scales its own by the focal length (pixels) where one is known."""
        known = list(focals) if focals is not None else [None] * len(pictures)
        groups: dict[tuple[int, int], list[int]] = {}
        for index, picture in enumerate(pictures):
            groups.setdefault(picture.size, []).append(index)
        found: dict[int, DepthEstimate] = {}
        for (width, height), indices in groups.items():
            batch = self._batch([pictures[i] for i in indices], (height, width), [known[i] for i in indices])
            found.update(zip(indices, batch, strict=True))
        return [found[index] for index in range(len(pictures))]

    @abstractmethod
    def _batch(
        self, pictures: list[Image], size: tuple[int, int], focals: list[float | None]
    ) -> list[DepthEstimate]:
        """Estimate pictures of one size (height, width)."""

    def _run(self, inputs: Mapping[str, Any]) -> Any:
        import torch

        with torch.inference_mode():
            return self._loaded.model(**self._loaded.place(inputs))


class DepthAnythingEstimator(_Estimator):
    """Depth Anything, 1 and 2: metres from metric checkpoints, inverse depth from relative ones."""

    def _batch(
        self, pictures: list[Image], size: tuple[int, int], focals: list[float | None]
    ) -> list[DepthEstimate]:
        depth = self._run(self._loaded.processor(images=pictures, return_tensors="pt")).predicted_depth
        return [DepthEstimate(values) for values in _resized(depth, size)]


class ZoeDepthEstimator(_Estimator):
    """ZoeDepth: metres, from a picture that is mirrored beyond its edges, which are cut off again.

    Checkpoints with a head for rooms and one for streets let a whole batch vote for one of them, so with those each
    picture is a batch of its own.
    """

    def _batch(
        self, pictures: list[Image], size: tuple[int, int], focals: list[float | None]
    ) -> list[DepthEstimate]:
        if len(pictures) > 1 and len(self._loaded.model.config.bin_configurations) > 1:
            return [one for picture in pictures for one in self._batch([picture], size, focals)]
        processor = self._loaded.processor
        depth = self._run(processor(images=pictures, return_tensors="pt")).predicted_depth
        height, width = size
        # as its processor pads
        top, left = (int(math.sqrt(side / 2) * 3) if processor.do_pad else 0 for side in size)
        whole = _resized(depth, (height + 2 * top, width + 2 * left))
        return [DepthEstimate(values[top : top + height, left : left + width]) for values in whole]


class DepthProEstimator(_Estimator):
    """Depth Pro: inverse depth for a picture of unit field of view, which a focal length turns into metres."""

    def _batch(
        self, pictures: list[Image], size: tuple[int, int], focals: list[float | None]
    ) -> list[DepthEstimate]:
        outputs = self._run({"pixel_values": self._loaded.processor(pictures)})
        width = size[1]
        angles = outputs.field_of_view.float().cpu().tolist()
        fovs = [angle if MIN_FOV <= angle <= MAX_FOV else None for angle in angles]
        inverse = _resized(outputs.predicted_depth, size, mode="bilinear")
        estimates = []
        for values, fov, angle, focal in zip(inverse, fovs, angles, focals, strict=True):
            used = focal or focal_of(min(max(angle, MIN_FOV), MAX_FOV), width)
            metres = 1 / np.clip(values * (width / used), 1e-4, 1e4)
            estimates.append(DepthEstimate(metres.astype(np.float32), fov))
        return estimates


def _resized(maps: Tensor, size: tuple[int, int], mode: str = "bicubic") -> list[NDArray[np.float32]]:
    """Resize maps (N, h, w) to (height, width) in float32 on the CPU."""
    from torch.nn.functional import interpolate

    resized = interpolate(maps.float().cpu()[:, None], size, mode=mode, align_corners=False)
    return [np.asarray(one, dtype=np.float32) for one in resized[:, 0].numpy()]


def fov_of(focal: float, width: int) -> float:
    """Return the horizontal field of view in degrees between a picture's outer edges, focal length in pixels."""
    return math.degrees(2 * math.atan(0.5 * width / focal))


def encode_relative(inverse: NDArray[np.floating[Any]]) -> bytes:
    """Encode inverse depth (height, width) as a uint16 PNG: 65535 nearest, 1 farthest, 0 where not finite.

    Scaled by the picture's own range; a constant map is 65535 everywhere.
    """
    finite = np.isfinite(inverse)
    if not finite.any():
        return encode_png(np.zeros(inverse.shape, dtype=np.uint16))
    values = np.where(finite, inverse, 0).astype(np.float64)
    low, high = values[finite].min(), values[finite].max()
    share = (values - low) / (high - low) if high > low else np.ones_like(values)
    return encode_png(np.where(finite, np.rint(1 + 65534 * share), 0).astype(np.uint16))


@lru_cache(maxsize=8)
def load_metric(params: MetricDepthParams, device: str = "auto") -> DepthEstimator:
    """Load a model whose depth is in metres; :class:`InputError` for one of relative depth."""
    loaded = load("DepthEstimation", params, device)
    if loaded.kind == DEPTH_PRO:
        return _depth_pro("depth_estimation.metric", loaded)
    if loaded.kind == ZOE:
        return ZoeDepthEstimator(loaded)
    if loaded.kind == DEPTH_ANYTHING and loaded.model.config.depth_estimation_type == "metric":
        return DepthAnythingEstimator(loaded)
    raise InputError(
        f"perceive.depth_estimation.metric.model = {params.model!r} is a {loaded.kind} model that is not known to give "
        "metres. Expected Depth Pro, ZoeDepth or Depth Anything V2 metric; relative depth is "
        "perceive.depth_estimation.relative."
    )


@lru_cache(maxsize=8)
def load_relative(params: RelativeDepthParams, device: str = "auto") -> DepthEstimator:
    """Load a model of relative inverse depth; :class:`InputError` for one of metres."""
    loaded = load("DepthEstimation", params, device)
    if loaded.kind == DEPTH_ANYTHING and loaded.model.config.depth_estimation_type == "relative":
        return DepthAnythingEstimator(loaded)
    raise InputError(
        f"perceive.depth_estimation.relative.model = {params.model!r} is a {loaded.kind} model that is not known to "
        "give inverse depth. Expected Depth Anything (not its metric variant)."
    )


@lru_cache(maxsize=8)
def load_field_of_view(params: CalibrationParams, device: str = "auto") -> DepthEstimator:
    """Load a model that estimates the field of view; :class:`InputError` for one that does not."""
    loaded = load("DepthEstimation", params, device)
    if loaded.kind != DEPTH_PRO:
        raise InputError(
            f"perceive.calibration.model = {params.model!r} is a {loaded.kind} model. Expected Depth Pro, which "
            "estimates the field of view; or set perceive.intrinsics=fov."
        )
    return _depth_pro("calibration", loaded)


def _depth_pro(section: str, loaded: Loaded) -> DepthEstimator:
    if not loaded.model.config.use_fov_model:
        raise InputError(
            f"perceive.{section}.model = {loaded.name!r} is a Depth Pro without its field-of-view head, and without "
            "that its depth is not in metres. Expected a checkpoint with use_fov_model, such as apple/DepthPro-hf."
        )
    return DepthProEstimator(loaded)
