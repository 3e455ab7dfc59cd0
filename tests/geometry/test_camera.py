from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from srgpt.errors import InputError
from srgpt.geometry.camera import canonical_rotation, intrinsics_matrix, project, unproject, unproject_pixels

coordinate = st.floats(-1, 1, allow_nan=False)
vector = st.tuples(coordinate, coordinate, coordinate).map(np.array)


@given(vector)
def test_rotation_maps_gravity_to_plus_y_and_keeps_the_heading(gravity):
    length = np.linalg.norm(gravity)
    assume(length > 1e-3)
    assume(np.hypot(gravity[0], gravity[1]) / length > 2e-3)
    R = canonical_rotation(gravity)
    np.testing.assert_allclose(R @ R.T, np.eye(3), atol=1e-9)
    assert np.linalg.det(R) == pytest.approx(1)
    np.testing.assert_allclose(R @ gravity / length, [0, 1, 0], atol=1e-9)
    x, _, z = R @ [0, 0, 1]  # the optical axis stays straight ahead
    assert x == pytest.approx(0, abs=1e-9)
    assert z > 0


def test_rotation_of_a_level_camera_is_the_identity():
    np.testing.assert_allclose(canonical_rotation([0, 9.81, 0]), np.eye(3), atol=1e-12)


def test_rotation_of_a_camera_that_looks_down_by_30_degrees():
    # what lies straight ahead of the lens is below the horizon
    R = canonical_rotation([0, np.cos(np.pi / 6), np.sin(np.pi / 6)])
    np.testing.assert_allclose(R @ [0, 0, 1], [0, 0.5, np.sqrt(3) / 2], atol=1e-12)


def test_rotation_of_a_rolled_camera():
    # gravity towards the picture's right: what is right in the picture is down in the world
    np.testing.assert_allclose(canonical_rotation([1, 0, 0]) @ [1, 0, 0], [0, 1, 0], atol=1e-12)
    np.testing.assert_allclose(canonical_rotation([1, 0, 0]) @ [0, 1, 0], [-1, 0, 0], atol=1e-12)


@pytest.mark.parametrize(
    ("gravity", "says"),
    [
        ((0, 0, 0), "zero"),
        ((0, np.nan, 0), "finite"),
        ((0, np.inf, 0), "finite"),
        ((0, 0, 1), "heading"),
        ((0, 0, -2), "heading"),
        ((0, 1), "three"),
    ],
)
def test_rotation_refuses_what_has_no_direction(gravity, says):
    with pytest.raises(InputError, match=says):
        canonical_rotation(gravity)


@pytest.mark.parametrize("bad", [(0, 1, 2, 3), (1, -1, 2, 3), (1, 1, np.nan, 3), (1, 1, 2)])
def test_intrinsics_are_checked(bad):
    with pytest.raises(InputError, match="intrinsics"):
        intrinsics_matrix(bad)


def test_intrinsics_matrix():
    np.testing.assert_array_equal(intrinsics_matrix((5, 6, 7, 8)), [[5, 0, 7], [0, 6, 8], [0, 0, 1]])


def test_the_principal_point_unprojects_straight_ahead():
    points = unproject(np.full((5, 7), 2.0), (10, 10, 3, 2))
    assert points.shape == (5, 7, 3)
    np.testing.assert_allclose(points[2, 3], [0, 0, 2])
    np.testing.assert_allclose(points[2, 4], [0.2, 0, 2])  # one pixel to the right
    np.testing.assert_allclose(points[0, 3], [0, -0.4, 2])  # two pixels up


@given(
    st.floats(20, 2000),
    st.floats(20, 2000),
    st.floats(-500, 500),
    st.floats(-500, 500),
    st.floats(0.01, 100),
    st.tuples(st.floats(-1000, 1000), st.floats(-1000, 1000)),
)
def test_projecting_undoes_unprojecting(fx, fy, cx, cy, depth, pixel):
    intrinsics = (fx, fy, cx, cy)
    point = unproject_pixels(pixel[0], pixel[1], depth, intrinsics)
    K = intrinsics_matrix(intrinsics)
    np.testing.assert_allclose(project(point[None], intrinsics)[0], pixel, atol=1e-6)
    np.testing.assert_allclose((K @ point)[:2] / depth, pixel, atol=1e-6)


def test_projecting_a_point_behind_the_camera_is_a_mistake():
    with pytest.raises(ValueError, match="behind"):
        project(np.array([[0.0, 0, -1]]), (10, 10, 0, 0))
