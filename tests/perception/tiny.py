"""Tiny checkpoints with random weights, of the very classes that published ones are of, as save_pretrained writes."""

from __future__ import annotations

import json
import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers as tf
from PIL import Image

WORDS = ("chair", "table", "red", "cup", "floor", "lamp", "street", "road", "car", "dining")

_BYTES = [
    *string.ascii_lowercase,
    *string.ascii_uppercase,
    *string.digits,
    *"!\"#$%&'()*+,-./:;<=>?@[]_",
    "Ġ",
]


def save(folder: Path, *parts: Any) -> Path:
    """Save a model and its processor together."""
    for part in parts:
        part.save_pretrained(folder)
    return folder


def _squeezed(folder: Path, model: Any, kind: str, side: int, mean: list[float], std: list[float]) -> Path:
    """Save a model with the preprocessor_config.json that published ones of its kind have."""
    model.save_pretrained(folder)
    settings = {
        "image_processor_type": f"{kind}ImageProcessorFast", "size": {"height": side, "width": side},
        "image_mean": mean, "image_std": std, "do_resize": True, "do_rescale": True, "do_normalize": True,
        "resample": 2, "rescale_factor": 1 / 255,
    }  # fmt: skip
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return folder


def _vocabulary(*special: str, ends: bool = False) -> dict[str, int]:
    tokens = [*special, *_BYTES, *([f"{b}</w>" for b in _BYTES] if ends else [])]
    return {token: index for index, token in enumerate(dict.fromkeys(tokens))}


def clip(folder: Path) -> Path:
    vocabulary = _vocabulary("<|startoftext|>", "<|endoftext|>", ends=True)
    tokenizer = tf.CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=77)
    config = tf.CLIPConfig(
        text_config={
            "vocab_size": len(vocabulary), "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1,
            "num_attention_heads": 2, "max_position_embeddings": 77, "bos_token_id": 0, "eos_token_id": 1,
        },
        vision_config={
            "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
            "image_size": 32, "patch_size": 16,
        },
        projection_dim=8,
    )  # fmt: skip
    images = tf.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    return save(folder, tf.CLIPModel(config), tf.CLIPProcessor(images, tokenizer))


