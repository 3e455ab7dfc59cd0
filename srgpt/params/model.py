"""The region-and-depth model."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from srgpt.params.section import Count, Section


class VisionParams(Section):
    """The vision tower, shared by RGB and depth images."""

    pretrained: str | None = None
    """A SigLIP, SigLIP 2, CLIP, DINOv2 or DINOv3 checkpoint (folder or hub id); null builds a SigLIP from the sizes
    below."""
    image_size: Annotated[int, Field(ge=16, le=2048)] | None = 112
    """Side of the pictures, pixels; null takes a pretrained tower's own. For another one its positions are
    interpolated."""
    patch_size: Annotated[int, Field(ge=4, le=64)] = 14
    hidden_size: Count = 96
    layers: Count = 3
    heads: Count = 3
    mlp_size: Count = 256
    feature_layer: Literal["last", "penultimate"] = "last"
    """``last`` ends in the tower's norm; ``penultimate`` is the reference's ``hidden_states[-2]``."""

    @model_validator(mode="after")
    def _has_a_size(self) -> VisionParams:
        if self.pretrained is None and self.image_size is None:
            raise ValueError("a tower from scratch needs an image_size")
        return self


class TextParams(Section):
    """The language model."""

    pretrained: str | None = None
    """A causal language model (folder or hub id); null builds a small Llama from the sizes below."""
    vocab_size: Annotated[int, Field(ge=300)] = 1024
    """Size of the tokenizer trained on the conversations where there is no pretrained one."""
    hidden_size: Count = 96
    layers: Count = 2
    heads: Count = 3
    mlp_size: Count = 256
    max_length: Count = 2048


class ModelParams(Section):
    """The region-and-depth model."""

    vision: VisionParams = VisionParams()
    text: TextParams = TextParams()
    depth: Literal["none", "relative", "metric"] = "metric"
    """What the model is told of depth: nothing; SpatialRGPT's grey image of inverse depth, which has no scale; or
    points of each region's surface in metres, which need the camera."""
    mask_pooling: Literal["area", "reference"] = "area"
    """How features are pooled under a mask: by the area that it covers, or as SpatialRGPT does, which can lose small
    regions."""
    mask_resize: Literal["area", "nearest", "bicubic"] = "area"
    """How masks are resized to the picture that the model sees; SpatialRGPT takes the nearest pixel in training, and
    bicubic ones in its published evaluation."""
