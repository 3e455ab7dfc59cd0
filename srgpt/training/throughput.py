"""What a training costs: model FLOPs by formula, the device's measured matrix rate, memory.

MFU (model FLOPs utilisation; Chowdhery et al., "PaLM", 2022, appendix B) is the FLOPs that the model needs for
what it was given, per second, over what the devices' matrix units reach. Padding, recomputed activations and
scores that a mask hides count as no work.
"""

from __future__ import annotations

import functools
import math
import resource
import sys
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import nn

from srgpt.model.region import UPSAMPLING

_SIZES = {"cpu": 1024, "cuda": 8192}
"""Width of the square matrices whose product gives the matrix rate."""


class Part(NamedTuple):
    """A part of the model: FLOPs per token by its parameters, and per attended pair of tokens."""

    token: float
    pair: float


class Work:
    """Counts the FLOPs of forward and backward for a batch.

    Every parameter of a matrix is used once per token (2 FLOPs: multiply and add), its input's gradient costs as
    much where anything up to here is trained, and its own gradient as much where it is trained: 6 in all, 2 where
    everything is frozen. Attention adds 4 * width * layers per attended pair, and twice that backward. Of the
    language model's tokens each attends to ``position + 1``: its prefix and its own turn.
    """

    def __init__(self, model: Any) -> None:
        """Take the sizes of an :class:`~srgpt.model.modeling.SrgptForConditionalGeneration`."""
        config = model.config
        vision, text = config.vision_config, config.text_config
        self.patches, self.image_tokens = config.grid**2, config.image_tokens
        head = model.get_output_embeddings()
        seen = any(p.requires_grad for p in model.vision_tower.parameters())
        self.tower = _part(model.vision_tower, seen, vision.hidden_size, vision.num_hidden_layers)
        first, second = (m for m in model.region_extractor.modules() if isinstance(m, nn.ConvTranspose2d))
        self.refinement = _part(first, seen).token + 4 * _part(second, True).token  # on four times the cells
        self.region, self.point = self._regions(model.region_extractor, seen, vision.hidden_size)
        upstream = seen or any(p.requires_grad for p in model.region_extractor.parameters())
        self.projector = _part(model.mm_projector, upstream)
        upstream = upstream or any(p.requires_grad for p in model.mm_projector.parameters())
        self.body = _part(model.llm.base_model, upstream, text.hidden_size, text.num_hidden_layers)
        self.head = _part(head, upstream or any(p.requires_grad for p in model.llm.parameters()))

    def _regions(self, extractor: Any, seen: bool, channels: int) -> tuple[float, float]:
        """Return the FLOPs per region: pooling, whose weights have no gradient, and projectors; and per point.

        ``seen`` says that the tower is trained.
        """
        refined = seen or any(p.requires_grad for p in extractor.feature_refinement_module.parameters())
        once = 2.0 * channels * self.patches
        region = (2 if refined else 1) * once * UPSAMPLING**2 + _part(extractor.rgb_projector, refined).token
        if hasattr(extractor, "depth_projector"):
            return region + (2 if seen else 1) * once + _part(extractor.depth_projector, seen).token, 0.0
        if not hasattr(extractor, "point_encoder"):
            return region, 0.0
        encoder = extractor.point_encoder
        trained = any(p.requires_grad for p in encoder.point_mlp.parameters())
        return region + _part(encoder.region_mlp, trained).token, _part(encoder.point_mlp, False).token

    def __call__(self, batch: Mapping[str, Any]) -> float:
        """Return the FLOPs of one batch of this rank."""
        positions = batch["position_ids"]
        used = positions[positions > 0].double()
        labels = float((batch["labels"][:, 1:] != -100).sum())
        total = self.body.token * len(used) + self.body.pair * float((used + 1).sum())
        total += self.head.token * labels
        for name in ("pixel_values", "depth_values"):
            if name in batch:
                images = len(batch[name])
                total += images * (self.tower.token * self.patches + self.tower.pair * self.patches**2)
        images = len(batch.get("pixel_values", ()))
        total += images * (self.refinement * self.patches + self.projector.token * self.image_tokens)
        total += len(batch.get("region_masks", ())) * self.region
        if "region_points" in batch:
            total += math.prod(batch["region_points"].shape[:2]) * self.point
        return float(total)


def _part(module: nn.Module, upstream: bool, width: int = 0, layers: int = 0) -> Part:
    """Return the FLOPs of a part; ``upstream`` says that something before it is trained."""
    embeddings = {id(p) for m in module.modules() if isinstance(m, nn.Embedding) for p in m.parameters()}
    is_matrix = {id(p): _ndim(p) >= 2 and id(p) not in embeddings for p in module.parameters()}
    if isinstance(
        module, nn.Linear
    ):  # a head that shares its matrix with the embeddings uses it all the same
        is_matrix[id(module.weight)] = True
    matrices = [p for p in module.parameters() if is_matrix[id(p)]]
    numel = float(sum(_numel(p) for p in matrices))
    trained = float(sum(_numel(p) for p in matrices if p.requires_grad))
    back = numel if upstream or trained else 0.0
    attention = 4.0 * width * layers
    return Part(2 * (numel + back + trained), attention * (3 if back else 1))


def _numel(parameter: nn.Parameter) -> int:
    """Return the size of a parameter, also where ZeRO-3 spread it over the ranks."""
    return int(getattr(parameter, "ds_numel", parameter.numel()))


def _ndim(parameter: nn.Parameter) -> int:
    return len(getattr(parameter, "ds_shape", parameter.shape))


@functools.cache
def matrix_rate(device: str, dtype: torch.dtype) -> float:
    """Return the FLOPs per second that a product of large matrices reaches on a device; measured once.

    The best of five, a few tenths of a second in all.
    """
    kind = torch.device(device).type
    size = _SIZES.get(kind, 1024)
    draw = torch.Generator().manual_seed(0)  # of its own: the training's must not move
    left, right = (torch.randn((size, size), generator=draw).to(device, dtype) for _ in range(2))
    best = float("inf")
    for _ in range(5):
        _wait(kind)
        started = time.perf_counter()
        left @ right
        _wait(kind)
        best = min(best, time.perf_counter() - started)
    return 2.0 * size**3 / best


def _wait(kind: str) -> None:
    if kind == "cuda":
        torch.cuda.synchronize()


def memory() -> dict[str, float]:
    """Return this process's largest resident memory so far, and the GPU's since the last call, in GB."""
    unit = 1 if sys.platform == "darwin" else 1024
    found = {"memory_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9}
    if torch.cuda.is_available():
        found["gpu_memory_gb"] = torch.cuda.max_memory_allocated() / 1e9
        found["gpu_reserved_gb"] = torch.cuda.max_memory_reserved() / 1e9
        torch.cuda.reset_peak_memory_stats()
    return found
