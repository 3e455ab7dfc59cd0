"""Source rgbd: depth in every encoding, intrinsics, masks and annotations, and what sets a picture aside."""

import json
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import ExifTags, Image

from srgpt.errors import InputError
from srgpt.params import IngestParams, RgbdParams, load
from srgpt.records import encode_rle
from srgpt.sources import open_source
from srgpt.sources.pictures import UnusableError
from srgpt.sources.rgbd_files import nearest, read_intrinsics, read_names
from srgpt.stages import ingest, perceive
from srgpt.storage import filesystem

WIDTH, HEIGHT = 40, 30
SIZE = (WIDTH, HEIGHT)
TEXT = "50 0 19.5\n0 51 14.5\n0 0 1\n"


def photo(seed, size=SIZE):
    small = np.random.default_rng(seed).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)


def depth_map(seed=0):
    values = np.random.default_rng(seed).integers(500, 8000, (HEIGHT, WIDTH)).astype(np.uint16)
    values[:3] = 0
    return values


def instances():
    labels = np.zeros((HEIGHT, WIDTH), np.uint8)
    labels[5:15, 4:20] = 1
    labels[10:25, 18:30] = 7
    return labels


def write(folder, path, content):
    target = folder / path
    target.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, np.ndarray):
        content = Image.fromarray(content)
    if isinstance(content, Image.Image):
        content.save(target)
    elif isinstance(content, bytes):
        target.write_bytes(content)
    else:
        target.write_text(content if isinstance(content, str) else json.dumps(content))


def add(folder, name="a", seed=0, **files):
    """Write a sound picture with depth; ``files`` (by folder) come with it, or replace those two."""
    write(folder, f"rgb/{name}.png", files.pop("rgb", photo(seed)))
    write(folder, f"depth/{name}.png", files.pop("depth", depth_map(seed)))
    for where, content in files.items():
        ending = ".png" if isinstance(content, np.ndarray | Image.Image) else ".txt"
        write(folder, f"{where}/{name}{ending}", content)


def read(folder, shard_scenes=2, max_side=None, **rgbd):
    params = IngestParams(
        source="rgbd", shard_scenes=shard_scenes, max_side=max_side, rgbd=RgbdParams(**rgbd)
    )
    source = open_source(params, 7, "own", str(folder))
    work = [pickle.loads(pickle.dumps(w)) for w in source.shards()]
    loaded = [w.load() for w in work]
    return source, [s for part in loaded for s in part.scenes], [r for part in loaded for r in part.rejected]


def reasons(rejected):
    return [(r.id, r.reason) for r in rejected]


def test_picture_and_depth_are_enough(tmp_path):
    add(tmp_path, "room/a", seed=1)
    add(tmp_path, "b", seed=2)
    source, scenes, rejected = read(tmp_path, licence="CC0")
    assert rejected == []
    assert [s.uri for s in scenes] == ["rgb/b.png", "rgb/room/a.png"]
    scene = scenes[0]
    assert scene.scene_id == "b"
    assert scene.image == (tmp_path / "rgb" / "b.png").read_bytes()
    assert (np.rint(scene.depth_metres() * 1000) == depth_map(2)).all()
    assert (scene.depth_source, scene.licence, scene.intrinsics, scene.regions) == ("given", "CC0", None, ())
    assert source.statistics(()) == {"pictures": 2, "depth_maps": 2}


def test_a_picture_in_another_format_is_set_aside_by_name(tmp_path):
    add(tmp_path, "a")
    write(tmp_path, "rgb/b.heic", b"heic")
    write(tmp_path, "depth/b.png", depth_map(1))
    _, scenes, rejected = read(tmp_path)
    assert len(scenes) == 1
    assert [(r.reason, r.detail) for r in rejected] == [
        ("unsupported-format", "rgb/b.heic: .heic is not read; convert it to JPEG or PNG")
    ]


