"""Questions that take more than one fact: counting, ranking, ratios, reach, passage, detours, order; plain facts.

Every answer is computed from the same facts and the same margins as the benchmark's questions: what is compared
must be no tie and known well enough, so that an answer holds for all the uncertainty of the boxes below it. One
function per category proposes (subjects in order of mention, value, words); the words come from
``reasoning.yaml``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from statistics import NormalDist

import numpy as np

from srgpt.curation import facts
from srgpt.curation.facts import Subject, is_clear
from srgpt.curation.phrasing import listed, phrase
from srgpt.geometry.language import NUMBERS
from srgpt.geometry.units import format_length, parse_length
from srgpt.params import AskParams
from srgpt.records import REASONING, UNIT_OF, Box, Turn

MIN_OTHERS, MAX_OTHERS = 2, 4
"""How many regions are counted, ranked or chosen from."""

_MOST = 24
"""At most so many groups of subjects are looked at per category: a scene of 30 objects has millions."""

_MARGIN = 0.1
"""Relative difference under which two lengths that an answer compares are a tie."""


@dataclass(frozen=True)
class Proposal:
    """One question: who is mentioned, in order; the answer's value, its uncertainty, and words for the template."""

    subjects: tuple[Subject, ...]
    value: float
    words: dict[str, str] = field(default_factory=dict)
    sigma: float | None = None


Wanted = Callable[[str, np.random.Generator], bool]
"""Which answer the next yes-or-no question of a category shall have."""


@dataclass(frozen=True)
class _Scene:
    """What proposals are made from."""

    subjects: Sequence[Subject]
    params: AskParams
    rng: np.random.Generator
    wanted: Wanted

    def length(self, metres: float) -> str:
        """Return a length in words."""
        return format_length(metres, self.rng, self.params.units)

    def groups(self, sizes: Sequence[int]) -> Iterator[tuple[Subject, ...]]:
        """Yield groups of subjects in random order, sizes and order of mention."""
        for _ in range(_MOST):
            size = int(self.rng.choice(sizes))
            if size <= len(self.subjects):
                yield tuple(self.subjects[i] for i in self.rng.permutation(len(self.subjects))[:size])


def questions(
    subjects: Sequence[Subject], params: AskParams, rng: np.random.Generator, wanted: Wanted
) -> Iterator[Turn]:
    """Yield questions of ``params.reasoning``'s families, round and round the families and their categories.

    No two questions of a category are about the same subjects.
    """
    scene = _Scene(subjects, params, rng, wanted)
    rounds = {name: _family(scene, list(REASONING[name])) for name in params.reasoning}
    while rounds:
        for name in list(rounds):
            turn = next(rounds[name], None)
            if turn is None:
                del rounds[name]
            else:
                yield turn


def _family(scene: _Scene, categories: list[str]) -> Iterator[Turn]:
    proposals = {c: _different(_PROPOSERS[c](scene)) for c in scene.rng.permutation(categories).tolist()}
    while proposals:
        for category in list(proposals):
            found = next(proposals[category], None)
            if found is None:
                del proposals[category]
            else:
                yield phrase(
                    category, found.subjects, found.value, scene.rng, words=found.words, sigma=found.sigma
                )


def _different(proposals: Iterator[Proposal]) -> Iterator[Proposal]:
    seen: set[frozenset[int]] = set()
    for proposal in proposals:
        who = frozenset(s.node.id for s in proposal.subjects)
        if who not in seen:
            seen.add(who)
            yield proposal


# One subject, two subjects --------------------------------------------------------------------------------


def camera_distance(box: Box) -> float:
    """Return the distance from the camera to the box's centre, metres."""
    return float(np.linalg.norm(box.center))


def _camera_distance(scene: _Scene) -> Iterator[Proposal]:
    for (a,) in scene.groups([1]):
        value = camera_distance(a.box)
        deviation = None
        if a.spread is not None:
            toward = a.box.center / value
            own = float(np.sqrt(np.sum((toward * a.spread.center) ** 2)))
            deviation = math.hypot(own, a.spread.scale * value)
        if value >= scene.params.min_distance and _known(deviation, value, scene.params):
            yield Proposal((a,), value, {"X": scene.length(value)}, deviation)


