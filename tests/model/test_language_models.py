"""Language models: what is placed is what they see; tied embeddings; saving, loading, resizing, answering."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from srgpt.dataset.collator import Collator, model_inputs
from srgpt.dataset.packing import Packer
from srgpt.dataset.reading import Sample
from srgpt.errors import InputError
from srgpt.model.attention import PACKED
from srgpt.model.build import build_config, build_model, build_processor
from srgpt.model.loading import load_model
from srgpt.model.processing import Question, View
from srgpt.model.tokenizer import load_tokenizer, vocabulary_size
from srgpt.params import ModelParams, TextParams, VisionParams
from srgpt.records import AskedRegion, Conversation, Turn
from tests.model.bases import LANGUAGE_MODELS, VOCABULARY, write_language_model, write_tower
from tests.model.tiny import TINY

QUESTION, ANSWER = "Is <region0> to the left of <region1>?", "Yes, Region [0] is."


def make(folder: Path, kind: str):
    name = write_language_model(folder, kind)
    params = ModelParams(vision=TINY.vision, text=TextParams(pretrained=name))
    tokenizer = load_tokenizer(name)
    model = build_model(params, tokenizer).eval()
    model.llm.set_attn_implementation(PACKED)
    return model, build_processor(params, tokenizer)


def make_picture(processor):
    rng = np.random.default_rng(0)
    masks = {k: np.zeros((28, 28), bool) for k in range(2)}
    masks[0][2:9, 2:9] = masks[1][12:20, 15:27] = True
    rgb = rng.integers(0, 255, (28, 28, 3), dtype=np.uint8)
    return processor.picture(View(rgb, masks, rng.uniform(1, 5, (28, 28))))


def make_batch(processor):
    regions = tuple(AskedRegion(k, "box", None, (0.0, 0.0, 8.0, 8.0)) for k in range(2))
    turn = Turn(QUESTION, ANSWER, "left_predicate", (0, 1), 1.0, "truth")
    talk = Conversation("train", "scene", "talk", "cuboids", 28, 28, regions, (turn,))
    sample = Sample(0, 0, make_picture(processor), talk)
    return model_inputs(Collator(Packer(processor), seed=0, shares={})([sample]))


@pytest.mark.parametrize("kind", LANGUAGE_MODELS)
def test_what_is_placed_is_what_the_first_layer_sees(kind, tmp_path):
    """A model that scales its embeddings (Gemma) does so to words, and never to what stands in their place."""
    model, processor = make(tmp_path, kind)
    batch = processor.batch([Question(QUESTION, (0, 1), make_picture(processor))])
    seen: dict[str, torch.Tensor] = {}
    layer = model.llm.model.layers[0]
    layer.register_forward_pre_hook(
        lambda _, args, kwargs: seen.update(x=args[0] if args else kwargs["hidden_states"]), with_kwargs=True
    )
    with torch.inference_mode():
        model(**batch)
        images, rgb, depth = model.encode_images(
            *(batch.get(k) for k in ("pixel_values", "depth_values", "region_masks", "region_images")),
            batch["region_points"],
        )
        ids = batch["input_ids"][0]
        # <image> is beyond the vocabulary
        words = model.llm.get_input_embeddings()(ids.clamp_max(vocabulary_size(processor.tokenizer) - 1))
    x = seen["x"][0]
    config = model.config
    for token, features in (
        (config.image_token_id, images[0]), (config.mask_token_id, rgb), (config.depth_token_id, depth),
    ):  # fmt: skip
        torch.testing.assert_close(x[ids == token], features)
    plain = (ids != config.image_token_id) & (ids != config.mask_token_id) & (ids != config.depth_token_id)
    torch.testing.assert_close(x[plain], words[plain])


@pytest.mark.parametrize("kind", LANGUAGE_MODELS)
def test_training_loss_is_that_of_the_model_s_own_logits(kind, tmp_path):
    model, processor = make(tmp_path, kind)
    batch = make_batch(processor)
    weights = batch.pop("loss_weights")
    labels = batch["labels"]
    with torch.inference_mode():
        trained = model(**batch)
        logits = model(**{k: v for k, v in batch.items() if k != "labels"}).logits
    chosen = labels[:, 1:] != -100
    torch.testing.assert_close(trained.logits, logits[:, :-1][chosen].float(), atol=1e-5, rtol=1e-5)
    expected = torch.nn.functional.cross_entropy(logits[:, :-1][chosen].float(), labels[:, 1:][chosen])
    torch.testing.assert_close(trained.loss, expected)
    assert weights.shape == labels.shape


@pytest.mark.parametrize("kind", LANGUAGE_MODELS)
def test_saved_and_loaded_it_answers_the_same(kind, tmp_path):
    model, processor = make(tmp_path / "llm", kind)
    embeddings = model.get_input_embeddings()
    assert embeddings.num_embeddings == vocabulary_size(processor.tokenizer) > VOCABULARY
    tied = model.llm.config.tie_word_embeddings
    assert (model.get_output_embeddings().weight is embeddings.weight) == tied
    weights = {k: v.detach().to("cpu", torch.float32).contiguous() for k, v in model.state_dict().items()}
    model.save_pretrained(tmp_path / "model", state_dict=weights)
    processor.save_pretrained(tmp_path / "model")
    again, reader = load_model(tmp_path / "model")
    assert (again.get_output_embeddings().weight is again.get_input_embeddings().weight) == tied
    answers = []
    for one, prepare in ((model, processor), (again, reader)):
        batch = prepare.batch([Question(QUESTION, (0, 1), make_picture(prepare))] * 2)
        with torch.inference_mode():
            answers.append(one.generate(**batch, max_new_tokens=6))
    assert torch.equal(*answers)
    assert answers[0].shape[1] > batch["input_ids"].shape[1]


@pytest.mark.parametrize("kind", ["qwen3", "gemma2"])
def test_half_precision_weights_keep_their_ties(kind, tmp_path):
    """Converting to another dtype makes copies of shared weights, which must not be stored twice."""
    model, processor = make(tmp_path / "llm", kind)
    weights = {k: v.detach().to("cpu", torch.bfloat16).contiguous() for k, v in model.state_dict().items()}
    model.save_pretrained(tmp_path / "model", state_dict=weights)
    processor.save_pretrained(tmp_path / "model")
    again, _ = load_model(tmp_path / "model")
    assert again.get_output_embeddings().weight is again.get_input_embeddings().weight


@pytest.mark.parametrize("kind", LANGUAGE_MODELS)
def test_it_learns_one_answer(kind, tmp_path):
    model, processor = make(tmp_path, kind)
    batch = make_batch(processor)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    model.train()
    for _ in range(200 if kind == "gemma2" else 80):  # capped logits are slow to become sure
        loss = model(**batch).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.1
    asked = processor.batch([Question(QUESTION, (0, 1), make_picture(processor))])
    with torch.inference_mode():
        generated = model.eval().generate(**asked, max_new_tokens=30)
    assert processor.answers(generated, asked["input_ids"].shape[1]) == [ANSWER]


def test_what_is_no_language_model_is_refused(tmp_path):
    name = write_language_model(tmp_path / "llm", "llama")
    tower = write_tower(tmp_path / "tower", "clip")
    params = ModelParams(vision=VisionParams(), text=TextParams(pretrained=tower))
    with pytest.raises(InputError, match="'clip_vision_model' is not a causal language model alone"):
        build_config(params, load_tokenizer(name))
