"""The model computes what the reference computes, given its weights; expectations are by hand or from formulas."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tokenizers import AddedToken, Tokenizer, models
from transformers import LlamaConfig, PreTrainedTokenizerFast, SiglipVisionConfig

from srgpt.dataset.packing import Packer
from srgpt.errors import InputError
from srgpt.model import SrgptConfig
from srgpt.model.loading import load_model
from srgpt.model.pixels import make_picture, normalise
from srgpt.model.processing import Question, View, cut_template
from srgpt.model.prompts import region_marks
from srgpt.model.region import RegionExtractor
from srgpt.model.templates import LLAMA_3, TEMPLATES, VICUNA_V1, template_for
from srgpt.model.tokenizer import add_placeholders, load_tokenizer, vocabulary_size
from srgpt.model.vila import convert
from srgpt.model.vila.settings import by_part, expected_tensors
from srgpt.records import AskedRegion, Conversation, Turn
from tests.model.released import (
    IMAGE_SIZE,
    TOKENIZERS,
    Reference,
    llama_2_tokenizer,
    llama_3_tokenizer,
    make_released,
    reference_ids,
)

LLAMA_3_PROMPT = (
    "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nYou are a helpful language and vision assistant. "
    "You are able to understand the visual content that the user provides, and assist the user with a variety of tasks "
    "using natural language.<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n<image>\nHow wide is <mask> <depth>?"
    "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
)
VICUNA_PROMPT = (
    "<s>A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, "
    "and polite answers to the user's questions. USER: <image>\nHow wide is <mask> <depth>? ASSISTANT:"
)
PROMPTS = {"llama_3": LLAMA_3_PROMPT, "vicuna_v1": VICUNA_PROMPT}
ANSWERED = {
    "llama_3": f"{LLAMA_3_PROMPT}Region [0] is 1.25 meters.<|end_of_text|>",
    "vicuna_v1": f"{VICUNA_PROMPT} Region [0] is 1.25 meters.</s>",
}


@pytest.fixture(scope="module", params=list(TOKENIZERS))
def family(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, family: str) -> tuple[Path, Path]:
    """A checkpoint in the reference's layout, and the same as ours."""
    folder = tmp_path_factory.mktemp(family)
    make_released(folder / "released", family)
    convert(str(folder / "released"), str(folder / "ours"))
    return folder / "released", folder / "ours"


# The checklist's first item: names, shapes and numbers of the released model -------------------------------------


def released_8b() -> SrgptConfig:
    vision = SiglipVisionConfig(
        hidden_size=1152, intermediate_size=4304, num_hidden_layers=27, num_attention_heads=16, image_size=384,
        patch_size=14,
    )  # fmt: skip
    text = LlamaConfig(
        hidden_size=4096, intermediate_size=14336, num_hidden_layers=32, num_attention_heads=32,
        num_key_value_heads=8, vocab_size=128259, rope_theta=500000.0,
    )  # fmt: skip
    ids = {"image_token_id": 128259, "mask_token_id": 128257, "depth_token_id": 128258}
    return SrgptConfig(vision, text, feature_layer="penultimate", mask_pooling="reference", **ids)


def test_tensors_of_the_8b_model() -> None:
    shapes = expected_tensors(released_8b(), Path("8b"))
    parts = by_part(shapes)
    layer = 9  # q, k, v, o, gate, up, down and two norms
    assert len(parts["llm"]) == 32 * layer + 3
    assert len(parts["vision_tower"]) == 3 + 27 * 16 + 2 + 11
    of = {part: {theirs: shapes[ours] for theirs, ours in names.items()} for part, names in parts.items()}
    assert of["region_extractor"] == {
        "feature_refinement_module.0.weight": (1152, 1152, 2, 2),
        "feature_refinement_module.0.bias": (1152,),
        "feature_refinement_module.1.weight": (1152,),
        "feature_refinement_module.1.bias": (1152,),
        "feature_refinement_module.3.weight": (1152, 1152, 2, 2),
        "feature_refinement_module.3.bias": (1152,),
        "rgb_projector.weight": (4096, 1152),
        "rgb_projector.bias": (4096,),
        "depth_projector.weight": (4096, 1152),
        "depth_projector.bias": (4096,),
    }
    assert of["mm_projector"] == {
        "layers.1.weight": (4608,),
        "layers.1.bias": (4608,),
        "layers.2.weight": (4096, 4608),
        "layers.2.bias": (4096,),
        "layers.4.weight": (4096, 4096),
        "layers.4.bias": (4096,),
    }
    sizes = {part: sum(math.prod(shape) for shape in found.values()) for part, found in of.items()}
    assert sizes["region_extractor"] == 20_066_816
    assert sizes["mm_projector"] == 35_668_992
    assert of["llm"]["model.embed_tokens.weight"] == of["llm"]["lm_head.weight"] == (128259, 4096)
    assert of["vision_tower"]["vision_model.embeddings.position_embedding.weight"] == (729, 1152)
    assert of["vision_tower"]["vision_model.embeddings.patch_embedding.weight"] == (1152, 3, 14, 14)
    assert "vision_model.head.probe" in of["vision_tower"]
    assert released_8b().image_tokens == 196