def siglip(folder: Path) -> Path:
    """SigLIP as SigLIP 2 at fixed resolutions is published: the first one's model with Gemma's tokenizer."""
    tokenizer = tf.GemmaTokenizer(
        vocab=_vocabulary("<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "▁"), padding_side="right"
    )
    config = tf.SiglipConfig(
        text_config={
            "vocab_size": len(tokenizer), "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1,
            "num_attention_heads": 2, "max_position_embeddings": 64,
        },
        vision_config={
            "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
            "image_size": 32, "patch_size": 16,
        },
    )  # fmt: skip
    images = tf.SiglipImageProcessor(size={"height": 32, "width": 32})
    return save(folder, tf.SiglipModel(config), tf.SiglipProcessor(images, tokenizer))


def florence2(folder: Path) -> Path:
    places = [f"<loc_{i}>" for i in range(1000)]
    tokenizer = tf.BartTokenizer(
        vocab=_vocabulary("<s>", "<pad>", "</s>", "<unk>", "<mask>"),
        merges=[],
        extra_special_tokens={"image_token": "<image>"},
    )
    tokenizer.add_tokens(places)
    config = tf.Florence2Config(
        vision_config={
            "embed_dim": [8, 16], "depths": [1, 1], "num_heads": [2, 2], "num_groups": [2, 2],
            "patch_size": [7, 3], "patch_stride": [4, 2], "patch_padding": [3, 1], "patch_prenorm": [False, True],
            "window_size": 4, "projection_dim": 16, "max_position_embeddings": 8, "max_temporal_embeddings": 4,
        },
        text_config={
            "model_type": "bart", "vocab_size": len(tokenizer), "d_model": 16, "encoder_layers": 1,
            "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 32,
            "decoder_ffn_dim": 32, "max_position_embeddings": 256, "pad_token_id": 1, "bos_token_id": 0,
            "eos_token_id": 2, "decoder_start_token_id": 2, "forced_eos_token_id": 2, "is_encoder_decoder": True,
        },
        image_token_id=tokenizer.image_token_id,
        pad_token_id=1,
        bos_token_id=0,
        eos_token_id=2,
        decoder_start_token_id=2,
    )  # fmt: skip
    images = tf.CLIPImageProcessor(
        size={"height": 32, "width": 32}, crop_size={"height": 32, "width": 32}, do_center_crop=False
    )
    images.image_seq_length = 17  # 4 x 4 patches and their mean
    return save(
        folder, tf.Florence2ForConditionalGeneration(config), tf.Florence2Processor(images, tokenizer)
    )


def _bert_tokenizer() -> Any:
    words = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", "?", *WORDS)
    letters = (*string.ascii_lowercase, *(f"##{c}" for c in string.ascii_lowercase))
    vocabulary = {token: index for index, token in enumerate((*words, *letters))}
    return tf.BertTokenizer(vocab=vocabulary, model_max_length=64)


def _grounding_dino(folder: Path, config_class: Any, model_class: Any, **extra: Any) -> Path:
    tokenizer = _bert_tokenizer()
    config = config_class(
        backbone_config={
            "model_type": "swin", "embed_dim": 8, "depths": [1, 1, 1], "num_heads": [1, 1, 1], "window_size": 4,
            "image_size": 64, "out_features": ["stage2", "stage3"], "out_indices": [2, 3],
        },
        text_config={
            "model_type": "bert", "vocab_size": len(tokenizer), "hidden_size": 16, "num_hidden_layers": 1,
            "num_attention_heads": 2, "intermediate_size": 32, "max_position_embeddings": 64,
        },
        d_model=32, encoder_layers=1, decoder_layers=2, encoder_attention_heads=4, decoder_attention_heads=4,
        encoder_ffn_dim=32, decoder_ffn_dim=32, num_queries=12, num_feature_levels=3, encoder_n_points=2,
        decoder_n_points=2, max_text_len=32, **extra,
    )  # fmt: skip
    images = tf.GroundingDinoImageProcessor(size={"shortest_edge": 64, "longest_edge": 96})
    return save(folder, model_class(config), tf.GroundingDinoProcessor(images, tokenizer))


def grounding_dino(folder: Path) -> Path:
    return _grounding_dino(folder, tf.GroundingDinoConfig, tf.GroundingDinoForObjectDetection)


def mm_grounding_dino(folder: Path) -> Path:
    return _grounding_dino(folder, tf.MMGroundingDinoConfig, tf.MMGroundingDinoForObjectDetection)


def owlv2(folder: Path) -> Path:
    vocabulary = _vocabulary("!", "<|startoftext|>", "<|endoftext|>", ends=True)
    tokenizer = tf.CLIPTokenizer(vocab=vocabulary, merges=[], pad_token="!", model_max_length=16)
    config = tf.Owlv2Config(
        text_config={
            "vocab_size": len(vocabulary), "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1,
            "num_attention_heads": 2, "max_position_embeddings": 16, "bos_token_id": 1, "eos_token_id": 2,
        },
        vision_config={
            "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
            "image_size": 64, "patch_size": 16,
        },
        projection_dim=16,
    )  # fmt: skip
    images = tf.Owlv2ImageProcessor(size={"height": 64, "width": 64})
    return save(folder, tf.Owlv2ForObjectDetection(config), tf.Owlv2Processor(images, tokenizer))


def sam_hq(folder: Path) -> Path:
    config = tf.SamHQConfig(
        vision_config={
            "hidden_size": 16, "output_channels": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
            "image_size": 64, "patch_size": 8, "window_size": 4, "global_attn_indexes": [1], "num_pos_feats": 8,
            "mlp_dim": 32, "initializer_range": 0.02,
        },
        prompt_encoder_config={"hidden_size": 16, "image_size": 64, "patch_size": 8, "mask_input_channels": 4},
        mask_decoder_config={
            "hidden_size": 16, "mlp_dim": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
            "iou_head_hidden_dim": 16, "vit_dim": 16,
        },
    )  # fmt: skip
    images = tf.SamImageProcessor(
        size={"longest_edge": 64}, pad_size={"height": 64, "width": 64},
        mask_size={"longest_edge": 16}, mask_pad_size={"height": 16, "width": 16},
    )  # fmt: skip
    return save(folder, tf.SamHQModel(config), tf.SamHQProcessor(images))


_SAM2 = {
    "vision_config": {
        "backbone_config": {
            "model_type": "sam2_hiera_det_model", "hidden_size": 8, "num_attention_heads": 1,
            "image_size": [64, 64], "blocks_per_stage": [1, 2, 2, 1], "embed_dim_per_stage": [8, 16, 32, 64],
            "num_attention_heads_per_stage": [1, 1, 1, 1], "window_size_per_stage": [4, 2, 2, 2],
            "global_attention_blocks": [4], "window_positional_embedding_background_size": [2, 2],
        },
        "backbone_channel_list": [64, 32, 16, 8], "fpn_hidden_size": 32,
        "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]],
    },
    "prompt_encoder_config": {"hidden_size": 32, "image_size": 64, "patch_size": 16, "mask_input_channels": 4},
    "mask_decoder_config": {
        "hidden_size": 32, "mlp_dim": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
        "iou_head_hidden_dim": 16,
    },
}  # fmt: skip

_IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])


