"""SpatialRGPT's own definitions, by hand-computed examples, and its biases."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from srgpt.curation import reference
from srgpt.curation.lifting import lift_scene
from srgpt.curation.questions import ask_scene
from srgpt.errors import InputError
from srgpt.geometry.directions import clock_hour
from srgpt.geometry.language import read_value
from srgpt.params import AskParams, LiftParams, ProceduralParams
from srgpt.records import CATEGORIES, REASONING, Rejected, Scene, SceneGraph
from srgpt.sources.procedural.generate import generate

# A spans 1 m in x, 2 m in y (up to y = -1), B a small thing farther away, to the right and lower
A = np.array([[0.0, -1, 2], [1, -1, 2], [0, 1, 2.5], [1, 1, 2.5]])
B = np.array([[3.0, 1, 4], [3.2, 1.3, 4.1], [3.0, 1.3, 4.2]])


@pytest.mark.parametrize(
    ("category", "value"),
    [
        ("left_predicate", 1), ("right_choice", 0), ("above_predicate", 1), ("below_choice", 0),
        ("behind_predicate", 0), ("front_predicate", 1), ("wide_predicate", 1), ("thin_predicate", 0),
        ("tall_choice", 1), ("short_predicate", 0), ("big_predicate", 1), ("small_predicate", 0),
        ("width_data", 1.0), ("height_data", 2.0),
        ("vertical_distance_data", 1.15),  # box centres at 0 and 1.15
        ("horizontal_distance_data", 2.6),  # 0.5 and 3.1 along x alone
    ],
)  # fmt: skip
def test_facts(category: str, value: float) -> None:
    assert reference.fact(category, A, B) == pytest.approx(value)


def test_a_distance_is_the_mean_over_the_points_of_both() -> None:
    nearest_of = lambda p, cloud: min(np.linalg.norm(p - q) for q in cloud)  # noqa: E731
    expected = np.mean([nearest_of(p, B) for p in A] + [nearest_of(q, A) for q in B])
    assert reference.fact("distance_data", A, B) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("degrees", "hour"), [(0, 12), (-1, 12), (1, 1), (29, 1), (31, 2), (90, 3), (180, 6), (-31, 11), (-90, 9)]
)
def test_hours_are_rounded_down(degrees: float, hour: int) -> None:
    """Degrees to the right; anything up to 30 degrees to the right is at one o'clock."""
    angle = np.radians(degrees)
    to = np.array([np.sin(angle), 0, np.cos(angle)])
    assert reference.floored_hour(np.zeros(3), to) == hour
    assert (clock_hour(np.zeros(3), to) - hour) % 12 == pytest.approx((degrees / 30 - hour) % 12, abs=1e-6)


@pytest.fixture(scope="module")
def graphs() -> list[SceneGraph]:
    params = ProceduralParams(image_size=96, min_objects=5, max_objects=8)
    scenes = [s for s in (generate(params, 3, "d", i) for i in range(12)) if isinstance(s, Scene)]
    lifted = [lift_scene(s, LiftParams(compat="reference")) for s in scenes]
    return [g for g in lifted if isinstance(g, SceneGraph)]


def test_the_larger_mask_comes_first_and_nine_are_asked(graphs: list[SceneGraph]) -> None:
    categories = set()
    for graph in graphs:
        found = ask_scene(graph, AskParams(compat="reference"), 0)
        assert isinstance(found, list)
        turns = found[0].turns
        usable = sum(n.perceived is not None for n in graph.nodes)
        assert len(turns) == 3 * min(3, usable * (usable - 1) // 2)
        areas = {n.id: reference._area(n) for n in graph.nodes}
        for turn in turns:
            categories.add(turn.category)
            assert len(turn.regions) == 1 or areas[turn.regions[0]] >= areas[turn.regions[1]]
    assert len(categories) > 15
    assert categories <= set(CATEGORIES)


def test_its_fact_mode_states_eleven_kinds_of_facts(graphs: list[SceneGraph]) -> None:
    stated = []
    for graph in graphs:
        clouds = {n.id: np.reshape(n.points, (-1, 3)) for n in graph.nodes if n.points}
        for seed in range(8):
            found = ask_scene(graph, AskParams(compat="reference", reasoning=["facts"]), seed)
            assert isinstance(found, list)
            stated += [(turn, [clouds[k] for k in turn.regions]) for turn in found[0].turns]
    assert {turn.category for turn, _ in stated} == set(REASONING["facts"])
    for turn, own in stated:
        assert read_value(turn.answer, turn.category) == pytest.approx(turn.value, abs=0.0051)
        if turn.unit == "region":
            relation = turn.category.replace("_fact", "_predicate")
            first, second = own if turn.value == 0 else own[::-1]
            assert reference.fact(relation, first, second) == 1.0


def test_a_scene_without_a_pair_is_set_aside_for_that(graphs: list[SceneGraph]) -> None:
    one = replace(graphs[0], nodes=tuple(n for n in graphs[0].nodes if n.perceived is not None)[:1])
    found = ask_scene(one, AskParams(compat="reference"), 0)
    assert found == Rejected(
        one.scene_id, "nothing-to-ask", "1 objects, and ask.compat=reference asks about pairs"
    )


def test_without_clouds_the_setting_is_named() -> None:
    scene = generate(ProceduralParams(), 0, "d", 1)
    assert isinstance(scene, Scene)
    graph = lift_scene(scene, LiftParams())
    assert isinstance(graph, SceneGraph)
    with pytest.raises(InputError, match=r"lift\.compat=reference"):
        ask_scene(graph, AskParams(compat="reference"), 0)
