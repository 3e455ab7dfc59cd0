"""Source folder: what is found, in which order, under which ids, where it comes from, and what is set aside."""

import contextlib
import os
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import ExifTags, Image

from srgpt.errors import InputError
from srgpt.params import DuplicateParams, FolderParams, IngestParams, load
from srgpt.records import Scene
from srgpt.sources import open_source
from srgpt.sources.listing import scene_id
from srgpt.sources.metadata import read_metadata
from srgpt.stages import ingest
from srgpt.storage import Manifest, filesystem, read_manifest, read_rejected, read_rows


def photo(seed, size=(64, 48)):
    """Pictures of different seeds look different; of one seed, the same at any size."""
    small = np.random.default_rng(seed).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)


def save(folder, path, seed, **options):
    target = folder / path
    target.parent.mkdir(parents=True, exist_ok=True)
    photo(seed).save(target, **options)
    return target


def read(url, **params):
    source = open_source(IngestParams(source="folder", **params), 7, "own", str(url))
    work = [pickle.loads(pickle.dumps(w)) for w in source.shards()]
    loaded = [w.load() for w in work]
    return source, [s for part in loaded for s in part.scenes], [r for part in loaded for r in part.rejected]


def test_every_picture_in_the_order_of_paths(tmp_path):
    for seed, path in enumerate(["b.PNG", "a/z.jpg", "a/1.webp", "c.tiff", "a.jpeg", "d.bmp"]):
        save(tmp_path, path, seed)
    (tmp_path / "notes.txt").write_text("no picture")
    save(tmp_path, ".cache/thumb.jpg", 9)
    save(tmp_path, "a/._z.jpg", 10)
    source, scenes, rejected = read(tmp_path)
    assert [s.uri for s in scenes] == ["a.jpeg", "a/1.webp", "a/z.jpg", "b.PNG", "c.tiff", "d.bmp"]
    assert rejected == []
    assert source.statistics(()) == {"pictures": 6, "other_files": 1, "described": 0}
    first = scenes[0]
    assert (first.dataset, first.scene_id, first.width, first.height) == ("own", "a.jpeg", 64, 48)
    assert first.image == (tmp_path / "a.jpeg").read_bytes()
    assert (first.regions, first.depth, first.gravity, first.intrinsics, first.licence) == (
        (),
        None,
        None,
        None,
        "",
    )
    assert [s.rgb().shape for s in scenes] == [(48, 64, 3)] * 6


def test_pictures_in_other_formats_are_set_aside_by_name(tmp_path):
    for seed, name in enumerate(["a.jfif", "b.JPE"]):
        photo(seed).save(tmp_path / name, "JPEG")
    for name in ("IMG_1.HEIC", "a.cr2", "c.gif"):
        (tmp_path / name).write_bytes(b"GIF89a")
    (tmp_path / "metadata.csv").write_text("file_name,licence\nc.gif,CC0\n")
    source, scenes, rejected = read(tmp_path)
    assert [s.uri for s in scenes] == ["a.jfif", "b.JPE"]
    assert [(r.id, r.reason, r.detail) for r in rejected] == [
        (name, "unsupported-format", f"{name}: {ending} is not read; convert it to JPEG or PNG")
        for name, ending in (("IMG_1.HEIC", ".heic"), ("a.cr2", ".cr2"), ("c.gif", ".gif"))
    ]
    assert source.statistics(()) == {"pictures": 5, "other_files": 1, "described": 0}


def test_linked_folders_are_followed_once(tmp_path):
    save(tmp_path, "in/a.jpg", 0)
    save(tmp_path, "in/.store/b.jpg", 1)
    save(tmp_path, "far/c.jpg", 2)
    save(tmp_path, "far/sub/d.jpg", 3)
    for link, target in [
        ("in/far", "far"), ("in/same", "far/sub"), ("in/.hidden", "far"), ("in/kept", "in/.store"),
        ("in/loop", "in"), ("far/back", "in"), ("far/self", "far"), ("in/nothing", "gone"),
    ]:  # fmt: skip
        (tmp_path / link).symlink_to(tmp_path / target)
    _, scenes, rejected = read(tmp_path / "in")
    assert [s.uri for s in scenes] == ["a.jpg", "far/c.jpg", "far/sub/d.jpg", "kept/b.jpg"]
    assert rejected == []


def test_exif_gives_intrinsics(tmp_path):
    exif = Image.Exif()
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.FocalLengthIn35mmFilm] = 26
    save(tmp_path, "a.jpg", 0, exif=exif)
    _, (scene,), _ = read(tmp_path, max_side=32)
    focal = 26 * np.hypot(32, 24) / np.hypot(36, 24)
    assert scene.intrinsics == pytest.approx((focal, focal, 15.5, 11.5))
    assert (scene.intrinsics_source, scene.width, scene.height) == ("exif", 32, 24)


