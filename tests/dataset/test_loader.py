"""The loader: the sampler's batches, the same with any number of workers, from any place in the data."""

import multiprocessing
import os
import signal
from itertools import islice

import pytest
import torch

from srgpt.dataset.collator import Collator
from srgpt.dataset.loader import batches
from srgpt.dataset.packing import Packer
from srgpt.dataset.sampler import PermutationSampler, SamplerState
from srgpt.dataset.source import MixtureSource
from srgpt.errors import InputError
from srgpt.model.attention import PackedLayout
from srgpt.params import build
from srgpt.stages import ask, ingest, lift, perceive
from tests.dataset.tables import mixture, write_tables
from tests.model.tiny import make_tiny


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tables")
    sources = [
        write_tables(f"{folder}/asked", shards=3, rows=3),
        write_tables(f"{folder}/captions", name="captions", rows=2, depth=False, regions=False),
    ]
    return mixture(make_tiny()[1], *sources)


def stream(dataset, workers=0, consumed=0, batch=3, rank=0, world=1):
    sampler = PermutationSampler(
        dataset.streams, batch=batch, seed=7, fingerprint=dataset.fingerprint, rank=rank, world=world
    )
    sampler.resume(SamplerState(dataset.fingerprint, consumed))
    collator = Collator(Packer(dataset.tables[0].processor), seed=7, shares={"blind": 0.2, "rgb": 0.2})
    return batches(dataset, sampler, collator, workers=workers)


def same(one, two):
    assert one.keys() == two.keys()
    for name, value in one.items():
        other = two[name]
        if isinstance(value, PackedLayout):
            assert torch.equal(value.index, other.index)
            assert all(torch.equal(a.mask, b.mask) for a, b in zip(value.blocks, other.blocks, strict=True))
        else:
            assert torch.equal(value, other) if isinstance(value, torch.Tensor) else value == other


def test_resuming_anywhere_equals_never_stopping(dataset):
    whole = list(islice(stream(dataset), 9))
    for done in range(9):
        same(next(stream(dataset, consumed=3 * done)), whole[done])


@pytest.mark.slow
def test_workers_change_nothing(dataset):
    """They run ahead of what is consumed, which is what a resumed run goes on from."""
    whole = list(islice(stream(dataset), 9))
    found = list(islice(stream(dataset, workers=2, consumed=12), 5))
    for one, two in zip(found, whole[4:], strict=True):
        same(one, two)


def test_ranks_share_the_batch(dataset):
    whole = list(islice(stream(dataset, batch=4), 4))
    parts = [list(islice(stream(dataset, batch=2, rank=r, world=2), 4)) for r in range(2)]
    for step, batch in enumerate(whole):
        assert batch["keys"] == parts[0][step]["keys"] + parts[1][step]["keys"]


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_errors_keep_their_words(tmp_path, workers):
    source = write_tables(f"{tmp_path}/t", shards=1)
    dataset = mixture(make_tiny()[1], source)
    for shard in (tmp_path / "t" / "scenes").glob("*.parquet"):
        shard.write_bytes(b"cut off")
    with pytest.raises(InputError) as caught:
        next(stream(dataset, workers=workers))
    assert str(caught.value).startswith(
        f"{source.scenes}/part-00000.parquet: content differs from its manifest"
    )


@pytest.mark.slow
def test_workers_outlast_the_signals_that_ask_a_rank_to_stop_and_end_with_the_stream(dataset):
    before = set(multiprocessing.active_children())
    found = stream(dataset, workers=1)
    next(found)
    (worker,) = set(multiprocessing.active_children()) - before
    assert os.getpgid(worker.pid) == worker.pid  # what is sent to the rank's group does not get there
    for number in (signal.SIGTERM, signal.SIGINT):
        os.kill(worker.pid, number)
    assert len(list(islice(found, 12))) == 12  # more than were ready
    found.close()
    worker.join(10)
    assert worker.exitcode == 0


@pytest.mark.slow
def test_workers_read_from_an_object_store(s3):
    dataset = mixture(make_tiny()[1], write_tables(f"{s3}/asked", rows=2))
    dataset[0, 0]  # the parent has an open connection of its own
    plain, ahead = (list(islice(stream(dataset, workers=w), 4)) for w in (0, 1))
    for one, two in zip(plain, ahead, strict=True):
        same(one, two)


def test_nearly_all_tokens_are_useful_on_procedural_conversations(tmp_path):
    """What the chain itself makes: no token of a batch is padding, and blocks of attention have little of it."""
    processor = make_tiny()[1]
    dataset = mixture(processor, procedural(tmp_path))
    collator = Collator(Packer(processor), seed=0, shares={"blind": 0.1, "rgb": 0.15})
    batch = collator([dataset[0, k] for k in range(len(dataset))])
    ids, layout = batch["input_ids"], batch["packing"]
    rows = [collator.packer.pack(dataset[0, k].conversation, "rgbd") for k in range(len(dataset))]
    assert sum(len(r.segments) for r in rows) > 5 * len(dataset)
    useful = (ids != processor.tokenizer.pad_token_id).float().mean()
    assert useful == 1.0
    assert ids.numel() / layout.index.numel() > 0.75


def procedural(folder):
    params = build({"ingest": {"scenes": 6, "shard_scenes": 6}, "engine": {"workers": 1}})
    scenes, seen, graphs, talks = (
        str(folder / n) for n in ("scenes", "perceived", "graphs", "conversations")
    )
    ingest.run(params, source=None, out=scenes, dataset="train")
    perceive.run(params, source=scenes, out=seen)
    lift.run(params, source=seen, out=graphs)
    ask.run(params, source=graphs, out=talks)
    return MixtureSource(talks, seen)
