"""The chain over scenes: what is asked for is made, what is given stays, and who is unfit is set aside."""

import io

import numpy as np
import pytest
from PIL import Image

from srgpt.params import PerceiveParams
from srgpt.perception import IncompleteError, SetAsideError, complete_all
from srgpt.perception import chain as module
from srgpt.perception.roles import DepthEstimate, Detection, Verdict
from srgpt.records import Region, Scene, encode_depth, encode_rle

SEED = 3
SIZES = ((64, 48), (80, 60), (64, 48), (50, 70), (64, 48))


def jpeg(picture):
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def photograph(index, **changes):
    """A scene of which only the picture is known."""
    width, height = SIZES[index]
    rng = np.random.default_rng(index)
    pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    scene = Scene("d", f"s{index}", width, height, jpeg(Image.fromarray(pixels)), uri=f"file://{index}.jpg")
    return scene.replace(**changes)


@pytest.fixture(scope="module")
def settings(checkpoint):
    """All roles with tiny checkpoints, whose random boxes pass."""
    return {
        "pictures": "model", "tags": "vocabulary", "regions": "model", "masks": "model", "depth": "model",
        "relative_depth": "model", "intrinsics": "model", "gravity": "ransac", "batch_size": 2,
        "filtering": {"model": checkpoint("clip"), "min_positive": 0.0},
        "tagging": {"model": checkpoint("florence2"), "vocabulary": ["chair", "red cup"], "max_new_tokens": 8},
        "detection": {
            "model": checkpoint("grounding_dino"), "box_threshold": 0.0, "text_threshold": 0.0, "min_score": 0.0,
        },
        "segmentation": {"model": checkpoint("sam2"), "min_area": 1},
        "depth_estimation": {
            "metric": {"model": checkpoint("depth_pro")},
            "relative": {"model": checkpoint("depth_anything_relative")},
        },
        "calibration": {"model": checkpoint("depth_pro")},
    }  # fmt: skip


def params(settings, **changes):
    return PerceiveParams(**{**settings, **changes})


def test_a_photograph_becomes_a_complete_scene(settings):
    scenes = [photograph(i) for i in range(5)]
    done = complete_all(scenes, params(settings), SEED)
    for before, scene in zip(scenes, done, strict=True):
        assert isinstance(scene, Scene), scene
        assert scene.scene_id == before.scene_id
        assert scene.tags == ("chair", "red cup")
        assert [r.id for r in scene.regions] == list(range(len(scene.regions)))
        sizes = [int(r.mask().sum()) for r in scene.regions]
        assert sizes == sorted(sizes, reverse=True), "the largest mask first"
        assert {r.category for r in scene.regions} <= {"chair", "red cup"}
        assert {r.mask_source for r in scene.regions} == {settings["segmentation"]["model"]}
        assert scene.regions[0].mask().shape == (scene.height, scene.width)
        assert scene.depth_metres().shape == (scene.height, scene.width)
        assert scene.depth_source == scene.intrinsics_source == settings["calibration"]["model"]
        with Image.open(io.BytesIO(scene.relative_depth)) as relative:
            assert relative.size == (scene.width, scene.height)
        fx, fy, cx, cy = scene.intrinsics
        assert (fx, cx, cy) == (fy, (scene.width - 1) / 2, (scene.height - 1) / 2)
        assert scene.gravity_source in ("ransac", "level")


def test_the_same_scenes_give_the_same_rows(settings):
    scenes = [photograph(i) for i in range(3)]
    first, second = (complete_all(scenes, params(settings), SEED) for _ in range(2))
    assert [s.to_row() for s in first] == [s.to_row() for s in second]


def test_every_source_of_tags_runs(settings, checkpoint):
    (done,) = complete_all([photograph(0)], params(settings, tags="model"), SEED)
    assert isinstance(done, Scene) or done.gaps[0].reason in ("no-tags", "no-boxes")
    (given,) = complete_all([photograph(0, tags=("lamp",))], params(settings, tags="given"), SEED)
    assert {r.category for r in given.regions} == {"lamp"}
    (missing,) = complete_all([photograph(0)], params(settings, tags="given"), SEED)
    assert missing.gaps[0].reason == "missing-tags"
    assert "perceive.tags=model" in missing.gaps[0].detail
    assert not isinstance(missing, SetAsideError), "a setting would help"


def given_scene(index=0, **changes):
    width, height = SIZES[index]
    mask = np.zeros((height, width), dtype=bool)
    mask[10:20, 10:30] = True
    whole = {
        "regions": (Region(4, "chair", "red chair", (10.0, 10.0, 30.0, 20.0), encode_rle(mask), "given"),),
        "depth": encode_depth(np.full((height, width), 2.0)), "depth_source": "given",
        "relative_depth": b"given", "relative_depth_source": "given",
        "intrinsics": (50.0, 50.0, 31.5, 23.5), "intrinsics_source": "given",
        "gravity": (0.0, 1.0, 0.0), "gravity_source": "given",
    }  # fmt: skip
    return photograph(index, **{**whole, **changes})


