"""Spatial facts: what is asked about, computed from canonical boxes.

One function per fact. Each takes the canonical boxes (x right, y down, z forward) of two objects A and B,
in the order in which a question mentions them; those about a single object take its box alone. Where
SpatialRGPT's own pipeline uses the mean of an object's points or its nearest one, facts here use the box
(its centre, its near face), so that cuboids and perceived points give comparable numbers.

A *relation* (``left``, ``tall``, ...) answers both forms of question: as a predicate ("is A left of B?")
and as a choice ("which of A and B is left?").
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from srgpt.geometry.directions import clock_hour, nearest_hour
from srgpt.params import AskParams
from srgpt.records import GROUP_OF, UNIT_OF, Box, Node, Unit

Relation = Callable[[Box, Box], bool]

# Relations ------------------------------------------------------------------------------------------------


def left(a: Box, b: Box) -> bool:
    """A's centre lies further left: ``a.x < b.x``."""
    return bool(a.center[0] < b.center[0])


def right(a: Box, b: Box) -> bool:
    """A's centre lies further right: ``a.x > b.x``."""
    return bool(a.center[0] > b.center[0])


def above(a: Box, b: Box) -> bool:
    """A's centre lies higher: ``a.y < b.y`` (y points down)."""
    return bool(a.center[1] < b.center[1])


def below(a: Box, b: Box) -> bool:
    """A's centre lies lower: ``a.y > b.y`` (y points down)."""
    return bool(a.center[1] > b.center[1])


def behind(a: Box, b: Box) -> bool:
    """A begins farther from the viewer: ``a.near > b.near``, the boxes' least z."""
    return a.near > b.near


def front(a: Box, b: Box) -> bool:
    """A begins nearer to the viewer: ``a.near < b.near``, the boxes' least z."""
    return a.near < b.near


def wide(a: Box, b: Box) -> bool:
    """A extends further from side to side: ``a.size_x > b.size_x``."""
    return bool(a.size[0] > b.size[0])


def thin(a: Box, b: Box) -> bool:
    """A extends less from side to side: ``a.size_x < b.size_x``."""
    return bool(a.size[0] < b.size[0])


def tall(a: Box, b: Box) -> bool:
    """A extends further along gravity: ``a.size_y > b.size_y``."""
    return bool(a.size[1] > b.size[1])


def short(a: Box, b: Box) -> bool:
    """A extends less along gravity: ``a.size_y < b.size_y``."""
    return bool(a.size[1] < b.size[1])


def big(a: Box, b: Box) -> bool:
    """A's box holds more: ``volume(a) > volume(b)``."""
    return volume(a) > volume(b)


def small(a: Box, b: Box) -> bool:
    """A's box holds less: ``volume(a) < volume(b)``."""
    return volume(a) < volume(b)


# Quantities -----------------------------------------------------------------------------------------------


def volume(a: Box) -> float:
    """Return the product of the extents, cubic metres."""
    return float(np.prod(a.size))


def width(a: Box) -> float:
    """Return the extent from side to side, ``size_x``, metres."""
    return float(a.size[0])


def height(a: Box) -> float:
    """Return the extent along gravity, ``size_y``, metres."""
    return float(a.size[1])


def distance(a: Box, b: Box) -> float:
    """Return the distance between centres, ``|a - b|``, metres.

    SpatialRGPT averages nearest-neighbour distances over both point sets, which whole-object cuboids cannot
    give.
    """
    return float(np.linalg.norm(a.center - b.center))


def horizontal_distance(a: Box, b: Box) -> float:
    """Return the distance between centres on the ground, ``hypot(dx, dz)``, metres.

    SpatialRGPT's pipeline takes ``|dx|`` alone.
    """
    return math.hypot(a.center[0] - b.center[0], a.center[2] - b.center[2])


def vertical_distance(a: Box, b: Box) -> float:
    """Return the difference in height between centres, ``|dy|``, metres."""
    return abs(float(a.center[1] - b.center[1]))


def direction(a: Box, b: Box) -> float:
    """Return the nearest clock hour, 1 to 12, in which B lies for someone at A who looks the camera's way.

    Between centres on the ground: 12 is canonical +z, 3 is +x. SpatialRGPT's pipeline rounds down (an
    object one degree to the right is at 1 o'clock there), which is off by half an hour on average.
    """
    return float(nearest_hour(clock_hour(a.center, b.center)))


