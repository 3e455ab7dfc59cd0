from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from srgpt.geometry.boxes import box_of_points, canonical_box, oriented_box_of_points
from srgpt.records import Cuboid


def turn(yaw: float) -> np.ndarray:
    cos, sin = np.cos(yaw), np.sin(yaw)
    return np.array([[cos, 0, sin], [0, 1, 0], [-sin, 0, cos]])


def test_box_of_points():
    box = box_of_points(np.array([[0.0, 1, 2], [2, 0, 5], [1, 1, 3]]))
    np.testing.assert_allclose(box.center, [1, 0.5, 3.5])
    np.testing.assert_allclose(box.size, [2, 1, 3])
    assert box.near == 2


def test_canonical_box_of_a_cuboid_turned_by_45_degrees():
    cuboid = Cuboid(np.array([1.0, 2, 3]), np.array([1.0, 2, 1]), turn(np.pi / 4))
    box = canonical_box(cuboid, np.eye(3))
    np.testing.assert_allclose(box.center, [1, 2, 3])
    np.testing.assert_allclose(box.size, [np.sqrt(2), 2, np.sqrt(2)])


def test_canonical_box_goes_with_the_rotation():
    cuboid = Cuboid(np.array([1.0, 2, 3]), np.array([1.0, 2, 4]), np.eye(3))
    box = canonical_box(cuboid, np.array([[0, 1, 0], [-1, 0, 0], [0, 0, 1]]))
    np.testing.assert_allclose(box.center, [2, -1, 3])
    np.testing.assert_allclose(box.size, [2, 1, 4], atol=1e-12)


@given(
    st.floats(0, np.pi / 2 - 1e-3),
    st.floats(0.2, 3),
    st.floats(0.2, 3),
    st.integers(0, 2**32),
)
def test_oriented_box_finds_a_turned_box(yaw, width, length, seed):
    rng = np.random.default_rng(seed)
    size = np.array([width, 1.0, length])
    corners = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]) * size / 2
    inside = rng.uniform(-0.5, 0.5, (30, 3)) * size
    center = np.array([3.0, -1, 5])
    points = np.concatenate([corners, inside]) @ turn(yaw).T + center
    found = oriented_box_of_points(points)
    assert found.size[0] * found.size[2] == pytest.approx(width * length)
    np.testing.assert_allclose(found.center, center, atol=1e-9)
    # back in the found box's own axes, every point is inside
    own = (points - found.center) @ turn(found.yaw)
    assert (np.abs(own) <= found.size / 2 + 1e-9).all()
    assert 0 <= found.yaw < np.pi / 2


@given(st.integers(0, 2**32), st.integers(1, 40))
def test_oriented_box_is_never_larger_than_the_aligned_one(seed, count):
    points = np.random.default_rng(seed).normal(size=(count, 3))
    oriented, aligned = oriented_box_of_points(points), box_of_points(points)
    assert oriented.size[0] * oriented.size[2] <= aligned.size[0] * aligned.size[2] + 1e-9
    assert oriented.size[1] == pytest.approx(aligned.size[1])


def test_oriented_box_of_a_line_and_of_a_point():
    line = np.linspace([0.0, 0, 0], [3, 1, 4], 7)
    found = oriented_box_of_points(line)
    assert sorted(found.size) == pytest.approx([0, 1, 5])
    np.testing.assert_allclose(found.center, [1.5, 0.5, 2])
    np.testing.assert_allclose(oriented_box_of_points(np.ones((4, 3))).size, 0)
