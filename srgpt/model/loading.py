"""Read a model folder as it was saved, or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from transformers import BitsAndBytesConfig
from transformers.utils import logging

from srgpt.errors import InputError
from srgpt.model.modeling import SrgptForConditionalGeneration
from srgpt.model.processing import FILE as PROCESSOR_FILE
from srgpt.model.processing import SrgptProcessor

_SHOWN = 3
"""Weights that an error names."""


def load_model(
    folder: Path, dtype: str = "float32", quantization: BitsAndBytesConfig | None = None
) -> tuple[SrgptForConditionalGeneration, SrgptProcessor]:
    """Read a model and its processor, on the CPU and ready to answer; ``dtype`` "auto" keeps that of the file.

    ``quantization`` is how the language model is kept instead, on a GPU.

    Raises :class:`InputError` where the folder does not hold a whole model: transformers alone would give
    weights that are missing or of another size random values.
    """
    missing = [name for name in ("config.json", PROCESSOR_FILE) if not (folder / name).is_file()]
    if missing:
        raise InputError(
            f"{folder}: not a model folder ({', '.join(missing)} missing). Run `srgpt train` first."
        )
    logging.disable_progress_bar()
    kept: dict[str, Any] = {} if quantization is None else {"quantization_config": quantization}
    try:
        processor = SrgptProcessor.from_pretrained(folder)
        # a pair, because of output_loading_info; transformers' types know the model alone
        loaded: Any = SrgptForConditionalGeneration.from_pretrained(
            folder, dtype=dtype, output_loading_info=True, ignore_mismatched_sizes=True, **kept
        )
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise InputError(
            f"{folder}: the model cannot be loaded ({reason}). Copy the folder anew, or run `srgpt train` again."
        ) from error
    model: SrgptForConditionalGeneration = loaded[0]
    _check_weights(folder, loaded[1])
    return model.eval(), processor


def _check_weights(folder: Path, found: Mapping[str, Any]) -> None:
    """Refuse weights that are not exactly the model's; ``found`` is what transformers reports."""
    problems = []
    for kind in ("missing", "unexpected", "mismatched"):
        names = sorted(key if isinstance(key, str) else key[0] for key in found[f"{kind}_keys"])
        if names:
            more = ", ..." if len(names) > _SHOWN else ""
            problems.append(f"{len(names)} {kind} ({', '.join(names[:_SHOWN])}{more})")
    if problems:
        raise InputError(
            f"{folder}: the weights do not fit config.json: {'; '.join(problems)}. Copy the folder anew, or run "
            "`srgpt train` again."
        )
