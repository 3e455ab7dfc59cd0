"""Packing: a packed row computes what its turns compute one by one."""

import numpy as np
import pytest
import torch

from srgpt.dataset.collator import Collator
from srgpt.dataset.packing import IGNORE, PADDING, Packer, block_mask
from srgpt.dataset.reading import Sample
from srgpt.errors import InputError
from srgpt.model.processing import Question
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
    picture = processor.picture(rgb, rng.uniform(1, 9, (20, 20)) if depth else None, masks)
    talk = Conversation("d", f"s{index}", f"c{index}", "cuboids", 20, 20, regions, turns)
    return Sample(0, index, picture, talk)


def collator(processor, key_weight=1.0, rgb=0.0, blind=0.0):
    return Collator(Packer(processor, key_weight=key_weight), seed=1, rgb_share=rgb, blind_share=blind)


def test_block_mask_by_hand():
    allowed = block_mask(np.array([[0, 0, 1, 1, 2, PADDING]]))[0].astype(int)
    assert allowed.tolist() == [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [1, 1, 1, 1, 0, 0],
        [1, 1, 0, 0, 1, 0],
        [0, 0, 0, 0, 0, 1],
    ]


def test_words_that_state_the_fact_weigh_more():
    _, processor = make_tiny()
    packer = Packer(processor, key_weight=9.0)
    for answer, weighty in (
        ("Region [1] is wider than Region [0], so yes.", {9.0: "wideryes"}),
        ("Region [1] is wider, so Region [1].", {9.0: "wider1"}),
        ("Region [0] is 12.35 meters from Region [1].", {3.0: "12"}),
        ("No, Region [0] is to the left.", {9.0: "Noleft"}),
        ("Region [1] is at 3 o'clock.", {3.0: "3"}),
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
    first = row.segments.index(1)
    second = row.segments.index(2)
    assert first == len(prefix)
    assert row.positions[first] == row.positions[second] == len(prefix)
    text = processor.tokenizer.decode(row.ids[first:second])
    assert text == "\nIs<mask><depth> to the left of<mask><depth>?<assistant>Yes, Region [0] is.<eos>"
    learnt = [i for i, label in zip(row.ids, row.labels, strict=True) if label != IGNORE]
    assert processor.tokenizer.decode(learnt) == "Yes, Region [0] is.<eos>1.25 meters.<eos>No.<eos>"
    assert row.regions == [1, 0, 2, 0, 2]


@pytest.mark.parametrize("inputs", ["rgbd", "rgb", "blind"])
def test_packed_turns_equal_turns_alone(inputs):
    model, processor = make_tiny()
    shares = {"rgbd": (0, 0), "rgb": (1, 0), "blind": (0, 1)}[inputs]
    one = collator(processor, rgb=shares[0], blind=shares[1])
    whole = one([sample(processor)])
    packed = model(**whole)
    alone = [model(**one([sample(processor, (turn,))])) for turn in TURNS]
    torch.testing.assert_close(packed.logits, torch.cat([a.logits for a in alone]), rtol=1e-4, atol=1e-5)
    counts = [len(a.logits) for a in alone]
    mean = sum(a.loss.item() * n for a, n in zip(alone, counts, strict=True)) / sum(counts)
    assert packed.loss.item() == pytest.approx(mean, rel=1e-5)


@pytest.mark.parametrize("inputs", ["rgbd", "rgb", "blind"])
def test_training_sees_what_inference_sees(inputs):
    model, processor = make_tiny()
    shares = {"rgbd": (0, 0), "rgb": (1, 0), "blind": (0, 1)}[inputs]
    one = sample(processor)
    batch = collator(processor, rgb=shares[0], blind=shares[1])([one])
    logits = model(**batch).logits
    first = 0
    for turn in TURNS:
        prompt = processor.batch([Question(turn.question, turn.regions, one.picture)], inputs)
        torch.testing.assert_close(model(**prompt).logits[0, -1], logits[first], rtol=1e-4, atol=1e-5)
        first += len(processor.answer_ids(turn.answer))


def test_padding_changes_nothing():
    model, processor = make_tiny()
    one = collator(processor)
    long, short = sample(processor), sample(processor, TURNS[1:2], index=1)
    together = model(**one([short, long]))
    expected = [model(**one([s])).logits for s in (short, long)]
    torch.testing.assert_close(together.logits, torch.cat(expected), rtol=1e-4, atol=1e-5)


def test_what_does_not_fit_is_left_out():
    _, processor = make_tiny()
    whole = Packer(processor).pack(sample(processor).conversation, "rgbd")
    cut = Packer(processor, max_length=len(whole.ids) - 1).pack(sample(processor).conversation, "rgbd")
    assert max(cut.segments) == 2
    assert cut.ids == whole.ids[: len(cut.ids)]
    with pytest.raises(InputError, match="max_length"):
        Packer(processor, max_length=10).pack(sample(processor).conversation, "rgbd")
