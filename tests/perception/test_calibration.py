"""Calibration: gravity from ground that is noisy, cluttered or absent; intrinsics from an angle."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from srgpt.geometry.camera import intrinsics_of, unproject
from srgpt.params import CalibrationParams, IngestParams
from srgpt.perception.calibration import MIN_POINTS, gravity_from_ground, ground_points
from srgpt.perception.depth import fov_of
from srgpt.sources.procedural import ProceduralSource

PARAMS = CalibrationParams()
INTRINSICS = (60.0, 60.0, 39.5, 29.5)


def down(pitch, roll):
    """Gravity of a camera that looks up by ``pitch`` and is turned by ``roll``, degrees."""
    p, r = np.radians([pitch, roll])
    return np.array([np.sin(r) * np.cos(p), np.cos(r) * np.cos(p), -np.sin(p)])


def floor_depth(gravity, height=1.5, shape=(60, 80)):
    """Depth of level ground ``height`` metres below the camera, 0 above the horizon and beyond 40 m."""
    rays = unproject(np.ones(shape), INTRINSICS)
    with np.errstate(divide="ignore"):
        depth = height / (rays @ gravity)
    return np.where((depth > 0) & (depth < 40), depth, 0.0)


def angle(a, b):
    return np.degrees(np.arccos(np.clip(np.dot(a, b), -1, 1)))


@settings(max_examples=25)
@given(st.floats(-25, 5), st.floats(-30, 30), st.integers(0, 100))
def test_exact_ground_gives_gravity_exactly(pitch, roll, seed):
    gravity = down(pitch, roll)
    depth = floor_depth(gravity)
    points = ground_points(depth, depth > 0, INTRINSICS)
    found = gravity_from_ground(points, PARAMS, np.random.default_rng(seed))
    assert found is not None
    assert angle(found, gravity) < 0.01
    assert np.linalg.norm(found) == pytest.approx(1)


def test_noise_and_things_on_the_ground_cost_little():
    gravity = down(-12, 7)
    rng = np.random.default_rng(3)
    depth = floor_depth(gravity) * (1 + 0.01 * rng.standard_normal((60, 80)))
    depth[30:45, 20:50] *= 0.7  # a box in front of a fifth of it
    points = ground_points(depth, depth > 0, INTRINSICS)
    assert angle(gravity_from_ground(points, PARAMS, rng), gravity) < 1.0


def test_the_same_numbers_give_the_same_gravity():
    depth = floor_depth(down(-10, 2)) * (1 + 0.02 * np.random.default_rng(1).standard_normal((60, 80)))
    points = ground_points(depth, depth > 0, INTRINSICS)
    first, second = (gravity_from_ground(points, PARAMS, np.random.default_rng(5)) for _ in range(2))
    assert first == second


def test_a_wall_is_no_ground():
    depth = np.full((60, 80), 3.0)
    points = ground_points(depth, np.ones_like(depth, dtype=bool), INTRINSICS)
    assert gravity_from_ground(points, PARAMS, np.random.default_rng(0)) is None


def test_a_ceiling_points_up_and_is_no_ground():
    depth = floor_depth(down(-10, 0))[::-1]
    points = ground_points(depth, depth > 0, (60.0, 60.0, 39.5, 29.5))
    assert gravity_from_ground(points, PARAMS, np.random.default_rng(0)) is None


def test_no_plane_and_too_few_points_give_nothing():
    rng = np.random.default_rng(0)
    cloud = rng.uniform(1, 9, (400, 3))
    assert gravity_from_ground(cloud, PARAMS, rng) is None
    flat = floor_depth(down(-10, 0))
    points = ground_points(flat, flat > 0, INTRINSICS)
    assert gravity_from_ground(points[: MIN_POINTS - 1], PARAMS, rng) is None
    assert gravity_from_ground(np.zeros((0, 3)), PARAMS, rng) is None
    assert gravity_from_ground(np.tile([[0.0, 1.0, 2.0]], (99, 1)), PARAMS, rng) is None, "one point 99 times"


def test_pixels_without_a_reading_are_no_ground():
    depth = floor_depth(down(-10, 0))
    depth[40:] = 0
    points = ground_points(depth, np.ones_like(depth, dtype=bool), INTRINSICS)
    assert len(points) == (depth > 0).sum()
    assert (points[:, 2] > 0).all()


def test_rendered_floors_give_the_gravity_they_were_rendered_with():
    """What is left of a rendered room without its objects and walls: pixels near the true ground plane."""
    source = ProceduralSource(IngestParams(scenes=6, procedural={"image_size": 96}), 11, "t")
    errors = []
    for scene in source.shards()[0].load().scenes:
        depth = scene.depth_metres().astype(np.float64)
        heights = unproject(depth, scene.intrinsics) @ np.array(scene.gravity)
        ground = (depth > 0) & (np.abs(heights - np.quantile(heights[depth > 0], 0.98)) < 0.05)
        points = ground_points(depth, ground, scene.intrinsics)
        found = gravity_from_ground(points, PARAMS, np.random.default_rng(0))
        if found is not None:
            errors.append(angle(found, scene.gravity))
    assert len(errors) >= 4
    assert np.median(errors) < 0.5


@given(st.floats(10, 150), st.integers(16, 4000), st.integers(16, 4000))
def test_intrinsics_have_the_angle_and_the_centre(fov, width, height):
    fx, fy, cx, cy = intrinsics_of(fov, width, height)
    assert fov_of(fx, width) == pytest.approx(fov)
    assert (fy, cx, cy) == (fx, (width - 1) / 2, (height - 1) / 2)