# Depth ------------------------------------------------------------------------------------------------------


def test_depth_of_another_scale(tmp_path):
    add(tmp_path, depth=np.full((HEIGHT, WIDTH), 12_345, np.uint16))
    _, (scene,), _ = read(tmp_path, depth_scale=5000)
    assert scene.depth_metres() == pytest.approx(2.469)
    _, (scene,), _ = read(tmp_path, depth_scale=0.5 * 1000)
    assert scene.depth_metres() == pytest.approx(24.69)


def test_depth_that_the_table_cannot_hold_is_no_reading(tmp_path):
    steps = np.full((HEIGHT, WIDTH), 1000, np.uint16)
    steps[0] = 7000
    add(tmp_path, depth=steps)
    _, (scene,), _ = read(tmp_path, depth_scale=100)
    assert (scene.depth_metres()[0] == 0).all()
    assert scene.depth_metres()[1:] == pytest.approx(10)


def test_sun_rgbd_rotates_the_bits(tmp_path):
    """The toolbox reads ``bitor(bitshift(d, -3), bitshift(d, 13))``, millimetres."""
    steps = depth_map().astype(np.uint32)
    rotated = ((steps << 3) | (steps >> 13)) & 0xFFFF
    add(tmp_path, depth=rotated.astype(np.uint16))
    _, (scene,), _ = read(tmp_path, depth_encoding="sunrgbd")
    assert (np.rint(scene.depth_metres() * 1000) == steps).all()


@pytest.mark.parametrize(
    ("depth", "reason"),
    [
        (photo(0), "bad-depth"),
        (photo(0).convert("L"), "bad-depth"),
        (np.zeros((HEIGHT, WIDTH), np.uint16), "empty-depth"),
        (np.ones((HEIGHT, WIDTH + 1), np.uint16), "wrong-depth-size"),
        (b"\x89PNG", "unreadable-depth"),
        (b"", "empty-file"),
    ],
)
def test_depth_that_does_not_fit_sets_the_picture_aside(tmp_path, depth, reason):
    add(tmp_path, "a", seed=1, depth=depth)
    add(tmp_path, "b", seed=1)
    _, scenes, rejected = read(tmp_path)
    assert reasons(rejected) == [("a", reason)], "and it displaces no sound picture that looks the same"
    assert [s.scene_id for s in scenes] == ["b"]


# Intrinsics -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("intrinsics.txt", TEXT),
        ("intrinsics.txt", "# fx fy cx cy\n50, 51, 19.5, 14.5"),
        ("intrinsics.txt", "50 0 19.5 0  0 51 14.5 0  0 0 1 0  0 0 0 1"),
        ("intrinsics.json", {"fx": 50, "fy": 51, "cx": 19.5, "cy": 14.5}),
        ("intrinsics.json", {"K": [[50, 0, 19.5], [0, 51, 14.5], [0, 0, 1]], "width": 40, "height": 30}),
        ("intrinsics.json", {"intrinsic_matrix": [50, 0, 0, 0, 51, 0, 19.5, 14.5, 1]}),
        ("intrinsics/room/a.txt", TEXT),
        ("intrinsics/room.txt", TEXT),
    ],
)
def test_intrinsics_in_every_form(tmp_path, name, content):
    add(tmp_path, "room/a")
    write(tmp_path, name, content)
    _, (scene,), _ = read(tmp_path)
    assert (scene.intrinsics, scene.intrinsics_source) == ((50, 51, 19.5, 14.5), "given")


