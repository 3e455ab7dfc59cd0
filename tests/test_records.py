"""Records keep their content through rows, PNG and RLE, and refuse what is broken."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from srgpt.errors import InputError
from srgpt.records import (
    CATEGORIES,
    GROUP_OF,
    QUALITATIVE,
    QUANTITATIVE,
    Box,
    Cuboid,
    Region,
    Scene,
    decode_depth,
    decode_rle,
    encode_depth,
    encode_rle,
    rle_length,
)


def test_the_categories_are_the_references_24() -> None:
    assert len(CATEGORIES) == 24
    assert len(QUALITATIVE) == len(QUANTITATIVE) == 6
    assert GROUP_OF["above_choice"] == "below_above"
    assert GROUP_OF["direction"] == "direction"


@given(arrays(np.bool_, st.tuples(st.integers(1, 20), st.integers(1, 20))))
@settings(max_examples=60, deadline=None)
def test_rle_round_trip(mask: np.ndarray) -> None:
    rle = encode_rle(mask)
    assert rle_length(rle["counts"]) == mask.size
    np.testing.assert_array_equal(decode_rle(rle), mask)


@pytest.mark.parametrize("counts", ["", "~~~~", "abc", "0" * 50, "PPPPPPPPPPPP", " "])
def test_a_broken_rle_is_refused_by_name(counts: str) -> None:
    with pytest.raises(InputError, match="broken RLE"):
        decode_rle({"size": [7, 9], "counts": counts})


@given(st.text(alphabet=st.characters(min_codepoint=32, max_codepoint=126), max_size=40))
@settings(max_examples=200, deadline=None)
def test_any_string_decodes_or_is_refused(counts: str) -> None:
    try:
        mask = decode_rle({"size": [5, 6], "counts": counts})
    except InputError:
        return
    assert mask.shape == (5, 6)
    assert rle_length(counts) == 30


def test_depth_is_kept_to_half_a_millimetre_and_gaps_stay_gaps() -> None:
    depth = np.array([[1.2345, 0.0, np.nan], [65.0, 70.0, -1.0]])
    back = decode_depth(encode_depth(depth))
    assert back.dtype == np.float32
    np.testing.assert_allclose(back, [[1.2345, 0, 0], [65.0, 0, 0]], atol=5.001e-4)


def test_cuboid_corners_of_a_turned_box() -> None:
    quarter = np.array([[0.0, 0, 1], [0, 1, 0], [-1, 0, 0]])  # +90 degrees about y: own x becomes camera -z
    corners = Cuboid(np.array([1.0, 2, 3]), np.array([2.0, 4, 6]), quarter).corners()
    np.testing.assert_allclose(corners.min(0), [1 - 3, 2 - 2, 3 - 1])
    np.testing.assert_allclose(corners.max(0), [1 + 3, 2 + 2, 3 + 1])


def test_the_near_face_of_a_box() -> None:
    assert Box(np.array([0.0, 0, 5]), np.array([1.0, 1, 2])).near == 4.0


def test_scene_survives_its_row() -> None:
    cuboid = Cuboid(np.arange(3.0), np.ones(3), np.eye(3))
    region = Region(
        3,
        "chair",
        "red chair",
        (0, 1, 2, 3),
        {"size": [2, 2], "counts": "04"},
        "given",
        cuboid,
        0.5,
        0.1,
        0.9,
    )
    scene = Scene(
        "d",
        "s",
        4,
        5,
        b"png",
        (region,),
        b"d",
        "given",
        (1, 2, 3, 4),
        "given",
        (0, 1, 0),
        "level",
        "u",
        "CC0-1.0",
    )
    again = Scene.from_row(scene.to_row())
    assert again.replace(regions=()) == scene.replace(regions=())
    assert again.regions[0].to_row() == region.to_row()
