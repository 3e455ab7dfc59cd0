"""Training with DeepSpeed."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from srgpt.params.model import ModelParams
from srgpt.params.section import Count, Name, Positive, Section, Share


class TrainParams(Section):
    """Training with DeepSpeed."""

    dataset: Name = "train"
    model: ModelParams = ModelParams()
    steps: Count = 1600
    batch_images: Count = 6
    """Images per optimizer step and rank; each brings all its questions."""
    learning_rate: Positive = 1e-3
    vision_rate: Positive = 1.0
    """Learning rate of vision tower and region extractor, relative to the language model's. From scratch a small
    one keeps features still while the language model learns to compare them."""
    warmup_share: Share = 0.03
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    betas: tuple[Share, Share] = (0.9, 0.95)
    """AdamW's decay rates of the first and second moment."""
    gradient_clipping: Positive = 1.0
    key_weight: Positive = 1.0
    """How much the words of an answer that state a relation count in the loss, and whole numbers by its square
    root; wording and decimals count 1."""
    rgb_share: Share = 0.15
    """Share of samples trained without depth, so that one model answers with and without."""
    blind_share: Share = 0.1
    """Share of samples trained without any picture, so that the blind control knows what text alone gives."""
    zero_stage: Annotated[int, Field(ge=0, le=3)] = 0
    ranks: Count = 1
    """Processes to train with (torchrun)."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """``auto``: bfloat16 on a GPU, float32 on a CPU."""
    checkpoint_steps: Count = 100
    log_steps: Count = 10
    data_workers: Annotated[int, Field(ge=0)] = 0
    """Processes per rank that read and collate ahead; 0 does it between steps."""
