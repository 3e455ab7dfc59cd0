"""From our model folder to the reference's layout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from srgpt.errors import InputError
from srgpt.model.configuration import SrgptConfig
from srgpt.model.pixels import MEAN, STD
from srgpt.model.processing import SrgptProcessor
from srgpt.model.prompts import IMAGE
from srgpt.model.templates import TEMPLATES
from srgpt.model.vila.plan import KEPT, Plan, copy_files, read_tokenizer, side_files
from srgpt.model.vila.settings import (
    CONFIG,
    FORBIDDEN,
    GRID,
    PARTS,
    REQUIRED,
    expected_tensors,
    read_config,
    reference_name,
)
from srgpt.model.vila.weights import StoredTensor, check_tensors, list_tensors

LAYOUT = "reference"
MAX_LENGTH = 4096
"""Tokens of a prompt that the reference trains on."""

_NOISE = {
    "_name_or_path", "architectures", "chunk_size_feed_forward", "dtype", "id2label", "label2id", "is_encoder_decoder",
    "output_attentions", "output_hidden_states", "problem_type", "return_dict", "rope_parameters",
    "transformers_version",
}  # fmt: skip
"""Fields of transformers' configurations that say nothing of the model, or are written in their older form."""


def plan_export(source: Path) -> Plan:
    """Return how our model folder ``source`` becomes a folder in the reference's layout.

    An imported model gets back the configurations and the tokenizer that it came with. Raises :class:`InputError`
    where the layout cannot hold the model, and for whatever is missing, unexpected or damaged.
    """
    try:
        config = SrgptConfig.from_pretrained(source)
        processor = SrgptProcessor.from_pretrained(source)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise InputError(f"{source}: the model cannot be read ({type(error).__name__}: {error})") from error
    if reasons := obstacles(config, processor):
        raise InputError(f"{source}: the reference's layout cannot hold this model: {'; '.join(reasons)}.")
    found = list_tensors(source)
    shapes = expected_tensors(config, source)
    check_tensors(str(source), found, shapes)
    weights: dict[str, dict[str, StoredTensor]] = {part: {} for part in PARTS}
    for ours in shapes:
        part, theirs = reference_name(ours)
        weights[part][theirs] = found[ours]
    kept = source / KEPT
    if kept.is_dir():
        _check_kept(kept, config, processor)
        return Plan(LAYOUT, weights, lambda folder: copy_files(kept, side_files(kept)[0], folder))
    return Plan(LAYOUT, weights, lambda folder: _write_settings(folder, config, processor))


def obstacles(config: SrgptConfig, processor: SrgptProcessor) -> list[str]:
    """Return the reasons why a model is none of the reference's, in words."""
    vision, text = config.vision_config, config.text_config
    found = (
        (text.model_type != "llama", f"its language model is {text.model_type}, not llama"),
        (
            vision.model_type != "siglip_vision_model",
            f"its tower is {vision.model_type}, not siglip_vision_model",
        ),
        (
            config.feature_layer != "penultimate",
            f"it takes the tower's {config.feature_layer} layer, not the penultimate",
        ),
        (
            config.mask_pooling != "reference",
            f"it pools masks by {config.mask_pooling}, not as the reference does",
        ),
        (config.grid != GRID, f"its tower has {config.grid} x {config.grid} patches, not {GRID} x {GRID}"),
        (
            config.depth != "relative" or processor.depth != "relative",
            f"it takes {config.depth} depth, not relative depth images",
        ),
        (
            processor.tokenizer.chat_template not in TEMPLATES.values(),
            f"its prompts are none of {', '.join(TEMPLATES)}",
        ),
    )
    return [reason for wrong, reason in found if wrong]


def _check_kept(kept: Path, config: SrgptConfig, processor: SrgptProcessor) -> None:
    """Refuse kept files that do not describe the model any more."""
    theirs = read_config(kept)
    pairs = ((config.text_config, theirs.text_config), (config.vision_config, theirs.vision_config))
    same = all(_fields(a) == _fields(b) for a, b in pairs)
    ids = [(c.mask_token_id, c.depth_token_id) for c in (config, theirs)]
    vocabulary = read_tokenizer(kept / "llm").get_vocab()
    own = {t: n for t, n in processor.tokenizer.get_vocab().items() if t != IMAGE or t in vocabulary}
    if not same or ids[0] != ids[1] or own != vocabulary:
        raise InputError(
            f"{kept}: these files were kept when the model was imported, and no longer describe it. Remove the folder: "
            "its files are then written anew."
        )


