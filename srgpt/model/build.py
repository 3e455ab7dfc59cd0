"""Build a model and its processor from parameters: from scratch, or around pretrained parts."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import nn
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    BitsAndBytesConfig,
    GenerationConfig,
    LlamaConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    SiglipVisionConfig,
)

from srgpt.errors import InputError
from srgpt.model.configuration import SrgptConfig
from srgpt.model.modeling import SrgptForConditionalGeneration
from srgpt.model.processing import SrgptProcessor, cut_template
from srgpt.model.prompts import DEPTH, IMAGE, MASK
from srgpt.model.tokenizer import token_id, vocabulary_size
from srgpt.model.vision import (
    Normalisation,
    fix_positions,
    load_tower,
    normalisation,
    own_size,
    tower_config,
)
from srgpt.params import ModelParams, TextParams, VisionParams


def build_processor(params: ModelParams, tokenizer: PreTrainedTokenizerBase) -> SrgptProcessor:
    """Return the processor that belongs to :func:`build_model`'s model."""
    config = build_config(params, tokenizer)
    name = params.vision.pretrained
    wanted = Normalisation() if name is None else normalisation(name)
    return SrgptProcessor(
        tokenizer,
        image_size=config.image_size,
        image_tokens=config.image_tokens,
        depth=params.depth,
        mask_resize=params.mask_resize,
        image_mean=wanted.mean,
        image_std=wanted.std,
    )


def build_config(params: ModelParams, tokenizer: PreTrainedTokenizerBase) -> SrgptConfig:
    """Return the configuration, without any weights."""
    vision, name = _vision_config(params.vision), params.vision.pretrained
    size = params.vision.image_size
    return SrgptConfig(
        vision,
        _text_config(params.text, tokenizer),
        image_token_id=token_id(tokenizer, IMAGE),
        mask_token_id=token_id(tokenizer, MASK),
        depth_token_id=token_id(tokenizer, DEPTH),
        feature_layer=params.vision.feature_layer,
        mask_pooling=params.mask_pooling,
        depth=params.depth,
        image_size=own_size(name, vision) if size is None and name is not None else size,
        fixed_positions=name is None,
    )


def build_model(
    params: ModelParams,
    tokenizer: PreTrainedTokenizerBase,
    seed: int = 0,
    quantization: BitsAndBytesConfig | None = None,
) -> SrgptForConditionalGeneration:
    """Return a model in float32: pretrained parts where they are named, the rest initialised from ``seed``.

    A tower from scratch gets fixed sine-cosine positions, which are not trained. ``quantization`` is how a pretrained
    language model is kept.
    """
    if quantization is not None and params.text.pretrained is None:
        raise InputError("train.lora.quantize: there is no pretrained language model to keep in 4 bits")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = SrgptForConditionalGeneration(build_config(params, tokenizer))
        if params.vision.pretrained is None:
            fix_positions(model.vision_tower, model.config.grid)
        else:
            model.vision_tower = load_tower(params.vision.pretrained, model.config.vision_config)
        if params.text.pretrained is not None:
            del model.llm  # an 8B model is in memory once only
            model.llm = _load_language_model(params.text.pretrained, tokenizer, quantization)
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
            image_size=params.image_size or 0,  # parameters without a size are refused
            patch_size=params.patch_size,
            hidden_size=params.hidden_size,
            num_hidden_layers=params.layers,
            num_attention_heads=params.heads,
            intermediate_size=params.mlp_size,
            vision_use_head=False,
        )
    return tower_config(params.pretrained)


def _load_language_model(
    name: str, tokenizer: PreTrainedTokenizerBase, quantization: BitsAndBytesConfig | None
) -> PreTrainedModel:
    """Return a pretrained language model in float32, with an embedding for each of the tokenizer's tokens."""
    kept: dict[str, Any] = {} if quantization is None else {"quantization_config": quantization}
    llm: PreTrainedModel = AutoModelForCausalLM.from_pretrained(name, dtype=torch.float32, **kept)
    if cast(nn.Embedding, llm.get_input_embeddings()).num_embeddings < vocabulary_size(tokenizer):
        llm.resize_token_embeddings(vocabulary_size(tokenizer))
    return llm


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
    config = AutoConfig.from_pretrained(params.pretrained)
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING or not hasattr(config, "hidden_size"):
        raise InputError(
            f"train.model.text.pretrained = {params.pretrained!r}: a model of type {config.model_type!r} is not a "
            "causal language model alone; give the folder of its language model"
        )
    return config
