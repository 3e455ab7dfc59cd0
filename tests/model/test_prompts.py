"""Prompt text and tokens, byte by byte."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from srgpt.errors import InputError
from srgpt.model.processing import SrgptProcessor, cut_template
from srgpt.model.prompts import PromptTemplate, region_marks, region_mentions, region_text
from srgpt.model.tokenizer import train_tokenizer
from tests.model.tiny import TEXTS, make_tiny


def test_regions_become_what_the_inputs_allow():
    question = "Is <region0> left of <region1>, or is <region0> right?"
    assert region_text(question, region_marks("rgbd", 2), ()) == (
        "Is <mask> <depth> left of <mask> <depth>, or is <mask> <depth> right?"
    )
    assert (
        region_text(question, region_marks("rgb", 2), ()) == "Is <mask> left of <mask>, or is <mask> right?"
    )
    blind = "Is Region [0] left of Region [1], or is Region [0] right?"
    assert region_text(question, region_marks("blind", 2), ()) == blind
    assert region_mentions(question) == [0, 1, 0]


def test_a_mention_without_region_is_an_error():
    with pytest.raises(InputError, match="<region1>"):
        region_text("Is <region1> here?", region_marks("rgb", 1), ())


@pytest.mark.parametrize("token", ["<image>", "<mask>", "<depth>", "<eos>", "<assistant>", "<pad>"])
def test_a_question_cannot_smuggle_in_special_tokens(token):
    _, processor = make_tiny()
    with pytest.raises(InputError, match="reserved"):
        processor.turn_ids(f"What is {token}<region0>?", 1, "rgbd")


def test_our_own_prompt():
    _, processor = make_tiny()
    template = PromptTemplate(
        "<bos><user>", "\n", "<assistant>", 4, end="<eos>", break_="<eos>", again="<user>"
    )
    assert processor.template == template
    decode = processor.tokenizer.decode
    assert decode(processor.prefix_ids("rgbd")) == "<bos><user><image><image><image><image>"
    assert decode(processor.turn_ids("How wide is <region0>?", 1, "rgbd")) == (
        "\nHow wide is<mask><depth>?<assistant>"
    )
    assert processor.prefix_ids("blind") == []
    assert decode(processor.turn_ids("How wide is <region0>?", 1, "blind")) == (
        "<bos><user>How wide is Region [0]?<assistant>"
    )


def test_a_template_that_changes_messages_is_refused():
    tokenizer = train_tokenizer(TEXTS, 320)
    tokenizer.chat_template = "{{ messages[0]['content'] | upper }}"
    with pytest.raises(InputError, match="chat template"):
        cut_template(tokenizer, 1)


def test_every_digit_is_a_token_and_training_is_repeatable(tmp_path):
    one, two = train_tokenizer(TEXTS, 320), train_tokenizer(TEXTS, 320)
    assert one.get_vocab() == two.get_vocab()
    assert [one.decode([i]) for i in one("12.75 m")["input_ids"]][:2] == ["1", "2"]
    one.save_pretrained(tmp_path)
    loaded = PreTrainedTokenizerFast.from_pretrained(tmp_path)
    assert loaded("a <mask> <depth> b") == one("a <mask> <depth> b")


@given(st.text(max_size=60))
def test_any_text_survives_the_tokenizer(text):
    tokenizer = TOKENIZER
    if not any(t in text for t in tokenizer.all_special_tokens):
        assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text


TOKENIZER = train_tokenizer(TEXTS, 320)


def test_answers_end_where_they_end():
    _, processor = make_tiny()
    ids = processor.answer_ids("Yes, Region [0] is.")
    assert ids[-1] == processor.tokenizer.eos_token_id
    import torch

    pad = processor.tokenizer.pad_token_id
    assert processor.answers(torch.tensor([[9, 9, *ids, pad, pad]]), 2) == ["Yes, Region [0] is."]


def test_a_folder_without_a_processor_is_named(tmp_path):
    with pytest.raises(InputError, match=r"processor_config\.json"):
        SrgptProcessor.from_pretrained(tmp_path)
