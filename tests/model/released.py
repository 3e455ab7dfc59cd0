"""A small checkpoint in the reference's layout, and what the reference computes from one, in plain torch.

Nothing here uses our model: the towers are transformers' own, the rest are the formulas of the reference.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from torch import Tensor
from torch.nn import functional
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    SiglipVisionConfig,
    SiglipVisionModel,
)

from tests.model.tiny import TEXTS

CHANNELS, HIDDEN, IMAGE_SIZE, PATCH, GRID = 16, 32, 54, 2, 27
LLAMA_3_SPECIAL = (
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
)
SAID = [
    *TEXTS,
    "A chat between a curious user and an assistant. USER: Hi. ASSISTANT: You are helpful.",
    "system user assistant",
]


def llama_3_tokenizer() -> PreTrainedTokenizerFast:
    """A small tokenizer like Llama-3's, with what the reference adds: ``[PAD]``, ``<mask>``, ``<depth>``."""
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    inner.train_from_iterator(
        SAID, trainers.BpeTrainer(vocab_size=380, initial_alphabet=alphabet, show_progress=False)
    )
    inner.add_special_tokens(
        [
            AddedToken(t, special=True, normalized=False)
            for t in (*LLAMA_3_SPECIAL, "[PAD]", "<mask>", "<depth>")
        ]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        bos_token="<|begin_of_text|>",
        eos_token="<|eot_id|>",
        pad_token="[PAD]",
        clean_up_tokenization_spaces=False,
    )


def llama_2_tokenizer() -> PreTrainedTokenizerFast:
    """A small tokenizer like Llama-2's: spaces are part of words, and one is put before every text."""
    inner = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    inner.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    inner.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    # words apart, as sentencepiece learns them
    words = [word for text in SAID for word in text.split()]
    inner.train_from_iterator(
        words, trainers.BpeTrainer(vocab_size=400, special_tokens=special[:3], show_progress=False)
    )
    model = json.loads(inner.to_str())
    vocabulary = {token: k for k, token in enumerate(dict.fromkeys([*special, *model["model"]["vocab"]]))}
    model["model"]["vocab"] = vocabulary
    model["added_tokens"] = [t for t in model["added_tokens"] if t["content"] in special[:3]]
    inner = Tokenizer.from_str(json.dumps(model))
    inner.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in ("<mask>", "<depth>")])
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="<unk>",
        clean_up_tokenization_spaces=False,
    )


TOKENIZERS = {"llama_3": llama_3_tokenizer, "vicuna_v1": llama_2_tokenizer}


def make_released(
    folder: Path,
    family: str = "llama_3",
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
    head: bool = True,
) -> Path:
    """Write a random checkpoint of the 8B model's layout, 54 x 54 pixels in patches of 2."""
    torch.manual_seed(seed)
    tokenizer = TOKENIZERS[family]()
    known = tokenizer.get_vocab()
    llm = _write_llm(folder / "llm", tokenizer, dtype)
    vision = _write_tower(folder / "vision_tower", dtype, known, head)
    width = 4 * CHANNELS
    projector = {
        "layers.1.weight": torch.randn(width), "layers.1.bias": torch.randn(width),
        "layers.2.weight": torch.randn(HIDDEN, width) / 4, "layers.2.bias": torch.randn(HIDDEN),
        "layers.4.weight": torch.randn(HIDDEN, HIDDEN) / 4, "layers.4.bias": torch.randn(HIDDEN),
    }  # fmt: skip
    refinement = "feature_refinement_module"
    extractor = {
        f"{refinement}.0.weight": torch.randn(CHANNELS, CHANNELS, 2, 2) / 4,
        f"{refinement}.0.bias": torch.randn(CHANNELS),
        f"{refinement}.1.weight": torch.randn(CHANNELS), f"{refinement}.1.bias": torch.randn(CHANNELS),
        f"{refinement}.3.weight": torch.randn(CHANNELS, CHANNELS, 2, 2) / 4,
        f"{refinement}.3.bias": torch.randn(CHANNELS),
        "rgb_projector.weight": torch.randn(HIDDEN, CHANNELS), "rgb_projector.bias": torch.randn(HIDDEN),
        "depth_projector.weight": torch.randn(HIDDEN, CHANNELS), "depth_projector.bias": torch.randn(HIDDEN),
    }  # fmt: skip
    name = str(dtype).removeprefix("torch.")
    small = {
        "mm_projector": {
            "architectures": ["MultimodalProjector"], "model_type": "v2l_projector",
            "mm_projector_type": "mlp_downsample", "torch_dtype": name,
        },
        "region_extractor": {
            "architectures": ["RegionExtractor"], "model_type": "region_extractor",
            "region_extractor_type": "regiongpt", "torch_dtype": name,
        },
    }  # fmt: skip
    for part, weights in (("mm_projector", projector), ("region_extractor", extractor)):
        write_json(folder / part / "config.json", small[part])
        _save({k: v.to(dtype) for k, v in weights.items()}, folder / part / "model.safetensors")
    whole = {
        "architectures": ["LlavaLlamaModel"], "model_type": "llava_llama", "transformers_version": "4.37.2",
        "llm_cfg": llm, "vision_tower_cfg": vision, "mm_projector_cfg": small["mm_projector"],
        "region_extractor_cfg": small["region_extractor"], "resume_path": "./out", "enable_region": True,
        "enable_depth": True, "hidden_size": HIDDEN, "mm_hidden_size": CHANNELS, "image_aspect_ratio": "resize",
        "num_video_frames": 8, "mm_vision_select_layer": -2, "mm_vision_select_feature": "cls_patch",
        "mm_use_im_start_end": False, "mm_use_im_patch_token": False, "vision_resolution": -1,
        "interpolate_mode": "linear", "s2": False, "s2_scales": "336,672,1008", "s2_max_split_size": 336,
        "model_dtype": f"torch.{name}", "tune_vision_tower": True,
    }  # fmt: skip
    write_json(folder / "config.json", whole)
    write_json(folder / "trainer_state.json", {"epoch": 1.0, "log_history": []})
    return folder


