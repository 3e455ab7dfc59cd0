"""Packing: a packed row computes what its turns compute one by one."""

import numpy as np
import pytest
import torch

from srgpt.dataset.collator import Collator, model_inputs
from srgpt.dataset.packing import IGNORE, TEXTS_KEPT, Packer, _remembered
from srgpt.dataset.reading import Sample
from srgpt.errors import InputError
from srgpt.model.processing import Question, View, box_shares
from srgpt.records import AskedRegion, Conversation, Turn
from tests.model.tiny import make_tiny

YES = "Yes, Region [0] is."
TURNS = (
    Turn("Is <region0> to the left of <region1>?", YES, "left_predicate", (5, 3), 1.0, "truth"),
    Turn("How wide is <region0>?", "1.25 meters.", "width_data", (8,), 1.25, "metres"),
    Turn("Is <region0> left of <region1>?", "No.", "left_predicate", (3, 8), 0.0, "truth"),
)


def sample(processor, turns=TURNS, index=0, depth=True):
    rng = np.random.default_rng(index)
    regions = tuple(AskedRegion(r, "box", None, (0.0, 0.0, 9.0, 9.0)) for r in (3, 5, 8))
    masks = {r.id: rng.random((20, 20)) > 0.6 for r in regions}
    rgb = rng.integers(0, 255, (20, 20, 3), dtype=np.uint8)
    picture = processor.picture(View(rgb, masks, rng.uniform(1, 9, (20, 20)) if depth else None))
    talk = Conversation("d", f"s{index}", f"c{index}", "cuboids", 20, 20, regions, turns)
    return Sample(0, index, picture, talk)


def collator(processor, **shares):
    return Collator(Packer(processor), seed=1, shares=shares)


def test_words_and_digits_that_state_the_fact_weigh_more():
    _, processor = make_tiny()
    packer = Packer(processor, key_weight=9.0, number_weight=4.0)
    for answer, weighty in (
        ("Region [1] is wider than Region [0], so yes.", {9.0: "wideryes"}),
        ("Region [1] is wider, so Region [1].", {9.0: "wider1"}),
        ("Region [0] is 12.35 meters from Region [1].", {4.0: "12.", 0.25: "35"}),
        ("1.07 meters.", {4.0: "1.0", 0.25: "7"}),
        ("0.45 meters.", {4.0: "0.45"}),
        ("0.07 meters.", {4.0: "0.07"}),
        ("No, Region [0] is to the left.", {9.0: "Noleft"}),
        ("Region [1] is at 3 o'clock.", {4.0: "3"}),
    ):
        ids, weights = packer._answer(answer)
        assert len(ids) == len(weights)
        by_weight = {
            w: [i for i, k in zip(ids, weights, strict=True) if k == w] for w in set(weights) - {1.0}
        }
        texts = {w: processor.tokenizer.decode(found).strip() for w, found in by_weight.items()}
        assert {w: text.replace(" ", "") for w, text in texts.items()} == weighty


def test_row_by_hand():
    _, processor = make_tiny()
    row = Packer(processor, key_weight=3.0).pack(sample(processor).conversation, "rgbd")
    prefix = processor.prefix_ids("rgbd")
    assert row.ids[: len(prefix)] == prefix
    assert row.positions[: len(prefix)] == list(range(len(prefix)))
    assert row.prefix == len(prefix)
    assert len(row.segments) == len(TURNS)
    assert row.prefix + sum(row.segments) == len(row.ids)
    first, second = row.prefix, row.prefix + row.segments[0]
    assert row.positions[first] == row.positions[second] == len(prefix)
    text = processor.tokenizer.decode(row.ids[first:second])
    assert text == "\nIs<mask><depth> to the left of<mask><depth>?<assistant>Yes, Region [0] is.<eos>"
    learnt = [i for i, label in zip(row.ids, row.labels, strict=True) if label != IGNORE]
    assert processor.tokenizer.decode(learnt) == "Yes, Region [0] is.<eos>1.25 meters.<eos>No.<eos>"
    assert (row.regions, row.depths) == ([1, 0, 2, 0, 2], 5)