def test_shards_and_their_pieces_hold_the_same(tmp_path):
    for seed in range(5):
        save(tmp_path, f"{seed}.png", seed)
    (tmp_path / "3.png").write_bytes(b"")
    source, scenes, rejected = read(tmp_path, shard_scenes=2)
    assert [len(work.items) for work in source.shards()] == [2, 2, 1]
    assert [(r.id, r.reason) for r in rejected] == [("3.png", "empty-file")]
    pieces = [piece for work in source.shards() for piece in work.pieces()]
    assert [name for name, _ in pieces] == [f"{i}.png" for i in range(5)]
    assert [s for _, piece in pieces for s in piece.load().scenes] == scenes


# Ids --------------------------------------------------------------------------------------------------------


def test_an_id_does_not_depend_on_what_else_is_there(tmp_path):
    paths = ["a b.jpg", "a/b.jpg", "a_b.jpg", "ä/" + "x" * 120 + ".jpg", "ö/" + "x" * 120 + ".jpg"]
    for seed, path in enumerate(paths):
        save(tmp_path, path, seed)
    _, scenes, _ = read(tmp_path)
    ids = {s.uri: s.scene_id for s in scenes}
    assert ids["a_b.jpg"] == "a_b.jpg"
    assert len(set(ids.values())) == len(paths)
    (tmp_path / "a_b.jpg").unlink()
    _, scenes, _ = read(tmp_path)
    assert {s.uri: s.scene_id for s in scenes}.items() <= ids.items()


@given(st.lists(st.text(min_size=1, max_size=150), unique=True, max_size=6))
def test_ids_are_plain_and_unique(paths):
    ids = [scene_id(f"{path}.jpg") for path in paths]
    assert len(set(ids)) == len(ids)
    for identifier in ids:
        assert identifier.isascii()
        assert "/" not in identifier
        assert len(identifier) < 120


def test_a_name_that_is_not_utf8_is_set_aside(tmp_path):
    save(tmp_path, "a.jpg", 0)
    photo(1).save(tmp_path / os.fsdecode(b"\xff.jpg"))
    _, scenes, rejected = read(tmp_path)
    assert len(scenes) == 1
    assert [(r.reason, r.detail) for r in rejected] == [
        ("bad-file-name", "\\udcff.jpg: its name is not UTF-8; rename it")
    ]


# Duplicates -------------------------------------------------------------------------------------------------


def test_of_pictures_that_look_the_same_the_first_stays(tmp_path):
    photo(0).save(tmp_path / "b.jpg", quality=90)
    photo(0, (128, 96)).save(tmp_path / "c.jpg", quality=40)
    photo(0).save(tmp_path / "d.png")
    photo(1).save(tmp_path / "e.png")
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 3
    photo(0).transpose(Image.Transpose.ROTATE_180).save(tmp_path / "f.jpg", exif=exif)
    _, scenes, rejected = read(tmp_path, shard_scenes=2)
    assert [s.uri for s in scenes] == ["b.jpg", "e.png"]
    assert [(r.id, r.reason, r.detail) for r in rejected] == [
        (name, "duplicate", "looks like b.jpg, which is kept") for name in ("c.jpg", "d.png", "f.jpg")
    ]


def test_a_broken_picture_displaces_none(tmp_path):
    data = save(tmp_path, "b.jpg", 0).read_bytes()
    (tmp_path / "a.jpg").write_bytes(data[:-200])
    _, scenes, rejected = read(tmp_path)
    assert [s.uri for s in scenes] == ["b.jpg"]
    assert [(r.id, r.reason) for r in rejected] == [("a.jpg", "truncated-image")]


def test_duplicates_can_be_kept(tmp_path):
    for name in ("a.png", "b.png"):
        save(tmp_path, name, 0)
    (tmp_path / "c.png").write_bytes(b"\x89PNG")
    _, scenes, rejected = read(tmp_path, duplicates=DuplicateParams(max_distance=None))
    assert [s.uri for s in scenes] == ["a.png", "b.png"]
    assert [(r.id, r.reason) for r in rejected] == [("c.png", "unreadable-image")]


# The metadata table -----------------------------------------------------------------------------------------


TABLES = {
    "metadata.csv": "File_Name,License,Source_URL,author\n"
    'a.jpg,CC-BY-4.0,"https://example.org/a,1",Ada\nsub/b.jpg,,,\ngone.jpg,CC0,,\n',
    "metadata.jsonl": '{"file_name": "a.jpg", "licence": "CC-BY-4.0", "url": "https://example.org/a,1"}\n\n'
    '{"file_name": "./sub/b.jpg", "licence": null}\n{"file_name": "gone.jpg", "licence": "CC0"}\n',
}