def sam2(folder: Path) -> Path:
    return _squeezed(folder, tf.Sam2Model(tf.Sam2Config(**_SAM2)), "Sam2", 64, *_IMAGENET)


def sam2_video(folder: Path) -> Path:
    """SAM 2 as its authors publish it: with the memory that only videos need."""
    config = tf.Sam2VideoConfig(
        **_SAM2, image_size=64, memory_encoder_hidden_size=32, memory_encoder_output_channels=8,
        mask_downsampler_embed_dim=32, memory_fuser_embed_dim=32, memory_fuser_intermediate_dim=32,
        memory_attention_hidden_size=32, memory_attention_num_layers=1, memory_attention_num_attention_heads=1,
        memory_attention_feed_forward_hidden_size=32, memory_attention_rope_feat_sizes=[4, 4],
    )  # fmt: skip
    return _squeezed(folder, tf.Sam2VideoModel(config), "Sam2", 64, *_IMAGENET)


_DINO = {
    "model_type": "dinov2", "hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2,
    "intermediate_size": 32, "image_size": 42, "patch_size": 14, "reshape_hidden_states": False,
    "out_features": ["stage1", "stage2", "stage3", "stage4"], "out_indices": [1, 2, 3, 4],
}  # fmt: skip


def _depth_anything(folder: Path, kind: str, max_depth: int) -> Path:
    config = tf.DepthAnythingConfig(
        backbone_config=_DINO, reassemble_hidden_size=16, neck_hidden_sizes=[8, 8, 16, 16], fusion_hidden_size=8,
        head_hidden_size=4, patch_size=14, depth_estimation_type=kind, max_depth=max_depth,
        initializer_range=0.3,
    )  # fmt: skip
    images = tf.DPTImageProcessor(
        size={"height": 42, "width": 42}, keep_aspect_ratio=True, ensure_multiple_of=14, resample=3
    )
    model = tf.DepthAnythingForDepthEstimation(config)
    with torch.no_grad():
        model.head.conv3.bias += 1.0  # the relative head ends in a ReLU: keep it away from its flat side
    return save(folder, model, images)


def depth_anything_metric(folder: Path) -> Path:
    return _depth_anything(folder, "metric", 20)


def depth_anything_relative(folder: Path) -> Path:
    return _depth_anything(folder, "relative", 1)


