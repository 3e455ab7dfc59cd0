"""SrgptForConditionalGeneration: encode images and regions, put them where their placeholders stand, decode.

Axes: I images, R regions, B rows of text, L tokens of a row, T tokens of an image, C channels of the tower, D
the language model's width, V its vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModel, AutoModelForCausalLM, GenerationMixin, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from srgpt.errors import InputError
from srgpt.model.attention import PACKED, PackedLayout
from srgpt.model.configuration import SrgptConfig
from srgpt.model.connector import Connector
from srgpt.model.region import UPSAMPLING, LayerNorm2d, RegionExtractor
from srgpt.model.vision import tower_features

PIXEL_INPUTS = (
    "pixel_values",
    "depth_values",
    "region_masks",
    "region_images",
    "region_points",
    "image_index",
    "mask_index",
    "depth_index",
)
"""Inputs that are needed once, with the prompt, and not again while decoding."""

_PIXELS = ("pixel_values", "depth_values")


def cast_pixels(inputs: Mapping[str, Any], dtype: torch.dtype) -> dict[str, Any]:
    """Return a model's inputs with pixels in its precision; masks and metres are kept exact."""
    return {name: value.to(dtype) if name in _PIXELS else value for name, value in inputs.items()}


@dataclass
class TrainingOutput(CausalLMOutputWithPast):
    """The output with labels; ``token_losses`` (N,) is what each labelled token loses, detached."""

    token_losses: Tensor | None = None


