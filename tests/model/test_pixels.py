"""Images, depth and masks before the model."""

import numpy as np
import pytest
from PIL import Image

from srgpt.errors import InputError
from srgpt.geometry.camera import Camera
from srgpt.model.pixels import (
    POINTS,
    box_mask,
    encode_depth_image,
    make_picture,
    normalise,
    point_mask,
    region_points,
    scribble_mask,
    squash_mask,
)


def test_relative_depth_is_min_max_inverse_depth():
    depth = np.array([[1.0, 2.0], [4.0, 0.0]])
    # inverse 1, 0.5, 0.25: (0.5 - 0.25) / 0.75 * 255 = 85
    assert encode_depth_image(depth).tolist() == [[255, 85], [0, 0]]


def test_constant_and_missing_depth_do_not_divide_by_zero():
    with np.errstate(all="raise"):
        assert len(np.unique(encode_depth_image(np.full((3, 3), 2.0)))) == 1
        assert encode_depth_image(np.zeros((2, 2))).tolist() == [[0, 0], [0, 0]]


def test_points_of_a_region_lie_where_the_camera_sees_them():
    # focal length 10, principal point (1, 1): pixel (u, v) at depth z is ((u - 1) z / 10, (v - 1) z / 10, z)
    depth = np.array([[0.0, 2.0, 4.0], [5.0, np.nan, 5.0]])
    mask = np.array([[True, True, True], [False, True, False]])
    points = region_points(depth, mask, Camera((10, 10, 1, 1)))
    assert points.shape == (POINTS, 3)
    assert points.dtype == np.float32
    found = np.unique(points, axis=0)
    np.testing.assert_allclose(found, [[0, -0.2, 2], [0.4, -0.4, 4]], atol=1e-6)


def test_points_of_a_region_stand_upright():
    """A camera that looks down by 30 degrees sees a wall's foot below its head, not nearer."""
    down = (0.0, np.cos(np.radians(30)), np.sin(np.radians(30)))
    points = region_points(np.full((1, 1), 2.0), np.ones((1, 1), bool), Camera((10, 10, 0, 0), down))
    np.testing.assert_allclose(
        points[0], [0, 2 * np.sin(np.radians(30)), 2 * np.cos(np.radians(30))], atol=1e-6
    )


def test_a_region_without_readings_has_no_points():
    assert not region_points(np.zeros((4, 4)), np.ones((4, 4), bool), Camera.of(4, 4)).any()


def test_a_point_and_a_scribble_are_strokes():
    point = point_mask((50, 20), 100, 100)
    assert point[20, 50]
    assert 5 <= point.sum() <= 13  # a disc of radius 1.5
    stroke = scribble_mask([(10, 10), (10, 60), (90, 60)], 100, 100)
    assert stroke[10:61, 10].all()
    assert stroke[60, 10:91].all()
    assert stroke.sum() < 600
    assert point_mask((0, 0), 3000, 4).any()
    assert point_mask((3.4, 2.4), 4, 3)[2, 3]


def test_a_stroke_outside_of_the_picture_is_refused():
    with pytest.raises(InputError, match="lies in the image of 8 x 6"):
        scribble_mask([(-3, 2), (9, 9)], 8, 6)


def test_normalise_maps_bytes_to_plus_minus_one():
    rgb = normalise(np.array([[[0, 255, 51]]], np.uint8))
    assert rgb.shape == (3, 1, 1)
    np.testing.assert_allclose(rgb[:, 0, 0], [-1, 1, -0.6], atol=1e-6)
    grey = normalise(np.zeros((2, 4, 4), np.uint8))
    assert grey.shape == (2, 3, 4, 4)


def test_a_mask_of_one_pixel_survives_any_squash():
    mask = np.zeros((3000, 4000), bool)
    mask[1234, 2345] = True
    small = squash_mask(mask, 28, 0)
    assert small.max() >= 1
    assert divmod(int(small.argmax()), 28) == (1234 * 28 // 3000, 2345 * 28 // 4000)


def test_masks_are_resized_as_the_reference_does_where_asked():
    mask = np.zeros((6, 6), bool)
    mask[1:4, 1:4] = True
    # of three rows and columns OpenCV's nearest takes 0, 2 and 4
    assert squash_mask(mask, 3, 0, "nearest").tolist() == [[0, 0, 0], [0, 255, 0], [0, 0, 0]]
    bicubic = squash_mask(mask, 3, 0, "bicubic")
    binary = Image.fromarray(mask.astype(np.uint8)).resize((3, 3), Image.Resampling.BICUBIC)
    assert (bicubic == np.array(binary) * 255).all()
    assert set(np.unique(bicubic)) <= {0, 255}
    small = np.zeros((384 * 2, 384 * 2), bool)
    small[101, 101] = True
    assert not squash_mask(small, 384, 0, "nearest").any()
    assert not squash_mask(small, 384, 0, "bicubic").any()
    assert squash_mask(small, 384, 0).any()


def test_an_empty_mask_is_refused_by_name():
    with pytest.raises(InputError, match="region 7"):
        squash_mask(np.zeros((4, 4), bool), 4, 7)


@pytest.mark.parametrize(
    ("box", "pixels"),
    [((1, 1, 3, 2), 2), ((-5, -5, 100, 100), 20), ((2.2, 1.2, 2.3, 1.3), 1), ((50, 50, 60, 60), 1)],
)
def test_box_mask_is_never_empty(box, pixels):
    assert box_mask(box, 5, 4).sum() == pixels


def test_picture_squashes_without_keeping_the_aspect_ratio():
    rgb = np.zeros((20, 40, 3), np.uint8)
    rgb[:, 20:] = 200
    mask = np.zeros((20, 40), bool)
    mask[:10] = True
    picture = make_picture(rgb, np.full((20, 40), 2.0), {4: mask}, size=8, form="relative")
    assert picture.rgb.shape == (8, 8, 3)
    assert (picture.rgb[:, 0] == 0).all()
    assert (picture.rgb[:, 7] >= 199).all()
    assert picture.masks[0, :, 3].tolist() == [255] * 4 + [0] * 4
    assert picture.region_ids == (4,)


def test_sizes_that_differ_are_an_error():
    with pytest.raises(InputError, match="depth"):
        make_picture(np.zeros((4, 4, 3), np.uint8), np.zeros((4, 5)), {}, size=4, form="metric")
