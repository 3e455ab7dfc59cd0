"""Omni3D: what is kept, dropped, set aside or refused, and that annotations arrive unchanged."""

import io
import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image

from srgpt.errors import InputError
from srgpt.params import IngestParams, Omni3dParams
from srgpt.records import Rejected, Scene, encode_depth, encode_rle
from srgpt.sources.omni3d import Omni3dSource
from srgpt.sources.omni3d_boxes import DroppedError, common_gravity, read_region

WIDTH, HEIGHT = 40, 30
LEVEL = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]


def annotation(**changes):
    row = {
        "id": 1, "image_id": 1, "category_id": 0, "category_name": "chair",
        "valid3D": True, "behind_camera": False,
        "bbox2D_tight": [5, 6, 20, 25], "bbox2D_trunc": [4, 5, 21, 26], "bbox2D_proj": [3, 4, 22, 27],
        "center_cam": [0.1, 0.2, 3.0], "dimensions": [0.5, 0.9, 0.6], "R_cam": LEVEL,
        "truncation": 0.1, "visibility": 0.9, "segmentation_pts": -1, "lidar_pts": 12, "depth_error": -1,
    }  # fmt: skip
    return {**row, **changes}


def image(**changes):
    row = {
        "id": 1, "width": WIDTH, "height": HEIGHT, "file_path": "images/a.png",
        "K": [[50.0, 0.0, 19.5], [0.0, 51.0, 14.5], [0.0, 0.0, 1.0]],
    }  # fmt: skip
    return {**row, **changes}


def document(**changes):
    data = {
        "info": {"licence": "CC-BY-4.0"}, "images": [image()], "categories": [{"id": 0, "name": "chair"}],
        "annotations": [annotation()],
    }  # fmt: skip
    return {**data, **changes}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "images").mkdir()
    Image.new("RGB", (WIDTH, HEIGHT), (90, 120, 60)).save(tmp_path / "images" / "a.png")
    return tmp_path


def read(folder, data, **params):
    (folder / "annotations.json").write_text(data if isinstance(data, str) else json.dumps(data))
    source = Omni3dSource(IngestParams(source="omni3d", omni3d=Omni3dParams(**params)), "real", str(folder))
    loaded = [work.load() for work in source.shards()]
    return source, [s for part in loaded for s in part.scenes], [r for part in loaded for r in part.rejected]


def test_one_scene(folder):
    source, (scene,), rejected = read(folder, document())
    assert rejected == []
    assert (scene.scene_id, scene.dataset, scene.uri, scene.licence) == (
        "omni3d-000001",
        "real",
        "images/a.png",
        "CC-BY-4.0",
    )
    assert scene.image == (folder / "images" / "a.png").read_bytes(), "the file's own bytes"
    assert scene.intrinsics == (50.0, 51.0, 19.5, 14.5)
    assert (scene.depth, scene.depth_source) == (None, None)
    (region,) = scene.regions
    assert (region.category, region.label, region.bbox) == ("chair", "chair", (5, 6, 20, 25))
    assert (region.visibility, region.truncation, region.rle) == (0.9, 0.1, None)
    assert source.statistics(()) == {
        "images": 1, "annotations": 1, "objects": 1, "dropped": {},
    }  # fmt: skip


def test_dimensions_are_width_height_length(folder):
    """Box frame: length along x, height along y, width along z."""
    _, (scene,), _ = read(folder, document())
    cuboid = scene.regions[0].cuboid
    assert cuboid.size.tolist() == [0.6, 0.9, 0.5]
    assert cuboid.corners().min(0) == pytest.approx([0.1 - 0.3, 0.2 - 0.45, 3.0 - 0.25])
    assert cuboid.corners().max(0) == pytest.approx([0.1 + 0.3, 0.2 + 0.45, 3.0 + 0.25])