def test_what_is_given_stays_and_no_model_looks_at_it(settings, monkeypatch):
    scene = given_scene()
    for name in ("load_detector", "load_segmenter", "load_metric", "load_relative", "load_field_of_view"):
        monkeypatch.setattr(module, name, lambda *_: pytest.fail("a model was loaded"))
    (done,) = complete_all([scene], params(settings, pictures="given"), SEED)
    assert done is scene


def test_only_the_regions_without_a_mask_are_segmented(settings):
    scene = given_scene()
    bare = Region(9, "cup", "cup", (5.0, 5.0, 40.0, 40.0))
    (done,) = complete_all([scene.replace(regions=(bare, *scene.regions))], params(settings), SEED)
    assert [r.id for r in done.regions] == [9, 4], "given regions keep their ids and order"
    assert done.regions[1] is scene.regions[0]
    assert done.regions[0].mask_source == settings["segmentation"]["model"]


def test_each_gap_is_filled_alone(settings):
    for name in ("depth", "intrinsics", "gravity", "relative_depth"):
        scene = given_scene(**{name: None, f"{name}_source": None})
        (done,) = complete_all([scene], params(settings), SEED)
        assert getattr(done, name) is not None
        unchanged = {"depth", "intrinsics", "gravity", "relative_depth", "regions"} - {name}
        assert all(getattr(done, other) == getattr(scene, other) for other in unchanged)


def test_a_prior_from_exif_gives_way_to_a_model_and_stays_without_one(settings):
    scene = given_scene(intrinsics_source="exif")
    (kept,) = complete_all([scene], params(settings, intrinsics="given"), SEED)
    assert kept.intrinsics == scene.intrinsics
    (replaced,) = complete_all([scene], params(settings), SEED)
    assert replaced.intrinsics_source == settings["calibration"]["model"]
    assert replaced.intrinsics != scene.intrinsics


class Angle:
    """A field-of-view model that sees none."""

    def estimate(self, pictures, focals=None):
        return [DepthEstimate(np.ones((p.height, p.width), np.float32), None) for p in pictures]


def test_without_a_visible_angle_exif_stays_and_else_it_is_assumed(settings, monkeypatch):
    monkeypatch.setattr(module, "load_field_of_view", lambda *_: Angle())
    exif = given_scene(intrinsics_source="exif")
    nothing = given_scene(intrinsics=None, intrinsics_source=None)
    kept, assumed = complete_all([exif, nothing], params(settings), SEED)
    assert (kept.intrinsics, kept.intrinsics_source) == (exif.intrinsics, "exif")
    assert assumed.intrinsics_source == "fov:60"


def test_known_intrinsics_scale_depth_pros_depth(settings):
    bare = {"depth": None, "depth_source": None}
    near, far = complete_all(
        [given_scene(intrinsics=(f, f, 31.5, 23.5), **bare) for f in (20.0, 40.0)], params(settings), SEED
    )
    a, b = near.depth_metres(), far.depth_metres()
    inner = (a > 0.05) & (b > 0.05)
    assert inner.any()
    assert np.median(b[inner] / a[inner]) == pytest.approx(2, rel=0.05)


# Setting aside ----------------------------------------------------------------------------------------------


def test_what_is_no_photograph_is_set_aside_before_anything_else_looks(settings, monkeypatch):
    monkeypatch.setattr(module, "load_detector", lambda *_: pytest.fail("a model was loaded"))
    strict = {**settings["filtering"], "min_positive": 1.0}
    done = complete_all([photograph(0), photograph(1)], params(settings, filtering=strict), SEED)
    for error in done:
        assert isinstance(error, SetAsideError)
        (gap,) = error.gaps
        assert gap.reason == "not-a-photograph"
        assert "expected 1 or more" in gap.detail


def test_unfit_scenes_do_not_disturb_their_neighbours(settings, monkeypatch):
    class Judge:
        def judge(self, pictures):
            return [Verdict(p.size != SIZES[1], "a drawing", 0.2) for p in pictures]

    monkeypatch.setattr(module, "load_filter", lambda *_: Judge())
    scenes = [photograph(0), photograph(1), photograph(2), photograph(3)]
    done = complete_all(scenes, params(settings, batch_size=3), SEED)
    assert [isinstance(d, Scene) for d in done] == [True, False, True, True]
    assert "'a drawing'" in done[1].gaps[0].detail


def test_nothing_named_and_nothing_found_are_set_aside(settings, monkeypatch):
    class Sky:
        def tag(self, pictures):
            return [("sky", "blue sky")] * len(pictures)

    monkeypatch.setattr(module, "load_tagger", lambda *_: Sky())
    (error,) = complete_all([photograph(0)], params(settings, tags="model"), SEED)
    assert (error.gaps[0].reason, "found: sky, blue sky" in error.gaps[0].detail) == ("no-tags", True)
    certain = {**settings["detection"], "min_score": 1.0}
    (error,) = complete_all([photograph(0)], params(settings, detection=certain), SEED)
    assert error.gaps[0].reason == "no-boxes"
    large = {**settings["segmentation"], "min_area": 10**6}
    (error,) = complete_all([photograph(0)], params(settings, segmentation=large), SEED)
    assert error.gaps[0].reason == "no-masks"
    assert isinstance(error, SetAsideError)