class SrgptForConditionalGeneration(PreTrainedModel, GenerationMixin):
    """A causal language model that sees an image, its regions and their depth."""

    config_class = SrgptConfig
    base_model_prefix = "srgpt"
    main_input_name = "input_ids"
    input_modalities = ["image", "text"]  # noqa: RUF012
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True
    _skip_keys_device_placement = ["past_key_values"]  # noqa: RUF012

    def __init__(self, config: SrgptConfig) -> None:
        super().__init__(config)
        vision, text = config.vision_config, config.text_config
        self.vision_tower = AutoModel.from_config(vision)
        self.region_extractor = RegionExtractor(
            vision.hidden_size, text.hidden_size, config.mask_pooling, config.depth, config.point_channels
        )
        self.mm_projector = Connector(vision.hidden_size, text.hidden_size)
        self.llm = AutoModelForCausalLM.from_config(text)
        self.post_init()

    @property
    def language_model(self) -> PreTrainedModel:
        """The plain causal language model; ``save_pretrained`` of it is a standard transformers folder."""
        model: PreTrainedModel = self.llm
        return model

    def get_input_embeddings(self) -> nn.Module:
        """Return the language model's token embeddings."""
        return self.llm.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the language model's token embeddings."""
        self.llm.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        """Return the language model's head."""
        return self.llm.get_output_embeddings()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Give the connectors torch's own initialisation, as the reference does; tower and LM have theirs."""
        if isinstance(module, (nn.Linear, nn.ConvTranspose2d, nn.LayerNorm, LayerNorm2d)):
            module.reset_parameters()

    def encode_images(
        self,
        pixel_values: Tensor,
        depth_values: Tensor | None,
        region_masks: Tensor,
        region_images: Tensor,
        region_points: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Encode images and their regions.

        ``pixel_values`` and ``depth_values`` (I, 3, H, W) normalised; ``region_masks`` (R, h, w) in 0..1 at
        any resolution; ``region_images`` (R,) says whose image each mask is over; ``region_points`` (R, N, 3)
        metres. Returns the image tokens (I, T, D), the regions' embeddings (R, D), and their depth embeddings
        (R, D), or None where the depth that the model is made for is not given.
        """
        config, extractor = self.config, self.region_extractor
        tokens_ILC = tower_features(self.vision_tower, pixel_values, config.feature_layer, config.grid)
        hires, lowres = extractor.refine(tokens_ILC, config.grid)
        image_tokens = self.mm_projector(lowres)
        pooled = extractor.pool(hires, region_masks, region_images, UPSAMPLING * config.grid)
        rgb_regions = extractor.rgb_projector(pooled)
        if config.depth == "metric" and region_points is not None:
            return image_tokens, rgb_regions, extractor.point_encoder(region_points)
        if config.depth == "relative" and depth_values is not None:
            depth_ILC = tower_features(self.vision_tower, depth_values, config.feature_layer, config.grid)
            depth_pooled = extractor.pool(depth_ILC, region_masks, region_images, config.grid)
            return image_tokens, rgb_regions, extractor.depth_projector(depth_pooled)
        return image_tokens, rgb_regions, None

    def embed(
        self,
        input_ids: Tensor,
        pixel_values: Tensor | None = None,
        depth_values: Tensor | None = None,
        region_masks: Tensor | None = None,
        region_images: Tensor | None = None,
        region_points: Tensor | None = None,
        image_index: Tensor | None = None,
        mask_index: Tensor | None = None,
        depth_index: Tensor | None = None,
    ) -> Tensor:
        """Return the input embeddings (B, L, D) with features where ``<image>``, ``<mask>``, ``<depth>``
        stand.

        The n-th run of T ``<image>`` tokens (rows in order) shows image ``image_index[n]``; the k-th
        ``<mask>`` is region ``mask_index[k]``, the k-th ``<depth>`` the depth of region ``depth_index[k]``.
        Images are encoded once, however many rows refer to them. Raises :class:`InputError` where
        placeholders and features differ in number.
        """
        config = self.config
        # the language model need not have a row for <image>, which features replace
        embeds_BLD = self.get_input_embeddings()(input_ids.masked_fill(input_ids == config.image_token_id, 0))
        if pixel_values is None:
            for token in (config.image_token_id, config.mask_token_id, config.depth_token_id):
                _check_count(int((input_ids == token).sum()), 0, token)
            return embeds_BLD
        if region_masks is None or region_images is None:
            region_masks = pixel_values.new_zeros((0, *pixel_values.shape[2:]))
            region_images = input_ids.new_zeros(0)
        image_tokens, rgb, depth = self.encode_images(
            pixel_values, depth_values, region_masks, region_images, region_points
        )
        touched = image_tokens.sum() + rgb.sum() + (0 if depth is None else depth.sum())
        for token, features, index in (
            (config.image_token_id, image_tokens, image_index),
            (config.mask_token_id, rgb, mask_index),
            (config.depth_token_id, depth, depth_index),
        ):
            chosen = embeds_BLD.new_zeros(0)
            if features is not None and index is not None:
                chosen = features[index].reshape(-1, embeds_BLD.shape[-1]).to(embeds_BLD.dtype)
            embeds_BLD = _place(embeds_BLD, input_ids == token, chosen, token)
        # every branch takes part in every backward pass, or sharded training waits for ever
        return embeds_BLD + 0 * touched.to(embeds_BLD.dtype)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Any | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        loss_weights: Tensor | None = None,
        loss_divisor: Tensor | None = None,
        pixel_values: Tensor | None = None,
        depth_values: Tensor | None = None,
        region_masks: Tensor | None = None,
        region_images: Tensor | None = None,
        region_points: Tensor | None = None,
        image_index: Tensor | None = None,
        mask_index: Tensor | None = None,
        depth_index: Tensor | None = None,
        use_cache: bool | None = None,
        packing: PackedLayout | None = None,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Return the logits (B, L, V) and, with ``labels`` (B, L; -100 is ignored), the loss instead.

        ``attention_mask`` is (B, L), or (B, 1, L, L) added to the attention scores. ``loss_weights`` (B, L)
        weighs the labels; the weighted sum is divided by ``loss_divisor``, or by the sum of the weights. In
        training, logits are computed at the labelled positions only, and returned as (N, V).

        ``packing`` says how a packed row (1, L) attends, in place of a mask; it needs a language model that was set to
        it by ``llm.set_attn_implementation("srgpt_packed")``, and raises :class:`InputError` where it was not.
        """
        if inputs_embeds is None:
            if input_ids is None:
                raise ValueError("give input_ids or inputs_embeds")
            if pixel_values is None and past_key_values is not None and past_key_values.get_seq_length() > 0:
                # while decoding, a placeholder that the model itself wrote is a word like any other
                inputs_embeds = self.get_input_embeddings()(input_ids)
            else:
                inputs_embeds = self.embed(
                    input_ids,
                    pixel_values,
                    depth_values,
                    region_masks,
                    region_images,
                    region_points,
                    image_index,
                    mask_index,
                    depth_index,
                )
        shape = inputs_embeds.shape[:2]
        if position_ids is None and attention_mask is not None and attention_mask.shape == shape:
            # padding on the left must not move a prompt, in models of absolute positions either
            position_ids = (attention_mask.long().cumsum(-1) - 1).clamp_min(0)
        if packing is not None:
            attention_mask = self._packed_mask(inputs_embeds)
            kwargs["packing"], use_cache = packing, False
        decoder = self.llm if labels is None else self.llm.base_model
        outputs = decoder(
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            use_cache=use_cache if labels is None else False,
            **kwargs,
        )
        if labels is None:
            result: CausalLMOutputWithPast = outputs
            return result
        hidden = outputs.last_hidden_state[:, :-1]
        chosen = labels[:, 1:] != -100
        logits_NV = self._logits(hidden[chosen])
        losses = nn.functional.cross_entropy(logits_NV, labels[:, 1:][chosen], reduction="none")
        weights = torch.ones_like(losses) if loss_weights is None else loss_weights[:, 1:][chosen]
        divisor = weights.sum().clamp_min(1) if loss_divisor is None else loss_divisor
        loss = (losses * weights).sum() / divisor
        return TrainingOutput(loss=loss, logits=logits_NV, token_losses=losses.detach())

    def _packed_mask(self, inputs_embeds: Tensor) -> Tensor:
        """Return what keeps a packed call from making a mask of L by L: a mask of four axes is taken as it is."""
        found = self.llm.config._attn_implementation
        if found != PACKED:
            raise InputError(
                f"the language model attends by {found!r}, which knows no packing; "
                f"call model.llm.set_attn_implementation({PACKED!r}) before training on packed batches"
            )
        return inputs_embeds.new_zeros((1, 1, 1, 1))

    def _logits(self, hidden_ND: Tensor) -> Tensor:
        """Return what the language model makes of its last hidden states: its head, scaled and capped as it does."""
        config = self.llm.config
        logits: Tensor = self.llm.get_output_embeddings()(hidden_ND).float()
        logits = logits * (getattr(config, "logit_scale", None) or 1)  # Cohere
        logits = logits / (getattr(config, "logits_scaling", None) or 1)  # Granite
        cap = getattr(config, "final_logit_softcapping", None)  # Gemma 2
        return logits if cap is None else cap * torch.tanh(logits / cap)

    def prepare_inputs_for_generation(  # type: ignore[override]
        self, input_ids: Any, is_first_iteration: bool | None = False, **kwargs: Any
    ) -> dict[str, Any]:
        """Hand pixels on with the prompt only: while decoding, they are in the cache."""
        inputs: dict[str, Any] = super().prepare_inputs_for_generation(  # type: ignore[misc]
            input_ids, is_first_iteration=is_first_iteration, **kwargs
        )
        if not is_first_iteration and kwargs.get("use_cache", True):
            for name in PIXEL_INPUTS:
                inputs.pop(name, None)
        return inputs


def _place(embeds_BLD: Tensor, where_BL: Tensor, features_ND: Tensor, token: int) -> Tensor:
    if not torch.compiler.is_compiling():
        _check_count(int(where_BL.sum()), features_ND.shape[0], token)
    return embeds_BLD.masked_scatter(where_BL.unsqueeze(-1), features_ND)


def _check_count(placeholders: int, features: int, token: int) -> None:
    if placeholders != features:
        raise InputError(
            f"the text has {placeholders} placeholder(s) with token id {token}, but {features} feature(s) "
            "were given for them; make text and pixels with the same processor call"
        )
