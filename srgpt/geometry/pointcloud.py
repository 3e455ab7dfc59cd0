"""Cleaning of object point clouds: thinning, statistical outliers, voxel grid, density clusters.

Every function takes points (N, 3) float64 in metres and is deterministic.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

Floats = NDArray[np.float64]

NOISE = -1
"""The label of points that belong to no cluster."""


def thin(u: NDArray[np.int64], v: NDArray[np.int64], limit: int) -> NDArray[np.int64]:
    """Return indices, in order, of about ``limit`` of the pixels (u, v), (N,), that cover the same area and extent.

    Every s-th pixel of every s-th row, and those farthest to each side; where a narrow shape falls through such
    a grid, an even spread over all pixels.
    """
    count = len(u)
    if count <= limit:
        return np.arange(count)
    step = math.ceil(math.sqrt(count / limit))
    grid = np.flatnonzero(((u - u.min()) % step == 0) & ((v - v.min()) % step == 0))
    if not 0.5 <= len(grid) * step**2 / count <= 2:
        grid = np.linspace(0, count - 1, limit).round().astype(np.int64)
    ends = [u.argmin(), u.argmax(), v.argmin(), v.argmax()]
    return np.unique(np.concatenate([grid, ends]))


def remove_outliers(points: Floats, neighbours: int, std_ratio: float) -> NDArray[np.bool_]:
    """Return which points to keep, (N,): those not unusually far from their nearest neighbours.

    A point goes where its mean distance to its ``neighbours`` nearest others exceeds the mean of these means
    by more than ``std_ratio`` of their standard deviation (Rusu and Cousins, "3D is here", 2011).
    """
    count = min(neighbours, len(points) - 1)
    if count < 1:
        return np.ones(len(points), dtype=bool)
    distances, _ = cKDTree(points).query(points, k=count + 1)
    mean = distances[:, 1:].mean(axis=1)  # the first neighbour is the point itself
    # equal spacing has a spread of rounding errors only, which must not decide
    return mean <= mean.mean() + std_ratio * mean.std() + 1e-9


def voxel_downsample(points: Floats, edge: float, margin: float = 0.0) -> tuple[Floats, NDArray[np.int64]]:
    """Return the centroids (M, 3) of points in voxels of ``edge`` metres, and each point's voxel (N,).

    The grid begins ``margin`` metres before the least coordinates.
    """
    cells = np.floor((points - (points.min(axis=0) - margin)) / edge).astype(np.int64)
    shape = cells.max(axis=0) + 1
    keys = (cells[:, 0] * shape[1] + cells[:, 1]) * shape[2] + cells[:, 2]
    _, voxel, counts = np.unique(keys, return_inverse=True, return_counts=True)
    sums = np.stack([np.bincount(voxel, weights=points[:, axis]) for axis in range(3)], axis=1)
    return sums / counts[:, None], voxel


def dbscan(points: Floats, eps: float, min_points: int) -> NDArray[np.int64]:
    """Return a cluster label (N,) per point, :data:`NOISE` for none (Ester et al., DBSCAN, 1996).

    A core point has at least ``min_points`` points, itself included, within ``eps``. Core points within
    ``eps`` of each other share a cluster; another point within ``eps`` of a core point joins its nearest one.
    Clusters are numbered in the order of their first core point.
    """
    count = len(points)
    labels = np.full(count, NOISE, dtype=np.int64)
    if count < min_points or count == 0:
        return labels
    if np.linalg.norm(np.ptp(points, axis=0)) <= eps:  # all within reach of all
        return np.zeros(count, dtype=np.int64)
    tree = cKDTree(points)
    # the bound itself counts as within reach
    reach = np.nextafter(eps, np.inf)
    distance, nearest = tree.query(points, k=range(1, min_points + 1), distance_upper_bound=reach)
    core = np.isfinite(distance[:, -1])
    if not core.any():
        return labels
    labels[core] = _join_core(points, core, nearest[core], eps)
    border = np.flatnonzero(~core)
    if len(border):
        away, closest = cKDTree(points[core]).query(points[border])
        near = away <= eps
        labels[border[near]] = labels[core][closest[near]]
    return labels


def _join_core(
    points: Floats, core: NDArray[np.bool_], nearest: NDArray[np.int64], eps: float
) -> NDArray[np.int64]:
    """Label the core points (C,), ``nearest`` (C, K) being their nearest points, all within ``eps``.

    Nearest neighbours often join everything already; only where they do not are all pairs within ``eps``
    needed.
    """
    count = int(core.sum())
    own = np.arange(count)
    position = np.cumsum(core) - 1
    neighbours = np.where(core[nearest], position[nearest], own[:, None])
    starts = np.arange(count + 1) * neighbours.shape[1]
    links = csr_array((np.ones(neighbours.size), neighbours.ravel(), starts), shape=(count, count))
    labels = _components(links)
    if labels.any():
        pairs = cKDTree(points[core]).query_pairs(eps, output_type="ndarray")
        links = coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
        labels = _components(links)
    return labels


def _components(links: coo_array | csr_array) -> NDArray[np.int64]:
    """Label points so that ``links`` (C, C) join them, numbered by first appearance."""
    labels = connected_components(links, directed=False)[1]
    if not labels.any():
        return labels.astype(np.int64)
    first = np.unique(labels, return_index=True)[1]
    return np.argsort(np.argsort(first))[labels]


def largest_cluster(points: Floats, eps: float, min_points: int) -> NDArray[np.bool_]:
    """Return which points are in the largest DBSCAN cluster, (N,); none where there is no cluster.

    Of equally large ones the first counts.
    """
    labels = dbscan(points, eps, min_points)
    found = labels[labels != NOISE]
    if len(found) == 0:
        return np.zeros(len(points), dtype=bool)
    return labels == np.bincount(found).argmax()