def loss_and_gradients(model, batch):
    model.zero_grad()
    out = model(**model_inputs(batch))
    out.loss.backward()
    return out, {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("inputs", ["rgbd", "rgb", "boxes", "blind"])
def test_packed_turns_equal_turns_alone(inputs):
    """Logits, loss and gradients of a batch are those of its turns, each alone with its picture."""
    model, processor = make_tiny()
    one = collator(processor, **{inputs: 1.0})
    samples = [sample(processor), sample(processor, TURNS[::-1], index=1)]
    packed, gradients = loss_and_gradients(model, one(samples))
    alone = [
        loss_and_gradients(model, one([sample(processor, (turn,), index=s.index)]))
        for s in samples
        for turn in s.conversation.turns
    ]
    logits = torch.cat([out.logits for out, _ in alone])
    torch.testing.assert_close(packed.logits, logits, rtol=1e-5, atol=1e-5)
    shares_of = [len(out.logits) / len(logits) for out, _ in alone]
    mean = sum(out.loss.item() * share for (out, _), share in zip(alone, shares_of, strict=True))
    assert packed.loss.item() == pytest.approx(mean, rel=1e-5)
    for name, found in gradients.items():
        expected = sum(g[name] * share for (_, g), share in zip(alone, shares_of, strict=True))
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("inputs", ["rgbd", "rgb", "boxes", "blind"])
def test_training_sees_what_inference_sees(inputs):
    """The plain model, by ordinary attention, predicts a packed turn's first token from its prompt."""
    model, processor = make_tiny()
    one = sample(processor)
    batch = collator(processor, **{inputs: 1.0})([one])
    logits = model(**model_inputs(batch)).logits
    model.llm.set_attn_implementation("sdpa")
    first = 0
    for turn in TURNS:
        boxes = box_shares(one.conversation, turn.regions)
        prompt = processor.batch([Question(turn.question, turn.regions, one.picture, boxes)], inputs)
        torch.testing.assert_close(model(**prompt).logits[0, -1], logits[first], rtol=1e-4, atol=1e-5)
        first += len(processor.answer_ids(turn.answer))


def test_turns_with_history_see_those_before():
    model, processor = make_tiny()
    one = collator(processor)
    talk = sample(processor)
    dialogue = type(talk)(0, 0, talk.picture, talk.conversation, history=True)
    batch = one([dialogue, sample(processor, index=1)])
    length = batch["packing"].prefix
    row = one.packer.pack(talk.conversation, "rgbd", history=True)
    assert row.segments == [len(row.ids) - length]
    assert row.positions == list(range(len(row.ids)))
    # by ordinary causal attention over the whole dialogue
    whole = {k: v for k, v in model_inputs(one([dialogue])).items() if k not in {"packing", "position_ids"}}
    model.llm.set_attn_implementation("sdpa")
    expected = model(**whole).logits
    model.llm.set_attn_implementation("srgpt_packed")
    torch.testing.assert_close(
        model(**model_inputs(batch)).logits[: len(expected)], expected, rtol=1e-4, atol=1e-5
    )


def test_packing_needs_an_attention_that_knows_it():
    model, processor = make_tiny()
    model.llm.set_attn_implementation("sdpa")
    with pytest.raises(InputError, match="set_attn_implementation"):
        model(**model_inputs(collator(processor)([sample(processor)])))


def test_a_batch_is_one_row_without_padding():
    _, processor = make_tiny()
    one = collator(processor)
    samples = [sample(processor), sample(processor, TURNS[1:2], index=1), sample(processor, index=2)]
    batch = one(samples)
    rows = [one.packer.pack(s.conversation, "rgbd") for s in samples]
    assert batch["input_ids"].tolist() == [[i for r in rows for i in r.ids]]
    assert (batch["input_ids"] != processor.tokenizer.pad_token_id).all()
    for name in ("labels", "loss_weights", "position_ids", "families"):
        assert batch[name].shape == batch["input_ids"].shape


def test_what_does_not_fit_is_left_out():
    _, processor = make_tiny()
    talk = sample(processor).conversation
    whole = Packer(processor).pack(talk, "rgbd")
    cut = Packer(processor, max_length=len(whole.ids) - 1).pack(talk, "rgbd")
    assert cut.segments == whole.segments[:2]
    assert (whole.left_out, cut.left_out) == (0, len(talk.turns) - 2)
    assert Packer(processor, max_length=whole.prefix + 1).pack(talk, "rgbd").left_out == len(talk.turns)
    assert cut.ids == whole.ids[: len(cut.ids)]
    with pytest.raises(InputError, match="max_length"):
        Packer(processor, max_length=whole.prefix).pack(talk, "rgbd")


def test_a_turn_that_is_too_long_by_itself_is_cut_with_its_placeholders():
    model, processor = make_tiny()
    one = collator(processor)
    whole = one.packer.pack(sample(processor).conversation, "rgbd")
    for room in range(1, whole.segments[0]):
        one.packer.max_length = whole.prefix + room
        row = one.packer.pack(sample(processor).conversation, "rgbd")
        assert row.ids == whole.ids[: whole.prefix + room]
        assert (len(row.regions), row.depths) == (
            row.ids.count(processor.mask_id),
            row.ids.count(processor.depth_id),
        )
    one.packer.max_length = whole.prefix + 2  # between a <mask> and its <depth>
    assert torch.isfinite(model(**model_inputs(one([sample(processor)]))).logits).all()


def test_remembered_texts_are_bounded():
    known = {}
    for k in range(TEXTS_KEPT + 5):
        assert _remembered(known, k, lambda k=k: -k) == -k
    assert len(known) == 5