# Refinement and pooling -------------------------------------------------------------------------------------------


def test_refinement_of_one_cell_by_hand() -> None:
    extractor = RegionExtractor(2, 3, "reference")
    torch.manual_seed(0)
    for parameter in extractor.parameters():
        parameter.data.normal_()
    names = ("0.weight", "0.bias", "1.weight", "1.bias", "3.weight", "3.bias")
    w1, b1, scale, shift, w2, b2 = (
        extractor.feature_refinement_module.state_dict()[name].double().tolist() for name in names
    )

    def gelu(x: float) -> float:
        return 0.5 * x * (1 + math.erf(x / math.sqrt(2)))

    x = [0.3, -1.2]
    hires, lowres = extractor.refine(torch.tensor([[x]]), 1)
    total = [0.0, 0.0]
    for row in range(4):
        for column in range(4):
            a, b, c, d = row // 2, column // 2, row % 2, column % 2
            first = [sum(x[i] * w1[i][o][a][b] for i in (0, 1)) + b1[o] for o in (0, 1)]
            mean = sum(first) / 2
            variance = sum((v - mean) ** 2 for v in first) / 2
            normal = [
                (v - mean) / math.sqrt(variance + 1e-6) * scale[o] + shift[o] for o, v in enumerate(first)
            ]
            y = [gelu(v) for v in normal]
            second = [gelu(sum(y[i] * w2[i][o][c][d] for i in (0, 1)) + b2[o]) for o in (0, 1)]
            assert hires[0, 4 * row + column].tolist() == pytest.approx(second, abs=1e-5)
            total = [t + v / 16 for t, v in zip(total, second, strict=True)]
    assert lowres[0, 0].tolist() == pytest.approx(total, abs=1e-5)


def test_bilinear_pooling_by_hand() -> None:
    """A mask of 4 x 4 pixels on 2 x 2 cells: each cell samples at the middle of its four pixels."""
    extractor = RegionExtractor(1, 1, "reference")
    mask = torch.tensor([[[1.0, 1, 1, 0], [1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]])
    tokens = torch.tensor([[[10.0], [20], [30], [40]]])  # (0, 0), (0, 1), (1, 0), (1, 1)
    pooled = extractor.pool(tokens, mask, torch.tensor([0]), 2)
    # cell (0, 0) weighs 4/4, cell (0, 1) 1/4
    assert pooled.item() == pytest.approx((10 * 1 + 20 * 0.25) / 1.25)


def test_depth_is_not_refined_and_rgb_is(folders: tuple[Path, Path]) -> None:
    model, _ = load_model(folders[1])
    torch.manual_seed(0)
    pixels, depth = torch.randn(2, 1, 3, IMAGE_SIZE, IMAGE_SIZE)
    inputs = pixels, depth, torch.ones(1, IMAGE_SIZE, IMAGE_SIZE), torch.tensor([0])
    before = model.encode_images(*inputs)
    with torch.no_grad():
        model.region_extractor.feature_refinement_module[3].weight.mul_(2)
    after = model.encode_images(*inputs)
    moved = [not torch.allclose(a, b, atol=1e-4) for a, b in zip(before, after, strict=True)]
    assert moved == [True, True, False]  # image tokens and regions, but not the regions' depth


# The whole forward ------------------------------------------------------------------------------------------------


def test_logits_are_the_references(folders: tuple[Path, Path], family: str) -> None:
    released, ours = folders
    model, processor = load_model(ours)
    rng = np.random.default_rng(0)
    size = (IMAGE_SIZE, IMAGE_SIZE)
    masks = {3: np.zeros(size, bool), 7: np.zeros(size, bool)}
    masks[3][5:30, 10:50] = True
    masks[7][40:53, 2:9] = rng.random((13, 7)) > 0.3
    rgb = rng.integers(0, 255, (*size, 3), dtype=np.uint8)
    picture = processor.picture(View(rgb, masks, rng.uniform(1, 9, size)))
    text = "Is <region0> to the left of <region1>, and how wide is <region0>?"
    batch = processor.batch([Question(text, (7, 3), picture)])
    logits = model(**batch).logits[0]

    reference = Reference(released)
    shown = text.replace("<region0>", "<mask> <depth>").replace("<region1>", "<mask> <depth>")
    prompt = PROMPTS[family].replace("How wide is <mask> <depth>?", shown)
    expected = reference.logits(
        reference_ids(processor.tokenizer, prompt),
        torch.from_numpy(normalise(picture.rgb)),
        torch.from_numpy(normalise(picture.depth)),
        torch.from_numpy(np.stack([masks[7], masks[3], masks[7]])).float(),
    )
    assert logits.shape == expected.shape
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)
    # what is compared does depend on the pixels, and is no noise
    other = model(**{**batch, "depth_values": -batch["depth_values"]}).logits[0]
    assert (other[-1] - logits[-1]).abs().max() > 1e-2