def test_a_photographers_metadata_stays_behind(folder):
    exif = Image.Exif()
    exif[ExifTags.Base.Artist] = "Ada Lovelace"
    with Image.open(folder / "images" / "a.png") as plain:
        plain.save(folder / "images" / "a.jpg", exif=exif)
    _, (scene,), _ = read(folder, document(images=[image(file_path="images/a.jpg")]))
    with Image.open(folder / "images" / "a.jpg") as original:
        assert (scene.rgb() == np.array(original)).all(), "and the pixels are not encoded anew"
    assert b"Lovelace" in (folder / "images" / "a.jpg").read_bytes()
    assert b"Lovelace" not in scene.image


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"behind_camera": True}, "behind-camera"),
        ({"center_cam": [0, 0, -1.0]}, "behind-camera"),
        ({"valid3D": False}, "invalid-3d"),
        ({"dimensions": [0, 1, 1]}, "invalid-3d"),
        ({"dimensions": [-1, -1, -1]}, "invalid-3d"),
        ({"truncation": 0.75}, "truncated"),
        ({"visibility": 0.25}, "barely-visible"),
        ({"visibility": 0}, "barely-visible"),
        ({"lidar_pts": 0}, "no-points"),
        ({"segmentation_pts": 0}, "no-points"),
        ({"depth_error": 0.6}, "depth-error"),
        ({"bbox2D_tight": -1, "bbox2D_trunc": [-1, -1, -1, -1], "bbox2D_proj": None}, "no-2d-box"),
        ({"bbox2D_tight": [50, 3, 60, 9]}, "outside-image"),
        ({"bbox2D_tight": [1, 2, 3]}, "bad-bbox2D_tight"),
        ({"R_cam": [[1, 0, 0], [0, 1, 0], [0, 0, 2]]}, "bad-rotation"),
        ({"R_cam": [[1, 0, 0], [0, 1, 0], [0, 0, -1]]}, "bad-rotation"),
        ({"R_cam": "x"}, "bad-3d-box"),
        ({"center_cam": [1, 2, float("nan")]}, "bad-3d-box"),
        ({"dimensions": [1, 2, 10**400]}, "bad-3d-box"),
        ({"visibility": "high"}, "bad-visibility"),
        ({"truncation": 7}, "bad-truncation"),
        ({"category_name": None, "category_id": 9}, "unknown-category"),
        ({"category_name": "half \ud800"}, "unknown-category"),
        ({"segmentation": {"size": [HEIGHT, WIDTH], "counts": "05"}}, "bad-segmentation"),
        ({"segmentation": {"size": [3, 3], "counts": "9"}}, "bad-segmentation"),
        ({"segmentation": [[1, 2, 3]]}, "bad-segmentation"),
        ({"image_id": 77}, "unknown-image"),
    ],
)
def test_unusable_annotations_are_dropped_and_counted(folder, changes, reason):
    rows = [annotation(), annotation(id=2, **changes)]
    source, (scene,), (rejected,) = read(folder, document(annotations=rows))
    assert len(scene.regions) == 1
    assert source.statistics(()) == {"images": 1, "annotations": 2, "objects": 2, "dropped": {reason: 1}}
    assert rejected.id == ("annotations/1" if reason == "unknown-image" else "omni3d-000001/2")
    assert rejected.reason == reason
    assert rejected.detail


@pytest.mark.parametrize("key", ["center_cam", "dimensions", "R_cam"])
def test_annotation_without_a_3d_key_is_dropped(folder, key):
    row = annotation()
    del row[key]
    source, _, _ = read(folder, document(annotations=[annotation(), row]))
    assert source.statistics(())["dropped"] == {f"missing-{key}": 1}


def test_only_pictures_that_are_kept_count(folder):
    """A duplicate's and an unusable picture's annotations are neither kept nor dropped."""
    rows = [annotation(truncation=1.0), annotation(), annotation(image_id=2), annotation(image_id=2, id="x")]
    images = [image(), image(), image(id=2, file_path="images/none.png")]
    source, (scene,), rejected = read(folder, document(images=images, annotations=[*rows, 5]))
    assert [(r.id, r.reason) for r in rejected] == [
        ("omni3d-000001/1", "truncated"),
        ("images[1]", "duplicate-image"),
        ("omni3d-000002", "missing-image"),
        ("annotations/4", "not-an-object"),
    ]
    assert source.statistics({"omni3d-000002"}) == {
        "images": 3, "annotations": 5, "objects": 3, "dropped": {"not-an-object": 1, "truncated": 1},
    }  # fmt: skip
    assert len(scene.regions) == 1


