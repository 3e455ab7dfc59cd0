"""Which parameters a stage trains: by part, by the beginning of their names, or by globs."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase

import torch
from torch import nn

from srgpt.errors import InputError
from srgpt.model.modeling import SrgptForConditionalGeneration
from srgpt.model.vision import POSITIONS, UNUSED
from srgpt.params import PARTS, TrainParams

_WRAPPED = ".base_layer"
"""What an adapter puts into the name of the weight that it is on."""

_OF_DEPTH = ("region_extractor.point_encoder", "region_extractor.depth_projector")
"""What only models with some form of depth have: one recipe may name both."""

_ADAPTER = ".lora_"
"""Part of the names of adapters' weights."""


def choose(model: SrgptForConditionalGeneration, params: TrainParams) -> None:
    """Have exactly those parameters require a gradient that the stage trains.

    A part that gets adapters (``lora.targets``) is trained by them alone, even where ``trainable`` names the whole
    part; what a finer pattern names is trained in full. Raises :class:`InputError` where a pattern fits nothing, or
    nothing is left to train.
    """
    targets = [] if params.lora is None else params.lora.targets
    fine = [p for p in params.trainable if p not in PARTS]
    names = [plain_name(name) for name, _ in model.named_parameters()]
    check_patterns("trainable", params.trainable, names)
    check_patterns("rates", params.rates, [*names, *_OF_DEPTH])
    check_patterns("muon", params.muon, [*names, *_OF_DEPTH])
    for (name, parameter), plain in zip(model.named_parameters(), names, strict=True):
        if is_adapter(name):
            parameter.requires_grad_(True)
        elif parameter.is_floating_point():  # 4-bit weights cannot be trained, and are always targets
            adapted = first_match(plain, targets) is not None and first_match(plain, fine) is None
            named = first_match(plain, params.trainable) is not None
            parameter.requires_grad_(named and not adapted and not _is_fixed(model, plain))
    if not any(p.requires_grad for p in model.parameters()):
        raise InputError(f"train.trainable = {params.trainable}: every parameter that it names is fixed")


def _is_fixed(model: SrgptForConditionalGeneration, name: str) -> bool:
    """Whether a parameter is never trained: fixed positions, and what the tower's features do not depend on."""
    part, _, own = name.partition(".")
    if part != "vision_tower":
        return False
    return own.startswith(UNUSED) or (model.config.fixed_positions and own == POSITIONS)


def plain_name(name: str) -> str:
    """Return a parameter's name as it is without adapters."""
    return name.replace(_WRAPPED, "")


def is_adapter(name: str) -> bool:
    """Whether a parameter is an adapter's."""
    return _ADAPTER in name


def matches(name: str, pattern: str) -> bool:
    """Whether a name is the pattern, lies below it (``llm`` holds ``llm.model.norm.weight``), or fits it as a glob."""
    return name == pattern or name.startswith(f"{pattern}.") or fnmatchcase(name, pattern)


def first_match(name: str, patterns: Iterable[str]) -> str | None:
    """Return the first pattern that a name fits."""
    return next((p for p in patterns if matches(name, p)), None)


def check_patterns(key: str, patterns: Iterable[str], names: Iterable[str]) -> None:
    """Raise :class:`InputError` where a pattern fits no name."""
    known = list(names)
    for pattern in patterns:
        if not any(matches(name, pattern) for name in known):
            shown = ", ".join(known[:: max(1, len(known) // 4)][:4])
            raise InputError(
                f"train.{key}: {pattern!r} fits no parameter. Give parts ({', '.join(PARTS)}), beginnings of names, or "
                f"globs; names are such as {shown}"
            )


@torch.no_grad()
def start_depth(model: SrgptForConditionalGeneration, params: TrainParams, seed: int) -> None:
    """Give the depth connector its start values of ``depth_init``: as they are, the RGB connector's, or new ones."""
    if params.depth_init == "keep":
        return
    extractor = model.region_extractor
    rgb, depth = extractor.rgb_projector, getattr(extractor, "depth_projector", None)
    if not isinstance(depth, nn.Linear):
        raise InputError(
            f"train.depth_init = {params.depth_init!r}: the model has no connector of depth images"
        )
    if params.depth_init == "rgb":
        depth.load_state_dict(rgb.state_dict())
    elif params.depth_init == "random":
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            depth.reset_parameters()