# Tokens and prompts -----------------------------------------------------------------------------------------------


def test_prompt_bytes(folders: tuple[Path, Path], family: str) -> None:
    _, processor = load_model(folders[1])
    template = processor.template
    prompt = template.prefix("rgbd") + template.turn(
        "How wide is <region0>?", "rgbd", region_marks("rgbd", 1), ()
    )
    assert prompt == PROMPTS[family].replace("<image>", "<image>" * 196)
    assert f"{template.lead}ANSWER{template.end}" == ANSWERED[family].removeprefix(PROMPTS[family]).replace(
        "Region [0] is 1.25 meters.", "ANSWER"
    )


def test_tokens_of_a_conversation_are_those_of_its_whole_text(
    folders: tuple[Path, Path], family: str
) -> None:
    """Prefix, turn and answer are tokenised apart; together they are what the reference makes of the whole."""
    _, processor = load_model(folders[1])
    for inputs, shown in (("rgbd", "<mask> <depth>"), ("rgb", "<mask>"), ("blind", "Region [0]")):
        turn = processor.turn_ids("How wide is <region0>?", 1, inputs)
        ids = [*processor.prefix_ids(inputs), *turn, *processor.answer_ids("Region [0] is 1.25 meters.")]
        text = ANSWERED[family].replace("<mask> <depth>", shown)
        expected = reference_ids(
            processor.tokenizer, text if inputs != "blind" else text.replace("<image>\n", "")
        )
        images = [[processor.image_id] * 196 if i == -200 else [i] for i in expected]
        assert ids == [i for found in images for i in found]
        assert processor.tokenizer.unk_token_id not in ids


def test_tokens_of_a_dialogue_are_those_of_its_whole_text(folders: tuple[Path, Path], family: str) -> None:
    """Several turns in one conversation, as the reference trains on them: only the last answer ends for good."""
    _, processor = load_model(folders[1])
    turns = (("How wide is <region0>?", "1.25 meters."), ("And <region0>?", "No, 2."), ("Is it?", "Yes."))
    asked = tuple(Turn(q, a, "width_data", (0,) * q.count("<region0>"), 1.0, "metres") for q, a in turns)
    regions = (AskedRegion(0, "chair", None, (0.0, 0.0, 5.0, 5.0)),)
    conversation = Conversation("train", "s0", "s0-0", "cuboids", 9, 9, regions, asked)
    for inputs, shown in (("rgbd", "<mask> <depth>"), ("blind", "Region [0]")):
        row = Packer(processor).pack(conversation, inputs, history=True)
        template = TEMPLATES[family]
        opening = "<image>\n" if inputs == "rgbd" else ""
        messages = []
        for k, (question, answer) in enumerate(turns):
            content = ("" if k else opening) + question.replace("<region0>", shown)
            messages += [{"role": "user", "content": content}, {"role": "assistant", "content": answer}]
        text = processor.tokenizer.apply_chat_template(messages, chat_template=template, tokenize=False)
        images = [
            [processor.image_id] * 196 if i == -200 else [i] for i in reference_ids(processor.tokenizer, text)
        ]
        assert row.ids == [i for found in images for i in found]
        ends = [label for label in row.labels if label in (processor.end_id, processor.break_id)]
        assert ends == [processor.break_id] * 2 + [processor.end_id]


