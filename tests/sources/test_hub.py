"""Source hub: every layout that datasets reads gives the same scenes, streamed or not."""

import io
import pickle

import datasets
import numpy as np
import pytest
from PIL import Image

from srgpt.errors import InputError, SrgptError
from srgpt.params import DuplicateParams, HubParams, IngestParams, load
from srgpt.sources import open_source
from srgpt.sources.hub import licence_of_card
from srgpt.stages import ingest

ROWS = 7
LAYOUTS = ("saved", "splits", "parquet", "imagefolder")


def picture(seed):
    small = np.random.default_rng(seed).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(small).resize((40, 30), Image.Resampling.BICUBIC).save(buffer, "JPEG")
    return buffer.getvalue()


def table(pictures, **columns):
    rows = {"image": [None if p is None else {"bytes": p, "path": None} for p in pictures], **columns}
    features = datasets.Features(
        {"image": datasets.Image(), **{name: datasets.Value("string") for name in columns}}
    )
    return datasets.Dataset.from_dict(rows, features=features)


@pytest.fixture(scope="module", autouse=True)
def _cache(tmp_path_factory):
    """What datasets copies goes away with the test."""
    old = datasets.config.HF_DATASETS_CACHE
    datasets.config.HF_DATASETS_CACHE = tmp_path_factory.mktemp("cache")
    yield
    datasets.config.HF_DATASETS_CACHE = old


@pytest.fixture(scope="module")
def layouts(tmp_path_factory):
    """The same seven pictures, with licence and URL, in four layouts."""
    root = tmp_path_factory.mktemp("layouts")
    pictures = [picture(seed) for seed in range(ROWS)]
    licences = [f"licence {i}" for i in range(ROWS)]
    urls = [f"https://example.org/{i}" for i in range(ROWS)]
    data = table(pictures, license=licences, source_url=urls)
    data.save_to_disk(root / "saved")
    datasets.DatasetDict(train=data, test=data.select(range(2))).save_to_disk(root / "splits")
    (root / "parquet").mkdir()
    data.select(range(4)).to_parquet(root / "parquet" / "train-00000-of-00002.parquet")
    data.select(range(4, ROWS)).to_parquet(root / "parquet" / "train-00001-of-00002.parquet")
    folder = root / "imagefolder" / "train"
    folder.mkdir(parents=True)
    lines = ["file_name,license,source_url"]
    for i in range(ROWS):
        (folder / f"{i}.jpg").write_bytes(pictures[i])
        lines.append(f"{i}.jpg,{licences[i]},{urls[i]}")
    (folder / "metadata.csv").write_text("\n".join(lines) + "\n")
    return root


