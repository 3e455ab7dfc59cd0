"""Configurations in the reference's layout: read and checked against what our model computes, and written.

What is not listed here does not change what the model computes, and is kept as it is.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import LlamaConfig, PreTrainedConfig, SiglipVisionConfig

from srgpt.errors import InputError
from srgpt.model.configuration import SrgptConfig
from srgpt.model.modeling import SrgptForConditionalGeneration
from srgpt.storage import read_json

CONFIG = "config.json"
PARTS = ("llm", "vision_tower", "mm_projector", "region_extractor")

GRID = 27
"""Feature cells along a side, to which the reference averages its refined map whatever the tower."""

REQUIRED: dict[str, dict[str, Any]] = {
    "": {
        "model_type": "llava_llama",
        "enable_region": True,
        "enable_depth": True,
        "image_aspect_ratio": "resize",
        "mm_vision_select_layer": -2,
        "mm_vision_select_feature": "cls_patch",
    },
    "llm": {"model_type": "llama", "architectures": ["LlamaForCausalLM"]},
    "vision_tower": {"model_type": "siglip_vision_model", "architectures": ["SiglipVisionModel"]},
    "mm_projector": {"model_type": "v2l_projector", "mm_projector_type": "mlp_downsample"},
    "region_extractor": {"model_type": "region_extractor", "region_extractor_type": "regiongpt"},
}
"""Fields that must be there with this value, by part; the part "" is the whole."""

FORBIDDEN: dict[str, Any] = {
    "mm_use_im_start_end": False,
    "mm_use_im_patch_token": False,
    "s2": False,
    "vision_resolution": -1,
}
"""Fields of the whole that, where they are there, switch something on that this model does not have."""

_OLD_NAMES = {"torch_dtype", "rope_theta", "rope_scaling"}
"""Fields that transformers renamed, and still reads."""

_CONFIG_ERRORS = (
    StrictDataclassError, TypeError, ValueError, KeyError, AttributeError, ArithmeticError, RuntimeError,
    IndexError, AssertionError,
)  # fmt: skip
"""What transformers and torch raise for sizes that make no model."""


def read_config(folder: Path) -> SrgptConfig:
    """Return our configuration of a folder in the reference's layout; ``<image>``'s id is the next free one.

    Raises :class:`InputError` where a part is missing or is not one that our model computes in the same way.
    """
    whole = _read(folder, "")
    for name, value in FORBIDDEN.items():
        if whole.get(name, value) not in (value, None):
            raise InputError(
                f"{folder / CONFIG}: {name} is {whole[name]!r}; this model can do {value!r} only"
            )
    parts = {part: _read(folder, part) for part in PARTS}
    vision, text = parts["vision_tower"], parts["llm"]
    ids = [
        _token(folder / "vision_tower", vision, name) for name in ("llm_mask_token_id", "llm_depth_token_id")
    ]
    vision_config = _config(folder / "vision_tower", SiglipVisionConfig, vision)
    text_config = _config(folder / "llm", LlamaConfig, text)
    config = SrgptConfig(
        vision_config,
        text_config,
        image_token_id=text_config.vocab_size,
        mask_token_id=ids[0],
        depth_token_id=ids[1],
        feature_layer="penultimate",
        mask_pooling="reference",
        depth="relative",
    )
    check_grid(folder / "vision_tower", config)
    return config


def check_grid(where: Path, config: SrgptConfig) -> None:
    """Raise :class:`InputError` for a tower of another grid than the reference's."""
    vision = config.vision_config
    sizes = vision.image_size, vision.patch_size
    if not all(isinstance(size, int) and size > 0 for size in sizes) or config.grid != GRID:
        raise InputError(
            f"{where}: images of {vision.image_size} and patches of {vision.patch_size} pixels; the reference's "
            f"connector needs {GRID} x {GRID} patches"
        )


def expected_tensors(config: SrgptConfig, where: Path) -> dict[str, tuple[int, ...]]:
    """Return the names and shapes of all tensors of our model; nothing is allocated."""
    try:
        with torch.device("meta"):
            model = SrgptForConditionalGeneration(config)
    except _CONFIG_ERRORS as error:
        raise InputError(f"{where}: its sizes make no model ({error})") from error
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    if config.text_config.tie_word_embeddings:
        shapes.pop("llm.lm_head.weight")
    return shapes


def reference_name(name: str) -> tuple[str, str]:
    """Return the part that holds one of our tensors, and its name there.

    The reference's tower was saved with the prefix ``vision_model``, which later transformers left away.
    """
    part, _, rest = name.partition(".")
    if part == "vision_tower":
        rest = f"vision_model.{rest.removeprefix('vision_model.')}"
    return part, rest


def by_part(shapes: dict[str, tuple[int, ...]]) -> dict[str, dict[str, str]]:
    """Return, for every part, the reference's tensor names and ours."""
    parts: dict[str, dict[str, str]] = {part: {} for part in PARTS}
    for ours in shapes:
        part, theirs = reference_name(ours)
        parts[part][theirs] = ours
    return parts


def _read(folder: Path, part: str) -> dict[str, Any]:
    """Read a part's ``config.json``, and check what must be in it."""
    if not (folder / part).is_dir():
        why = (
            " A model before regions has none, and cannot be asked about them."
            if part == "region_extractor"
            else ""
        )
        raise InputError(f"{folder}: no folder {part}/, which the reference's layout has.{why}")
    path = folder / part / CONFIG
    try:
        found = read_json(str(path))
    except RecursionError as error:
        raise InputError(f"{path}: not JSON (nested too deep)") from error
    if not isinstance(found, dict):
        raise InputError(f"{path}: a JSON object was expected, not {type(found).__name__}")
    for name, value in REQUIRED[part].items():
        if found.get(name) != value:
            raise InputError(f"{path}: {name} is {found.get(name)!r}; this model can do {value!r} only")
    return found


def _token(folder: Path, config: dict[str, Any], name: str) -> int:
    value = config.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise InputError(f"{folder / CONFIG}: {name} is {value!r}; the id of a token was expected")
    return value


def _config(folder: Path, kind: type[PreTrainedConfig], fields: dict[str, Any]) -> Any:
    """Return a transformers configuration of the fields that it knows."""
    known = (set(kind().to_dict()) | _OLD_NAMES) - {"transformers_version"}
    try:
        return kind(**{name: value for name, value in fields.items() if name in known})
    except _CONFIG_ERRORS as error:
        raise InputError(f"{folder / CONFIG}: not a configuration of {kind.model_type} ({error})") from error
