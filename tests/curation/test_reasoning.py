"""Questions of several steps say what the boxes say, by another way of computing it."""

from __future__ import annotations

import itertools
import re
from collections import Counter

import numpy as np
import pytest

from srgpt.curation import reasoning
from srgpt.curation.facts import Spread, Subject
from srgpt.curation.questions import Balance, ask_scene
from srgpt.geometry.language import read_value
from srgpt.geometry.units import parse_length
from srgpt.params import AskParams
from srgpt.records import REASONING, UNIT_OF, Box, Node, Rejected, SceneGraph, Turn

FAMILIES = list(REASONING)


def graph(seed: int, objects: int = 7, sigma: float | None = None) -> SceneGraph:
    rng = np.random.default_rng(seed)
    nodes = []
    for k in range(objects):
        box = Box(rng.uniform([-3, -1, 2], [3, 1, 9]), rng.uniform(0.1, 1.6, 3))
        spread = None if sigma is None else (sigma,) * 3
        nodes.append(
            Node(
                k,
                "thing",
                "thing",
                (0, 0, 1, 1),
                None,
                box,
                truth=box,
                center_sigma=spread,
                size_sigma=spread,
            )
        )
    return SceneGraph("d", f"s{seed}", 10, 10, np.eye(3), tuple(nodes))


def ask(scene: SceneGraph, **params: object) -> list[Turn]:
    section = AskParams.model_validate(
        {"reasoning": FAMILIES, "reasoning_share": 1.0, "turns": 60, "truth": "cuboids", **params}
    )
    found = ask_scene(scene, section, 0, Balance())
    assert isinstance(found, list)
    return [t for c in found for t in c.turns]


@pytest.mark.parametrize("share", [0.99, 1.0])
def test_the_benchmarks_questions_take_the_places_left_over_unless_theirs_is_no_share(share: float) -> None:
    """A scene of three objects has fewer than 100 facts to state."""
    asked = {t.category for t in ask(graph(2, 3), reasoning=["facts"], reasoning_share=share, turns=100)}
    assert asked & set(REASONING["facts"])
    assert bool(asked - set(REASONING["facts"])) == (share < 1)


def test_a_scene_with_nothing_for_the_families_alone_is_set_aside_for_that() -> None:
    params = AskParams(truth="cuboids", reasoning=["ranking", "multi_hop"], reasoning_share=1)
    found = ask_scene(graph(2, 1), params, 0)
    assert found == Rejected(
        "s2", "nothing-to-ask", "1 objects, too few or too uncertain for ranking, multi_hop"
    )


@pytest.fixture(scope="module")
def asked() -> list[tuple[list[Box], Turn]]:
    result = []
    for seed in range(40):
        scene = graph(seed)
        boxes = {n.id: n.truth for n in scene.nodes}
        result += [([boxes[i] for i in t.regions], t) for t in ask(scene)]  # type: ignore[misc]
    return result


def test_every_category_is_asked_and_reads_back(asked: list[tuple[list[Box], Turn]]) -> None:
    counts = Counter(t.category for _, t in asked)
    assert set(counts) == {c for family in REASONING.values() for c in family}
    assert min(counts.values()) >= 15
    for _, turn in asked:
        assert turn.unit == UNIT_OF[turn.category]
        said = read_value(turn.answer, turn.category)
        assert said is not None
        assert turn.value is not None
        assert said == pytest.approx(turn.value, abs=0.0051)
        mentioned = [int(k) for k in re.findall(r"<region(\d+)>", turn.question)]
        assert set(mentioned) == set(range(len(turn.regions)))
        assert len(set(turn.regions)) == len(turn.regions)


MEASURES = {
    "tallest": lambda b: b.size[1], "shortest": lambda b: -b.size[1],
    "widest": lambda b: b.size[0], "thinnest": lambda b: -b.size[0],
    "leftmost": lambda b: -b.center[0], "rightmost": lambda b: b.center[0],
    "highest": lambda b: -b.center[1], "lowest": lambda b: b.center[1],
    "nearest": lambda b: -b.near, "farthest": lambda b: b.near,
}  # fmt: skip
COUNTS = {
    "count_left": "leftmost", "count_right": "rightmost", "count_above": "highest",
    "count_below": "lowest", "count_front": "nearest", "count_behind": "farthest",
}  # fmt: skip


FACTS = {
    "left_fact": lambda b: b.center[0], "below_fact": lambda b: -b.center[1], "front_fact": lambda b: b.near,
    "thin_fact": lambda b: b.size[0], "short_fact": lambda b: b.size[1], "small_fact": lambda b: b.size.prod(),
}  # fmt: skip
LENGTHS = {
    "width_fact": lambda a: a.size[0], "height_fact": lambda a: a.size[1],
    "distance_fact": lambda a, b: np.linalg.norm(a.center - b.center),
    "horizontal_distance_fact": lambda a, b: np.linalg.norm((a.center - b.center)[[0, 2]]),
    "vertical_distance_fact": lambda a, b: abs(a.center[1] - b.center[1]),
}  # fmt: skip


def corners_gap(a: Box, b: Box, axes: list[int]) -> float:
    """The least distance between two boxes, from interval arithmetic on each axis."""
    total = 0.0
    for k in axes:
        low, high = (
            max(x.center[k] - x.size[k] / 2 for x in (a, b)),
            min(x.center[k] + x.size[k] / 2 for x in (a, b)),
        )
        total += max(low - high, 0.0) ** 2
    return total**0.5


