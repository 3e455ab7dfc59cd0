"""Questions as SpatialRGPT's own pipeline asks them: its definitions, its choice of pairs, its biases.

For comparison with the released data, not for training: the larger mask is always mentioned first (so that "is A
wider" is mostly yes), clock hours are rounded down, there are no ties, and horizontal distance runs along x alone.
Facts come from the cleaned clouds that ``lift.compat: reference`` keeps. Its frame has x to the left and y up; here
x is right and y down, so its comparisons of x and y turn around.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from srgpt.curation.facts import Subject, relation_of
from srgpt.curation.phrasing import phrase, state
from srgpt.errors import InputError
from srgpt.geometry.boxes import box_of_points
from srgpt.geometry.units import format_length
from srgpt.records import CATEGORIES, REASONING, UNIT_OF, Node, SceneGraph, Turn, rle_runs

PAIRS = 3
QUESTIONS_PER_PAIR = 3

Cloud = NDArray[np.float64]


def fact(category: str, a: Cloud, b: Cloud) -> float:
    """Return the fact of a category between two clouds (N, 3), by SpatialRGPT's definition.

    Positions are means of points, *behind* and *front* compare nearest points, sizes are those of the axis-aligned
    boxes around the points; a distance is the mean over both clouds of each point's distance to the other cloud.
    """
    one, other = box_of_points(a), box_of_points(b)
    if category == "width_data":
        return float(one.size[0])
    if category == "height_data":
        return float(one.size[1])
    if category == "vertical_distance_data":
        return abs(float(one.center[1] - other.center[1]))
    if category == "horizontal_distance_data":
        return abs(float(one.center[0] - other.center[0]))
    if category == "distance_data":
        return mean_nearest(a, b)
    if category == "direction":
        return float(floored_hour(a.mean(axis=0), b.mean(axis=0)))
    measure = {
        "left": (-a[:, 0].mean(), -b[:, 0].mean()),
        "right": (a[:, 0].mean(), b[:, 0].mean()),
        "above": (-a[:, 1].mean(), -b[:, 1].mean()),
        "below": (a[:, 1].mean(), b[:, 1].mean()),
        "behind": (a[:, 2].min(), b[:, 2].min()),
        "front": (-a[:, 2].min(), -b[:, 2].min()),
        "wide": (one.size[0], other.size[0]),
        "thin": (-one.size[0], -other.size[0]),
        "tall": (one.size[1], other.size[1]),
        "short": (-one.size[1], -other.size[1]),
        "big": (np.prod(one.size), np.prod(other.size)),
        "small": (-np.prod(one.size), -np.prod(other.size)),
    }
    first, second = measure[relation_of(category)]
    return float(first > second)


def mean_nearest(a: Cloud, b: Cloud) -> float:
    """Return the mean distance of each point of either cloud to the other cloud, metres."""
    there, _ = cKDTree(b).query(a)
    back, _ = cKDTree(a).query(b)
    return float(np.concatenate([there, back]).mean())


def floored_hour(a: Cloud, b: Cloud) -> int:
    """Return the clock hour of b seen from a, rounded down: ``12 - floor(phi / 30 degrees)``, phi to the left."""
    phi = math.degrees(math.atan2(-(b[0] - a[0]), b[2] - a[2])) % 360.0
    return 12 - math.floor(phi / 30.0) % 12


def ask_as_reference(graph: SceneGraph, rng: np.random.Generator, *, state_facts: bool = False) -> list[Turn]:
    """Ask three questions each about three random pairs; nothing where fewer than two objects have clouds.

    With ``state_facts`` as in its fact mode: three each of eleven facts, stated.

    Raises :class:`InputError` where lifting did not keep the clouds.
    """
    subjects = [Subject(n, n.perceived) for n in graph.nodes if n.perceived is not None]
    if any(s.node.points is None for s in subjects):
        raise InputError(
            f"scene {graph.scene_id}: ask.compat is reference, but its graph holds no point clouds. "
            "Run `srgpt lift` again with lift.compat=reference."
        )
    subjects.sort(key=lambda s: -_area(s.node))
    pairs = list(combinations(subjects, 2))
    turns: list[Turn] = []
    categories, turn = (FACTS, _stated) if state_facts else (CATEGORIES, _turn)
    for index in rng.permutation(len(pairs))[:PAIRS]:
        for k in rng.choice(len(categories), QUESTIONS_PER_PAIR, replace=False):
            turns.append(turn(categories[k], pairs[index], rng))
    return turns


FACTS = tuple(REASONING["facts"])


def _turn(category: str, pair: Sequence[Subject], rng: np.random.Generator) -> Turn:
    a, b = (np.asarray(s.node.points, dtype=np.float64).reshape(-1, 3) for s in pair)
    value = fact(category, a, b)
    asked = pair[:1] if category in ("width_data", "height_data") else pair
    return state(category, asked, value, rng, sigma=None)


def _stated(category: str, pair: Sequence[Subject], rng: np.random.Generator) -> Turn:
    a, b = (np.asarray(s.node.points, dtype=np.float64).reshape(-1, 3) for s in pair)
    if UNIT_OF[category] == "metres":
        value = fact(category.replace("_fact", "_data"), a, b)
        words = {"X": format_length(value, rng)}
    else:
        value = 1.0 - fact(category.replace("_fact", "_predicate"), a, b)
        words = {"X": f"Region [{int(value)}]", "Y": f"Region [{1 - int(value)}]"}
    asked = pair[:1] if category in ("width_fact", "height_fact") else pair
    return phrase(category, asked, value, rng, words=words, sigma=None)


def _area(node: Node) -> int:
    """Return a mask's pixels: every second run of its code, from the second on."""
    runs = rle_runs(node.rle["counts"]) if node.rle else None
    return 0 if runs is None else int(runs[1::2].sum())
