"""The sampler: a pure function of seed and position, whatever the ranks."""

from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from srgpt.dataset.sampler import PermutationSampler, SamplerState, permutation
from srgpt.errors import InputError


def sampler(rows=(5, 3, 4), batch=2, rank=0, world=1, seed=3):
    return PermutationSampler(rows, batch=batch, seed=seed, fingerprint="abc", rank=rank, world=world)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 7), min_size=1, max_size=9), st.integers(0, 99), st.integers(1, 4))
def test_every_sample_comes_once_an_epoch(rows, seed, window):
    epoch = seed % 5
    order = permutation(rows, seed, epoch, window)
    assert sorted(order.tolist()) == list(range(sum(rows)))
    assert (order == permutation(rows, seed, epoch, window)).all()


def test_a_window_reads_few_shards_at_a_time():
    order = permutation([10] * 20, seed=1, epoch=0, window=4)
    for start in range(0, 200, 40):
        assert len(set(order[start : start + 40] // 10)) == 4


def test_epochs_and_seeds_differ():
    orders = [permutation([50], seed, epoch) for seed in (0, 1) for epoch in (0, 1)]
    assert len({tuple(o) for o in orders}) == 4


def test_the_global_stream_is_the_same_on_any_number_of_ranks():
    alone = list(islice(sampler(batch=4), 9))
    ranks = [list(islice(sampler(batch=2, rank=r, world=2), 9)) for r in range(2)]
    assert alone == [a + b for a, b in zip(*ranks, strict=True)]
    epochs = [e for keys in alone for e, _ in keys]
    assert epochs == sorted(epochs)
    assert [i for keys in alone[:3] for _, i in keys] == permutation((5, 3, 4), 3, 0).tolist()


def test_resuming_goes_on_where_it_stopped_on_another_number_of_ranks():
    whole = [k for keys in islice(sampler(batch=4), 10) for k in keys]
    resumed = sampler(batch=8)
    resumed.resume(SamplerState("abc", 16))
    assert [k for keys in islice(resumed, 3) for k in keys] == whole[16:40]


def test_other_data_refuses_to_resume():
    with pytest.raises(InputError, match="trained on data"):
        sampler().resume(SamplerState("xyz", 4))


def test_nothing_to_sample_is_an_error():
    with pytest.raises(InputError, match="no conversations"):
        sampler(rows=(0, 0))


def test_small_data_repeats_with_new_orders():
    keys = [k for batch in islice(sampler(rows=(3,), batch=2), 6) for k in batch]
    assert [e for e, _ in keys] == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert len(keys) == len(set(keys)) == 12
    assert np.unique([i for _, i in keys]).tolist() == [0, 1, 2]