def expected(turn: Turn, boxes: list[Box]) -> float:
    category = turn.category
    ground = [b.center[[0, 2]] for b in boxes]
    if category in MEASURES:
        return max(range(len(boxes)), key=lambda k: MEASURES[category](boxes[k]))
    if category in COUNTS:
        measure = MEASURES[COUNTS[category]]
        return sum(measure(b) > measure(boxes[0]) for b in boxes[1:])
    if category == "camera_distance_data":
        return float(np.sqrt(np.sum(boxes[0].center ** 2)))
    if category.endswith("_ratio"):
        axis = 0 if category == "width_ratio" else 1
        return boxes[0].size[axis] / boxes[1].size[axis]
    if category == "reach":
        return float((parse_length(turn.question) or 0) > corners_gap(boxes[0], boxes[1], [0, 1, 2]))
    if category == "fit_through":
        return float(corners_gap(boxes[1], boxes[2], [0]) > boxes[0].size[0])
    if category == "path_choice":
        ways = [np.linalg.norm(ground[0] - ground[k]) + np.linalg.norm(ground[k] - ground[1]) for k in (2, 3)]
        return 2 + int(np.argmin(ways))
    if category == "closest_to":
        return 1 + int(np.argmin([np.linalg.norm(b.center - boxes[0].center) for b in boxes[1:]]))
    if category == "filtered_tallest":
        left = [k for k in range(1, len(boxes)) if boxes[k].center[0] < boxes[0].center[0]]
        return max(left, key=lambda k: boxes[k].size[1])
    if category in FACTS:
        return min((0, 1), key=lambda k: FACTS[category](boxes[k]))
    if category in LENGTHS:
        return LENGTHS[category](*boxes)
    assert category == "ordering"
    return int("".join(str(k) for k in np.argsort([b.near for b in boxes])))


def test_answers_are_right(asked: list[tuple[list[Box], Turn]]) -> None:
    for boxes, turn in asked:
        assert turn.value == pytest.approx(expected(turn, boxes)), turn


def test_answers_are_computed_anew_from_the_boxes(asked: list[tuple[list[Box], Turn]]) -> None:
    for boxes, turn in asked:
        again = reasoning.value_of(turn.category, boxes)
        assert again == (None if turn.category == "reach" else pytest.approx(expected(turn, boxes)))


def test_what_fits_through_is_asked_of_gaps_from_side_to_side_alone(
    asked: list[tuple[list[Box], Turn]],
) -> None:
    """A's width says nothing about a gap that runs along depth."""
    gaps = [boxes[1:] for boxes, turn in asked if turn.category == "fit_through"]
    assert gaps
    assert all(corners_gap(b, c, [2]) == 0 < corners_gap(b, c, [0]) for b, c in gaps)
    thin, one, behind = (Box(np.array([0.0, 0, z]), np.array([0.5, 1, 1])) for z in (2, 4, 9))
    assert reasoning.value_of("fit_through", [thin, one, behind]) == 0


def test_facts_are_statements_about_either_region(asked: list[tuple[list[Box], Turn]]) -> None:
    compared = [t for _, t in asked if t.category in FACTS]
    assert 0.4 < np.mean([t.value for t in compared]) < 0.6
    for turn in compared:
        assert turn.answer.startswith(f"Region [{int(turn.value or 0)}] ")
        assert f"Region [{1 - int(turn.value or 0)}]" in turn.answer
    only = ask(graph(2), reasoning=["facts"], turns=9)
    assert len(only) == 9
    assert {t.category for t in only} <= {*FACTS, *LENGTHS}


@pytest.mark.parametrize("category", ["reach", "fit_through"])
def test_yes_and_no_are_balanced(asked: list[tuple[list[Box], Turn]], category: str) -> None:
    answers = [t.value for _, t in asked if t.category == category]
    assert 0.35 < np.mean(answers) < 0.65


def test_benchmark_questions_do_not_change_where_nothing_more_is_asked() -> None:
    plain, more = (ask_scene(graph(1), AskParams(truth="cuboids", reasoning_share=s), 0) for s in (0.3, 0.9))
    assert isinstance(plain, list)
    assert isinstance(more, list)
    assert [c.to_row() for c in plain] == [c.to_row() for c in more]


def test_what_is_not_known_is_not_asked() -> None:
    sure = ask(graph(3, sigma=1e-4), truth="perceived")
    unsure = ask(graph(3, sigma=2.0), truth="perceived")
    assert len(sure) > 40
    assert len(unsure) < len(sure) / 4
    assert all(t.sigma is not None for t in sure if t.unit in ("metres", "ratio", "truth"))


@pytest.mark.parametrize("category", sorted(c for family in REASONING.values() for c in family))
def test_asked_answers_survive_the_uncertainty_that_let_them_be_asked(category: str) -> None:
    """Disturb the boxes by what is said not to be known: few answers turn."""
    family = next(f for f, cs in REASONING.items() if category in cs)
    rng = np.random.default_rng(5)
    kept = total = 0
    for seed in range(25):
        scene = graph(seed, sigma=0.05)
        subjects = [Subject(n, n.perceived, Spread.of(n, 0.0)) for n in scene.nodes if n.perceived]
        params = AskParams.model_validate({"reasoning": [family]})
        turns = [
            t
            for t in itertools.islice(
                reasoning.questions(subjects, params, rng, lambda *_: bool(rng.integers(2))), 60
            )
            if t.category == category
        ]
        for turn in turns:
            boxes = [subjects[i].box for i in turn.regions]
            moved = [
                Box(b.center + rng.normal(0, 0.05, 3), np.abs(b.size + rng.normal(0, 0.05, 3))) for b in boxes
            ]
            if turn.unit in ("metres", "ratio"):
                kept += abs(expected(turn, moved) - (turn.value or 0)) <= 4 * (turn.sigma or 0) + 0.01
            else:
                kept += expected(turn, moved) == turn.value
            total += 1
    assert total >= 10
    assert kept / total > 0.85
