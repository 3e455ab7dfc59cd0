"""Cleaning of object point clouds: thinning, statistical outliers, voxel grid.

Points are (N, 3) in metres; all is many times faster where they lie in memory coordinate by coordinate. Every
function is deterministic.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from scipy.spatial.distance import cdist

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]
Ints = NDArray[np.int64]


def select(points: Floats, chosen: NDArray[np.bool_] | Ints) -> Floats:
    """Return the ``chosen`` points (M, 3), coordinate by coordinate in memory."""
    return points.T[:, chosen].T


def thin(u: Ints, v: Ints, limit: int) -> Ints:
    """Return indices, in order, of about ``limit`` of the pixels (u, v), (N,), that cover the same area and extent.

    About every s-th pixel of every s-th row, and those farthest to each side; where a narrow shape falls through such
    a grid, an even spread over all pixels.
    """
    count = len(u)
    if count <= limit:
        return np.arange(count)
    step = math.ceil(math.sqrt(count / limit))
    taken = _every(u, step) & _every(v, step)
    if not 0.5 <= np.count_nonzero(taken) * step**2 / count <= 2:
        taken = np.zeros(count, dtype=bool)
        taken[np.linspace(0, count - 1, limit).round().astype(np.int64)] = True
    taken[[u.argmin(), u.argmax(), v.argmin(), v.argmax()]] = True
    return np.flatnonzero(taken)


def _every(places: Ints, step: int) -> NDArray[np.bool_]:
    """Return which rows or columns (N,) are taken: about every ``step``-th, as far from both ends."""
    first, last = int(places.min()), int(places.max())
    taken = np.zeros(last + 1, dtype=bool)
    taken[first + (last - first) % step // 2 :: step] = True
    return taken[places]


# Outliers -----------------------------------------------------------------------------------------------------


def remove_outliers(distances: NDArray[np.floating], std_ratio: float) -> NDArray[np.bool_]:
    """Return which points to keep, (N,), by their mean distances to their nearest neighbours, (N,).

    A point goes where its distance exceeds the mean of all by more than ``std_ratio`` of their standard
    deviation (Rusu and Cousins, "3D is here", 2011).
    """
    mean = float(distances.mean())
    # equal spacing has a spread of rounding errors only, which must not decide
    return distances <= mean * (1 + 1e-5) + std_ratio * float(distances.std())


def neighbour_distances(points: Floats, count: int, chosen: Ints | None = None) -> Floats:
    """Return the mean distance of each point, or of the ``chosen`` ones, to its ``count`` nearest others.

    Where there are fewer others it is the mean over these; 0 for a point alone.
    """
    asked = points if chosen is None else points[chosen]
    count = min(count, len(points) - 1)
    if count < 1:
        return np.zeros(len(asked))
    if len(asked) <= _FEW:  # sooner than a tree is made
        distances = np.sqrt(np.partition(cdist(asked, points, "sqeuclidean"), count, axis=1)[:, : count + 1])
        return distances.sum(axis=1) / count  # one is the point itself, at 0
    distances, _ = cKDTree(points).query(asked, k=count + 1)
    return distances.sum(axis=1) / count


_FEW = 16


def pixel_neighbour_distances(
    u: Ints, v: Ints, points: Floats, facing: NDArray[np.floating], count: int, chosen: Ints
) -> Singles:
    """Return what :func:`neighbour_distances` does for the ``chosen`` points (M,), many times faster.

    The points (N, 3) are those of pixels (u, v), (N,), of one picture, in whose neighbourhood their nearest
    points are: in the :data:`_CLOSE` pixels where the surface faces the camera, in the :data:`_WIDE` ones where
    it turns away from it by more than about 60 degrees, is rough or breaks off, and beyond them where fewer than
    ``count`` pixels there have a point. ``facing`` (N,) is the distance in metres of neighbouring pixels' points on
    a surface that faces the camera. Exact where most of the points need the wide neighbourhood; where few do,
    a part that turns away by more than about 75 degrees has nearer points outside of it still, and comes out as too
    far from its neighbours, by up to a few times at the worst.
    """
    if count > len(_CLOSE):
        return neighbour_distances(points, count, chosen).astype(np.float32)
    left, top = int(u.min()) - _REACH, int(v.min()) - _REACH
    rows = int(v.max()) + 1 + _REACH - top
    at = u * rows + v - (left * rows + top)
    grid = np.full((3, (int(u.max()) + 1 + _REACH - left) * rows), _NOWHERE, np.float32)
    grid[:, at] = points.T
    at = at[chosen]
    mean, last = _nearest_in(grid, at, _CLOSE @ (rows, 1), count)
    unsure = np.flatnonzero(last > _TURNED * facing[chosen])
    if len(unsure) > len(at) / 2:  # they may lie anywhere
        mean[unsure] = neighbour_distances(points, count, chosen[unsure])
        return mean
    mean[unsure], last[unsure] = _nearest_in(grid, at[unsure], _WIDE @ (rows, 1), count)
    lonely = np.flatnonzero(last > _NOWHERE / 2)
    if len(lonely):
        mean[lonely] = neighbour_distances(points, count, chosen[lonely])
    return mean


_REACH = 5
_NOWHERE = 1e6
"""Coordinate of pixels without a point, metres: farther from all others than any neighbour."""


def _pixels(near: NDArray[np.bool_]) -> Ints:
    """Return the offsets (K, 2), columns and rows, of a neighbourhood (11, 11), less the pixel itself."""
    near[_REACH, _REACH] = False
    return np.argwhere(near) - _REACH


_ASIDE = np.abs(np.mgrid[-_REACH : _REACH + 1, -_REACH : _REACH + 1])
_CLOSE = _pixels((_ASIDE**2).sum(axis=0) <= 4)
"""The 12 pixels up to 2 away."""
_TURNED = 2.6
"""Where the last of the nearest is farther away than so many pixels, nearer ones may lie beyond."""
_WIDE = _pixels((_ASIDE.max(axis=0) <= 2) | (_ASIDE.min(axis=0) == 0))
"""Those up to 2 away in both directions, and up to 5 in the same row or column.