# By category ----------------------------------------------------------------------------------------------

RELATIONS: dict[str, Relation] = {
    "left": left,
    "right": right,
    "above": above,
    "below": below,
    "behind": behind,
    "front": front,
    "wide": wide,
    "thin": thin,
    "tall": tall,
    "short": short,
    "big": big,
    "small": small,
}
"""The twelve relations by name."""

SINGLE: dict[str, Callable[[Box], float]] = {"width_data": width, "height_data": height}
"""Quantities of one object, by category."""

PAIRED: dict[str, Callable[[Box, Box], float]] = {
    "distance_data": distance,
    "horizontal_distance_data": horizontal_distance,
    "vertical_distance_data": vertical_distance,
    "direction": direction,
}
"""Quantities of two objects, by category."""

_POSITION: dict[str, Callable[[Box], float]] = {
    "left_right": lambda box: float(box.center[0]),
    "below_above": lambda box: float(box.center[1]),
    "behind_front": lambda box: box.near,
}
_SIZE: dict[str, Callable[[Box], float]] = {"wide_thin": width, "tall_short": height}


def unit_of(category: str) -> Unit:
    """Return the unit in which the fact of a category is stated."""
    return UNIT_OF[category]


def relation_of(category: str) -> str:
    """Return the relation that a qualitative category asks for: ``left_choice`` -> ``left``."""
    return category.rsplit("_", 1)[0]


def fact(category: str, a: Box, b: Box | None = None) -> float:
    """Return the fact that a question of ``category`` asks for, in :func:`unit_of` the category.

    For a choice 1.0 means that A is the one. ``b`` is not needed for quantities of one object.
    """
    if category in SINGLE:
        return SINGLE[category](a)
    if b is None:
        raise ValueError(f"{category} is about two objects")
    if category in PAIRED:
        return PAIRED[category](a, b)
    return float(RELATIONS[relation_of(category)](a, b))


def is_tie(category: str, a: Box, b: Box | None, params: AskParams) -> bool:
    """Return whether a fact is too close to call, or too small to state, to be asked about.

    Positions: nearer than ``tie_metres``. Sizes: nearer than ``tie_metres``, or than ``tie_margin`` of the
    larger. Volumes: nearer than ``tie_margin`` of the larger. Lengths: shorter than ``min_distance``
    (widths and heights: than a centimetre, which two decimals still tell). Directions: closer than
    ``tie_angle_degrees`` to the border between two hours, or at less than ``min_distance`` on the ground.
    """
    if category in SINGLE:
        return SINGLE[category](a) < 0.01
    if b is None:
        raise ValueError(f"{category} is about two objects")
    if category == "direction":
        if horizontal_distance(a, b) < params.min_distance:
            return True
        hours = clock_hour(a.center, b.center)
        return math.isnan(hours) or (0.5 - abs(hours - round(hours))) * 30.0 < params.tie_angle_degrees
    if category in PAIRED:
        return PAIRED[category](a, b) < max(params.min_distance, 1e-3)
    group = GROUP_OF[category]
    if group in _POSITION:
        measure, absolute, relative = _POSITION[group], params.tie_metres, 0.0
    elif group in _SIZE:
        measure, absolute, relative = _SIZE[group], params.tie_metres, params.tie_margin
    else:
        measure, absolute, relative = volume, 0.0, params.tie_margin
    first, second = measure(a), measure(b)
    # equal is a tie even with margins of 0
    return abs(first - second) <= max(absolute, relative * max(first, second), 1e-9)


# By uncertainty -------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Spread:
    """How well a box is known: standard deviations (3,) of its centre and extents in metres, independent of others.

    ``scale`` is the relative deviation of the scale that all boxes of a picture share: it changes every length
    and no relation.
    """

    center: NDArray[np.float64]
    size: NDArray[np.float64]
    scale: float = 0.0

    @classmethod
    def of(cls, node: Node, scale: float) -> Spread | None:
        """Return what lifting estimated for a node; None where it did not."""
        if node.center_sigma is None or node.size_sigma is None:
            return None
        return cls(np.array(node.center_sigma), np.array(node.size_sigma), scale)