def test_the_nearest_intrinsics_hold(tmp_path):
    for seed, name in enumerate(["x/a", "x/b", "y/a"]):
        add(tmp_path, name, seed)
    for name, focal in (("intrinsics.txt", 50), ("intrinsics/x.txt", 60), ("intrinsics/x/b.txt", 70)):
        write(tmp_path, name, f"{focal} {focal} 20 15")
    _, scenes, _ = read(tmp_path)
    assert {s.uri: s.intrinsics[0] for s in scenes} == {
        "rgb/x/a.png": 60, "rgb/x/b.png": 70, "rgb/y/a.png": 50,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("intrinsics.txt", "", "bad-intrinsics"),
        ("intrinsics.txt", "fx=50", "bad-intrinsics"),
        ("intrinsics.txt", "50 51 19.5", "bad-intrinsics"),
        ("intrinsics.txt", "-50 51 19.5 14.5", "bad-intrinsics"),
        ("intrinsics.txt", "nan 51 19.5 14.5", "bad-intrinsics"),
        ("intrinsics.txt", "50 51 320 240", "bad-intrinsics"),
        ("intrinsics.txt", "50 0 19.5 0 51 14.5 0 0 2", "bad-intrinsics"),
        ("intrinsics.txt", b"\xff\xfe", "bad-intrinsics"),
        ("intrinsics.json", "[1, 2", "bad-intrinsics"),
        ("intrinsics.json", [1], "bad-intrinsics"),
        ("intrinsics.json", {"fx": "50", "fy": 51, "cx": 19.5, "cy": 14.5}, "bad-intrinsics"),
        ("intrinsics.json", {"fx": 50, "fy": 51, "cx": 19, "cy": 14, "width": 80}, "wrong-intrinsics-size"),
        ("intrinsics/b.txt", TEXT, "missing-intrinsics"),
    ],
)
def test_intrinsics_that_do_not_fit_set_the_picture_aside(tmp_path, name, content, reason):
    add(tmp_path)
    write(tmp_path, name, content)
    _, scenes, rejected = read(tmp_path)
    assert scenes == []
    assert reasons(rejected) == [("a", reason)]


def test_without_intrinsics_exif_may_know(tmp_path):
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = (
        "a camera"  # Pillow writes no EXIF into PNG without a tag of the main directory
    )
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.FocalLengthIn35mmFilm] = 26
    add(tmp_path)
    photo(0).save(tmp_path / "rgb" / "a.png", exif=exif)
    _, (scene,), _ = read(tmp_path)
    assert scene.intrinsics_source == "exif"
    write(tmp_path, "intrinsics.txt", TEXT)
    _, (scene,), _ = read(tmp_path)
    assert (scene.intrinsics, scene.intrinsics_source) == ((50, 51, 19.5, 14.5), "given")


@given(st.binary(max_size=200) | st.text("0123456789.- ,\n#eE", max_size=60).map(str.encode))
def test_any_intrinsics_are_read_or_refused(data):
    for name in ("k.txt", "k.json"):
        try:
            fx, fy, cx, cy = read_intrinsics(data, name, SIZE)
        except UnusableError:
            continue
        assert fx > 0
        assert fy > 0
        assert 0 < cx < WIDTH
        assert 0 < cy < HEIGHT


# Masks ------------------------------------------------------------------------------------------------------


def test_every_value_of_an_instance_image_is_an_object(tmp_path):
    add(tmp_path, masks=instances())
    _, (scene,), rejected = read(tmp_path)
    assert rejected == []
    assert [(r.id, r.category, r.label, r.mask_source) for r in scene.regions] == [
        (0, "object", "object", "given"), (1, "object", "object", "given"),
    ]  # fmt: skip
    assert [r.bbox for r in scene.regions] == [(4, 5, 20, 15), (18, 10, 30, 25)]
    assert (scene.regions[0].mask() == (instances() == 1)).all()


@pytest.mark.parametrize("name", ["masks.json", "masks/a.json"])
def test_names_make_categories(tmp_path, name):
    add(tmp_path, masks=instances())
    write(tmp_path, name, {"7": "office chair"})
    _, (scene,), rejected = read(tmp_path)
    assert [(r.id, r.category) for r in scene.regions] == [(0, "office chair")]
    assert [(r.id, r.reason, r.detail) for r in rejected] == [
        ("a/1", "unknown-category", "value 1 of masks/a.png: the names do not name it")
    ]