@pytest.mark.parametrize("name", sorted(TABLES))
def test_licence_and_url_are_kept(tmp_path, name):
    for seed, path in enumerate(["a.jpg", "sub/b.jpg", "c.jpg"]):
        save(tmp_path, path, seed)
    (tmp_path / name).write_text(TABLES[name], encoding="utf-8-sig" if name.endswith("csv") else "utf-8")
    source, scenes, rejected = read(tmp_path, folder=FolderParams(licence="all mine"))
    assert {s.scene_id[:5]: (s.licence, s.uri) for s in scenes} == {
        "a.jpg": ("CC-BY-4.0", "https://example.org/a,1"),
        "sub_b": ("all mine", "sub/b.jpg"),
        "c.jpg": ("all mine", "c.jpg"),
    }
    assert [(r.id, r.reason) for r in rejected] == [("gone.jpg", "missing-image")]
    assert source.statistics(()) == {"pictures": 3, "other_files": 1, "described": 1}


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("metadata.csv", "name,licence\na.jpg,x\n", "line 2: no 'file_name'"),
        ("metadata.csv", "file_name,licence\na.jpg\n", "line 2: 2 columns were expected"),
        ("metadata.csv", "file_name,licence\na.jpg,x,y\n", "line 2: 2 columns were expected"),
        ("metadata.csv", 'file_name,licence\na.jpg,"x\n', "not CSV"),
        ("metadata.csv", "file_name\na.jpg\na.jpg\n", "line 3: 'a.jpg' was described before"),
        ("metadata.csv", b"file_name\n\xff.jpg\n", "not UTF-8"),
        ("metadata.jsonl", '{"file_name": "a.jpg"}\n{"file_name"\n', "line 2: not JSON"),
        ("metadata.jsonl", "[1]\n", "line 1: expected an object, found list"),
        ("metadata.jsonl", '{"file_name": 5}\n', "line 1: no 'file_name'"),
        ("metadata.jsonl", '{"file_name": "\\ud800.jpg"}\n', "line 1: no 'file_name'"),
        (
            "metadata.jsonl",
            '{"file_name": "a.jpg", "license": 4}\n',
            "line 1: 'license' is 4, and text was expected",
        ),
        ("metadata.jsonl", '{"file_name": "a.jpg", "url": ["x"]}\n', r"line 1: 'url' is \['x'\], and text"),
        (
            "metadata.csv",
            "file_name,Licence name\na.jpg,CC0\n",
            "line 2: .* there is 'Licence name' only; rename",
        ),
        ("metadata.csv", "file_name,License,license\na.jpg,CC0,\n", "line 1: several columns 'license'"),
    ],
)
def test_a_broken_table_is_an_error_with_its_line(tmp_path, name, text, words):
    save(tmp_path, "a.jpg", 0)
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=words) as caught:
        read(tmp_path)
    assert str(caught.value).startswith(str(tmp_path / name))


def test_every_folder_may_have_a_table(tmp_path):
    for seed, path in enumerate(["a.jpg", "train/b.jpg", "train/sub/c.jpg", "val/d.jpg"]):
        save(tmp_path, path, seed)
    (tmp_path / "metadata.csv").write_text("file_name,licence,text\na.jpg,one,\nval/d.jpg,four,\n")
    (tmp_path / "train" / "metadata.csv").write_text("file_name,licence\nb.jpg,two\nsub/c.jpg,three\n")
    (tmp_path / "val" / "metadata.jsonl").write_text("")
    source, scenes, rejected = read(tmp_path)
    assert [(s.uri, s.licence) for s in scenes] == [
        ("a.jpg", "one"), ("train/b.jpg", "two"), ("train/sub/c.jpg", "three"), ("val/d.jpg", "four"),
    ]  # fmt: skip
    assert rejected == []
    assert source.statistics(())["described"] == 4
    (tmp_path / "val" / "metadata.jsonl").write_text('{"file_name": "d.jpg", "licence": "five"}\n')
    with pytest.raises(InputError, match=r"metadata\.jsonl, line 1: 'val/d.jpg' was described before"):
        read(tmp_path)


def test_two_tables_are_an_error(tmp_path):
    save(tmp_path, "a.jpg", 0)
    for name, text in TABLES.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match="both metadata"):
        read(tmp_path)


class Memory:
    """A folder that holds one table only."""

    url = "memory"

    def __init__(self, data):
        self.data = data

    def read(self, path):
        return self.data


@given(st.sampled_from(sorted(TABLES)), st.binary(max_size=80), st.integers(0, 120))
def test_any_table_is_read_or_refused(name, noise, at):
    text = TABLES[name].encode()
    with contextlib.suppress(InputError):
        found = read_metadata(Memory(text[:at] + noise + text[at:]), [name])
        assert all(isinstance(path, str) and path for path in found)
        assert all(isinstance(known.licence, str) for known in found.values())