def depth_pro(folder: Path, field_of_view: bool = True) -> Path:
    encoder = {
        "model_type": "dinov2", "hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2,
        "intermediate_size": 32, "image_size": 32, "patch_size": 8,
    }  # fmt: skip
    config = tf.DepthProConfig(
        patch_size=32, fusion_hidden_size=16, intermediate_hook_ids=[2, 0], intermediate_feature_dims=[8, 8],
        scaled_images_ratios=[0.25, 0.5, 1], scaled_images_overlap_ratios=[0.0, 0.5, 0.25],
        scaled_images_feature_dims=[16, 16, 8], merge_padding_value=1, use_fov_model=field_of_view,
        image_model_config=encoder, patch_model_config=encoder, fov_model_config=encoder, num_fov_head_layers=2,
    )  # fmt: skip
    model = tf.DepthProForDepthEstimation(config)
    if model.fov_model is not None:
        with torch.no_grad():  # random weights would see no angle at all
            last = [m for m in model.fov_model.modules() if isinstance(m, torch.nn.Conv2d)][-1]
            last.bias += 55.0
    return _squeezed(folder, model, "DepthPro", 128, [0.5] * 3, [0.5] * 3)


def _zoedepth(folder: Path, *heads: dict[str, Any]) -> Path:
    config = tf.ZoeDepthConfig(
        backbone_config={
            "model_type": "beit", "hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2,
            "intermediate_size": 32, "image_size": 32, "patch_size": 8, "use_relative_position_bias": True,
            "reshape_hidden_states": False, "out_features": ["stage1", "stage2", "stage3", "stage4"],
        },
        neck_hidden_sizes=[8, 8, 16, 16], fusion_hidden_size=16, bottleneck_features=16, num_relative_features=8,
        num_attractors=[4, 2, 2, 1], bin_embedding_dim=8, bin_configurations=list(heads), initializer_range=0.3,
        num_patch_transformer_layers=4, patch_transformer_hidden_size=128, patch_transformer_intermediate_size=16,
        patch_transformer_num_attention_heads=2,
    )  # fmt: skip
    images = tf.ZoeDepthImageProcessor(size={"height": 64, "width": 64}, ensure_multiple_of=32)
    model = tf.ZoeDepthForDepthEstimation(config)
    if len(heads) > 1:
        _set_apart(model, images)
    return save(folder, model, images)


def shades() -> list[Image.Image]:
    """Two pictures of noise, a dark one and a bright one, of the same size."""
    noise = np.random.default_rng(0).integers(0, 56, (60, 80, 3))
    return [Image.fromarray((noise + shade).astype(np.uint8)) for shade in (0, 200)]


def _set_apart(model: Any, images: Any) -> None:
    """Let the two shades choose different heads."""
    with torch.no_grad():
        logits = model.eval()(**images(images=shades(), return_tensors="pt")).domain_logits
        model.metric_head.mlp_classifier.linear2.bias -= logits.mean(dim=0)


def zoedepth(folder: Path) -> Path:
    return _zoedepth(folder, {"n_bins": 8, "min_depth": 0.001, "max_depth": 10.0})


def zoedepth_two_heads(folder: Path) -> Path:
    nyu = {"name": "nyu", "n_bins": 8, "min_depth": 0.001, "max_depth": 10.0}
    return _zoedepth(folder, nyu, {**nyu, "name": "kitti", "max_depth": 80.0})


BUILDERS: dict[str, Callable[[Path], Path]] = {
    "clip": clip,
    "siglip": siglip,
    "florence2": florence2,
    "grounding_dino": grounding_dino,
    "mm_grounding_dino": mm_grounding_dino,
    "owlv2": owlv2,
    "sam_hq": sam_hq,
    "sam2": sam2,
    "sam2_video": sam2_video,
    "depth_anything_metric": depth_anything_metric,
    "depth_anything_relative": depth_anything_relative,
    "depth_pro": depth_pro,
    "zoedepth": zoedepth,
    "zoedepth_two_heads": zoedepth_two_heads,
}


def build(name: str, folder: Path) -> Path:
    """Save the tiny checkpoint of that name, the same one every time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return BUILDERS[name](folder)