@dataclass(frozen=True)
class Subject:
    """A node that can be asked about: the box that its facts come from, and how well that is known."""

    node: Node
    box: Box
    spread: Spread | None = None


def sigma(category: str, a: Subject, b: Subject | None = None) -> float | None:
    """Return how uncertain a fact is; None where that was not estimated.

    For a quantity the standard deviation in its unit, by first-order propagation; for a relation the chance that
    the answer is wrong, which is that of a normal deviate beyond the difference between A and B.
    """
    if a.spread is None or (b is not None and b.spread is None):
        return None
    if category in SINGLE:
        axis = 0 if category == "width_data" else 1
        return math.hypot(float(a.spread.size[axis]), a.spread.scale * SINGLE[category](a.box))
    if b is None or b.spread is None:
        raise ValueError(f"{category} is about two objects")
    if category in PAIRED:
        return _paired_sigma(category, a, b, a.spread, b.spread)
    measure, spread = _measured(GROUP_OF[category])
    deviation = math.hypot(spread(a.box, a.spread), spread(b.box, b.spread))
    return error_chance(measure(a.box) - measure(b.box), deviation)


_NORMAL = NormalDist()


def error_chance(difference: float, deviation: float) -> float:
    """Return the chance that a difference, known to a standard deviation, has the other sign."""
    return _NORMAL.cdf(-abs(difference) / deviation) if deviation > 0 else 0.0


def length_sigma(a: Subject, b: Subject, category: str) -> float:
    """Return the standard deviation of one of the distances between centres; 0 where it was not estimated."""
    if a.spread is None or b.spread is None:
        return 0.0
    axes = _AXES[category]
    offset = (b.box.center - a.box.center) * axes
    length = float(np.linalg.norm(offset))
    toward = offset / length if length > 0 else axes
    own = float(np.sqrt(np.sum(toward**2 * (a.spread.center**2 + b.spread.center**2))))
    return math.hypot(own, a.spread.scale * length)


_AXES = {
    "distance_data": np.array([1.0, 1, 1]),
    "horizontal_distance_data": np.array([1.0, 0, 1]),
    "vertical_distance_data": np.array([0.0, 1, 0]),
}


def _paired_sigma(category: str, a: Subject, b: Subject, one: Spread, other: Spread) -> float:
    if category != "direction":
        return length_sigma(a, b, category)
    dx, _, dz = b.box.center - a.box.center
    length = math.hypot(dx, dz)
    across = np.array([dz, 0.0, -dx]) / max(length, 1e-9)
    deviation = float(np.sqrt(np.sum(across**2 * (one.center**2 + other.center**2))))
    return math.degrees(deviation / max(length, 1e-9)) / 30.0


def _measured(group: str) -> tuple[Callable[[Box], float], Callable[[Box, Spread], float]]:
    """Return what a group of relations compares, and the standard deviation of that."""
    if group == "behind_front":
        return _POSITION[group], lambda _, s: math.hypot(float(s.center[2]), float(s.size[2]) / 2)
    if group in _POSITION:
        axis = 0 if group == "left_right" else 1
        return _POSITION[group], lambda _, s: float(s.center[axis])
    if group in _SIZE:
        axis = 0 if group == "wide_thin" else 1
        return _SIZE[group], lambda _, s: float(s.size[axis])
    return volume, lambda box, s: volume(box) * float(np.sqrt(np.sum((s.size / box.size) ** 2)))


def is_uncertain(category: str, a: Subject, b: Subject | None, params: AskParams) -> bool:
    """Return whether a fact is known too badly to be asked about.

    Relations: wrong with a chance above ``max_error_chance``. Quantities: a standard deviation above
    ``max_relative_sigma`` of the value. Directions: one above half an hour.
    """
    found = sigma(category, a, b)
    if found is None:
        return False
    if category == "direction":
        return found > 0.5
    if unit_of(category) == "truth":
        return found > params.max_error_chance
    return found > params.max_relative_sigma * fact(category, a.box, b.box if b else None)


def is_clear(category: str, a: Subject, b: Subject | None, params: AskParams) -> bool:
    """Return whether a fact can be asked about: no tie, and known well enough."""
    tie = is_tie(category, a.box, b.box if b else None, params)
    return not tie and not is_uncertain(category, a, b, params)
