"""The model's configuration: a vision tower's, a language model's, and how they are joined."""

from __future__ import annotations

from typing import Any, Literal

from transformers import AutoConfig, PreTrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from srgpt.model.pixels import DepthInput

FeatureLayer = Literal["last", "penultimate"]
MaskPooling = Literal["area", "reference"]


class SrgptConfig(PreTrainedConfig):
    """Configuration of :class:`~srgpt.model.modeling.SrgptForConditionalGeneration`.

    ``vision_config`` is that of a tower of :mod:`srgpt.model.vision`, ``text_config`` any causal language
    model's; both may be plain dicts with a ``model_type``. The token ids are those of the placeholders that
    features replace. ``feature_layer``: ``last`` ends in the tower's norm, ``penultimate`` is the reference's
    un-normed ``hidden_states[-2]``. ``mask_pooling``: ``area`` weighs a feature cell by the part of it that
    the mask covers, ``reference`` samples the mask as SpatialRGPT does. ``depth``: what becomes a ``<depth>`` token:
    nothing, the ``relative`` depth image under the mask, as in the reference, or the region's ``metric`` points,
    encoded with ``point_channels`` channels. ``image_size`` is the side of the pictures where it is not the tower's
    own; ``fixed_positions`` says that the tower's positions are not trained.
    """

    model_type = "srgpt"
    sub_configs = {"vision_config": AutoConfig, "text_config": AutoConfig}  # noqa: RUF012

    def __init__(
        self,
        vision_config: PreTrainedConfig | dict[str, Any] | None = None,
        text_config: PreTrainedConfig | dict[str, Any] | None = None,
        image_token_id: int = 3,
        mask_token_id: int = 4,
        depth_token_id: int = 5,
        feature_layer: FeatureLayer = "last",
        mask_pooling: MaskPooling = "area",
        depth: DepthInput = "relative",
        point_channels: int = 128,
        image_size: int | None = None,
        fixed_positions: bool = False,
        **kwargs: Any,
    ) -> None:
        self.vision_config = _sub_config(vision_config, "siglip_vision_model")
        self.text_config = _sub_config(text_config, "llama")
        self.image_token_id = image_token_id
        self.mask_token_id = mask_token_id
        self.depth_token_id = depth_token_id
        self.feature_layer = feature_layer
        self.mask_pooling = mask_pooling
        self.depth = depth
        self.point_channels = point_channels
        self.image_size = image_size or _image_size(self.vision_config)
        self.fixed_positions = fixed_positions
        # the language model ties, or does not tie, its own embeddings
        kwargs["tie_word_embeddings"] = getattr(self.text_config, "tie_word_embeddings", False)
        super().__init__(**kwargs)

    @property
    def grid(self) -> int:
        """Feature cells along one side of the tower's output."""
        return self.image_size // int(self.vision_config.patch_size)

    @property
    def image_tokens(self) -> int:
        """Tokens that one image takes in the prompt: the grid halved along both sides, rounded up."""
        return ((self.grid + 1) // 2) ** 2


def _image_size(vision: PreTrainedConfig) -> int:
    """Return the side of a tower's pictures; one that takes any aspect ratio says its number of patches instead."""
    if hasattr(vision, "image_size"):
        return int(vision.image_size)
    return int(int(vision.num_patches) ** 0.5) * int(vision.patch_size)


def _sub_config(value: PreTrainedConfig | dict[str, Any] | None, default: str) -> PreTrainedConfig:
    if isinstance(value, PreTrainedConfig):
        return value
    fields = dict(value or {})
    return CONFIG_MAPPING[fields.pop("model_type", default)](**fields)