def read(url, shard_scenes=3, max_distance=4, **hub):
    params = IngestParams(
        source="hub", shard_scenes=shard_scenes, hub=HubParams(**hub),
        duplicates=DuplicateParams(max_distance=max_distance),
    )  # fmt: skip
    source = open_source(params, 7, "own", str(url))
    work = [pickle.loads(pickle.dumps(w)) for w in source.shards()]
    loaded = [w.load() for w in reversed(work)][::-1]
    return source, [s for part in loaded for s in part.scenes], [r for part in loaded for r in part.rejected]


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_scenes(layouts, layout, streaming):
    source, scenes, rejected = read(layouts / layout, streaming=streaming)
    assert rejected == []
    assert [s.image for s in scenes] == [picture(seed) for seed in range(ROWS)]
    assert [s.scene_id for s in scenes] == [f"train-{i:08d}" for i in range(ROWS)]
    assert [(s.licence, s.uri) for s in scenes] == [
        (f"licence {i}", f"https://example.org/{i}") for i in range(ROWS)
    ]
    assert (scenes[0].width, scenes[0].height, scenes[0].regions) == (40, 30, ())
    assert source.statistics(()) == {"pictures": ROWS}
    assert source.identity() == read(layouts / "saved", streaming=not streaming)[0].identity()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_pieces_hold_what_the_whole_does(layouts, layout):
    source, scenes, _ = read(layouts / layout)
    pieces = [piece for work in source.shards() for piece in work.pieces()]
    assert [name for name, _ in pieces] == [s.scene_id for s in scenes]
    assert [s for _, piece in pieces for s in piece.load().scenes] == scenes


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("shard_scenes", [1, 2, 7, 250])
def test_shards_of_any_size(layouts, shard_scenes, streaming):
    source, scenes, _ = read(layouts / "parquet", shard_scenes, streaming=streaming)
    assert len(source.shards()) == -(-ROWS // shard_scenes)
    assert [s.image for s in scenes] == [picture(seed) for seed in range(ROWS)]


@pytest.mark.parametrize("streaming", [False, True])
def test_what_is_broken_or_there_twice_is_set_aside(tmp_path, streaming):
    pictures = [picture(0), picture(1)[:-200], None, picture(0), b"GIF89a", picture(2)]
    table(pictures).save_to_disk(tmp_path / "data")
    _, scenes, rejected = read(tmp_path / "data", streaming=streaming)
    assert [s.scene_id for s in scenes] == ["train-00000000", "train-00000005"]
    assert [s.image for s in scenes] == [picture(0), picture(2)]
    assert [(r.id[-1], r.reason) for r in rejected] == [
        ("1", "truncated-image"), ("2", "missing-image"), ("3", "duplicate"), ("4", "unsupported-format"),
    ]  # fmt: skip
    _, scenes, rejected = read(tmp_path / "data", max_distance=None, streaming=streaming)
    assert [s.scene_id[-1] for s in scenes] == ["0", "3", "5"]
    assert [r.reason for r in rejected] == ["truncated-image", "missing-image", "unsupported-format"]


def test_columns_can_be_named(tmp_path):
    data = table(
        [picture(0), picture(1), picture(2)], key=["room 1", "street", "street"], terms=["CC0", None, "x"],
        origin=["s3://b/0", "", "y"],
    )  # fmt: skip
    data = data.rename_column("image", "photo")
    data.info.license = "odbl"
    data.save_to_disk(tmp_path / "data")
    columns = {
        "image_column": "photo", "id_column": "key", "licence_column": "terms", "url_column": "origin",
    }  # fmt: skip
    _, scenes, rejected = read(tmp_path / "data", **columns)
    assert scenes[0].scene_id.startswith("room_1-")
    assert [(s.licence, s.uri) for s in scenes] == [("CC0", "s3://b/0"), ("odbl", "train/1")]
    assert scenes[1].scene_id == "street"
    assert [(r.id, r.reason) for r in rejected] == [("row[2]", "duplicate-id")]
    _, scenes, _ = read(tmp_path / "data", **columns, licence="mine")
    assert [s.licence for s in scenes] == ["CC0", "mine"]


def test_licences_of_any_case_are_found_and_numbers_are_no_licences(tmp_path):
    data = table([picture(0)], License=["CC0"], Source_URL=["https://example.org/0"])
    data.save_to_disk(tmp_path / "data")
    _, (scene,), _ = read(tmp_path / "data")
    assert (scene.licence, scene.uri) == ("CC0", "https://example.org/0")
    numbered = table([picture(0)]).add_column("license", [4])
    numbered.save_to_disk(tmp_path / "numbered")
    with pytest.raises(InputError, match=r"'license' holds .*int64.* text was expected.*licence_column"):
        read(tmp_path / "numbered")
    _, (scene,), _ = read(tmp_path / "numbered", licence_column="", licence="CC0")
    assert scene.licence == "CC0"


def test_the_licence_of_the_card_holds_where_no_column_names_one(tmp_path):
    (tmp_path / "data").mkdir()
    table([picture(0), picture(1)], license=["CC0", None]).to_parquet(tmp_path / "data" / "train.parquet")
    (tmp_path / "data" / "README.md").write_text("---\nlicense:\n- cc-by-4.0\n---\n# Rooms\n")
    _, scenes, _ = read(tmp_path / "data")
    assert [s.licence for s in scenes] == ["CC0", "cc-by-4.0"]
    _, scenes, _ = read(tmp_path / "data", licence="mine")
    assert [s.licence for s in scenes] == ["CC0", "mine"]


def test_the_licence_of_card_a_hub_id_is_asked_for_and_may_be_out_of_reach(tmp_path, monkeypatch):
    """The hub is the one thing that is not real here."""
    params, asked = HubParams(revision="v1"), []

    def download(name, file, **where):
        asked.append((name, file, where))
        (tmp_path / "README.md").write_text("---\nlicense: odbl\n---\n")
        return str(tmp_path / "README.md")

    assert licence_of_card("nobody/nothing", params) is None  # offline, and not in the cache
    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    assert licence_of_card("nobody/nothing", params) == "odbl"
    assert asked == [("nobody/nothing", "README.md", {"repo_type": "dataset", "revision": "v1"})]


def test_rows_without_an_id_are_set_aside(tmp_path):
    table([picture(seed) for seed in range(4)], key=[None, "a", " ", None]).save_to_disk(tmp_path / "data")
    _, scenes, rejected = read(tmp_path / "data", id_column="key")
    assert [s.scene_id for s in scenes] == ["a"]
    assert [(r.id, r.reason) for r in rejected] == [(f"row[{i}]", "missing-id") for i in (0, 2, 3)]


def test_plain_bytes_are_pictures_too(tmp_path):
    datasets.Dataset.from_dict({"jpg": [picture(0)]}).save_to_disk(tmp_path / "data")
    _, scenes, _ = read(tmp_path / "data", image_column="jpg")
    assert scenes[0].image == picture(0)


def test_identity_is_that_of_the_content(tmp_path):
    for name, seeds in (("a", [0, 1]), ("b", [0, 1]), ("c", [0, 2])):
        table([picture(s) for s in seeds]).save_to_disk(tmp_path / name)
    a, b, c = (read(tmp_path / name)[0].identity() for name in "abc")
    assert a == b != c
    assert str(tmp_path) not in str(a)
    assert read(tmp_path / "a", licence="CC0")[0].identity() != a


def test_a_dataset_that_shrinks_while_it_is_read_is_an_error(tmp_path):
    for name, rows in (("data", 5), ("less", 3)):
        data = table([picture(s) for s in range(rows)])
        (tmp_path / name).mkdir()
        data.to_parquet(tmp_path / name / "train.parquet")
    params = IngestParams(source="hub", hub=HubParams(streaming=True))
    source = open_source(params, 7, "own", str(tmp_path / "data"))
    (tmp_path / "less" / "train.parquet").replace(tmp_path / "data" / "train.parquet")
    with pytest.raises(SrgptError, match="changed while it was read"):
        source.shards()[0].load()


@pytest.mark.parametrize(
    ("layout", "hub", "words"),
    [
        ("saved", {"image_column": "photo"}, "no column 'photo'; it has image, license, source_url"),
        ("saved", {"id_column": "key"}, r"no column 'key'.*ingest\.hub\.id_column"),
        ("saved", {"image_column": "license"}, "'license' holds .* no pictures"),
        ("splits", {"split": "val"}, "no split 'val'; it has train, test"),
        ("parquet", {"split": "val"}, "(?i)split"),
        ("parquet", {"config": "large"}, "large"),
        ("nothing", {}, "no such folder"),
    ],
)
def test_what_does_not_fit_is_an_error_that_says_so(layouts, layout, hub, words):
    with pytest.raises(InputError, match=words):
        read(layouts / layout, **hub)


def test_a_hub_id_without_a_network_says_how_to_fetch_it():
    with pytest.raises(SrgptError, match="hf download --repo-type dataset nobody/nothing"):
        read("nobody/nothing")


def test_the_stage(layouts, tmp_path):
    fingerprints = set()
    for streaming in ("true", "false"):
        params = load(None, overrides=[
            "ingest.source=hub", f"ingest.hub.streaming={streaming}", "ingest.shard_scenes=3", "engine.workers=1",
        ])  # fmt: skip
        out = tmp_path / streaming
        manifest = ingest.run(params, source=str(layouts / "parquet"), out=str(out), dataset="own")
        assert manifest.rows == ROWS
        fingerprints.add(manifest.fingerprint)
    assert len(fingerprints) == 1