def _fields(config: Any) -> dict[str, Any]:
    """Return what a configuration says of the model."""
    fields = {name: value for name, value in config.to_dict().items() if name not in _NOISE}
    return {**fields, "rope": getattr(config, "rope_parameters", None)}


def _write_settings(folder: Path, config: SrgptConfig, processor: SrgptProcessor) -> None:
    dtype = str(config.dtype).removeprefix("torch.")
    parts = _part_configs(config, dtype)
    for part, fields in parts.items():
        _write(folder / part / CONFIG, fields)
    _write(folder / CONFIG, _whole_config(config, parts, dtype))
    _write(folder / "vision_tower" / "preprocessor_config.json", _preprocessor(config))
    _write_tokenizer(folder / "llm", config, processor)


def _part_configs(config: SrgptConfig, dtype: str) -> dict[str, dict[str, Any]]:
    text, vision = config.text_config, config.vision_config
    rope = dict(text.rope_parameters)
    theta = rope.pop("rope_theta")
    length = min(MAX_LENGTH, text.max_position_embeddings)
    extras: dict[str, dict[str, Any]] = {
        "llm": {
            "rope_theta": theta,
            "rope_scaling": None if rope.get("rope_type", "default") == "default" else rope,
            "model_max_length": length,
            "tokenizer_model_max_length": length,
            "tokenizer_padding_side": "right",
        },
        "vision_tower": {
            "llm_mask_token_id": config.mask_token_id,
            "llm_depth_token_id": config.depth_token_id,
        },
        "mm_projector": {"architectures": ["MultimodalProjector"]},
        "region_extractor": {"architectures": ["RegionExtractor"]},
    }
    own: dict[str, Any] = {"llm": text.to_dict(), "vision_tower": vision.to_dict()}
    return {
        part: {
            **{name: value for name, value in own.get(part, {}).items() if name not in _NOISE},
            **REQUIRED[part],
            **extras[part],
            "torch_dtype": dtype,
        }
        for part in PARTS
    }


def _whole_config(config: SrgptConfig, parts: dict[str, Any], dtype: str) -> dict[str, Any]:
    return {
        "architectures": ["LlavaLlamaModel"],
        **REQUIRED[""],
        **FORBIDDEN,
        **{f"{part}_cfg": fields for part, fields in parts.items()},
        "hidden_size": config.text_config.hidden_size,
        "mm_hidden_size": config.vision_config.hidden_size,
        "interpolate_mode": "linear",
        "num_video_frames": 8,
        "model_dtype": f"torch.{dtype}",
    }


def _preprocessor(config: SrgptConfig) -> dict[str, Any]:
    size = config.vision_config.image_size
    return {
        "image_processor_type": "SiglipImageProcessor",
        "do_resize": True,
        "size": {"height": size, "width": size},
        "resample": 3,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [MEAN] * 3,
        "image_std": [STD] * 3,
    }


def _write_tokenizer(folder: Path, config: SrgptConfig, processor: SrgptProcessor) -> None:
    """Write the tokenizer as transformers 4.37 reads it: without ``<image>``, merges as strings."""
    tokenizer: Any = processor.tokenizer
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    if processor.image_id >= config.text_config.vocab_size:
        content["added_tokens"] = [t for t in content["added_tokens"] if t["content"] != IMAGE]
    merges = content["model"].get("merges", [])
    content["model"]["merges"] = [m if isinstance(m, str) else " ".join(m) for m in merges]
    (folder / "tokenizer.json").write_text(json.dumps(content, ensure_ascii=False) + "\n")
    tokens = {
        name: str(value)
        for name in ("bos_token", "eos_token", "pad_token", "unk_token")
        if (value := getattr(tokenizer, name)) is not None
    }
    length = min(MAX_LENGTH, config.text_config.max_position_embeddings)
    _write(folder / "special_tokens_map.json", tokens)
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": length,
        "padding_side": "right",
    }
    _write(
        folder / "tokenizer_config.json",
        {
            **settings,
            **tokens,
            "clean_up_tokenization_spaces": False,
            "chat_template": tokenizer.chat_template,
        },
    )
    ends = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": [tokenizer.eos_token_id, processor.end_id],
    }
    ends["eos_token_id"] = sorted(set(ends["eos_token_id"]))
    _write(folder / "generation_config.json", {**ends, "pad_token_id": tokenizer.pad_token_id})


def _write(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n")