def _write_llm(folder: Path, tokenizer: PreTrainedTokenizerFast, dtype: torch.dtype) -> dict[str, Any]:
    fields = {
        "hidden_size": HIDDEN, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 2,
        "num_key_value_heads": 1, "max_position_embeddings": 8192, "rms_norm_eps": 1e-5, "hidden_act": "silu",
        "vocab_size": len(tokenizer), "bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id,
        "tie_word_embeddings": False, "initializer_range": 0.2, "attention_bias": False, "attention_dropout": 0.0,
        "use_cache": True, "pretraining_tp": 1, "rope_theta": 500000.0, "rope_scaling": None,
    }  # fmt: skip
    model = LlamaForCausalLM(LlamaConfig(**fields)).to(dtype)
    model.save_pretrained(folder, max_shard_size="16KB")
    tokenizer.save_pretrained(str(folder))
    written = {
        **fields, "architectures": ["LlamaForCausalLM"], "model_type": "llama", "model_max_length": 4096,
        "tokenizer_model_max_length": 4096, "tokenizer_padding_side": "right",
        "torch_dtype": str(dtype).removeprefix("torch."), "transformers_version": "4.37.2", "_name_or_path": "./llm",
    }  # fmt: skip
    write_json(folder / "config.json", written)
    return written


def _write_tower(folder: Path, dtype: torch.dtype, known: dict[str, int], head: bool) -> dict[str, Any]:
    fields = {
        "hidden_size": CHANNELS, "intermediate_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2,
        "image_size": IMAGE_SIZE, "patch_size": PATCH, "num_channels": 3, "layer_norm_eps": 1e-6,
        "hidden_act": "gelu_pytorch_tanh", "attention_dropout": 0.0,
    }  # fmt: skip
    if not head:
        fields["vision_use_head"] = False
    tower = SiglipVisionModel(SiglipVisionConfig(**fields)).to(dtype)
    with torch.no_grad():
        for parameter in tower.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, parameter.shape[-1] ** -0.5)
    folder.mkdir(parents=True)
    _save(
        {f"vision_model.{k.removeprefix('vision_model.')}": v for k, v in tower.state_dict().items()},
        folder / "model.safetensors",
    )
    written = {
        **fields, "architectures": ["SiglipVisionModel"], "model_type": "siglip_vision_model",
        "llm_mask_token_id": known["<mask>"], "llm_depth_token_id": known["<depth>"],
        "torch_dtype": str(dtype).removeprefix("torch."), "transformers_version": "4.37.2",
    }  # fmt: skip
    write_json(folder / "config.json", written)
    write_json(folder / "preprocessor_config.json", {"image_mean": [0.5] * 3, "image_std": [0.5] * 3})
    return written


def _save(weights: dict[str, Tensor], path: Path) -> None:
    save_file({k: v.contiguous() for k, v in weights.items()}, path, metadata={"format": "pt"})


def write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2))


def read_weights(folder: Path) -> dict[str, Tensor]:
    """Return every tensor of the safetensors files in a folder."""
    return {k: v for file in sorted(folder.glob("*.safetensors")) for k, v in load_file(file).items()}