def test_palette_and_16_bit_masks_count_by_value(tmp_path):
    palette = Image.fromarray(instances()).convert("P")
    palette.putpalette([0, 0, 0, 255, 0, 0] + [9, 9, 9] * 6)
    add(tmp_path, "a", 0, masks=palette)
    add(tmp_path, "b", 1, masks=instances().astype(np.uint16) * 300)
    _, scenes, _ = read(tmp_path)
    for scene in scenes:
        assert [int(r.mask().sum()) for r in scene.regions] == [
            int((instances() == 1).sum()), int((instances() == 7).sum()),
        ]  # fmt: skip


@pytest.mark.parametrize(
    ("masks", "names", "reason"),
    [
        (photo(0), None, "bad-mask"),
        (depth_map(), None, "bad-mask"),
        (instances()[:-1], None, "wrong-mask-size"),
        (instances(), "{", "bad-names"),
        (instances(), ["chair"], "bad-names"),
        (instances(), {"one": "chair"}, "bad-names"),
        (instances(), {"1": ""}, "bad-names"),
    ],
)
def test_masks_that_do_not_fit_set_the_picture_aside(tmp_path, masks, names, reason):
    add(tmp_path, masks=masks)
    if names is not None:
        write(tmp_path, "masks.json", names)
    _, scenes, rejected = read(tmp_path)
    assert scenes == []
    assert reasons(rejected) == [("a", reason)]


@given(st.binary(max_size=120))
def test_any_names_are_read_or_refused(data):
    try:
        names = read_names(data, "n.json")
    except UnusableError:
        return
    assert all(isinstance(k, int) and v for k, v in names.items())


# COCO -------------------------------------------------------------------------------------------------------


def coco(**changes):
    row = {"image_id": 5, "category_id": 2}
    document = {
        "images": [{"id": 5, "file_name": "a.png", "width": WIDTH, "height": HEIGHT}],
        "categories": [{"id": 2, "name": "chair"}],
        "annotations": [
            {"bbox": [4, 5, 16, 10], "segmentation": [[4, 5, 19, 5, 19, 14, 4, 14]], **row},
            {"bbox": [10, 10, 100, 5], **row},
            {"bbox": [0, 0, 9, 9], "segmentation": encode_rle(instances() == 7), **row},
        ],
    }  # fmt: skip
    return document | changes


@pytest.mark.parametrize("file_name", ["a.png", "rgb/a.png", "a.jpg"])
def test_coco_annotations_are_regions(tmp_path, file_name):
    add(tmp_path)
    write(tmp_path, "annotations.json", coco(images=[{"id": 5, "file_name": file_name}]))
    _, (scene,), rejected = read(tmp_path)
    assert rejected == []
    assert [(r.id, r.category, r.mask_source) for r in scene.regions] == [
        (0, "chair", "given"), (1, "chair", None), (2, "chair", "given"),
    ]  # fmt: skip
    assert [r.bbox for r in scene.regions] == [(4, 5, 20, 15), (10, 10, 40, 15), (18, 10, 30, 25)]
    assert (scene.regions[2].mask() == (instances() == 7)).all()


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"category_id": 9}, "unknown-category"),
        ({"iscrowd": 1}, "crowd"),
        ({"bbox": None}, "no-2d-box"),
        ({"bbox": [50, 0, 3, 3]}, "outside-image"),
        ({"segmentation": [[1, 2]]}, "bad-segmentation"),
        ({"segmentation": encode_rle(np.zeros((HEIGHT, WIDTH)))}, "empty-segmentation"),
    ],
)
def test_an_annotation_that_is_not_used_is_counted(tmp_path, row, reason):
    add(tmp_path)
    good = {"image_id": 5, "category_id": 2, "bbox": [4, 5, 16, 10]}
    write(tmp_path, "annotations.json", coco(annotations=[good | row, good]))
    _, (scene,), rejected = read(tmp_path)
    assert [r.id for r in scene.regions] == [0]
    assert reasons(rejected) == [("a/annotations[0]", reason)]


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ("{", "not JSON"),
        ([], "'images' must be a list"),
        (coco(annotations=None), "'annotations' must be a list"),
        (coco(categories=["chair"]), "'categories' must be a list of objects"),
        (coco(images=[{"id": 1}]), r"images\[0\] needs an 'id' and a 'file_name'"),
        (coco(images=[]), "not among its images"),
        (coco(annotations=[{}]), r"annotations\[0\] has no 'image_id'"),
    ],
)
def test_a_file_that_is_not_coco_is_an_error(tmp_path, document, words):
    add(tmp_path)
    write(tmp_path, "annotations.json", document)
    with pytest.raises(InputError, match=words):
        read(tmp_path)