Seen at a slant, points lie closer along one direction, most often about a row or a column.
"""


def _nearest_in(grid: Singles, at: Ints, offsets: Ints, count: int) -> tuple[Singles, Singles]:
    """Return the mean distance of the grid's points ``at`` (M,) to the ``count`` nearest ones at ``offsets``
    from them, and the distance of the last of these."""
    mean, last = np.empty(len(at), np.float32), np.empty(len(at), np.float32)
    for start in range(0, len(at), _CHUNK):  # small enough for the processor's cache
        own = at[start : start + _CHUNK]
        others = offsets[:, None] + own
        squares = np.zeros(others.shape, np.float32)
        for axis in grid:
            difference = axis.take(others)
            difference -= axis.take(own)
            difference *= difference
            squares += difference
        nearest = np.sqrt(_least(squares, count))
        mean[start : start + _CHUNK] = nearest.mean(axis=0)
        last[start : start + _CHUNK] = nearest.max(axis=0)
    return mean, last


def _least(values: Singles, count: int) -> Singles:
    """Return the ``count`` least of each column of values (K, M), (count, M), in any order; changes ``values``."""
    drop = len(values) - count
    if drop > 4:
        return np.partition(values, count - 1, axis=0)[:count]
    for end in range(len(values) - 1, count - 1, -1):  # as bubbles rise: sooner done for a few
        for one, next_one in itertools.pairwise(values[: end + 1]):
            least = np.minimum(one, next_one)
            np.maximum(one, next_one, out=next_one)
            one[:] = least
    return values[:count]


_CHUNK = 2048


# Voxels -------------------------------------------------------------------------------------------------------


def voxel_downsample(points: Floats, edge: float, margin: float = 0.0) -> tuple[Floats, Ints]:
    """Return the centroids (M, 3) of points in voxels of ``edge`` metres, and each point's voxel (N,).

    The grid begins ``margin`` metres before the least coordinates.
    """
    cells = np.floor((points - (points.min(axis=0) - margin)) / edge).astype(np.int64)
    shape = cells.max(axis=0) + 1
    keys = (cells[:, 0] * shape[1] + cells[:, 1]) * shape[2] + cells[:, 2]
    if np.prod(shape) <= _MANY_CELLS:  # counting is sooner done than sorting
        counts = np.bincount(keys)
        occupied = np.flatnonzero(counts)
        voxel = (np.cumsum(counts > 0) - 1)[keys]
        counts = counts[occupied]
    else:
        _, voxel, counts = np.unique(keys, return_inverse=True, return_counts=True)
    sums = np.stack([np.bincount(voxel, weights=axis) for axis in points.T])
    return (sums / counts).T, voxel


_MANY_CELLS = 2**17