def test_spans_of_an_answer_are_its_characters(folders: tuple[Path, Path]) -> None:
    _, processor = load_model(folders[1])
    for answer in ("Yes, 1.25 m", " led by a space", "\n\nled by lines", "é"):
        ids, spans = processor.encode_answer(answer)
        assert ids[-1] == processor.end_id
        assert len(ids) == len(spans)
        assert {k for a, b in spans for k in range(a, b)} == set(range(len(answer)))


def test_generation_stops_on_every_end(folders: tuple[Path, Path], family: str) -> None:
    model, processor = load_model(folders[1])
    names = {"llama_3": ["<|end_of_text|>", "<|eot_id|>"], "vicuna_v1": ["</s>"]}[family]
    ends = sorted(processor.tokenizer.convert_tokens_to_ids(names))
    assert model.generation_config.eos_token_id == ends
    picture = processor.picture(View(np.zeros((9, 9, 3), np.uint8), {}))
    batch = processor.batch([Question("Yes?", (), picture)], "rgb")
    for end in ends:
        embed = model.get_output_embeddings()
        with torch.no_grad():  # whatever was read, this token comes next
            embed.weight.zero_()
            embed.weight[end] = model.llm.base_model(inputs_embeds=model.embed(
                **{k: v for k, v in batch.items() if k != "attention_mask"})).last_hidden_state[0, -1]  # fmt: skip
        written = model.generate(**batch, max_new_tokens=5)[0, batch["input_ids"].shape[1] :]
        assert written.tolist() == [end]
        assert processor.answers(written[None], 0) == [""]


def test_end_tokens_inside_a_question_are_refused(folders: tuple[Path, Path], family: str) -> None:
    _, processor = load_model(folders[1])
    token = {"llama_3": "<|start_header_id|>", "vicuna_v1": "</s>"}[family]
    with pytest.raises(InputError, match="reserved"):
        processor.turn_ids(f"Hm{token}?", 0, "rgb")


def base_tokenizer(size: int, special: dict[str, str]) -> PreTrainedTokenizerFast:
    """A tokenizer of ``size`` tokens, like a released language model's before the reference adds to it."""
    count = size - len(special)
    inner = Tokenizer(models.BPE(vocab={f"t{k}": k for k in range(count)}, merges=[]))
    inner.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in special.values()])
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, **{k: v for k, v in special.items() if k.endswith("_token")}
    )


