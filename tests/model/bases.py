"""Tiny random folders of every kind of tower and language model, as the hub has them in large."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    CLIPVisionConfig,
    Dinov2Config,
    Dinov2WithRegistersConfig,
    DINOv3ViTConfig,
    Gemma2Config,
    Gemma3TextConfig,
    GemmaConfig,
    LlamaConfig,
    PreTrainedConfig,
    Qwen3Config,
    Siglip2VisionConfig,
    SiglipVisionConfig,
)

from srgpt.model.tokenizer import train_tokenizer
from tests.model.tiny import TEXTS

SIZES: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
SQUARE: dict[str, Any] = {"image_size": 28, "patch_size": 7}
IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])

TOWERS: dict[str, PreTrainedConfig] = {
    "siglip": SiglipVisionConfig(**SIZES, **SQUARE, intermediate_size=32),
    "siglip2-naflex": Siglip2VisionConfig(**SIZES, num_patches=16, patch_size=7, intermediate_size=32),
    "clip": CLIPVisionConfig(**SIZES, **SQUARE, intermediate_size=32),
    "dinov2": Dinov2Config(**SIZES, **SQUARE, mlp_ratio=2),
    "dinov2-registers": Dinov2WithRegistersConfig(**SIZES, **SQUARE, mlp_ratio=2, num_register_tokens=3),
    "dinov3": DINOv3ViTConfig(**SIZES, **SQUARE, intermediate_size=32, num_register_tokens=2),
}

VOCABULARY = 310
"""Fewer than the tokenizer gets tokens: placeholders have to be added."""

_TEXT: dict[str, Any] = {
    "vocab_size": VOCABULARY, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "intermediate_size": 48, "head_dim": 12, "max_position_embeddings": 256,
    "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
LANGUAGE_MODELS: dict[str, PreTrainedConfig] = {
    "llama": LlamaConfig(**_TEXT),
    "llama-tied": LlamaConfig(**_TEXT, tie_word_embeddings=True),
    "qwen3": Qwen3Config(**_TEXT, tie_word_embeddings=True),
    "gemma": GemmaConfig(**_TEXT),
    "gemma2": Gemma2Config(**_TEXT, query_pre_attn_scalar=12, final_logit_softcapping=5.0),
    "gemma3": Gemma3TextConfig(**_TEXT, query_pre_attn_scalar=12, sliding_window=16),
}


def write_tower(folder: Path, kind: str, **preprocessor: Any) -> str:
    """Write a random tower with its ``preprocessor_config.json``; return the folder."""
    torch.manual_seed(0)
    AutoModel.from_config(TOWERS[kind]).save_pretrained(folder)
    settings = {"image_mean": IMAGENET[0], "image_std": IMAGENET[1], "size": {"height": 28, "width": 28}}
    (folder / "preprocessor_config.json").write_text(json.dumps({**settings, **preprocessor}))
    return str(folder)


def write_language_model(folder: Path, kind: str) -> str:
    """Write a random language model with a tokenizer that knows no placeholders; return the folder."""
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(LANGUAGE_MODELS[kind]).save_pretrained(folder)
    tokenizer = train_tokenizer(TEXTS, VOCABULARY)
    tokenizer.save_pretrained(folder)
    path = folder / "tokenizer.json"
    data = json.loads(path.read_text())
    placeholders = {"<image>", "<mask>", "<depth>"}
    data["added_tokens"] = [t for t in data["added_tokens"] if t["content"] not in placeholders]
    vocabulary = data["model"]["vocab"]
    for number, token in enumerate(sorted(placeholders)):
        vocabulary[f"~{number}"] = vocabulary.pop(token)
    path.write_text(json.dumps(data))
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config.pop("extra_special_tokens", None)
    config.pop("added_tokens_decoder", None)
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return str(folder)
