from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from srgpt.geometry.camera import unproject_pixels
from srgpt.geometry.clustering import NOISE, dbscan, largest_cluster
from srgpt.geometry.pointcloud import (
    neighbour_distances,
    pixel_neighbour_distances,
    remove_outliers,
    thin,
    voxel_downsample,
)


def brute_dbscan(points, eps, min_points):
    """DBSCAN by definition: flood fill over core points, border points to their nearest core point."""
    distance = np.linalg.norm(points[:, None] - points[None], axis=2)
    core = (distance <= eps).sum(axis=1) >= min_points
    labels = np.full(len(points), NOISE)
    cluster = 0
    for start in np.flatnonzero(core):
        if labels[start] != NOISE:
            continue
        stack = [start]
        while stack:
            i = stack.pop()
            if labels[i] == NOISE:
                labels[i] = cluster
                stack += [j for j in np.flatnonzero(core & (distance[i] <= eps)) if labels[j] == NOISE]
        cluster += 1
    for i in np.flatnonzero(~core):
        if core.any():
            nearest = np.flatnonzero(core)[distance[i][core].argmin()]
            if distance[i][nearest] <= eps:
                labels[i] = labels[nearest]
    return labels


@given(
    st.integers(0, 2**32),
    st.integers(1, 90),
    st.sampled_from([1e-8, 0.05, 0.2, 0.5, 3.0]),
    st.integers(1, 12),
    st.sampled_from([1.0, 300.0]),
)
def test_dbscan_equals_its_definition(seed, count, eps, min_points, apart):
    rng = np.random.default_rng(seed)
    centres = rng.uniform(-apart, apart, (3, 3))  # 300 m at a radius of 5 cm: no grid is laid out
    points = centres[rng.integers(3, size=count)] + rng.normal(scale=0.15, size=(count, 3))
    np.testing.assert_array_equal(dbscan(points, eps, min_points), brute_dbscan(points, eps, min_points))


def test_dbscan_counts_the_radius_itself():
    # on a line with exact spacing: every inner point has two neighbours at exactly eps
    line = np.zeros((8, 3))
    line[:, 0] = np.arange(8) * 0.25
    np.testing.assert_array_equal(dbscan(line, 0.25, 3), np.zeros(8))
    np.testing.assert_array_equal(dbscan(line, 0.24, 2), np.full(8, NOISE))


def test_dbscan_joins_two_dense_lumps_over_a_link_that_nearest_neighbours_miss():
    rng = np.random.default_rng(0)
    lump = rng.normal(scale=0.01, size=(40, 3))
    points = np.concatenate([lump, lump + np.array([0.3, 0, 0])])
    assert dbscan(points, 0.4, 5).max() == 0
    assert dbscan(points, 0.2, 5).max() == 1


def test_largest_cluster():
    rng = np.random.default_rng(1)
    points = np.concatenate(
        [rng.normal(scale=0.05, size=(30, 3)), rng.normal(scale=0.05, size=(50, 3)) + 2, [[9, 9, 9]]]
    )
    expected = np.repeat([False, True, False], [30, 50, 1])
    np.testing.assert_array_equal(largest_cluster(points, 0.3, 4), expected)
    assert not largest_cluster(points, 1e-6, 4).any()
    assert largest_cluster(np.zeros((0, 3)), 0.2, 4).shape == (0,)


def outliers(points, count, std_ratio):
    return ~remove_outliers(neighbour_distances(points, count), std_ratio)


def test_outliers_are_those_far_from_their_neighbours():
    rng = np.random.default_rng(2)
    points = np.concatenate([rng.normal(scale=0.1, size=(200, 3)), [[4.0, 0, 0], [0, 5, 0]]])
    out = outliers(points, 10, 2.0)
    assert out[200:].all()
    assert out[:200].mean() < 0.05


@pytest.mark.parametrize("count", [1, 2, 5])
def test_few_points_have_no_outliers(count):
    assert not outliers(np.arange(count)[:, None] * np.ones(3), 10, 1.0).all()


def test_evenly_spaced_points_are_no_outliers():
    circle = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    points = np.stack([np.cos(circle), np.sin(circle), 0 * circle], axis=1)
    assert not outliers(points, 4, 0.5).any()


@pytest.mark.parametrize("chosen", [None, np.arange(0, 300, 3), np.array([7, 7, 299])])
def test_neighbours_are_the_nearest_others(chosen):
    points = np.random.default_rng(4).normal(size=(300, 3))
    every = np.sort(np.linalg.norm(points[:, None] - points[None], axis=2), axis=1)[:, 1:9].mean(axis=1)
    expected = every if chosen is None else every[chosen]
    np.testing.assert_allclose(neighbour_distances(points, 8, chosen), expected)