def test_token_ids_of_llama_3(tmp_path: Path) -> None:
    headers = {"start": "<|start_header_id|>", "end": "<|end_header_id|>", "last": "<|end_of_text|>"}
    ends = {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"}
    base_tokenizer(128256, {**ends, **headers}).save_pretrained(str(tmp_path))
    tokenizer = load_tokenizer(str(tmp_path))
    ids = tokenizer.convert_tokens_to_ids(["[PAD]", "<mask>", "<depth>", "<image>"])
    assert ids == [128256, 128257, 128258, 128259]
    assert tokenizer.pad_token == "[PAD]"
    assert vocabulary_size(tokenizer) == 128259  # the rows of the released model: none for <image>
    assert tokenizer.chat_template == LLAMA_3


def test_token_ids_of_llama_2(tmp_path: Path) -> None:
    ends = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    base_tokenizer(32000, ends).save_pretrained(str(tmp_path))
    tokenizer = load_tokenizer(str(tmp_path))
    assert tokenizer.pad_token == "<unk>"
    assert tokenizer.convert_tokens_to_ids(["<mask>", "<depth>", "<image>"]) == [32000, 32001, 32002]
    assert vocabulary_size(tokenizer) == 32002
    assert tokenizer.chat_template == VICUNA_V1


def test_an_image_inside_the_vocabulary_is_counted() -> None:
    tokenizer = llama_2_tokenizer()
    tokenizer.add_tokens([AddedToken("<image>", special=True), AddedToken("later")])
    assert vocabulary_size(tokenizer) == len(tokenizer)


def test_templates_by_family_and_by_name() -> None:
    three, two = llama_3_tokenizer(), llama_2_tokenizer()
    assert template_for(three) == LLAMA_3
    assert template_for(two) == VICUNA_V1
    assert template_for(three, "vicuna_v1") == VICUNA_V1
    with pytest.raises(InputError, match=r"llama_3: the tokenizer has no <\|start_header_id\|>"):
        template_for(two, "llama_3")
    with pytest.raises(InputError, match="allowed: llama_3, vicuna_v1"):
        template_for(two, "alpaca")


def test_several_turns_end_as_the_reference_ends_them() -> None:
    said = [("user", "A?"), ("assistant", "B."), ("user", "C?"), ("assistant", "D.")]
    messages = [{"role": role, "content": text} for role, text in said]
    three, two = llama_3_tokenizer(), llama_2_tokenizer()
    three.chat_template, two.chat_template = TEMPLATES["llama_3"], TEMPLATES["vicuna_v1"]
    text = three.apply_chat_template(messages, tokenize=False)
    head = "<|start_header_id|>{}<|end_header_id|>\n\n"
    user, assistant = head.format("user"), head.format("assistant")
    assert text.endswith(
        f"{user}A?<|eot_id|>{assistant}B.<|eot_id|>{user}C?<|eot_id|>{assistant}D.<|end_of_text|>"
    )
    text = two.apply_chat_template(messages, tokenize=False)
    assert text.endswith("questions. USER: A? ASSISTANT: B.</s>USER: C? ASSISTANT: D.</s>")
    system = [{"role": "system", "content": "Be brief."}, messages[0]]
    assert two.apply_chat_template(system, tokenize=False) == "<s>Be brief. USER: A? "
    assert three.apply_chat_template(system, tokenize=False) == (
        f"<|begin_of_text|>{head.format('system')}Be brief.<|eot_id|>{user}A?<|eot_id|>"
    )


def test_a_template_that_says_nothing_of_answers_ends_them_with_the_tokenizers_end() -> None:
    tokenizer = llama_2_tokenizer()
    add_placeholders(tokenizer)
    tokenizer.chat_template = "{{ messages[0]['content'] }}!"
    template = cut_template(tokenizer, 1)
    assert (template.head, template.suffix, template.tail) == ("", "\n", "!")
    assert (template.lead, template.end) == ("", "</s>")


# Pixels -----------------------------------------------------------------------------------------------------------


def test_images_are_squashed_bicubically_and_scaled_to_one() -> None:
    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 256, (300, 500, 3), dtype=np.uint8)
    picture = make_picture(rgb, None, {}, size=384, form="relative")
    squashed = np.asarray(Image.fromarray(rgb).resize((384, 384)))  # pillow's default is bicubic
    assert np.array_equal(picture.rgb, squashed)
    values = normalise(picture.rgb)
    assert values.shape == (3, 384, 384)
    k, row, column = 1, 17, 300
    assert values[k, row, column] == pytest.approx((squashed[row, column, k] / 255 - 0.5) / 0.5, abs=1e-6)


def test_depth_images_are_grey_and_nearer_is_brighter() -> None:
    depth = np.array([[1.0, 2.0], [4.0, 4.0]])
    picture = make_picture(np.zeros((2, 2, 3), np.uint8), depth, {}, size=2, form="relative")
    # inverse depth 1, 1/2, 1/4, 1/4 from its least to its greatest
    assert picture.depth.tolist() == [[255, 85], [0, 0]]
    assert np.array_equal(normalise(picture.depth)[0], normalise(picture.depth)[2])


def test_masks_of_the_models_own_size_pass_as_they_are() -> None:
    mask = np.random.default_rng(0).random((384, 384)) > 0.5
    picture = make_picture(np.zeros((384, 384, 3), np.uint8), None, {0: mask}, size=384, form="relative")
    assert np.array_equal(picture.masks[0] == 255, mask)
    assert set(np.unique(picture.masks)) == {0, 255}