class Reference:
    """What the reference computes, part by part, for one image; its weights are those of ``folder``."""

    def __init__(self, folder: Path) -> None:
        config = json.loads((folder / "vision_tower" / "config.json").read_text())
        names = set(SiglipVisionConfig().to_dict())
        self.tower = SiglipVisionModel(
            SiglipVisionConfig(
                **{k: v for k, v in config.items() if k in names and k != "transformers_version"}
            )
        )
        prefix = "" if "post_layernorm.weight" in self.tower.state_dict() else "vision_model."
        self.tower.load_state_dict(
            {
                prefix + k.removeprefix("vision_model."): v
                for k, v in read_weights(folder / "vision_tower").items()
            }
        )
        self.llm = LlamaForCausalLM.from_pretrained(folder / "llm", dtype=torch.float32)
        self.region = read_weights(folder / "region_extractor")
        self.projector = read_weights(folder / "mm_projector")
        self.mask_id, self.depth_id = config["llm_mask_token_id"], config["llm_depth_token_id"]

    def features(self, pixels_3HW: Tensor) -> Tensor:
        """(729, C): the output of the last layer but one, without a norm."""
        states = self.tower.eval()(pixel_values=pixels_3HW[None], output_hidden_states=True).hidden_states
        return states[-2][0]

    def refined(self, features_LC: Tensor) -> Tensor:
        """(C, 108, 108): each pixel makes 2 x 2, twice; norm over channels and GELU between, GELU after."""
        x = features_LC.T.reshape(CHANNELS, GRID, GRID)
        for k in (0, 3):
            weight, bias = (self.region[f"feature_refinement_module.{k}.{n}"] for n in ("weight", "bias"))
            side = x.shape[-1]
            x = torch.einsum("ihw,ioab->ohawb", x, weight).reshape(CHANNELS, 2 * side, 2 * side)
            x = x + bias[:, None, None]
            if k == 0:
                mean, variance = x.mean(0), x.var(0, unbiased=False)
                x = (x - mean) / (variance + 1e-6).sqrt()
                scale, shift = (self.region[f"feature_refinement_module.1.{n}"] for n in ("weight", "bias"))
                x = x * scale[:, None, None] + shift[:, None, None]
            x = 0.5 * x * (1 + torch.erf(x / 2**0.5))
        return x

    def pooled(self, map_CHW: Tensor, mask_HW: Tensor) -> Tensor:
        """(C,): the mean under the mask, resized by the square root of the ratio of areas."""
        scale = ((map_CHW.shape[1] * map_CHW.shape[2]) / mask_HW.numel()) ** 0.5
        weight = functional.interpolate(
            mask_HW[None, None], scale_factor=scale, mode="bilinear", align_corners=False
        )
        weight = weight[0, 0] / (weight.sum() + 1e-8)
        return (weight * map_CHW).sum((1, 2))

    def linear(self, name: str, x: Tensor) -> Tensor:
        """One of the two region projectors."""
        return x @ self.region[f"{name}.weight"].T + self.region[f"{name}.bias"]

    def image_tokens(self, map_C_108_108: Tensor) -> Tensor:
        """(196, D): averages of 4 x 4, then 2 x 2 cells side by side, tokens down the columns; an MLP."""
        low = map_C_108_108.reshape(CHANNELS, GRID, 4, GRID, 4).mean((2, 4))
        padded = torch.zeros(CHANNELS, 28, 28)
        padded[:, :GRID, :GRID] = low
        tokens = torch.stack(
            [
                torch.cat([padded[:, 2 * i + a, 2 * j + b] for a in (0, 1) for b in (0, 1)])
                for j in range(14)
                for i in range(14)
            ]
        )
        p = self.projector
        x = functional.layer_norm(tokens, tokens.shape[1:], p["layers.1.weight"], p["layers.1.bias"], 1e-5)
        x = x @ p["layers.2.weight"].T + p["layers.2.bias"]
        x = 0.5 * x * (1 + torch.erf(x / 2**0.5))
        return x @ p["layers.4.weight"].T + p["layers.4.bias"]

    @torch.no_grad()
    def logits(self, ids: list[int], rgb: Tensor, depth: Tensor, masks_RHW: Tensor) -> Tensor:
        """(T, V) of a prompt with -200 for the image; the k-th ``<mask>`` and ``<depth>`` are of the k-th mask."""
        hires = self.refined(self.features(rgb))
        grey = self.features(depth).T.reshape(CHANNELS, GRID, GRID)
        embed = self.llm.get_input_embeddings().weight
        rows, masks, depths = [], iter(masks_RHW), iter(masks_RHW)
        for number in ids:
            if number == -200:
                rows.extend(self.image_tokens(hires))
            elif number == self.mask_id:
                rows.append(self.linear("rgb_projector", self.pooled(hires, next(masks))))
            elif number == self.depth_id:
                rows.append(self.linear("depth_projector", self.pooled(grey, next(depths))))
            else:
                rows.append(embed[number])
        return self.llm.eval()(inputs_embeds=torch.stack(rows)[None]).logits[0]


def reference_ids(tokenizer: Any, text: str) -> list[int]:
    """Tokenise as the reference does: the text between images apart, the start token once, -200 for an image."""
    ids: list[int] = []
    start = str(tokenizer.bos_token)
    for k, chunk in enumerate(text.removeprefix(start).split("<image>")):
        ids.extend([-200] if k else [tokenizer.bos_token_id])
        ids.extend(tokenizer(chunk, add_special_tokens=False)["input_ids"])
    return ids
