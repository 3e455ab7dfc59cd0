"""Adapters: only they (and what is named) are trained, the base stays, merged equals applied, peft reads them."""

from __future__ import annotations

import importlib.util
import json

import pytest
import torch
from peft import PeftModel
from safetensors import safe_open
from torch import nn

from srgpt.errors import InputError
from srgpt.model.attention import PACKED
from srgpt.model.loading import load_model
from srgpt.params import LoraParams, TrainParams
from srgpt.training.lora import add_adapters, merged_weights, quantization, quantization_config, save_adapter
from srgpt.training.session import write_model
from srgpt.training.trainable import choose
from tests.model.test_language_models import make, make_batch
from tests.model.tiny import make_tiny

TARGETS = ["llm", "region_extractor", "mm_projector"]


def trained_model(targets=TARGETS, trainable=("mm_projector",), steps=3):
    """A model after some steps with adapters; with the processor, and its weights before."""
    model, processor = make_tiny()
    params = TrainParams(lora=LoraParams(rank=2, alpha=4, targets=targets), trainable=list(trainable))
    before = {n: p.detach().clone() for n, p in model.state_dict().items()}
    add_adapters(model, params.lora, seed=0)
    choose(model, params)
    model.train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    batch = make_batch(processor)
    for _ in range(steps):
        optimizer.zero_grad()
        model(**batch).loss.backward()
        optimizer.step()
    return model.eval(), processor, before


def test_new_adapters_change_nothing_and_are_on_linear_layers():
    model, processor = make_tiny()
    batch = make_batch(processor)
    with torch.inference_mode():
        before = model(**batch).loss
        add_adapters(model, LoraParams(rank=2, targets=TARGETS), seed=0)
        torch.testing.assert_close(model(**batch).loss, before)
    adapted = {n.partition(".lora_A")[0] for n, _ in model.named_parameters() if ".lora_A" in n}
    plain, _ = make_tiny()
    linear = {n for n, m in plain.named_modules() if isinstance(m, nn.Linear)}
    assert adapted == {n for n in linear if not n.startswith("vision_tower.")} - {"llm.lm_head"}
    assert not any("feature_refinement_module" in name for name in adapted)


def test_the_same_seed_draws_the_same_adapters():
    drawn = []
    for seed in (0, 0, 1):
        model, _ = make_tiny()
        add_adapters(model, LoraParams(rank=2), seed=seed)
        drawn.append(torch.cat([p.flatten() for n, p in model.named_parameters() if ".lora_A." in n]))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_only_adapters_and_what_is_named_are_trained():
    model, _, before = trained_model(targets=["llm"], trainable=["mm_projector", "llm", "llm.model.norm"])
    got = {n for n, p in model.named_parameters() if p.requires_grad}
    assert {n for n in got if ".lora_" not in n} == {
        *(n for n in before if n.startswith("mm_projector.")), "llm.model.norm.weight",
    }  # fmt: skip
    for name, parameter in model.named_parameters():
        plain = name.replace(".base_layer", "")
        if ".lora_" not in name and name not in got:
            assert torch.equal(parameter, before[plain]), name
    with_gradient = {n for n, p in model.named_parameters() if p.grad is not None}
    assert with_gradient == got


def test_merged_weights_compute_what_adapters_do(tmp_path):
    model, processor, before = trained_model()
    batch = make_batch(processor)
    merged = merged_weights(model)
    assert merged.keys() == before.keys()
    write_model(model, merged, torch.float32, tmp_path)
    processor.save_pretrained(tmp_path)
    plain, _ = load_model(tmp_path)
    plain.llm.set_attn_implementation(PACKED)
    with torch.inference_mode():
        applied, alone = model(**batch), plain(**batch)
    torch.testing.assert_close(alone.logits, applied.logits, atol=1e-5, rtol=1e-5)
    fresh, _ = make_tiny()
    with torch.inference_mode():
        assert (fresh(**batch).logits - applied.logits).abs().max() > 1e-2
    changed = {n for n in merged if not torch.equal(merged[n], before[n])}
    assert any(n.startswith("llm.model.layers") for n in changed)
    assert not any(n.startswith("vision_tower") or "embed_tokens" in n or "lm_head" in n for n in changed)


def test_the_adapter_alone_is_small_and_makes_the_model_of_its_base(tmp_path):
    model, processor, _ = trained_model(targets=["llm", "region_extractor"])
    save_adapter(model, tmp_path)
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert (config["peft_type"], config["r"], config["lora_alpha"]) == ("LORA", 2, 4)
    with safe_open(tmp_path / "adapter" / "adapter_model.safetensors", "pt") as file:
        names = set(file.keys())
    assert "base_model.model.mm_projector.layers.2.weight" in names  # trained in full
    assert "base_model.model.region_extractor.point_encoder.region_mlp.0.lora_A.weight" in names
    assert not any("embed_tokens" in n or "vision_tower" in n for n in names)
    base, _ = make_tiny()
    again = PeftModel.from_pretrained(base, str(tmp_path / "adapter")).eval()
    batch = make_batch(processor)
    with torch.inference_mode():
        torch.testing.assert_close(again(**batch).logits, model(**batch).logits)


@pytest.mark.parametrize("kind", ["qwen3", "gemma3"])
def test_tied_embeddings_stay_tied(kind, tmp_path):
    model, processor = make(tmp_path / "llm", kind)
    count = sum(p.numel() for p in model.parameters())
    add_adapters(model, LoraParams(rank=2), seed=0)
    write_model_count = write_model(model, merged_weights(model), torch.bfloat16, tmp_path / "model")
    assert write_model_count == count
    processor.save_pretrained(tmp_path / "model")
    again, _ = load_model(tmp_path / "model")
    assert again.get_output_embeddings().weight is again.get_input_embeddings().weight


def test_a_target_without_linear_layers_is_refused():
    model, _ = make_tiny()
    with pytest.raises(InputError, match=r"lora\.targets: 'region_extractor\.feature.*' fits no parameter"):
        add_adapters(model, LoraParams(targets=["region_extractor.feature_refinement_module"]), seed=0)


def test_four_bits_are_qlora_s():
    config = quantization_config()
    assert (config.load_in_4bit, config.bnb_4bit_quant_type, config.bnb_4bit_use_double_quant) == (
        True,
        "nf4",
        True,
    )
    assert config.bnb_4bit_compute_dtype == torch.bfloat16
    assert {"vision_tower", "mm_projector", "region_extractor"} <= set(config.llm_int8_skip_modules)


def test_four_bits_need_a_gpu_and_bitsandbytes():
    assert quantization(None) is None
    assert quantization(LoraParams()) is None
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match=r"needs a CUDA device.*\(quantize: null\)"):
            quantization(LoraParams(quantize="nf4"))
    if importlib.util.find_spec("bitsandbytes") is None:
        with pytest.raises(InputError, match=r"pip install 'srgpt\[qlora\]'"):
            quantization(LoraParams(quantize="nf4"))
