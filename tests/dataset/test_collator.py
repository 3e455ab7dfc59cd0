"""Collation: modality dropout, and every branch in every batch."""

import numpy as np
import torch

from srgpt.dataset.collator import model_inputs
from srgpt.dataset.packing import FAMILIES
from srgpt.model.modeling import PIXEL_INPUTS
from srgpt.records import GROUP_OF, REASONING
from tests.dataset.test_packing import TURNS, collator, sample
from tests.model.tiny import make_tiny


def test_modality_depends_on_seed_epoch_and_sample_only():
    _, processor = make_tiny()
    one = collator(processor, rgb=0.3, blind=0.2)
    samples = [sample(processor, index=i) for i in range(40)]
    chosen = [one.inputs_of(s) for s in samples]
    assert chosen == [one.inputs_of(s) for s in samples]
    assert set(chosen) == {"rgbd", "rgb", "blind"}
    later = [type(s)(7, s.index, s.picture, s.conversation) for s in samples]
    assert [one.inputs_of(s) for s in later] != chosen


def test_shares_hold():
    _, processor = make_tiny()
    one, first = collator(processor, rgb=0.3, blind=0.2), sample(processor)
    draws = [one.inputs_of(type(first)(0, i, first.picture, first.conversation)) for i in range(4000)]
    assert abs(np.mean([d == "rgb" for d in draws]) - 0.3) < 0.03
    assert abs(np.mean([d == "blind" for d in draws]) - 0.2) < 0.03


def test_without_depth_a_sample_is_rgb():
    _, processor = make_tiny()
    assert collator(processor).inputs_of(sample(processor, depth=False)) == "rgb"


def test_a_blind_batch_still_runs_every_branch():
    model, processor = make_tiny()
    batch = collator(processor, blind=1.0)([sample(processor)])
    assert not torch.isin(batch["input_ids"], torch.tensor([3, 4, 5])).any()
    model.train()
    model(**model_inputs(batch)).loss.backward()
    idle = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert idle == []
    vision = [p.grad for n, p in model.named_parameters() if not n.startswith("llm") and p.grad is not None]
    assert all(not g.any() for g in vision)


def test_regions_of_a_batch_are_their_own():
    """Features that a batch puts in are those of each sample alone."""
    model, processor = make_tiny()
    samples = [sample(processor, index=0), sample(processor, TURNS[:1], index=1)]
    one = collator(processor)

    def features(batch):
        embeds = model.embed(batch["input_ids"], **{k: batch[k] for k in PIXEL_INPUTS if k in batch})
        placed = torch.isin(batch["input_ids"], torch.tensor([3, 4, 5]))
        return embeds[placed]

    alone = torch.cat([features(one([s])) for s in samples])
    torch.testing.assert_close(features(one(samples)), alone, rtol=1e-4, atol=1e-5)


def test_every_label_has_its_family_and_every_sample_its_key():
    _, processor = make_tiny()
    batch = collator(processor)([sample(processor, index=4), sample(processor, TURNS[1:2], index=9)])
    assert batch["keys"] == [(0, 4), (0, 9)]
    assert torch.equal(batch["families"] == -1, batch["labels"] == -100)
    found = [FAMILIES[k] for k in batch["families"][0].tolist() if k != -1]
    changes = [f for k, f in enumerate(found) if k == 0 or found[k - 1] != f]
    assert changes == ["left_right", "width", "left_right", "width"]


def test_every_category_has_a_family():
    assert {*GROUP_OF.values(), *REASONING, "text"} == set(FAMILIES)
    assert len(set(FAMILIES)) == len(FAMILIES)


def test_a_sample_without_picture_is_blind_and_has_no_pixels():
    _, processor = make_tiny()
    whole = sample(processor)
    bare = type(whole)(0, 1, None, whole.conversation)
    one = collator(processor)
    assert one.inputs_of(bare) == "blind"
    batch = one([bare, whole])
    assert len(batch["pixel_values"]) == 1
    assert batch["image_index"].tolist() == [0]