# What is wrong as a whole, and what the manifest says ----------------------------------------------------------


def test_without_a_folder_or_pictures_there_is_an_error(tmp_path):
    with pytest.raises(InputError, match="--in FOLDER"):
        open_source(IngestParams(source="folder"), 7, "own", None)
    with pytest.raises(InputError, match="no such folder"):
        read(tmp_path / "none")
    (tmp_path / "a.txt").write_text("")
    with pytest.raises(InputError, match=r"no picture among its 1 files.*\.jpg"):
        read(tmp_path)
    with pytest.raises(InputError, match="this is a file"):
        read(tmp_path / "a.txt")


def test_an_unreadable_file_is_set_aside(tmp_path):
    save(tmp_path, "a.png", 0)
    (tmp_path / "b.png").symlink_to(tmp_path / "nothing")
    (tmp_path / "c.png").mkdir()
    os.mkfifo(tmp_path / "d.png")
    _, scenes, rejected = read(tmp_path)
    assert len(scenes) == 1
    assert [(r.id, r.reason, r.detail) for r in rejected] == [
        ("b.png", "missing-image", "b.png: no such file")
    ]


def test_identity_is_that_of_the_content(tmp_path):
    def identity(where, **params):
        return read(where, **params)[0].identity()

    here, there = tmp_path / "here", tmp_path / "there"
    for folder in (here, there):
        save(folder, "a.png", 0)
        save(folder, "b.png", 1)
    first = identity(here)
    assert identity(there) == first
    assert str(tmp_path) not in str(first)
    assert identity(here, max_side=32) != first
    assert identity(here, folder=FolderParams(licence="CC0")) != first
    save(there, "b.png", 2)
    assert identity(there) != first
    save(there, "b.png", 1)
    assert identity(there) == first
    (there / "metadata.csv").write_text("file_name,licence\na.png,CC0\n")
    assert identity(there) != first
    (here / "b.png").rename(here / "c.png")
    assert identity(here) != first


# The stage --------------------------------------------------------------------------------------------------


def run(source, out, *settings) -> Manifest:
    params = load(None, overrides=["ingest.source=folder", "engine.workers=1", *settings])
    return ingest.run(params, source=str(source), out=str(out), dataset="own")


def test_the_stage_takes_scenes_without_regions(tmp_path):
    for seed in range(3):
        save(tmp_path, f"in/{seed}.jpg", seed)
    save(tmp_path, "in/9.jpg", 0)
    manifest = run(tmp_path / "in", tmp_path / "out", "ingest.shard_scenes=2")
    assert (manifest.rows, manifest.rejected) == (3, {"duplicate": 1})
    scenes = [Scene.from_row(row) for row in read_rows(str(tmp_path / "out"), "scenes")]
    assert [s.scene_id for s in scenes] == ["0.jpg", "1.jpg", "2.jpg"]
    assert all(s.regions == () for s in scenes)
    assert read_rejected(str(tmp_path / "out"))[0]["detail"] == "looks like 0.jpg, which is kept"


def test_a_bucket_gives_what_a_folder_gives(tmp_path, s3):
    for seed, path in enumerate(["a.jpg", "sub/b c.png", "sub/d::e.png", "f#g?h.png"]):
        save(tmp_path, f"in/{path}", seed)
    (tmp_path / "in" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    (tmp_path / "in" / "metadata.csv").write_text("file_name,licence\na.jpg,CC0\n")
    fs, _ = filesystem(s3)
    for path in (p for p in (tmp_path / "in").rglob("*") if p.is_file()):
        fs.pipe_file(f"{s3}/photos/{path.relative_to(tmp_path / 'in')}", path.read_bytes())
    fs.pipe_file(f"{s3}/photos/sub/", b"")
    fs.pipe_file(f"{s3}/photos-of-others/x.jpg", (tmp_path / "in" / "a.jpg").read_bytes())
    local = run(tmp_path / "in", tmp_path / "out")
    remote = run(f"{s3}/photos", f"{s3}/scenes")
    assert (local.rows, local.rejected) == (4, {"unreadable-image": 1})
    assert remote.fingerprint == local.fingerprint == read_manifest(f"{s3}/scenes").fingerprint
    assert remote.params == local.params


@pytest.mark.omni3d_mini
def test_real_photographs(omni3d_mini):
    source, scenes, rejected = read(omni3d_mini / "images")
    assert (len(scenes), rejected) == (4, [])
    assert [(s.width, s.height) for s in scenes] == [(1600, 900)] * 3 + [(730, 530)]
    assert source.statistics(())["pictures"] == 4
