"""Tagging: Florence-2's answers become names; a tiny one is taught what to say."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoProcessor, Florence2ForConditionalGeneration

from srgpt.errors import InputError
from srgpt.params import TaggingParams
from srgpt.perception.tagging import load_tagger, names

PLACE = "<loc_1><loc_20><loc_300><loc_999>"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"</s><s>chair{PLACE}Red cup{PLACE}</s><pad>", ("chair", "red cup")),
        (f"chair{PLACE}{PLACE}table{PLACE}", ("chair", "table")),
        (f"chair{PLACE}chair{PLACE}", ("chair",)),
        (f"chair{PLACE}a cut-off na", ("chair",)),
        ("nothing at all", ()),
        (f"{PLACE}", ()),
        ("", ()),
    ],
)
def test_names_of_an_answer(text, expected):
    assert names(text) == expected


@given(st.lists(st.sampled_from(["a", "<loc_3>", "</s>", "<s>", "<pad>", "<", ">", " ", "b c", "<od>"])))
def test_any_answer_gives_distinct_plain_names(parts):
    found = names("".join(parts))
    assert len(set(found)) == len(found)
    assert all(name == name.strip() and name and "<loc_" not in name for name in found)


def teach(folder, target, answer, pictures):
    """Train the tiny model to give one answer, whatever it sees."""
    processor = AutoProcessor.from_pretrained(folder, backend="pil")
    model = Florence2ForConditionalGeneration.from_pretrained(folder)
    inputs = processor(images=pictures, text=["<OD>"] * len(pictures), return_tensors="pt", padding=True)
    labels = processor.tokenizer(
        text=[answer + "</s>"] * len(pictures), add_special_tokens=False, return_tensors="pt"
    )["input_ids"]
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    torch.manual_seed(0)
    for _ in range(200):
        loss = model(**inputs, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if loss.item() < 0.02:
            break
    model.save_pretrained(target)
    processor.save_pretrained(target)


def test_a_taught_model_names_what_it_was_taught(checkpoint, pictures, tmp_path):
    answer = f"chair{PLACE}red cup{PLACE}"
    teach(checkpoint("florence2"), tmp_path / "taught", answer, pictures)
    tagger = load_tagger(TaggingParams(model=str(tmp_path / "taught"), max_new_tokens=40))
    assert tagger.tag(pictures) == [("chair", "red cup")] * 3
    assert tagger.tag(pictures[:1]) == [("chair", "red cup")]


@pytest.mark.parametrize("task", ["objects", "region_captions"])
def test_both_tasks_run_untaught(task, checkpoint, pictures):
    tagger = load_tagger(TaggingParams(model=checkpoint("florence2"), task=task, max_new_tokens=8))
    assert all(isinstance(tags, tuple) for tags in tagger.tag(pictures))


def test_bfloat16_runs(checkpoint, pictures):
    tagger = load_tagger(TaggingParams(model=checkpoint("florence2"), dtype="bfloat16", max_new_tokens=4))
    assert len(tagger.tag(pictures)) == 3


def test_another_kind_of_model_is_refused_with_what_to_do(checkpoint, monkeypatch):
    class Other:
        kind = "llava"

    monkeypatch.setattr("srgpt.perception.tagging.load", lambda *_: Other())
    with pytest.raises(
        InputError, match=r"perceive\.tagging\.model = 'x/y' is a llava model.*perceive\.tags=vocabulary"
    ):
        load_tagger(TaggingParams(model="x/y"))