def test_annotations_for_another_size_set_the_picture_aside(tmp_path):
    add(tmp_path)
    write(
        tmp_path, "annotations.json", coco(images=[{"id": 5, "file_name": "a.png", "width": 9, "height": 9}])
    )
    assert reasons(read(tmp_path)[2]) == [("a", "wrong-annotation-size")]


def test_masks_and_annotations_together_are_an_error(tmp_path):
    add(tmp_path, masks=instances())
    write(tmp_path, "annotations.json", coco())
    with pytest.raises(InputError, match="both"):
        read(tmp_path)
    _, (scene,), _ = read(tmp_path, annotations=None)
    assert len(scene.regions) == 2


# What one picture lacks ---------------------------------------------------------------------------------------


def test_what_one_picture_lacks_sets_it_aside(tmp_path):
    for seed, name in enumerate("abcd"):
        add(tmp_path, name, seed, masks=instances(), intrinsics=TEXT)
    (tmp_path / "depth" / "a.png").unlink()
    (tmp_path / "masks" / "b.png").unlink()
    (tmp_path / "intrinsics" / "c.txt").unlink()
    write(tmp_path, "depth/e.png", depth_map())
    write(tmp_path, "rgb/d.jpg", photo(9))
    add(tmp_path, "f", 20, masks=instances(), intrinsics=TEXT)
    _, scenes, rejected = read(tmp_path)
    assert [s.scene_id for s in scenes] == ["f"]
    assert reasons(rejected) == [
        ("a", "missing-depth"), ("b", "missing-mask"), ("c", "missing-intrinsics"), ("d", "ambiguous-image"),
        ("e", "missing-image"),
    ]  # fmt: skip


def test_a_picture_that_exif_turns_is_set_aside(tmp_path):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 3
    add(tmp_path)
    photo(0).save(tmp_path / "rgb" / "a.png", exif=exif)
    assert reasons(read(tmp_path)[2]) == [("a", "turned-image")]


def test_without_pictures_there_is_an_error(tmp_path):
    write(tmp_path, "color/a.png", photo(0))
    with pytest.raises(InputError, match=r"no pictures in rgb/.*ingest\.rgbd\.images"):
        read(tmp_path)


# Scaling ------------------------------------------------------------------------------------------------------


def test_depth_masks_and_intrinsics_scale_with_the_picture(tmp_path):
    add(tmp_path, masks=instances())
    write(tmp_path, "intrinsics.txt", TEXT)
    _, (scene,), rejected = read(tmp_path, max_side=32)
    assert (scene.width, scene.height, rejected) == (32, 24, [])
    assert scene.rgb().shape == (24, 32, 3)
    assert scene.depth_metres().shape == (24, 32)
    assert set(np.rint(scene.depth_metres() * 1000).flat) <= set(depth_map().flat), "no mean of two depths"
    assert scene.intrinsics == pytest.approx((40, 40.8, 15.5, 11.5))
    for region, full in zip(scene.regions, (1, 7), strict=True):
        share = (instances() == full).mean()
        assert region.mask().shape == (24, 32)
        assert region.mask().mean() == pytest.approx(share, abs=0.03)