@pytest.mark.parametrize(
    ("changes", "reason"), [({"image": b"no picture"}, "bad-image"), ({"width": 65}, "wrong-image-size")]
)
def test_a_picture_that_cannot_be_read_is_set_aside(changes, reason, settings):
    bad, good = complete_all([photograph(0, **changes), photograph(2)], params(settings), SEED)
    assert bad.gaps[0].reason == reason
    assert "0x" not in bad.gaps[0].detail, "no memory address"
    assert isinstance(good, Scene)


def test_gaps_that_no_setting_fills_are_still_named(settings):
    bare = given_scene(depth=None, depth_source=None, gravity=None, gravity_source=None)
    (error,) = complete_all([bare], PerceiveParams(), SEED)
    assert isinstance(error, IncompleteError)
    assert [g.reason for g in error.gaps] == ["missing-depth", "missing-gravity"]
    (none,) = complete_all([photograph(0)], PerceiveParams(), SEED)
    assert none.gaps[0].reason == "no-regions"
    assert "perceive.regions=model" in none.gaps[0].detail


# Ground -----------------------------------------------------------------------------------------------------


def room(index=0, **changes):
    """A camera 1.5 m above a floor, looking 10 degrees down, at a chair; the floor fills the lower half."""
    width, height = SIZES[index]
    scene = given_scene(index, gravity=None, gravity_source=None, **changes)
    gravity = np.array([0.0, np.cos(np.radians(10)), np.sin(np.radians(10))])
    from srgpt.geometry.camera import unproject

    rays = unproject(np.ones((height, width)), scene.intrinsics)
    with np.errstate(divide="ignore"):
        depth = 1.5 / (rays @ gravity)
    depth = np.where((depth > 0) & (depth < 30), depth, 0)
    return scene.replace(depth=encode_depth(depth)), gravity, depth > 0


def test_gravity_comes_from_a_given_region_of_ground(settings):
    scene, gravity, ground = room()
    floor = Region(7, "wooden floor", "floor", (0.0, 24.0, 64.0, 48.0), encode_rle(ground), "given")
    (done,) = complete_all([scene.replace(regions=(*scene.regions, floor))], params(settings), SEED)
    assert done.gravity_source == "ransac"
    np.testing.assert_allclose(done.gravity, gravity, atol=2e-3)


def test_gravity_comes_from_ground_that_is_looked_for(settings, monkeypatch):
    """A detector and a segmenter that see: floor is asked for, found, used, and does not become an object."""
    scene, gravity, ground = room()
    asked = []

    class Eyes:
        def detect(self, pictures, tags):
            asked.extend(tags)
            height, width = ground.shape
            boxes = [(0.0, height / 2, float(width), float(height)), (10.0, 10.0, 30.0, 20.0)]
            return [[Detection(boxes[0], "floor", 0.9), Detection(boxes[1], "chair", 0.8)] for _ in pictures]

        def segment(self, pictures, boxes):
            small = np.zeros_like(ground)
            small[10:20, 10:30] = True
            return [np.stack([ground if b[2] - b[0] > 40 else small for b in own]) for own in boxes]

    monkeypatch.setattr(module, "load_detector", lambda *_: Eyes())
    monkeypatch.setattr(module, "load_segmenter", lambda *_: Eyes())
    (done,) = complete_all([scene.replace(regions=())], params(settings), SEED)
    assert "chair" in asked[0]
    assert "floor" in asked[0]
    assert [r.category for r in done.regions] == ["chair"]
    assert done.gravity_source == "ransac"
    np.testing.assert_allclose(done.gravity, gravity, atol=5e-3)
    (given,) = complete_all([scene], params(settings), SEED)
    assert given.regions == scene.regions, "regions that were given stay"
    assert given.gravity_source == "ransac"


def test_without_ground_the_camera_is_taken_to_be_level(settings):
    scene = given_scene(gravity=None, gravity_source=None)
    without = {"regions": "given", "masks": "given"}
    (done,) = complete_all([scene], params(settings, **without), SEED)
    assert (done.gravity, done.gravity_source) == ((0.0, 1.0, 0.0), "level")


def test_broken_depth_is_left_to_the_rules_for_gaps(settings):
    scene = given_scene(gravity=None, gravity_source=None, depth=b"broken")
    (error,) = complete_all([scene], params(settings, regions="given"), SEED)
    assert error.gaps[0].reason == "bad-depth"


def test_no_scenes_give_no_results(settings):
    assert complete_all([], params(settings), SEED) == []
