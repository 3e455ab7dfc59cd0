"""Density clusters of points (DBSCAN), by blocks of points that are surely near each other.

Points are (N, 3) in metres. Every function is deterministic.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

NOISE = -1
"""The label of points that belong to no cluster."""


def dbscan(points: Floats, eps: float, min_points: int) -> Ints:
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
    blocks = _Blocks.of(points, eps)
    core = _core(points, blocks, eps, min_points)
    if not core.any():
        return labels
    labels[core] = _join(points[core], blocks.of_some(core), eps)
    if not core.all():
        away, closest = cKDTree(points[core]).query(points[~core])
        labels[~core] = np.where(away <= eps, labels[core][closest], NOISE)
    return labels


def largest_cluster(points: Floats, eps: float, min_points: int) -> NDArray[np.bool_]:
    """Return which points are in the largest DBSCAN cluster, (N,); none where there is no cluster.

    Of equally large ones the first counts.
    """
    labels = dbscan(points, eps, min_points)
    found = labels[labels != NOISE]
    if len(found) == 0:
        return np.zeros(len(points), dtype=bool)
    return labels == np.bincount(found).argmax()


_BLOCKS_IN_REACH = math.sqrt(12) * (1 + 1e-9)
"""The DBSCAN radius in edges of a block: two points in touching blocks are never farther apart."""

_MANY_BLOCKS = 2**18


@dataclass(frozen=True)
class _Blocks:
    """Each point's place in a grid (N, 3), and the number of its block (N,): in a grid laid out row by row, where
    that is not too large."""

    places: Ints
    numbers: Ints
    shape: tuple[int, ...]

    @classmethod
    def of(cls, points: Floats, eps: float) -> _Blocks:
        places = np.floor((points - points.min(axis=0)) * (_BLOCKS_IN_REACH / eps)).astype(np.int64)
        shape = tuple((places.max(axis=0) + 1).tolist())
        if math.prod(shape) > _MANY_BLOCKS:
            return cls(places, np.unique(places, axis=0, return_inverse=True)[1].reshape(-1), shape)
        return cls(places, np.ravel_multi_index(tuple(places.T), shape), shape)

    def of_some(self, chosen: NDArray[np.bool_]) -> _Blocks:
        """Return the blocks of the chosen points only."""
        return self if chosen.all() else _Blocks(self.places[chosen], self.numbers[chosen], self.shape)

    def count(self) -> Ints | None:
        """Return how many points lie in each block of the grid; None where the radius is too small for a grid."""
        if math.prod(self.shape) > _MANY_BLOCKS:
            return None
        return np.bincount(self.numbers, minlength=math.prod(self.shape)).reshape(self.shape)


def _core(points: Floats, blocks: _Blocks, eps: float, min_points: int) -> NDArray[np.bool_]:
    """Return which points have ``min_points`` within ``eps``: the blocks say for most, a search for the others."""
    core = np.zeros(len(points), dtype=bool)
    around = blocks.count()
    if around is not None:
        for axis in range(3):
            around = ndimage.convolve1d(around, [1, 1, 1], axis=axis, mode="constant")
        core = around.ravel()[blocks.numbers] >= min_points
    unsure = np.flatnonzero(~core)
    if len(unsure):
        reach = np.nextafter(eps, np.inf)  # the bound itself counts as within reach
        distances, _ = cKDTree(points).query(points[unsure], k=[min_points], distance_upper_bound=reach)
        core[unsure] = np.isfinite(distances[:, 0])
    return core


def _join(points: Floats, blocks: _Blocks, eps: float) -> Ints:
    """Label core points (C, 3) so that those within ``eps`` of each other belong together.

    Those of touching blocks do. Only where blocks that do not hang together are near each other do distances
    decide.
    """
    labels = blocks.numbers
    if (counts := blocks.count()) is not None:
        labels = ndimage.label(counts, np.ones((3, 3, 3)))[0].ravel()[labels]
    if not np.ptp(labels):
        return np.zeros(len(points), dtype=np.int64)
    _, labels = np.unique(labels, return_inverse=True)
    _, first, block = np.unique(blocks.numbers, return_index=True, return_inverse=True)
    near = cKDTree(blocks.places[first]).query_pairs(_NEAR, p=np.inf, output_type="ndarray")
    border = np.zeros(len(first), dtype=bool)
    border[near[np.ptp(labels[first][near], axis=1) > 0]] = True
    between = np.flatnonzero(border[block])
    pairs = labels[between[cKDTree(points[between]).query_pairs(eps, output_type="ndarray")]]
    size = int(labels.max()) + 1
    links = coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(size, size))
    joined = connected_components(links, directed=False)[1][labels]
    _, first, numbers = np.unique(joined, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[numbers]


_NEAR = math.ceil(_BLOCKS_IN_REACH)
"""Blocks between which points can be within reach are at most so far apart."""
