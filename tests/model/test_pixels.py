"""Images, depth and masks before the model."""

import numpy as np
import pytest

from srgpt.errors import InputError
from srgpt.model.pixels import box_mask, encode_depth_image, make_picture, normalise, squash_mask


def test_relative_depth_is_min_max_inverse_depth():
    depth = np.array([[1.0, 2.0], [4.0, 0.0]])
    # inverse 1, 0.5, 0.25: (0.5 - 0.25) / 0.75 * 255 = 85
    assert encode_depth_image(depth, "relative").tolist() == [[255, 85], [0, 0]]


def test_metric_depth_is_a_fixed_logarithmic_scale():
    depth = np.array([[0.2, 80.0, 4.0, 0.0, np.nan, 500.0, 0.01]])
    # log(80 / 4) / log(80 / 0.2) = 1/2: the middle of 1..255
    assert encode_depth_image(depth, "metric").tolist() == [[255, 1, 128, 0, 0, 1, 255]]


@pytest.mark.parametrize("encoding", ["relative", "metric"])
def test_constant_and_missing_depth_do_not_divide_by_zero(encoding):
    with np.errstate(all="raise"):
        assert len(np.unique(encode_depth_image(np.full((3, 3), 2.0), encoding))) == 1
        assert encode_depth_image(np.zeros((2, 2)), encoding).tolist() == [[0, 0], [0, 0]]


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
    picture = make_picture(rgb, np.full((20, 40), 2.0), {4: mask}, size=8, encoding="metric")
    assert picture.rgb.shape == (8, 8, 3)
    assert (picture.rgb[:, 0] == 0).all()
    assert (picture.rgb[:, 7] >= 199).all()
    assert picture.masks[0, :, 3].tolist() == [255] * 4 + [0] * 4
    assert picture.region_ids == (4,)


def test_sizes_that_differ_are_an_error():
    with pytest.raises(InputError, match="depth"):
        make_picture(np.zeros((4, 4, 3), np.uint8), np.zeros((4, 5)), {}, size=4, encoding="metric")
