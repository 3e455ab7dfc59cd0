"""The whole model: generation, batching, counts, saving, and other towers and language models."""

import dataclasses

import numpy as np
import pytest
import torch
from transformers import CLIPVisionConfig, GPT2Config, LlamaConfig, Qwen2Config, SiglipVisionConfig

from srgpt.errors import InputError
from srgpt.model import SrgptConfig, SrgptForConditionalGeneration, SrgptProcessor
from srgpt.model.build import generation_config
from srgpt.model.processing import Question, View
from srgpt.model.tokenizer import train_tokenizer
from srgpt.model.vision import sincos_positions
from tests.model.tiny import TEXTS, TINY, make_tiny, make_tiny_checkpoint

TOKENIZER = train_tokenizer(TEXTS, 320)
IDS = {"image_token_id": 3, "mask_token_id": 4, "depth_token_id": 5}


def picture(processor, seed=0, regions=(3, 5, 8)):
    rng = np.random.default_rng(seed)
    masks = {r: rng.random((30, 40)) > 0.7 for r in regions}
    rgb = rng.integers(0, 255, (30, 40, 3), dtype=np.uint8)
    return processor.picture(View(rgb, masks, rng.uniform(1, 9, (30, 40))))


def questions(processor):
    one, two = picture(processor, 0), picture(processor, 1)
    return [
        Question("Is <region0> to the left of <region1>?", (5, 3), one),
        Question("How wide is <region0>?", (8,), two),
        Question("Is <region0> to the left of <region1>, and how wide is <region0>?", (3, 8), one),
    ]


def small(vision, text, **options):
    config = SrgptConfig(vision, text, **IDS, **options)
    torch.manual_seed(1)
    model = SrgptForConditionalGeneration(config).eval()
    model.generation_config = generation_config(model, TOKENIZER)
    sizes = {"image_size": vision.image_size, "image_tokens": config.image_tokens}
    return model, SrgptProcessor(TOKENIZER, **sizes)


VISION = {
    "siglip": lambda: SiglipVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        image_size=35, patch_size=7, vision_use_head=False,
    ),
    "clip": lambda: CLIPVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        image_size=35, patch_size=7,
    ),
}  # fmt: skip
ENDS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
TEXT = {
    "llama": lambda: LlamaConfig(
        vocab_size=320, hidden_size=24, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, **ENDS,
    ),
    "qwen2": lambda: Qwen2Config(
        vocab_size=320, hidden_size=24, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, tie_word_embeddings=True, **ENDS,
    ),
    "gpt2": lambda: GPT2Config(vocab_size=320, n_embd=24, n_layer=2, n_head=2, n_positions=128, **ENDS),
}  # fmt: skip


@pytest.mark.parametrize("layer", ["last", "penultimate"])
@pytest.mark.parametrize("vision", list(VISION))
@pytest.mark.parametrize("text", list(TEXT))
def test_any_tower_and_language_model_generate_as_one_by_one(vision, text, layer, tmp_path):
    model, processor = small(VISION[vision](), TEXT[text](), feature_layer=layer)
    asked = questions(processor)
    batch = processor.batch(asked)
    assert (batch["input_ids"][1, 0], batch["attention_mask"][1, 0]) == (TOKENIZER.pad_token_id, 0)
    together = model(**batch).logits[:, -1]
    alone = torch.cat([model(**processor.batch([q])).logits[:, -1] for q in asked])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)
    cached = model.generate(**batch, max_new_tokens=6, min_new_tokens=6)
    uncached = model.generate(**batch, max_new_tokens=6, min_new_tokens=6, use_cache=False)
    assert torch.equal(cached, uncached)
    model.save_pretrained(tmp_path)
    loaded = SrgptForConditionalGeneration.from_pretrained(tmp_path).eval()
    torch.testing.assert_close(loaded(**batch).logits[:, -1], together)


def test_penultimate_is_the_unnormed_second_last_state_without_class_token():
    model, _ = small(VISION["clip"](), TEXT["llama"](), feature_layer="penultimate")
    from srgpt.model.vision import tower_features

    pixels = torch.randn(2, 3, 35, 35)
    states = model.vision_tower(pixel_values=pixels, output_hidden_states=True).hidden_states
    features = tower_features(model.vision_tower, pixels, "penultimate", 5)
    torch.testing.assert_close(features, states[-2][:, 1:])


def test_last_ends_in_a_norm():
    from srgpt.model.vision import tower_features

    for name, make in VISION.items():
        model, _ = small(make(), TEXT["llama"]())
        features = tower_features(model.vision_tower, torch.randn(1, 3, 35, 35), "last", 5)
        assert features.shape == (1, 25, 16), name
        torch.testing.assert_close(features.mean(-1), torch.zeros(1, 25), atol=1e-5, rtol=0)


def test_an_image_is_encoded_once_for_all_its_questions():
    _, processor = make_tiny()
    batch = processor.batch(questions(processor))
    assert batch["pixel_values"].shape[0] == 2
    assert batch["region_masks"].shape[0] == 6
    assert batch["image_index"].tolist() == [0, 1, 0]
    # <region0>, <region1>, (other picture) <region0>, then 3, 8, 3 of the first picture again
    assert batch["mask_index"].tolist() == [1, 0, 5, 0, 2, 0]


def test_a_region_is_a_weighted_mean_wherever_it_is_mentioned():
    model, processor = make_tiny()
    batch = processor.batch(questions(processor))
    embeds = model.embed(**{k: v for k, v in batch.items() if k != "attention_mask"})
    mask_embeds = embeds[batch["input_ids"] == processor.mask_id]
    # region 3 of the first picture: second mention of question 0, first and third of question 2
    torch.testing.assert_close(mask_embeds[1], mask_embeds[3])
    torch.testing.assert_close(mask_embeds[1], mask_embeds[5])
    assert not torch.allclose(mask_embeds[0], mask_embeds[1])