def test_unknown_values_keep_an_annotation():
    """-1 means unknown, as in Omni3D."""
    row = annotation(truncation=-1, visibility=-1, lidar_pts=-1, depth_error=-1)
    region = read_region(row, 0, {}, (WIDTH, HEIGHT), Omni3dParams())
    assert (region.truncation, region.visibility) == (-1.0, -1.0)


def test_box_falls_back_from_tight_to_truncated_to_projected_and_is_clipped():
    def bbox(**changes):
        return read_region(annotation(**changes), 0, {}, (WIDTH, HEIGHT), Omni3dParams()).bbox

    none = [-1, -1, -1, -1]
    assert bbox() == (5, 6, 20, 25)
    assert bbox(bbox2D_tight=none) == (4, 5, 21, 26)
    assert bbox(bbox2D_tight=none, bbox2D_trunc=none) == (3, 4, 22, 27)
    assert bbox(bbox2D_tight=[-7, 6, 55, 99]) == (0, 6, 40, 30)


def test_height_filter():
    with pytest.raises(DroppedError, match="too-small"):
        read_region(
            annotation(bbox2D_tight=[5, 6, 20, 9]), 0, {}, (WIDTH, HEIGHT), Omni3dParams(min_height_share=0.1)
        )


def test_masks_as_rle_plain_rle_and_polygon():
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    mask[10:20, 5:15] = True
    flat = mask.T.reshape(-1).astype(int)
    edges = np.flatnonzero(np.diff(flat)) + 1
    plain = np.diff([0, *edges, flat.size]).tolist()
    for value in (
        encode_rle(mask),
        {"size": [HEIGHT, WIDTH], "counts": plain},
        [[5, 10, 14, 10, 14, 19, 5, 19]],
    ):
        region = read_region(annotation(segmentation=value), 0, {}, (WIDTH, HEIGHT), Omni3dParams())
        assert (region.mask() == mask).all()
        assert region.mask_source == "given"


def test_depth_is_kept_as_it_is(folder):
    depth = np.linspace(0, 9, HEIGHT * WIDTH, dtype=np.float32).reshape(HEIGHT, WIDTH)
    (folder / "d.png").write_bytes(encode_depth(depth))
    _, (scene,), _ = read(folder, document(images=[image(depth_path="d.png")]))
    assert scene.depth == (folder / "d.png").read_bytes()
    assert scene.depth_source == "given"
    assert np.abs(scene.depth_metres() - depth).max() <= 0.0005001


def test_gravity_given_is_normalised(folder):
    _, (scene,), _ = read(folder, document(images=[image(gravity_cam=[0, 3.0, 4.0])]))
    assert scene.gravity == pytest.approx((0, 0.6, 0.8))
    assert scene.gravity_source == "given"


def tilted(angle, yaw=0.0, flip=1.0):
    """A rotation whose y axis is gravity for a camera pitched down by ``angle``, times ``flip``."""
    pitch = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    turn = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
    return (pitch @ turn @ np.diag([1, flip, flip])).tolist()


def test_gravity_from_cuboids_that_agree(folder):
    """Boxes of any yaw, upright or upside down, share one vertical axis; it points down."""
    rows = [annotation(R_cam=tilted(0.2, yaw, flip)) for yaw, flip in ((0, 1), (1, -1), (2, 1), (3, -1))]
    _, (scene,), _ = read(folder, document(annotations=rows))
    assert scene.gravity == pytest.approx((0, np.cos(0.2), np.sin(0.2)))
    assert scene.gravity_source == "cuboids"
    _, (scene,), _ = read(folder, document(annotations=rows), gravity="given")
    assert (scene.gravity, scene.gravity_source) == (None, None)


