"""Collation: modality dropout, and every branch in every batch."""

import numpy as np
import torch

from srgpt.model.modeling import PIXEL_INPUTS
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
    model(**batch).loss.backward()
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