def test_inputs_leave_out_what_they_say():
    model, processor = make_tiny()
    asked = questions(processor)
    rgb, blind = processor.batch(asked, "rgb"), processor.batch(asked, "blind")
    assert "region_points" not in rgb
    assert not (rgb["input_ids"] == processor.depth_id).any()
    assert set(blind) == {"input_ids", "attention_mask"}
    assert not torch.isin(blind["input_ids"], torch.tensor([3, 4, 5])).any()
    dark = [dataclasses.replace(q, picture=None) for q in asked]
    assert torch.equal(processor.batch(dark, "blind")["input_ids"], blind["input_ids"])
    with pytest.raises(InputError, match="blind"):
        processor.batch(dark, "rgb")
    assert model(**blind).logits.isfinite().all()


@pytest.mark.parametrize(("form", "name"), [("relative", "depth_values"), ("metric", "region_points")])
def test_depth_reaches_the_answer_through_depth_tokens_only(form, name):
    model, processor = make_tiny(params=TINY.model_copy(update={"depth": form}))
    batch = processor.batch(questions(processor)[:1])
    other = {**batch, name: torch.randn_like(batch[name])}
    assert not torch.allclose(model(**batch).logits[:, -1], model(**other).logits[:, -1])
    rgb = processor.batch(questions(processor)[:1], "rgb")
    assert name not in rgb
    with_depth = model(**rgb, **{name: batch[name]}).logits
    torch.testing.assert_close(with_depth, model(**rgb).logits)


def test_a_model_without_depth_is_asked_without():
    model, processor = make_tiny(params=TINY.model_copy(update={"depth": "none"}))
    asked = questions(processor)
    assert not any(q.picture.has_depth for q in asked)
    assert model(**processor.batch(asked, "rgb")).logits.isfinite().all()
    with pytest.raises(InputError, match="placeholder"):
        model(**processor.batch(asked, "rgbd"))


@pytest.mark.parametrize("name", ["mask_index", "depth_index", "image_index"])
@pytest.mark.parametrize("change", ["fewer", "more", "none"])
def test_placeholders_and_features_must_agree(name, change):
    model, processor = make_tiny()
    batch = dict(processor.batch(questions(processor)))
    index = batch[name]
    batch[name] = {"fewer": index[:-1], "more": torch.cat([index, index[:1]]), "none": None}[change]
    with pytest.raises(InputError, match="placeholder"):
        model(**batch)


def test_placeholders_without_pixels_are_an_error():
    model, processor = make_tiny()
    batch = processor.batch(questions(processor))
    with pytest.raises(InputError, match="placeholder"):
        model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])


def test_checkpoint_round_trip(tmp_path):
    make_tiny_checkpoint(tmp_path)
    model, processor = make_tiny()
    loaded = SrgptForConditionalGeneration.from_pretrained(tmp_path)
    again = SrgptProcessor.from_pretrained(tmp_path)
    assert not loaded.training
    for name, value in model.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[name], value, rtol=0, atol=0)
    assert vars(again.template) == vars(processor.template)
    assert again.depth == processor.depth
    ours, theirs = processor.batch(questions(processor)), again.batch(questions(again))
    assert all(torch.equal(ours[k], theirs[k]) for k in ours)
    assert loaded.config.grid == model.config.grid == 4
    assert (tmp_path / "tokenizer.json").exists()


def test_the_language_model_saves_alone(tmp_path):
    from transformers import AutoModelForCausalLM

    model, _ = make_tiny()
    model.language_model.save_pretrained(tmp_path)
    alone = AutoModelForCausalLM.from_pretrained(tmp_path)
    ids = torch.tensor([[1, 20, 30]])
    torch.testing.assert_close(alone(ids).logits, model(input_ids=ids).logits)


def test_a_seed_gives_the_same_model_and_leaves_the_generator_alone():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    one, two, other = make_tiny(3)[0], make_tiny(3)[0], make_tiny(4)[0]
    assert torch.equal(torch.rand(1), expected)
    weights = [m.llm.lm_head.weight for m in (one, two, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_positions_from_scratch_are_fixed_sine_cosine():
    model, _ = make_tiny()
    weight = model.vision_tower.embeddings.position_embedding.weight
    assert not weight.requires_grad
    torch.testing.assert_close(weight, sincos_positions(4, TINY.vision.hidden_size))
    # distinct for every cell
    assert len({tuple(row.tolist()) for row in weight}) == 16


def test_towers_export_with_dynamic_images_and_regions():
    model, processor = make_tiny(params=TINY.model_copy(update={"depth": "relative"}))
    batch = processor.batch(questions(processor))
    names = ("pixel_values", "depth_values", "region_masks", "region_images")

    class Encoder(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, pixels, depth, masks, images):
            return self.model.encode_images(pixels, depth, masks, images)

    images, regions = torch.export.Dim("images"), torch.export.Dim("regions")
    shapes = ({0: images}, {0: images}, {0: regions}, {0: regions})
    program = torch.export.export(Encoder(), tuple(batch[n] for n in names), dynamic_shapes=shapes)
    inputs = processor.pixel_inputs([picture(processor, s) for s in range(3)])
    for ours, exported in zip(
        model.encode_images(*(inputs[n] for n in names)),
        program.module()(*(inputs[n] for n in names)),
        strict=True,
    ):
        torch.testing.assert_close(ours, exported, rtol=1e-4, atol=1e-5)