def test_no_gravity_where_cuboids_disagree_or_are_absent():
    rows = [annotation(R_cam=tilted(angle)) for angle in (0.0, 0.5, 1.0)]
    regions = [read_region(r, 0, {}, (WIDTH, HEIGHT), Omni3dParams()) for r in rows]
    assert common_gravity(regions) is None
    assert common_gravity([]) is None


def write_jpeg(path, size=(WIDTH, HEIGHT)):
    noise = np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(noise).save(path, "JPEG")


def test_bad_pictures_are_set_aside_each_with_its_reason(folder):
    images = folder / "images"
    (images / "text.jpg").write_text("not a picture")
    write_jpeg(images / "whole.jpg")
    (images / "cut.jpg").write_bytes((images / "whole.jpg").read_bytes()[:700])
    write_jpeg(images / "large.jpg", (80, 60))
    (folder / "grey8.png").write_bytes(_png(np.zeros((HEIGHT, WIDTH), dtype=np.uint8)))
    (folder / "small.png").write_bytes(encode_depth(np.ones((5, 5), dtype=np.float32)))
    cases = [
        (image(file_path="images/text.jpg"), "unsupported-format"),
        (image(file_path="images/cut.jpg"), "truncated-image"),
        (image(file_path="images/none.jpg"), "missing-image"),
        (image(file_path="images"), "unreadable-image"),
        (image(file_path="images/large.jpg"), "wrong-image-size"),
        (image(file_path="../secret.jpg"), "bad-path"),
        (image(file_path="/etc/hostname"), "bad-path"),
        (image(file_path="s3://bucket/x.jpg"), "bad-path"),
        (image(file_path=3), "bad-path"),
        (image(file_path="half \ud800.png"), "bad-path"),
        (image(depth_path="none.png"), "missing-depth"),
        (image(depth_path="grey8.png"), "bad-depth"),
        (image(depth_path="small.png"), "wrong-depth-size"),
        (image(K=[[1, 2], [3, 4]]), "bad-intrinsics"),
        (image(K=[[0, 0, 1], [0, 5, 1], [0, 0, 1]]), "bad-intrinsics"),
        (image(width=-4), "bad-image-row"),
        (image(width="40"), "bad-image-row"),
        (image(gravity_cam=[0, 0, 0]), "bad-gravity"),
        ({"id": 5}, "bad-image-row"),
        ("a string", "bad-image-row"),
    ]
    rows = [{**row, "id": 100 + i} if isinstance(row, dict) else row for i, (row, _) in enumerate(cases)]
    _, scenes, rejected = read(folder, document(images=[image(), *rows, image(file_path="images/a.png")]))
    assert [s.scene_id for s in scenes] == ["omni3d-000001"]
    assert Counter(r.reason for r in rejected) == Counter(
        [reason for _, reason in cases] + ["duplicate-image"]
    )
    assert all(r.detail for r in rejected)


def _png(array):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return buffer.getvalue()


def test_what_is_no_picture_is_told_in_the_same_words_every_time(folder):
    (folder / "images" / "a.png").write_bytes(b"no picture")
    reasons = [read(folder, document(images=[image(file_path="images/a.png")]))[2] for _ in range(2)]
    assert reasons[0][0].reason == "unsupported-format"
    assert reasons[0] == reasons[1]
    assert " at 0x" not in reasons[0][0].detail


def test_other_formats_are_stored_as_png(folder):
    Image.new("RGB", (WIDTH, HEIGHT), (1, 2, 3)).save(folder / "images" / "a.webp", lossless=True)
    _, (scene,), _ = read(folder, document(images=[image(file_path="images/a.webp")]))
    assert scene.image.startswith(b"\x89PNG")
    assert (scene.rgb() == [1, 2, 3]).all()