def test_an_object_that_vanishes_is_counted(tmp_path):
    labels = instances()
    labels[29, 39] = 9
    labels[28:, 38:] = np.where(labels[28:, 38:] == 9, 9, 0)
    labels[0, 1] = 3
    labels[0, 2] = 4
    add(
        tmp_path,
        masks=np.repeat(np.repeat(labels, 2, 0), 2, 1),
        rgb=photo(0, (80, 60)),
        depth=np.ones((60, 80), np.uint16),
    )
    _, (scene,), rejected = read(tmp_path, max_side=32)
    assert len(scene.regions) + len(rejected) == 5
    assert rejected
    assert {r.reason for r in rejected} == {"too-small"}
    assert [r.id for r in scene.regions] == list(range(len(scene.regions)))


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 40), st.integers(1, 40))
def test_nearest_takes_the_nearest(width, height, to_width, to_height):
    array = np.arange(width * height).reshape(height, width)
    result = nearest(array, (to_width, to_height))
    assert result.shape == (to_height, to_width)
    if (to_width, to_height) == (width, height):
        assert (result == array).all()
    column = result[0] % width
    centres = (np.arange(to_width) + 0.5) * width / to_width - 0.5
    assert (np.abs(column - centres) <= 0.5 + 1e-9).all()


# The whole ----------------------------------------------------------------------------------------------------


def test_identity_is_that_of_all_files(tmp_path):
    folders = [tmp_path / name for name in "ab"]
    for folder in folders:
        add(folder, masks=instances())
        write(folder, "intrinsics.txt", TEXT)
        write(folder, "masks.json", {"1": "chair", "7": "table"})
    here, there = folders
    first = read(here)[0].identity()
    assert read(there)[0].identity() == first
    assert str(tmp_path) not in str(first)
    changes = {
        "rgb/a.png": photo(5), "depth/a.png": depth_map(5), "masks/a.png": instances().T.copy().T * 2,
        "intrinsics.txt": TEXT + " ", "masks.json": {"1": "chair", "7": "desk"},
    }  # fmt: skip
    for path, content in changes.items():
        old = (there / path).read_bytes()
        write(there, path, content)
        assert read(there)[0].identity() != first, path
        write(there, path, old)
    assert read(there)[0].identity() == first
    assert read(there, depth_scale=5000)[0].identity() != first


def test_pieces_hold_what_the_whole_does(tmp_path):
    for seed, name in enumerate("abc"):
        add(tmp_path, name, seed, masks=instances())
    source, scenes, _ = read(tmp_path)
    pieces = [piece for work in source.shards() for piece in work.pieces()]
    assert [name for name, _ in pieces] == ["a", "b", "c"]
    assert [s for _, piece in pieces for s in piece.load().scenes] == scenes


def test_the_chain_takes_it_from_a_folder_or_bucket(tmp_path, s3):
    for seed, name in enumerate(["a", "b", "room/c"]):
        add(tmp_path / "in", name, seed, masks=instances())
    write(tmp_path / "in", "intrinsics.txt", TEXT)
    fs, _ = filesystem(s3)
    fs.put(f"{tmp_path}/in", f"{s3}/in", recursive=True)
    settings = ["ingest.source=rgbd", "perceive.gravity=level", "engine.workers=1"]
    params = load(None, overrides=settings)
    tables = []
    for root in (str(tmp_path), s3):
        ingest.run(params, source=f"{root}/in", out=f"{root}/scenes", dataset="own")
        tables.append(perceive.run(params, source=f"{root}/scenes", out=f"{root}/perceived"))
    assert [t.rows for t in tables] == [3, 3]
    assert tables[0].fingerprint == tables[1].fingerprint
