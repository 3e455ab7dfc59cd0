"""Filling gaps: what is given stays, what a setting supplies is marked, what is missing is named."""

import math

import numpy as np
import pytest

from srgpt.params import PerceiveParams
from srgpt.perception.gaps import IncompleteError, complete
from srgpt.records import Region, Scene, encode_depth, encode_png, encode_rle

WIDTH, HEIGHT = 12, 8


def scene(**changes) -> Scene:
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    mask[2:5, 3:7] = True
    whole = Scene(
        dataset="d",
        scene_id="s",
        width=WIDTH,
        height=HEIGHT,
        image=encode_png(np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)),
        regions=(Region(0, "chair", "red chair", (3, 2, 7, 5), encode_rle(mask), "given"),),
        depth=encode_depth(np.ones((HEIGHT, WIDTH), dtype=np.float32)),
        depth_source="given",
        intrinsics=(10.0, 10.0, 5.5, 3.5),
        intrinsics_source="given",
        gravity=(0.0, 0.6, 0.8),
        gravity_source="given",
    )
    return whole.replace(**changes)


def masked(rle) -> Region:
    return Region(0, "cup", "cup", (0, 0, 1, 1), rle, "given")


def test_a_complete_scene_is_returned_itself():
    given = scene()
    filling = PerceiveParams(depth="none", masks="boxes", intrinsics="fov", gravity="level")
    assert complete(given, PerceiveParams()) is given
    assert complete(given, filling) is given, "settings fill gaps only"


@pytest.mark.parametrize(
    ("changes", "reason", "setting"),
    [
        ({"depth": None}, "missing-depth", "perceive.depth=none"),
        ({"gravity": None}, "missing-gravity", "perceive.gravity=level"),
        ({"intrinsics": None}, "missing-intrinsics", "perceive.intrinsics=fov"),
        ({"regions": (Region(4, "cup", "cup", (1, 1, 3, 3)),)}, "missing-masks", "perceive.masks=boxes"),
    ],
)
def test_a_gap_names_the_thing_and_the_setting(changes, reason, setting):
    with pytest.raises(IncompleteError) as caught:
        complete(scene(**changes), PerceiveParams())
    (gap,) = caught.value.gaps
    assert gap.reason == reason
    assert setting in gap.detail


def test_all_gaps_of_a_scene_are_named_together():
    bad, bare = masked({"size": [HEIGHT, WIDTH], "counts": "05"}), Region(1, "cup", "cup", (0, 0, 1, 1))
    changes = {"depth": None, "gravity": (0.0, 2.0, 0.0), "intrinsics": None, "regions": (bad, bare)}
    with pytest.raises(IncompleteError) as caught:
        complete(scene(**changes), PerceiveParams())
    assert [gap.reason for gap in caught.value.gaps] == [
        "missing-depth", "bad-gravity", "missing-intrinsics", "bad-mask", "missing-masks",
    ]  # fmt: skip
    assert all(gap.detail in str(caught.value) for gap in caught.value.gaps)


def test_level_camera():
    done = complete(scene(gravity=None, gravity_source=None), PerceiveParams(gravity="level"))
    assert (done.gravity, done.gravity_source) == ((0.0, 1.0, 0.0), "level")
    assert done.intrinsics_source == "given"


def test_field_of_view_by_hand():
    """90 degrees over 12 pixels: the focal length is half the width."""
    params = PerceiveParams(intrinsics="fov", fov_degrees=90)
    done = complete(scene(intrinsics=None, intrinsics_source=None), params)
    assert done.intrinsics == pytest.approx((6.0, 6.0, 5.5, 3.5))
    assert done.intrinsics_source == "fov:90"


def test_box_masks_fill_only_what_is_bare():
    bare = Region(1, "cup", "cup", (1.0, 1.0, 3.0, 4.0))
    given = scene().regions[0]
    done = complete(scene(regions=(given, bare)), PerceiveParams(masks="boxes"))
    assert done.regions[0] == given
    assert done.regions[1].mask_source == "boxes"
    assert np.argwhere(done.regions[1].mask()).tolist() == [[y, x] for y in (1, 2, 3) for x in (1, 2)]


@pytest.mark.parametrize("bbox", [(11.6, 7.7, 12.0, 8.0), (0.0, 0.0, 0.2, 0.2), (5.1, 5.1, 5.2, 5.2)])
def test_box_mask_is_never_empty(bbox):
    done = complete(scene(regions=(Region(0, "cup", "cup", bbox),)), PerceiveParams(masks="boxes"))
    assert done.regions[0].mask().sum() == 1


def test_no_depth_is_allowed_when_asked_for():
    done = complete(scene(depth=None, depth_source=None), PerceiveParams(depth="none"))
    assert (done.depth, done.depth_source) == (None, None)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"regions": ()}, "no-regions"),
        ({"depth": b"not a picture"}, "bad-depth"),
        ({"depth": encode_depth(np.ones((HEIGHT, WIDTH), np.float32))[:40]}, "bad-depth"),
        ({"depth": encode_depth(np.ones((HEIGHT, WIDTH + 1), np.float32))}, "wrong-depth-size"),
        ({"intrinsics": (0.0, 10.0, 5.5, 3.5)}, "bad-intrinsics"),
        ({"intrinsics": (10.0, 10.0, math.nan, 3.5)}, "bad-intrinsics"),
        ({"gravity": (0.0, 0.0, 0.0)}, "bad-gravity"),
        ({"gravity": (0.0, 2.0, 0.0)}, "bad-gravity"),
        ({"gravity": (0.0, math.nan, 0.0)}, "bad-gravity"),
        ({"regions": (masked({"size": [HEIGHT, WIDTH], "counts": "05"}),)}, "bad-mask"),
        ({"regions": (masked(encode_rle(np.ones((3, 3)))),)}, "wrong-mask-size"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_and_never_filled(changes, reason):
    everything = PerceiveParams(depth="none", masks="boxes", intrinsics="fov", gravity="level")
    with pytest.raises(IncompleteError) as caught:
        complete(scene(**changes), everything)
    assert [gap.reason for gap in caught.value.gaps] == [reason]