def test_text_ids_give_distinct_scene_ids(folder):
    rows = [image(id="a/b"), image(id="a b"), image(id="plain")]
    _, scenes, rejected = read(folder, document(images=rows, annotations=[]))
    assert rejected == []
    assert len({s.scene_id for s in scenes}) == 3
    assert scenes[2].scene_id == "omni3d-plain"


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[1]", "expected an object"),
        ({k: v for k, v in document().items() if k != "images"}, "missing key 'images'"),
        ({k: v for k, v in document().items() if k != "annotations"}, "missing key 'annotations'"),
        ({k: v for k, v in document().items() if k != "categories"}, "missing key 'categories'"),
        (document(images={}), "'images' must be a list, found dict"),
        (document(annotations=None), "'annotations' must be a list, found null"),
        (document(images=[]), "'images' is empty"),
        (document(categories=[{"id": "x", "name": "chair"}]), "categories[0]: 'id'"),
        (document(categories=["chair"]), "categories[0] must be an object"),
    ],
)
def test_a_wrong_file_is_an_error_that_names_file_and_key(folder, data, told):
    with pytest.raises(InputError) as caught:
        read(folder, data)
    assert told in str(caught.value)
    assert "annotations.json" in str(caught.value)


def test_empty_folder(tmp_path):
    with pytest.raises(InputError, match="not found"):
        Omni3dSource(IngestParams(source="omni3d"), "real", str(tmp_path))


def test_identity_names_content_not_places(folder):
    source, _, _ = read(folder, document())
    assert str(folder) not in json.dumps(source.identity())
    other, _, _ = read(folder, document(annotations=[]))
    assert source.identity() != other.identity()


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from([*annotation(), "segmentation"]),
    st.sampled_from([*image(), "depth_path", "gravity_cam"]),
    values,
    values,
)
def test_fuzz_rows(folder, key, image_key, value, image_value):
    """Whatever a field holds: a scene or a rejection, and every annotation is either kept or counted."""
    data = document(
        images=[image(), image(id=2, **({} if image_key == "id" else {image_key: image_value}))],
        annotations=[annotation(), annotation(**{key: value}), annotation(image_id=2)],
    )
    if image_key == "id":
        data["images"][1]["id"] = image_value
    _, scenes, rejected = read(folder, data)
    assert len(scenes) + sum("/" not in r.id for r in rejected) == 2
    assert len({s.scene_id for s in scenes}) == len(scenes)
    assert all(isinstance(s, Scene) for s in scenes)
    assert all(isinstance(r, Rejected) and r.detail for r in rejected)
    for scene in scenes:
        assert Scene.from_row(scene.to_row()).to_row() == scene.to_row()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.sampled_from(["info", "images", "categories", "annotations"]), values) | values)
def test_fuzz_documents(folder, data):
    """Any JSON is read or refused with an error that names the file."""
    try:
        read(folder, data)
    except InputError as error:
        told = str(error)
    else:
        return
    assert "annotations.json" in told


@pytest.mark.omni3d_mini
def test_real_photographs(omni3d_mini):
    source = Omni3dSource(IngestParams(source="omni3d"), "mini", str(omni3d_mini))
    (loaded,) = [work.load() for work in source.shards()]
    raw = json.loads((omni3d_mini / "annotations.json").read_text())
    assert {r.reason for r in loaded.rejected} == {"no-points", "truncated"}
    assert all("/" in r.id for r in loaded.rejected)
    assert len(loaded.scenes) == len(raw["images"]) == 4
    assert sum(len(s.regions) for s in loaded.scenes) == 58
    assert source.statistics(())["objects"] == len(raw["annotations"]) == 58 + len(loaded.rejected)
    assert [s.gravity_source for s in loaded.scenes] == ["given", "cuboids", "cuboids", "cuboids"]
    for scene, row in zip(loaded.scenes, raw["images"], strict=True):
        assert scene.image == (omni3d_mini / row["file_path"]).read_bytes()
        assert np.linalg.norm(scene.gravity) == pytest.approx(1)
        assert scene.gravity[1] > 0.9
    corners = {tuple(np.round(a["center_cam"], 4)): np.array(a["bbox3D_cam"]) for a in raw["annotations"]}
    for scene in loaded.scenes:
        for region in scene.regions:
            want = corners[tuple(np.round(region.cuboid.center, 4))]
            got = region.cuboid.corners()
            gaps = np.linalg.norm(want[:, None] - got[None], axis=-1).min(1)
            assert gaps.max() < 2e-3, region.category
