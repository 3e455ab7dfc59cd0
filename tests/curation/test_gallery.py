"""The gallery: which scenes, where their boxes fall in the picture, and what they look like from above."""

from __future__ import annotations

import re
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from srgpt.curation import charts, gallery, top_view
from srgpt.curation.frames import Part
from srgpt.geometry.camera import canonical_rotation
from srgpt.records import Box, encode_png, encode_rle

INTRINSICS = (50.0, 50.0, 31.5, 23.5)


def test_a_box_straight_ahead_is_a_rectangle_around_its_centre() -> None:
    edges = gallery.box_edges(Box(np.array([0, 0, 5.0]), np.array([2.0, 2, 2])), np.eye(3), INTRINSICS)
    assert edges.shape == (12, 2, 2)
    near = 50 * 1 / 4  # half its size over the depth of its near face
    assert edges[..., 0].min() == pytest.approx(31.5 - near)
    assert edges[..., 1].max() == pytest.approx(23.5 + near)


def test_canonical_boxes_are_turned_back_into_the_camera() -> None:
    """A camera that looks down by 30 degrees sees what is level with it above its picture's centre."""
    gravity = (0.0, np.cos(np.pi / 6), np.sin(np.pi / 6))
    rotation = canonical_rotation(gravity)
    point = Box(np.array([0.0, 0.0, 10.0]), np.full(3, 1e-6))
    edges = gallery.box_edges(point, rotation, INTRINSICS)
    u, v = edges.reshape(-1, 2).mean(axis=0)
    assert u == pytest.approx(31.5, abs=1e-3)
    assert v == pytest.approx(23.5 - 50 * np.tan(np.pi / 6), abs=1e-3)


@given(st.tuples(*[st.floats(-5, 5)] * 3), st.tuples(*[st.floats(0.01, 8)] * 3))
def test_edges_are_cut_before_the_camera(center: tuple[float, ...], size: tuple[float, ...]) -> None:
    edges = gallery.box_edges(Box(np.array(center), np.array(size)), np.eye(3), INTRINSICS)
    assert len(edges) <= 12
    assert np.isfinite(edges).all()
    if center[2] + size[2] / 2 < gallery.NEAR:
        assert len(edges) == 0
    if center[2] - size[2] / 2 > gallery.NEAR:
        assert len(edges) == 12


def _scene(name: str, **changes: Any) -> dict[str, Any]:
    mask = np.zeros((48, 64), dtype=bool)
    mask[10:30, 20:40] = True
    region = {
        "id": 3, "category": "arm <chair>", "label": "red & \"low\"", "bbox": [20.0, 10.0, 40.0, 30.0],
        "rle": encode_rle(mask),
    }  # fmt: skip
    return {
        "dataset": "toy", "scene_id": name, "width": 64, "height": 48, "regions": [region],
        "image": encode_png(np.full((48, 64, 3), 90, dtype=np.uint8)), "intrinsics": list(INTRINSICS), **changes,
    }  # fmt: skip


def _graph(scene: dict[str, Any]) -> dict[str, Any]:
    box = {"center": [0.0, 0.0, 4.0], "size": [1.0, 1.0, 1.0]}
    nodes = [{**r, "perceived": box, "truth": box, "dropped": None} for r in scene["regions"]]
    return {"scene_id": scene["scene_id"], "rotation": list(np.eye(3).reshape(-1)), "nodes": nodes}


TURN = {
    "question": "Is <region0> <b>tall</b>, or <region7>?", "answer": "Region [0] is.", "category": "tallest",
    "regions": [3], "value": 0.0, "unit": "region", "sigma": 0.04,
}  # fmt: skip


def _card(scene: dict[str, Any]) -> gallery.Card:
    (card,) = gallery.cards([gallery.Chosen(scene, _graph(scene), ({"turns": [TURN]},))])
    return card


def test_a_card_shows_everything_and_escapes_what_others_wrote() -> None:
    card = _card(_scene("a"))
    (asked,) = card.questions
    assert '<b class="chip" data-r="3"' in asked.question
    assert "&lt;b&gt;tall&lt;/b&gt;" in asked.question
    assert "&lt;region7&gt;" in asked.question, "a region that the turn does not have stays as it was written"
    assert (asked.category, asked.note) == ("tallest", "4% doubt")
    assert card.groups == ("ranking",)
    assert card.names == ("arm <chair>",)
    assert "<chair>" not in card.top
    for svg in re.findall(r"<svg.*?</svg>", card.picture + card.top):
        ElementTree.fromstring(svg)
    assert card.picture.count('class="perceived"') == card.picture.count('class="truth"') == 1
    assert card.top.count("<rect") == 2


