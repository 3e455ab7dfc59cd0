"""Build a model and its processor from parameters: from scratch, or around pretrained parts."""

from __future__ import annotations

from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    GenerationConfig,
    LlamaConfig,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
    SiglipVisionConfig,
)

from srgpt.model.configuration import SrgptConfig
from srgpt.model.modeling import SrgptForConditionalGeneration
from srgpt.model.processing import SrgptProcessor, cut_template
from srgpt.model.prompts import DEPTH, IMAGE, MASK
from srgpt.model.tokenizer import token_id, vocabulary_size
from srgpt.model.vision import fix_positions
from srgpt.params import ModelParams, TextParams, VisionParams


def build_processor(params: ModelParams, tokenizer: PreTrainedTokenizerBase) -> SrgptProcessor:
    """Return the processor that belongs to :func:`build_model`'s model."""
    config = build_config(params, tokenizer)
    return SrgptProcessor(
        tokenizer,
        image_size=config.vision_config.image_size,
        image_tokens=config.image_tokens,
        depth=params.depth,
    )


def build_config(params: ModelParams, tokenizer: PreTrainedTokenizerBase) -> SrgptConfig:
    """Return the configuration, without any weights."""
    return SrgptConfig(
        _vision_config(params.vision),
        _text_config(params.text, tokenizer),
        image_token_id=token_id(tokenizer, IMAGE),
        mask_token_id=token_id(tokenizer, MASK),
        depth_token_id=token_id(tokenizer, DEPTH),
        feature_layer=params.vision.feature_layer,
        mask_pooling=params.mask_pooling,
        depth=params.depth,
    )


def build_model(
    params: ModelParams, tokenizer: PreTrainedTokenizerBase, seed: int = 0
) -> SrgptForConditionalGeneration:
    """Return a model in float32: pretrained parts where they are named, the rest initialised from ``seed``.

    A tower from scratch gets fixed sine-cosine positions, which are not trained.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = SrgptForConditionalGeneration(build_config(params, tokenizer))
        if params.vision.pretrained is None:
            fix_positions(model.vision_tower, model.config.grid)
        else:
            model.vision_tower = AutoModel.from_pretrained(
                params.vision.pretrained, config=model.config.vision_config, dtype=torch.float32
            )
        if params.text.pretrained is not None:
            model.llm = AutoModelForCausalLM.from_pretrained(params.text.pretrained, dtype=torch.float32)
            if model.llm.get_input_embeddings().num_embeddings < vocabulary_size(tokenizer):
                model.llm.resize_token_embeddings(vocabulary_size(tokenizer))
            model.config.text_config = model.llm.config
    model.generation_config = generation_config(model, tokenizer)
    return model


def generation_config(
    model: SrgptForConditionalGeneration, tokenizer: PreTrainedTokenizerBase
) -> GenerationConfig:
    """Return greedy decoding that stops at the ends of the tokenizer, its template and the language model."""
    own = model.llm.generation_config
    return greedy_decoding(tokenizer, None if own is None else own.eos_token_id)


def greedy_decoding(tokenizer: PreTrainedTokenizerBase, own: int | list[int] | None) -> GenerationConfig:
    """Return greedy decoding that stops at a language model's ``own`` ends, the tokenizer's and its template's."""
    taught = tokenizer.convert_tokens_to_ids(cut_template(tokenizer, 1).end)
    ends = {tokenizer.eos_token_id, taught, *(own if isinstance(own, list) else [own])} - {None}
    return GenerationConfig(
        do_sample=False,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=sorted(ends),
        pad_token_id=tokenizer.pad_token_id,
    )


def _vision_config(params: VisionParams) -> PreTrainedConfig:
    if params.pretrained is None:
        return SiglipVisionConfig(
            image_size=params.image_size,
            patch_size=params.patch_size,
            hidden_size=params.hidden_size,
            num_hidden_layers=params.layers,
            num_attention_heads=params.heads,
            intermediate_size=params.mlp_size,
            vision_use_head=False,
        )
    config = AutoConfig.from_pretrained(params.pretrained)
    return getattr(config, "vision_config", config)


def _text_config(params: TextParams, tokenizer: PreTrainedTokenizerBase) -> PreTrainedConfig:
    tokens: dict[str, Any] = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    if params.pretrained is None:
        return LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=params.hidden_size,
            num_hidden_layers=params.layers,
            num_attention_heads=params.heads,
            num_key_value_heads=params.heads,
            intermediate_size=params.mlp_size,
            max_position_embeddings=params.max_length,
            # transformers' 0.02 suits widths of thousands; this keeps activations of narrow models alike
            initializer_range=max(0.02, 0.6 / params.hidden_size**0.5),
            tie_word_embeddings=False,
            **tokens,
        )
    return AutoConfig.from_pretrained(params.pretrained)
