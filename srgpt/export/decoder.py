"""The language model as one ONNX graph with a KV cache, by the builder of onnxruntime-genai.

    inputs_embeds (B, T, D), attention_mask (B, N), past_key_values.* (B, heads, N, size)
        --> logits (B, T, V), present.* (the same buffers)

The builder reads a plain causal-language-model folder of transformers; it runs as a child, because it brings
its own global state.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
from torch import nn
from transformers import PreTrainedTokenizerBase

from srgpt.errors import SrgptError
from srgpt.model.modeling import SrgptForConditionalGeneration
from srgpt.process import run

Precision = Literal["fp32", "fp16", "int4"]

PROVIDER: dict[str, str] = {"fp32": "cpu", "fp16": "cuda", "int4": "cpu"}
"""Where a graph of each precision runs: 16-bit floats need a GPU."""

_HEAD_MULTIPLE = 8


def export_decoder(
    model: SrgptForConditionalGeneration,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    precision: Precision,
) -> None:
    """Write ``decoder/model.onnx``, ``embeddings.npy`` and ``tokenizer.json`` into ``folder``."""
    head = head_dim(model)
    if head % _HEAD_MULTIPLE:
        raise SrgptError(
            f"the language model's heads are {head} wide; the ONNX decoder's attention needs a multiple of "
            f"{_HEAD_MULTIPLE}. Choose train.model.text.hidden_size and heads accordingly and train again."
        )
    with tempfile.TemporaryDirectory(prefix="srgpt-export-") as temporary:
        plain, built = Path(temporary) / "plain", Path(temporary) / "built"
        model.language_model.save_pretrained(plain)
        tokenizer.save_pretrained(plain)
        _build(plain, built, precision, Path(temporary) / "cache")
        target = folder / "decoder"
        target.mkdir(parents=True, exist_ok=True)
        for file in built.glob("model.onnx*"):
            shutil.move(file, target / file.name)
    weight = cast(nn.Embedding, model.get_input_embeddings()).weight.detach().float().cpu().numpy()
    np.save(folder / "embeddings.npy", weight, allow_pickle=False)
    tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"))


def decoder_settings(model: SrgptForConditionalGeneration) -> dict[str, Any]:
    """Return what a runtime must know about the decoder."""
    text = model.config.text_config
    ends = model.generation_config.eos_token_id  # type: ignore[union-attr]
    return {
        "kv_heads": getattr(text, "num_key_value_heads", None) or text.num_attention_heads,
        "head_dim": head_dim(model),
        "max_length": text.max_position_embeddings,
        "eos_token_ids": sorted(ends if isinstance(ends, list) else [ends]),
    }


def head_dim(model: SrgptForConditionalGeneration) -> int:
    """Return the width of one attention head of the language model."""
    text = model.config.text_config
    return int(getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads)


def _build(source: Path, target: Path, precision: Precision, cache: Path) -> None:
    command = [sys.executable, "-m", "onnxruntime_genai.models.builder"]
    command += ["-i", str(source), "-o", str(target), "-p", precision, "-e", PROVIDER[precision]]
    command += ["-c", str(cache), "--extra_options", "exclude_embeds=true"]
    # a safe path: whatever lies in the current folder must not be imported in place of a package
    env = {
        "HF_HUB_OFFLINE": "1",
        "PYTHONSAFEPATH": "1",
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "2"),
    }
    run(command, env=env, on_line=lambda line: None)
    if not (target / "model.onnx").exists():
        raise SrgptError(f"the ONNX builder wrote no model into {target}")
