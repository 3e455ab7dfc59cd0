"""Mixtures: several tables as one dataset, read in the process that asks, with bounded memory."""

import json
import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from srgpt.dataset.cache import PictureCache, ShardCache
from srgpt.dataset.collator import Collator
from srgpt.dataset.packing import Packer
from srgpt.dataset.source import MixtureSource
from srgpt.errors import InputError
from tests.dataset.tables import mixture, write_tables
from tests.model.tiny import make_tiny


@pytest.fixture(scope="module")
def processor():
    return make_tiny()[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("tables")


@pytest.fixture(scope="module")
def asked(folder):
    return write_tables(f"{folder}/asked", name="asked", shards=3, rows=4)


@pytest.fixture(scope="module")
def captions(folder):
    return write_tables(f"{folder}/captions", name="captions", shards=1, rows=5, depth=False, regions=False)


@pytest.fixture(scope="module")
def bare(folder):
    return write_tables(f"{folder}/bare", name="bare", shards=2, rows=1, image=False)


def test_tables_stand_one_after_the_other(processor, asked, captions, bare):
    one = mixture(processor, asked, replace(captions, history=True), bare)
    assert len(one) == 12 + 5 + 2
    names = [one[0, k].conversation.conversation_id for k in range(len(one))]
    expected = [f"talk-asked-{k}" for k in range(12)] + [f"talk-captions-{k}" for k in range(5)]
    assert names == [*expected, "talk-bare-0", "talk-bare-1"]
    assert [one.name_of((7, k)) for k in range(len(one))] == names
    assert one[3, 13].key == (3, 13)
    assert [one[0, k].history for k in (0, 11, 12, 16, 17)] == [False, False, True, True, False]


def test_what_a_sample_lacks_decides_its_inputs(processor, asked, captions, bare):
    one = mixture(processor, asked, captions, bare)
    collator = Collator(Packer(processor), seed=0, shares={})
    assert [collator.inputs_of(one[0, k]) for k in (0, 12, 17)] == ["rgbd", "rgb", "blind"]
    batch = collator([one[0, k] for k in (12, 17, 0)])
    assert batch["image_index"].tolist() == [0, 1]
    assert len(batch["region_masks"]) == 2


def test_the_fingerprint_is_of_the_data_and_the_order(processor, asked, captions, tmp_path):
    prints = [
        mixture(processor, *sources, **options).fingerprint
        for sources, options in (
            ((asked, captions), {}),
            ((captions, asked), {}),
            ((asked,), {}),
            ((asked, replace(captions, weight=2.0)), {}),
            ((asked, replace(captions, history=True)), {}),
        )
    ]
    other = mixture(processor, asked, captions)
    other.tables[0].pixels_fingerprint = "of the same scenes with other depth"
    assert len({*prints, other.fingerprint}) == len(prints) + 1
    moved = [
        str(shutil.copytree(url, tmp_path / name)) for name, url in (("c", asked.url), ("s", asked.scenes))
    ]
    assert mixture(processor, MixtureSource(*moved), captions, cache_mb=0).fingerprint == prints[0]


def test_windows_follow_from_sizes(processor, asked, captions, tmp_path):
    """A window has the tables' shares of the memory for encoded rows, and a shard of each at least."""
    assert [s.window for s in mixture(processor, asked, captions).streams] == [3, 1]
    folders = [
        Path(shutil.copytree(url, tmp_path / name)) for name, url in (("c", asked.url), ("s", asked.scenes))
    ]
    manifest = json.loads((folders[1] / "manifest.json").read_text())
    for shard in manifest["shards"]:
        shard["bytes"] = 40 * 2**20
    (folders[1] / "manifest.json").write_text(json.dumps(manifest))
    large = MixtureSource(*map(str, folders))
    assert [mixture(processor, large, window_mb=mb).streams[0].window for mb in (1, 39, 90, 130)] == [
        1,
        1,
        2,
        3,
    ]


@pytest.mark.parametrize("weight", [0.0, -1.0, float("nan"), float("inf")])
def test_weights_are_checked(processor, asked, weight):
    with pytest.raises(InputError, match="weight"):
        mixture(processor, replace(asked, weight=weight))


def test_no_table_is_an_error(processor):
    with pytest.raises(InputError, match="at least one table"):
        mixture(processor)


def test_opening_reads_manifests_only(processor, folder, asked, tmp_path):
    for part in ("conversations", "scenes"):
        (tmp_path / part).mkdir()
        shutil.copy(f"{folder}/asked/{part}/manifest.json", tmp_path / part)
    one = mixture(processor, MixtureSource(f"{tmp_path}/conversations", f"{tmp_path}/scenes"))
    assert (len(one), one.fingerprint) == (12, mixture(processor, asked).fingerprint)
    with pytest.raises(InputError, match="not found"):
        one[0, 0]


def test_a_copy_brings_nothing_along_and_reads_the_same(processor, asked):
    one = mixture(processor, asked)
    empty = len(pickle.dumps(one))
    seen = [one[0, k] for k in range(len(one))]
    assert len(pickle.dumps(one)) < empty + 50
    copy = pickle.loads(pickle.dumps(one))
    for sample in seen:
        again = copy[sample.key]
        assert again.conversation == sample.conversation
        assert (again.picture.rgb == sample.picture.rgb).all()


def test_on_an_object_store(processor, s3):
    source = write_tables(f"{s3}/asked", rows=2)
    one = mixture(processor, source)
    assert [one[0, k].conversation.conversation_id for k in range(4)] == [f"talk-train-{k}" for k in range(4)]


def test_pictures_are_kept_while_there_is_room(processor, asked):
    one = mixture(processor, asked)
    cache = one.tables[0]._pictures
    size = one[0, 0].picture.nbytes
    cache.limit = 3 * size + 1
    kept = [one[0, k].picture for k in range(6)]
    assert (len(cache), cache.nbytes) == (3, 3 * size)
    for k, picture in enumerate(kept):
        assert (one[1, k].picture is picture) == (k < 3)


def test_shards_are_kept_in_the_order_of_their_use(processor, asked):
    one = mixture(processor, asked)
    cache = one.tables[0]._encoded
    cache.limit = 2
    read = []
    table = one.tables[0]
    original = table._read
    table._read = lambda number: read.append(number) or original(number)
    for index in (0, 4, 1, 8, 0, 5):  # shards 0 1 0 2 0 1
        one[0, index]
        assert len(cache) <= 2
    assert read == [0, 1, 2, 1]


def test_reading_ahead_reads_once():
    cache, made = ShardCache(4), []
    cache.ahead("a", lambda: made.append("a") or 1)
    assert cache.get("a", lambda: made.append("again") or 2) == 1
    assert made == ["a"]


def test_what_fails_is_tried_again():
    cache = ShardCache(4)

    def fail():
        raise InputError("broken")

    cache.ahead("a", fail)
    with pytest.raises(InputError, match="broken"):
        cache.get("a", fail)
    assert cache.get("a", lambda: 5) == 5


def test_a_broken_picture_is_named(processor, tmp_path):
    source = write_tables(f"{tmp_path}/t", shards=1, rows=2)
    one = mixture(processor, source)
    shard = one.tables[0]._read(0)
    column = shard.scenes.schema.get_field_index("image")
    broken = shard.scenes.set_column(column, shard.scenes.schema.field(column), [[b"not a picture"] * 2])
    one.tables[0]._read = lambda number: replace(shard, scenes=broken)
    with pytest.raises(
        InputError, match=r"part-00000.parquet: scene train-1 of conversation talk-train-1: its picture"
    ):
        one[0, 1]


def test_a_picture_cache_of_nothing_keeps_nothing(processor, asked):
    one = mixture(processor, asked, cache_mb=0)
    one[0, 0]
    assert len(one.tables[0]._pictures) == 0
    assert isinstance(one.tables[0]._pictures, PictureCache)
