"""Low-rank adapters by peft, on the language model and the connectors; the base in 4 bits where asked for.

    y = W x + (alpha / rank) B A x        A (rank, in) drawn, B (out, rank) zero, W frozen

(Hu et al., "LoRA", ICLR 2022; Dettmers et al., "QLoRA", NeurIPS 2023). A finished model holds W + (alpha / rank) B A in
place of W: a model like any other. The adapters are beside it, in peft's format, with whatever was trained in full.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import BitsAndBytesConfig

from srgpt.errors import InputError
from srgpt.model.modeling import SrgptForConditionalGeneration
from srgpt.params import LoraParams
from srgpt.training.trainable import check_patterns, first_match

FOLDER = "adapter"
"""Folder of the adapters within a model's folder."""

_NAME = "default"
_PEFT_PREFIX = "base_model.model."
"""What peft puts before the names in an adapter's file."""

_KEPT_WHOLE = ["vision_tower", "region_extractor", "mm_projector", "lm_head"]
"""What stays in full precision beside a language model in 4 bits."""


def quantization(params: LoraParams | None) -> BitsAndBytesConfig | None:
    """Return how the language model is quantised while it is loaded, or None.

    Raises :class:`InputError` where that is not possible here.
    """
    if params is None or params.quantize is None:
        return None
    lacks = [] if torch.cuda.is_available() else ["a CUDA device"]
    if importlib.util.find_spec("bitsandbytes") is None:
        lacks.append("the package bitsandbytes (pip install 'srgpt[qlora]')")
    if lacks:
        raise InputError(
            f"train.lora.quantize = {params.quantize!r} needs {' and '.join(lacks)}. "
            "Train adapters on an unquantised model instead (quantize: null)."
        )
    return quantization_config()


def quantization_config() -> BitsAndBytesConfig:
    """Return QLoRA's: 4-bit NormalFloat, its constants quantised again, computing in bfloat16."""
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
        llm_int8_skip_modules=_KEPT_WHOLE,
    )


def add_adapters(model: SrgptForConditionalGeneration, params: LoraParams, seed: int) -> None:
    """Put adapters on the linear layers that ``targets`` name, in place; the same on every rank.

    The language model's head gets none, nor do the transposed convolutions of the region extractor. Raises
    :class:`InputError` where a target has no linear layer.
    """
    from peft import LoraConfig, inject_adapter_in_model

    head = model.get_output_embeddings()
    linear = [n for n, m in model.named_modules() if isinstance(m, nn.Linear) and m is not head]
    check_patterns("lora.targets", params.targets, linear)
    config = LoraConfig(
        r=params.rank,
        lora_alpha=params.alpha,  # type: ignore[arg-type]
        lora_dropout=params.dropout,
        target_modules=[name for name in linear if first_match(name, params.targets)],
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inject_adapter_in_model(config, model, adapter_name=_NAME)


def merged_weights(model: SrgptForConditionalGeneration) -> dict[str, Tensor]:
    """Return the weights of the model without adapters that computes the same; a copy where an adapter was."""
    layers = _layers(model)
    weights: dict[str, Tensor] = {}
    for key, value in model.state_dict().items():
        name, wrapped, own = key.partition(".base_layer.")
        if ".lora_" in key or (wrapped and own not in ("weight", "bias")):
            continue  # the adapter itself, or the constants of a quantised weight
        if own == "weight":
            weights[f"{name}.weight"] = _merged(layers[name])
        else:
            weights[f"{name}.{own}" if wrapped else key] = value
    return weights


def save_adapter(model: SrgptForConditionalGeneration, folder: Path) -> None:
    """Write ``FOLDER/adapter``: what was trained, adapters and whole parameters, for ``peft.PeftModel``.

    Together with the model that the training began from, it gives the finished one.
    """
    target = folder / FOLDER
    target.mkdir(exist_ok=True)
    model.peft_config[_NAME].save_pretrained(str(target))  # type: ignore[union-attr, index]
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    weights = {
        f"{_PEFT_PREFIX}{name.replace(f'.{_NAME}', '').replace('.base_layer', '')}": p.detach()
        .cpu()
        .contiguous()
        for name, p in trained.items()
    }
    save_file(weights, target / "adapter_model.safetensors", metadata={"format": "pt"})


def _layers(model: nn.Module) -> dict[str, Any]:
    from peft.tuners.lora import LoraLayer

    return {name: module for name, module in model.named_modules() if isinstance(module, LoraLayer)}


def _merged(layer: Any) -> Tensor:
    """Return a layer's weight with its adapter, computed in float32."""
    from peft.utils.integrations import dequantize_module_weight

    base = dequantize_module_weight(layer.base_layer).detach()
    a, b = layer.lora_A[_NAME].weight.detach().float(), layer.lora_B[_NAME].weight.detach().float()
    return (base.float() + layer.scaling[_NAME] * (b @ a)).to(base.dtype)