def seen(depth, mask, focal=200.0):
    """Return pixels (column by column), points and the spacing of facing neighbours of a depth map under a mask."""
    u, v = np.nonzero(mask.T)
    z = depth[v, u]
    return u, v, unproject_pixels(u, v, z, (focal, focal, 30.0, 20.0)), z / focal


SURFACES = {
    "facing": lambda u, v: 2.0 + 0 * u,
    "slanted by 45 degrees": lambda u, v: 2.0 / (1 - (u - 30) / 200),
    "slanted by 63 degrees, aside": lambda u, v: 2.0 / (1 - (u + v - 50) / 140),
    "ball": lambda u, v: 2.0 - np.sqrt(np.clip(0.09 - ((u - 30) ** 2 + (v - 20) ** 2) / 1e4, 0, None)),
    "two steps": lambda u, v: 2.0 + 0.5 * (u > 20) + 0.7 * (v > 25),
    "rough": lambda u, v: 2.0 + 0.01 * np.random.default_rng(0).normal(size=u.shape),
}


@pytest.mark.parametrize("surface", SURFACES)
@pytest.mark.parametrize("count", [4, 9, 10, 25, 70])
def test_neighbours_of_pixels_are_those_of_their_points(surface, count):
    v, u = np.mgrid[:40, :60]
    depth = np.broadcast_to(SURFACES[surface](u, v), u.shape)
    mask = np.random.default_rng(1).random(u.shape) < 0.97
    pixels = seen(depth, mask)
    chosen = thin(pixels[0], pixels[1], 700)
    exact = neighbour_distances(pixels[2], count, chosen)
    found = pixel_neighbour_distances(*pixels, count, chosen)
    assert (found >= exact * (1 - 1e-4)).all()  # none nearer than the nearest
    assert np.median(found / exact) < 1.001
    assert (found / exact < 1.02).mean() > 0.9


@pytest.mark.parametrize("share", [0.002, 0.01, 0.1])
def test_scattered_pixels_find_their_neighbours_wherever_they_are(share):
    _, u = np.mgrid[:100, :100]
    mask = np.random.default_rng(2).random(u.shape) < share
    pixels = seen(2.0 + 0.001 * u, mask)
    every = np.arange(len(pixels[0]))
    found = pixel_neighbour_distances(*pixels, 9, every)
    exact = neighbour_distances(pixels[2], 9)
    assert (found >= exact * (1 - 1e-4)).all()
    assert np.median(found / exact) < 1.05


def test_a_single_pixel_has_no_neighbours():
    pixels = seen(np.full((3, 3), 2.0), np.eye(3) == np.diag([0, 1, 0]))
    pixels = tuple(np.asarray(x)[:1] for x in pixels)
    assert pixel_neighbour_distances(*pixels, 9, np.array([0])).tolist() == [0.0]


@given(st.integers(0, 2**32), st.integers(1, 50), st.sampled_from([0.1, 0.5, 5.0]))
def test_voxels(seed, count, edge):
    points = np.random.default_rng(seed).uniform(-1, 1, (count, 3))
    centroids, voxel = voxel_downsample(points, edge)
    cells = np.floor((points - points.min(axis=0)) / edge)
    assert len(centroids) == len(np.unique(cells, axis=0))
    for index, centroid in enumerate(centroids):
        np.testing.assert_allclose(points[voxel == index].mean(axis=0), centroid, atol=1e-12)
        assert (np.ptp(cells[voxel == index], axis=0) == 0).all()


@given(st.integers(1, 60), st.integers(1, 60), st.integers(4, 400), st.integers(0, 99))
def test_thinning_keeps_area_and_extent(width, height, limit, seed):
    mask = np.random.default_rng(seed).random((height, width)) < 0.9
    mask[0, 0] = True
    v, u = np.nonzero(mask)
    chosen = thin(u, v, limit)
    assert (np.diff(chosen) > 0).all()
    assert len(chosen) <= max(limit, len(u) if len(u) <= limit else 2 * limit) + 4
    assert len(chosen) >= min(len(u), limit / 8)
    assert (np.ptp(u[chosen]), np.ptp(v[chosen])) == (np.ptp(u), np.ptp(v))


def test_a_line_does_not_fall_through_the_grid_of_thinning():
    v = np.arange(900)
    assert 100 <= len(thin(np.full(900, 7), v, 100)) <= 104
    assert len(thin(v, v, 100)) >= 30