def _ratio(category: str) -> Callable[[_Scene], Iterator[Proposal]]:
    data = category.replace("_ratio", "_data")
    measure = facts.SINGLE[data]

    def propose(scene: _Scene) -> Iterator[Proposal]:
        for a, b in scene.groups([2]):
            if not (is_clear(data, a, None, scene.params) and is_clear(data, b, None, scene.params)):
                continue
            value = measure(a.box) / measure(b.box)
            deviation = None
            if a.spread is not None and b.spread is not None:  # the picture's scale cancels out
                axis = 0 if category == "width_ratio" else 1
                parts = (s.spread.size[axis] / s.box.size[axis] for s in (a, b) if s.spread is not None)
                deviation = value * math.hypot(*map(float, parts))
            if 0.01 <= value <= 100 and _known(deviation, value, scene.params):
                lengths = {
                    "X": scene.length(measure(a.box)),
                    "Y": scene.length(measure(b.box)),
                }
                yield Proposal((a, b), value, {**lengths, "R": f"{value:.2f}"}, deviation)

    return propose


# Many subjects --------------------------------------------------------------------------------------------

_SUPERLATIVES = {
    "tallest": "tall", "shortest": "short", "widest": "wide", "thinnest": "thin", "leftmost": "left",
    "rightmost": "right", "highest": "above", "lowest": "below", "nearest": "front", "farthest": "behind",
}  # fmt: skip


def first_by(relation: str, subjects: Sequence[Subject], params: AskParams) -> int | None:
    """Return who stands clearly before all others by a relation, as an index; None where nobody does."""
    for k, one in enumerate(subjects):
        if all(o is one or _clearly(relation, one, o, params) for o in subjects):
            return k
    return None


def _clearly(relation: str, a: Subject, b: Subject, params: AskParams) -> bool:
    return facts.RELATIONS[relation](a.box, b.box) and is_clear(f"{relation}_predicate", a, b, params)


def _ranking(category: str) -> Callable[[_Scene], Iterator[Proposal]]:
    def propose(scene: _Scene) -> Iterator[Proposal]:
        for group in scene.groups(range(MIN_OTHERS + 1, MAX_OTHERS + 2)):
            winner = first_by(_SUPERLATIVES[category], group, scene.params)
            if winner is not None:
                yield Proposal(group, winner, {"winner": f"Region [{winner}]"})

    return propose


def matching(relation: str, a: Subject, others: Sequence[Subject], params: AskParams) -> list[int] | None:
    """Return which others stand to ``a`` in a relation, as indices; None where that is unclear for any."""
    if not all(is_clear(f"{relation}_predicate", o, a, params) for o in others):
        return None
    return _standing(relation, a.box, [o.box for o in others])


def _counting(category: str) -> Callable[[_Scene], Iterator[Proposal]]:
    relation = category.removeprefix("count_")

    def propose(scene: _Scene) -> Iterator[Proposal]:
        for a, *others in scene.groups(range(MIN_OTHERS + 1, MAX_OTHERS + 2)):
            found = matching(relation, a, others, scene.params)
            if found is not None:
                yield Proposal((a, *others), len(found), {"found": _subset(found), "N": NUMBERS[len(found)]})

    return propose


def _subset(found: Sequence[int]) -> str:
    """Write a subset of the others as the start of a sentence, with its verb."""
    if not found:
        return "None of them is"
    named = [f"Region [{k + 1}]" for k in found]
    return f"{listed(named)} {'is' if len(named) == 1 else 'are'}"


# Several steps --------------------------------------------------------------------------------------------


def gap(a: Box, b: Box, axes: Sequence[int] = (0, 1, 2)) -> float:
    """Return the distance between two boxes along some canonical axes, metres; 0 where they overlap."""
    apart = np.abs(a.center - b.center) - (a.size + b.size) / 2
    return float(np.linalg.norm(np.maximum(apart[list(axes)], 0.0)))


def _gap_sigma(a: Subject, b: Subject) -> float:
    """Bound the standard deviation of a gap: that of both boxes' sides, in the direction where it is largest."""
    if a.spread is None or b.spread is None:
        return 0.0
    sides = a.spread.center**2 + a.spread.size**2 / 4 + b.spread.center**2 + b.spread.size**2 / 4
    return math.hypot(float(np.sqrt(sides.max())), a.spread.scale * gap(a.box, b.box))


def _surely(difference: float, deviation: float, params: AskParams) -> bool:
    return abs(difference) >= 1e-9 and facts.error_chance(difference, deviation) <= params.max_error_chance


def _reach(scene: _Scene) -> Iterator[Proposal]:
    """Choose the reach around the gap: beyond it for a yes, short of it for a no, by what surely tells them apart."""
    z = NormalDist().inv_cdf(1 - scene.params.max_error_chance)
    for a, b in scene.groups([2]):
        apart, deviation = gap(a.box, b.box), _gap_sigma(a, b)
        least = max(z * deviation / apart if apart else math.inf, _MARGIN)
        if apart < scene.params.min_distance or least > 0.5:
            continue
        yes = scene.wanted("reach", scene.rng)
        share = float(scene.rng.uniform(least, max(1.0, 2 * least)))
        reach = scene.length(apart * (1 + share) if yes else apart * (1 - min(share, 0.8)))
        said = parse_length(reach)
        if said is None or not _surely(said - apart, deviation, scene.params) or (said > apart) != yes:
            continue
        words = {"X": reach, "Y": scene.length(apart)}
        yield Proposal((a, b), float(yes), words, facts.error_chance(said - apart, deviation))


