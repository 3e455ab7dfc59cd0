"""Depth from one picture: metric (Depth Pro, Depth Anything V2 metric, ZoeDepth) or relative (Depth Anything)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from srgpt.errors import InputError
from srgpt.params import CalibrationParams, MetricDepthParams, RelativeDepthParams
from srgpt.perception.roles import DepthEstimate
from srgpt.perception.weights import Loaded, load
from srgpt.records import encode_png

if TYPE_CHECKING:
    from PIL.Image import Image

DEPTH_PRO, ZOE, DEPTH_ANYTHING = "depth_pro", "zoedepth", "depth_anything"

MIN_FOV, MAX_FOV = 5.0, 170.0
"""Degrees. A field of view outside is no photograph's, and counts as none."""


class TransformersDepth:
    """Any depth model of transformers; pictures of the same size share a batch, as processors keep proportions."""

    def __init__(self, loaded: Loaded) -> None:
        self._loaded = loaded

    def estimate(
        self, pictures: Sequence[Image], focals: Sequence[float | None] | None = None
    ) -> list[DepthEstimate]:
        """Return each picture's depth; Depth Pro scales its depth by the focal length (pixels) where one is known."""
        known = list(focals) if focals is not None else [None] * len(pictures)
        groups: dict[tuple[int, int], list[int]] = {}
        for index, picture in enumerate(pictures):
            groups.setdefault(picture.size, []).append(index)
        found: dict[int, DepthEstimate] = {}
        for indices in groups.values():
            estimates = self._batch([pictures[i] for i in indices], [known[i] for i in indices])
            found.update(zip(indices, estimates, strict=True))
        return [found[index] for index in range(len(pictures))]

    def _batch(self, pictures: list[Image], focals: list[float | None]) -> list[DepthEstimate]:
        import torch

        loaded = self._loaded
        sizes = [(p.height, p.width) for p in pictures]
        inputs = loaded.processor(images=pictures, return_tensors="pt")
        with torch.inference_mode():
            outputs = loaded.model(**loaded.place(inputs))
        outputs.predicted_depth = outputs.predicted_depth.float().cpu()
        fovs: list[float | None] = [None] * len(pictures)
        options: dict[str, Any] = {"target_sizes": sizes}
        if loaded.kind == ZOE:
            options["source_sizes"] = sizes
        elif loaded.kind == DEPTH_PRO:
            seen = outputs.field_of_view.float().cpu()
            fovs = [v if MIN_FOV <= v <= MAX_FOV else None for v in seen.tolist()]
            outputs.field_of_view = torch.tensor(
                [
                    v if f is None else fov_of(f, p.width)
                    for v, f, p in zip(seen.tolist(), focals, pictures, strict=True)
                ]
            )
        results = loaded.processor.post_process_depth_estimation(outputs, **options)
        return [
            DepthEstimate(r["predicted_depth"].reshape(size).numpy().astype(np.float32), fov)
            for r, size, fov in zip(results, sizes, fovs, strict=True)
        ]


def fov_of(focal: float, width: int) -> float:
    """Return the horizontal field of view in degrees between a picture's outer edges, focal length in pixels."""
    return math.degrees(2 * math.atan(0.5 * width / focal))


def focal_of(fov_degrees: float, width: int) -> float:
    """Return the focal length in pixels of a horizontal field of view in degrees."""
    return 0.5 * width / math.tan(math.radians(fov_degrees) / 2)


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
def load_metric(params: MetricDepthParams, device: str = "auto") -> TransformersDepth:
    """Load a model whose depth is in metres; :class:`InputError` for one of relative depth."""
    loaded = load("DepthEstimation", params, device)
    config = loaded.model.config
    metric = loaded.kind in (DEPTH_PRO, ZOE) or (
        loaded.kind == DEPTH_ANYTHING and config.depth_estimation_type == "metric"
    )
    if not metric:
        raise InputError(
            f"perceive.depth_estimation.metric.model = {params.model!r} is a {loaded.kind} model that is not known to "
            "give metres. Expected Depth Pro, ZoeDepth or Depth Anything V2 metric; relative depth is "
            "perceive.depth_estimation.relative."
        )
    return (
        _with_field_of_view("depth_estimation.metric", loaded)
        if loaded.kind == DEPTH_PRO
        else TransformersDepth(loaded)
    )


@lru_cache(maxsize=8)
def load_relative(params: RelativeDepthParams, device: str = "auto") -> TransformersDepth:
    """Load a model of relative inverse depth; :class:`InputError` for one of metres."""
    loaded = load("DepthEstimation", params, device)
    if loaded.kind != DEPTH_ANYTHING or loaded.model.config.depth_estimation_type != "relative":
        raise InputError(
            f"perceive.depth_estimation.relative.model = {params.model!r} is a {loaded.kind} model that is not known "
            "to give inverse depth. Expected Depth Anything (not its metric variant)."
        )
    return TransformersDepth(loaded)


@lru_cache(maxsize=8)
def load_field_of_view(params: CalibrationParams, device: str = "auto") -> TransformersDepth:
    """Load a model that estimates the field of view; :class:`InputError` for one that does not."""
    loaded = load("DepthEstimation", params, device)
    if loaded.kind != DEPTH_PRO:
        raise InputError(
            f"perceive.calibration.model = {params.model!r} is a {loaded.kind} model. Expected Depth Pro, which "
            "estimates the field of view; or set perceive.intrinsics=fov."
        )
    return _with_field_of_view("calibration", loaded)


def _with_field_of_view(section: str, loaded: Loaded) -> TransformersDepth:
    if not loaded.model.config.use_fov_model:
        raise InputError(
            f"perceive.{section}.model = {loaded.name!r} is a Depth Pro without its field-of-view head, and without "
            "that its depth is not in metres. Expected a checkpoint with use_fov_model, such as apple/DepthPro-hf."
        )
    return TransformersDepth(loaded)
