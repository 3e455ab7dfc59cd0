"""The sampler: a pure function of seed and position, whatever the ranks."""

from collections import Counter
from itertools import islice

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from srgpt.dataset.sampler import PermutationSampler, SamplerState, Stream, epoch_order, permutation
from srgpt.errors import InputError

ROWS = st.lists(st.integers(0, 7), min_size=1, max_size=9).map(tuple)
STREAMS = st.lists(
    st.builds(Stream, ROWS, st.sampled_from([0.1, 0.5, 1.0, 1.5, 3.0]), st.integers(1, 5)),
    min_size=1,
    max_size=3,
)


def sampler(rows=(5, 3, 4), batch=2, rank=0, world=1, seed=3, **stream):
    return PermutationSampler(
        [Stream(rows, **stream)], batch=batch, seed=seed, fingerprint="abc", rank=rank, world=world
    )


@settings(max_examples=50)
@given(ROWS, st.integers(0, 99), st.integers(1, 4))
def test_every_sample_comes_once_a_pass(rows, seed, window):
    order = permutation(rows, [seed], window)
    assert sorted(order.tolist()) == list(range(sum(rows)))
    assert (order == permutation(rows, [seed], window)).all()


@settings(max_examples=30)
@given(st.integers(2, 60), st.integers(1, 12), st.integers(0, 9))
def test_few_shards_are_in_use_at_a_time(shards, window, seed):
    """What bounds a reader's memory: from a shard's first use to its last, few others begin."""
    assume(window < shards)
    order = permutation([10] * shards, [seed], window) // 10
    first, last = {}, {}
    for place, shard in enumerate(order.tolist()):
        first.setdefault(shard, place)
        last[shard] = place
    for place in range(len(order)):
        assert sum(first[s] <= place <= last[s] for s in first) <= window + 1


def test_a_window_over_all_shards_shuffles_throughout():
    places = np.array([np.argsort(permutation([50] * 4, [seed], 4)) for seed in range(400)])
    # every row is as likely early as late: the mean place of a uniform order is 99.5, here within 5 deviations
    assert abs(places.mean(0) - 99.5).max() < 5 * 57.7 / 20


def test_rows_of_different_shards_mix_within_the_window():
    order = permutation([100] * 20, [1], 6) // 100
    for start in range(200, 1800, 100):
        assert len(set(order[start : start + 100].tolist())) >= 5


def test_passes_and_seeds_differ():
    orders = [permutation([50], [seed, number], 1) for seed in (0, 1) for number in (0, 1)]
    assert len({tuple(o) for o in orders}) == 4


@settings(max_examples=60)
@given(STREAMS, st.integers(0, 9), st.integers(0, 3))
def test_an_epoch_has_the_mixtures_shares(streams, seed, epoch):
    assume(any(s.rows for s in streams))
    passes, indices = epoch_order(streams, seed, epoch)
    assert len(set(zip(passes.tolist(), indices.tolist(), strict=True))) == len(indices)
    again = epoch_order(streams, seed, epoch)
    assert (indices == again[1]).all()
    assert (passes == again[0]).all()
    starts = np.cumsum([0] + [s.rows for s in streams])
    for k, stream in enumerate(streams):
        mine = (indices >= starts[k]) & (indices < starts[k + 1])
        assert mine.sum() == stream.per_epoch
        # any stretch of the epoch has the table's share, but for the one sample that straddles each end
        share = stream.per_epoch / len(indices)
        ahead = np.cumsum(mine) - share * np.arange(1, len(indices) + 1)
        assert np.abs(ahead).max() <= len(streams) + 1


@pytest.mark.parametrize(("weight", "epochs", "seen"), [(0.5, 2, 1), (2.0, 1, 2), (1.5, 2, 3), (0.25, 4, 1)])
def test_weights_are_passes_over_the_rows(weight, epochs, seen):
    streams = [Stream((10, 10), weight), Stream((8,), 1.0)]
    found = Counter()
    for epoch in range(epochs):
        found.update(i for i in epoch_order(streams, 0, epoch)[1].tolist() if i < 20)
    assert found == dict.fromkeys(range(20), seen)


def test_a_pass_counts_how_often_a_sample_was_seen():
    streams = [Stream((3, 4), 1.5), Stream((5,), 0.4)]
    keys = [k for e in range(20) for k in zip(*(x.tolist() for x in epoch_order(streams, 5, e)), strict=True)]
    assert len(keys) == len(set(keys))
    seen = Counter()
    for number, index in sorted(keys):
        assert number == seen[index]
        seen[index] += 1


def test_the_global_stream_is_the_same_on_any_number_of_ranks():
    alone = list(islice(sampler(batch=4), 9))
    ranks = [list(islice(sampler(batch=2, rank=r, world=2), 9)) for r in range(2)]
    assert alone == [a + b for a, b in zip(*ranks, strict=True)]
    epochs = [e for keys in alone for e, _ in keys]
    assert epochs == sorted(epochs)
    assert [i for keys in alone[:3] for _, i in keys] == epoch_order([Stream((5, 3, 4))], 3, 0)[1].tolist()


@settings(max_examples=40)
@given(STREAMS, st.integers(1, 5), st.integers(1, 3), st.integers(0, 12))
def test_resuming_goes_on_where_it_stopped_on_any_number_of_ranks(streams, batch, world, steps):
    assume(any(s.rows for s in streams))

    def keys_of(world, batch, consumed, count):
        readers = []
        for rank in range(world):
            one = PermutationSampler(streams, batch=batch, seed=1, fingerprint="abc", rank=rank, world=world)
            one.resume(SamplerState("abc", consumed))
            readers.append(iter(one))
        return [k for _ in range(count) for r in readers for k in next(r)]

    whole = keys_of(1, 1, 0, 60)
    done = batch * steps
    assert keys_of(world, batch, done, 3) == keys_of(1, 1, 0, done + 3 * batch * world)[done:]
    assert whole[:done] == keys_of(1, batch, 0, steps)[:60]


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