def _fit_through(scene: _Scene) -> Iterator[Proposal]:
    """A's width against the gap between B and C, where it runs from side to side alone, as widths do."""
    for a, b, c in scene.groups([3]):
        if gap(b.box, c.box, (2,)) > 0:  # A's depth would count, too
            continue
        room, wide = gap(b.box, c.box, (0,)), facts.width(a.box)
        deviation = _gap_sigma(b, c)
        if a.spread is not None:
            deviation = math.hypot(deviation, float(a.spread.size[0]))
        tie = abs(room - wide) <= max(scene.params.tie_metres, _MARGIN * max(room, wide))
        if tie or room < scene.params.min_distance or not _surely(room - wide, deviation, scene.params):
            continue
        if (room > wide) != scene.wanted("fit_through", scene.rng):
            continue
        words = {"X": scene.length(wide), "Y": scene.length(room)}
        chance = facts.error_chance(room - wide, deviation)
        yield Proposal((a, b, c), float(room > wide), words, chance)


def _path_choice(scene: _Scene) -> Iterator[Proposal]:
    for a, b, c, d in scene.groups([4]):
        ways = _ways((a.box, b.box, c.box, d.box))
        legs = [(a, c), (c, b), (a, d), (d, b)]
        deviation = math.hypot(*(facts.length_sigma(x, y, "horizontal_distance_data") for x, y in legs))
        apart = ways[1] - ways[0]
        if abs(apart) <= _MARGIN * max(ways) or not _surely(apart, deviation, scene.params):
            continue
        winner = 2 if apart > 0 else 3
        words = {name: scene.length(way) for name, way in zip("XY", ways, strict=True)}
        chance = facts.error_chance(apart, deviation)
        yield Proposal((a, b, c, d), winner, {**words, "winner": f"Region [{winner}]"}, chance)


def _closest_to(scene: _Scene) -> Iterator[Proposal]:
    for a, *others in scene.groups(range(MIN_OTHERS + 1, MAX_OTHERS + 2)):
        lengths = [facts.distance(a.box, o.box) for o in others]
        first, second = sorted(range(len(others)), key=lengths.__getitem__)[:2]
        away = [facts.length_sigma(a, others[k], "distance_data") for k in (first, second)]
        apart = lengths[second] - lengths[first]
        if apart <= _MARGIN * lengths[second] or not _surely(apart, math.hypot(*away), scene.params):
            continue
        words = {"winner": f"Region [{first + 1}]", "X": scene.length(lengths[first])}
        yield Proposal((a, *others), first + 1, words, facts.error_chance(apart, math.hypot(*away)))


def _filtered_tallest(scene: _Scene) -> Iterator[Proposal]:
    for a, *others in scene.groups([MAX_OTHERS, MAX_OTHERS + 1]):
        found = matching("left", a, others, scene.params)
        if found is None or not 2 <= len(found) < len(others):
            continue
        best = first_by("tall", [others[k] for k in found], scene.params)
        if best is None:
            continue
        winner = found[best] + 1
        words = {"found": _subset(found), "winner": f"Region [{winner}]"}
        words["found_verb"] = f"are {listed([f'Region [{k + 1}]' for k in found])}"
        yield Proposal((a, *others), winner, words)


def _ordering(scene: _Scene) -> Iterator[Proposal]:
    for group in scene.groups([3, 4]):
        if not all(is_clear("front_predicate", a, b, scene.params) for a, b in combinations(group, 2)):
            continue
        order = sorted(range(len(group)), key=lambda k: group[k].box.near)
        value = int("".join(map(str, order)))
        yield Proposal(group, value, {"order": ", ".join(f"Region [{k}]" for k in order)})


# Statements -----------------------------------------------------------------------------------------------


def _compared(category: str) -> Callable[[_Scene], Iterator[Proposal]]:
    """State of two regions which is the one, named first: SpatialRGPT's relations of its fact mode."""
    relation = category.removesuffix("_fact")

    def propose(scene: _Scene) -> Iterator[Proposal]:
        for a, b in scene.groups([2]):
            if is_clear(f"{relation}_predicate", a, b, scene.params):
                one = 0 if facts.RELATIONS[relation](a.box, b.box) else 1
                words = {"X": f"Region [{one}]", "Y": f"Region [{1 - one}]"}
                yield Proposal((a, b), one, words, facts.sigma(f"{relation}_predicate", a, b))

    return propose