@pytest.mark.parametrize(
    "changes",
    [
        {"intrinsics": None}, {"intrinsics": [0.0, 1.0, 1.0, 1.0]}, {"regions": []}, {"regions": None},
        {"regions": [{"id": 1, "category": None, "label": None, "bbox": None, "rle": None}]},
        {"regions": [{"id": 1, "category": "x", "label": "x", "bbox": [0, 0, 9, 9],
                      "rle": {"size": [48, 64], "counts": "broken"}}]},
    ],
)  # fmt: skip
def test_scenes_that_lack_something_are_shown_without_it(changes: dict[str, Any]) -> None:
    scene = _scene("a", **changes)
    (card,) = gallery.cards([gallery.Chosen(scene, None, ())])
    assert 'class="perceived"' not in card.picture
    assert card.top == ""


def test_a_picture_that_cannot_be_read_is_left_out() -> None:
    scene = _scene("a", image=b"no picture")
    assert gallery.cards([gallery.Chosen(scene, None, ())]) == []


def test_the_page_stays_small(monkeypatch: pytest.MonkeyPatch) -> None:
    scenes = [gallery.Chosen(_scene(f"s{i}"), None, ()) for i in range(5)]
    size = gallery.cards(scenes)[0].size
    monkeypatch.setattr(gallery, "MAX_BYTES", int(2.5 * size))
    assert len(gallery.cards(scenes)) == 2


def test_the_sample_depends_on_ids_alone() -> None:
    scenes = [_scene(f"s{i}") for i in range(60)]

    def choose(order: list[int], shard: int) -> list[str]:
        sample = gallery.Sample(8, "gallery")
        for start in range(0, len(order), shard):
            sample.add(Part(scenes=[scenes[i] for i in order[start : start + shard]]))
        return [c.scene["scene_id"] for c in sample.chosen()]

    first = choose(list(range(60)), 7)
    assert len(first) == 8
    assert first == choose(list(range(59, -1, -1)), 60)
    other = gallery.Sample(8, "curves", lambda scene: scene["scene_id"] != first[0])
    other.add(Part(scenes=scenes))
    assert first[0] not in [c.scene["scene_id"] for c in other.chosen()]


def test_seen_from_above_things_lie_where_they_are() -> None:
    scene = _scene("a")
    left = {**scene["regions"][0], "id": 1, "category": "left"}
    far = {**scene["regions"][0], "id": 2, "category": "far"}
    nodes = [
        {**left, "perceived": {"center": [-2.0, 0.0, 3.0], "size": [1.0, 1.0, 1.0]}, "truth": None},
        {**far, "perceived": {"center": [2.0, 0.0, 9.0], "size": [1.0, 1.0, 1.0]}, "truth": None},
    ]
    graph = {**_graph(scene), "nodes": nodes}
    svg = ElementTree.fromstring(top_view.draw(graph, scene, {1: "#111111", 2: "#222222"}))
    rects = {r.get("data-r"): (float(r.get("x", "")), float(r.get("y", ""))) for r in svg.iter("rect")}
    assert rects["1"][0] < rects["2"][0]
    assert rects["2"][1] < rects["1"][1], "farther away is higher up"
    assert [t.text for t in svg.iter("text") if t.get("class") == "name"] == ["2 far", "1 left"]


def test_charts_are_well_formed_whatever_they_are_given() -> None:
    steps = [{"stage": "in<gest", "entered": 10, "kept": 7, "lost": {"a&b": 2, "c": 1}, "note": "pictures"}]
    for svg in (
        charts.funnel(steps), charts.funnel([]), charts.funnel([{**steps[0], "kept": 0, "entered": 0, "lost": {}}]),
        charts.lines("a<b", [0.0, 1.0], {"x": [1.0, None], "y": [None, None]}, low=0.5, high=1.0),
        charts.lines("one", [2.0], {"x": [0.7]}, low=0.5, high=1.0),
        charts.columns([(1.0, 3), (2.0, 0)], "hours"), charts.columns([], "none"),
        charts.histogram({"bars": [[0.5, 0.7, 3], [0.7, 1.0, 0]]}, "width"),
    ):  # fmt: skip
        ElementTree.fromstring(svg)
    assert charts.histogram({"bars": []}, "nothing") == ""
    assert "−2 a&amp;b, −1 c" in charts.funnel(steps)
