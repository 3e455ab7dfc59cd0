"""A tiny model with random weights, for tests of whatever needs a checkpoint."""

from __future__ import annotations

from pathlib import Path

from srgpt.model.attention import PACKED
from srgpt.model.build import build_model, build_processor
from srgpt.model.modeling import SrgptForConditionalGeneration
from srgpt.model.processing import SrgptProcessor
from srgpt.model.tokenizer import train_tokenizer
from srgpt.params import ModelParams, TextParams, VisionParams

TEXTS = [
    "Is <region0> to the left of <region1>?",
    "Yes, Region [0] is to the left of Region [1].",
    "No, Region [0] is to the right of Region [1].",
    "How wide is <region0>?",
    "The width of Region [0] is 1.25 meters.",
]

TINY = ModelParams(
    vision=VisionParams(image_size=28, patch_size=7, hidden_size=16, layers=2, heads=2, mlp_size=32),
    text=TextParams(vocab_size=320, hidden_size=24, layers=2, heads=2, mlp_size=48, max_length=256),
)


def make_tiny(
    seed: int = 0, params: ModelParams = TINY
) -> tuple[SrgptForConditionalGeneration, SrgptProcessor]:
    """Return a random model (in eval mode) and its processor."""
    tokenizer = train_tokenizer(TEXTS, params.text.vocab_size)
    model = build_model(params, tokenizer, seed).eval()
    model.llm.set_attn_implementation(PACKED)  # for batches of the collator; all else is computed as ever
    return model, build_processor(params, tokenizer)


def make_tiny_checkpoint(path: str | Path, seed: int = 0) -> Path:
    """Write a random model and its processor as a model folder."""
    model, processor = make_tiny(seed)
    model.save_pretrained(path)
    processor.save_pretrained(path)
    return Path(path)