def _measured(category: str) -> Callable[[_Scene], Iterator[Proposal]]:
    """State a length of one region, or one between two."""
    data = category.replace("_fact", "_data")
    count = 1 if data in facts.SINGLE else 2

    def propose(scene: _Scene) -> Iterator[Proposal]:
        for a, *rest in scene.groups([count]):
            b = rest[0] if rest else None
            if is_clear(data, a, b, scene.params):
                value = facts.fact(data, a.box, b.box if b else None)
                words = {"X": scene.length(value)}
                yield Proposal((a, *rest), value, words, facts.sigma(data, a, b))

    return propose


_GIVEN = {"path_choice": 2, "closest_to": 1, "filtered_tallest": 1}
"""How many regions, those mentioned first, are asked about and so cannot be the answer."""


def candidates(category: str, regions: int) -> int:
    """Return how many of a question's regions can be its answer, where that is a region; at least 1."""
    return max(regions - _GIVEN.get(category, 0), 1)


_PROPOSERS: dict[str, Callable[[_Scene], Iterator[Proposal]]] = {
    "camera_distance_data": _camera_distance,
    **{c: _ratio(c) for c in REASONING["ratio"]},
    **{c: _ranking(c) for c in REASONING["ranking"]},
    **{c: _counting(c) for c in REASONING["counting"]},
    "reach": _reach,
    "fit_through": _fit_through,
    "path_choice": _path_choice,
    "closest_to": _closest_to,
    "filtered_tallest": _filtered_tallest,
    "ordering": _ordering,
    **{c: _measured(c) if unit == "metres" else _compared(c) for c, unit in REASONING["facts"].items()},
}


# Computed again -------------------------------------------------------------------------------------------


def value_of(category: str, boxes: Sequence[Box]) -> float | None:
    """Return the answer to a question of a category by the boxes of its regions alone, in order of mention.

    None for ``reach``, which the length in the question decides. Raises :class:`KeyError` for no category of this
    module's, :class:`ValueError` or :class:`IndexError` for too few boxes.
    """
    first, *others = boxes
    if category in _SUPERLATIVES:
        return float(_foremost(_SUPERLATIVES[category], boxes))
    if category in REASONING["ratio"]:
        measure = facts.SINGLE[category.replace("_ratio", "_data")]
        return measure(first) / measure(boxes[1])
    if category in REASONING["counting"]:
        return float(len(_standing(category.removeprefix("count_"), first, others)))
    if category in REASONING["facts"]:
        return _fact_of(category, boxes)
    return _SEVERAL[category](boxes)


def _fact_of(category: str, boxes: Sequence[Box]) -> float:
    if UNIT_OF[category] == "metres":
        return facts.fact(category.replace("_fact", "_data"), *boxes)
    return float(_foremost(category.removesuffix("_fact"), boxes))


def _foremost(relation: str, boxes: Sequence[Box]) -> int:
    holds = facts.RELATIONS[relation]
    return next(k for k, one in enumerate(boxes) if all(o is one or holds(one, o) for o in boxes))


def _standing(relation: str, first: Box, others: Sequence[Box]) -> list[int]:
    return [k for k, other in enumerate(others) if facts.RELATIONS[relation](other, first)]


def _ways(boxes: Sequence[Box]) -> list[float]:
    """Return how long the ways over the ground are from the first box to the second, past each of the others."""
    a, b, *vias = boxes
    return [facts.horizontal_distance(a, via) + facts.horizontal_distance(via, b) for via in vias]


def _tallest_left(boxes: Sequence[Box]) -> float:
    first, *others = boxes
    left = _standing("left", first, others)
    return 1.0 + max(left, key=lambda k: facts.height(others[k]))


def _near_to_far(boxes: Sequence[Box]) -> float:
    return float("".join(map(str, sorted(range(len(boxes)), key=lambda k: boxes[k].near))))


_SEVERAL: dict[str, Callable[[Sequence[Box]], float | None]] = {
    "camera_distance_data": lambda boxes: camera_distance(boxes[0]),
    "reach": lambda boxes: None,
    "fit_through": lambda boxes: float(gap(boxes[1], boxes[2], (0,)) > facts.width(boxes[0])),
    "path_choice": lambda boxes: 2.0 + int(np.argmin(_ways(boxes))),
    "closest_to": lambda boxes: 1.0 + int(np.argmin([facts.distance(boxes[0], o) for o in boxes[1:]])),
    "filtered_tallest": _tallest_left,
    "ordering": _near_to_far,
}


def _known(deviation: float | None, value: float, params: AskParams) -> bool:
    return deviation is None or deviation <= params.max_relative_sigma * value
