"""Facts under errors that are put in on purpose: exact where nothing is wrong, and worse the more is."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

import pytest

from srgpt.curation import curves, report
from srgpt.params import AskParams, IngestParams, LiftParams
from srgpt.records import QUALITATIVE
from srgpt.sources import open_source


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    params = IngestParams.model_validate(
        {"scenes": 4, "shard_scenes": 4, "procedural": {"image_size": 96, "families": ["tabletop", "room"]}}
    )
    (work,) = open_source(params, 7, "toy", None).shards()
    return [scene.to_row() for scene in work.load().scenes]


@pytest.fixture(scope="module")
def measured(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return curves.measure(rows, LiftParams(), AskParams(), 7)


def _at(measured: dict[str, Any], kind: str, level: float, truth: str = "surface") -> dict[str, Any]:
    curve = next(c for c in measured["curves"] if c["kind"] == kind)
    return next(p for p in curve["points"] if p["level"] == level)[truth]


def test_without_error_the_visible_surface_is_met(measured: dict[str, Any]) -> None:
    assert measured["scenes"] == 4
    assert [c["kind"] for c in measured["curves"]] == list(curves.KINDS)
    for kind, (_, exact, _) in curves.KINDS.items():
        figures = _at(measured, kind, exact)
        assert all(error < 0.02 for error in figures["abs_rel"].values())
        assert all(share is None or share >= 0.95 for share in figures["labels"].values())
        assert figures["objects"] == measured["objects"]


def test_exact_depth_and_masks_give_exact_facts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over all families: 99 of 100 relations that are no tie, and lengths within 2 %, of the visible surface."""
    params = IngestParams.model_validate(
        {"scenes": 60, "shard_scenes": 60, "procedural": {"image_size": 112}}
    )
    (work,) = open_source(params, 3, "toy", None).shards()
    monkeypatch.setattr(curves, "KINDS", {"depth_noise": ("", 0.0, ())})
    measured = curves.measure([s.to_row() for s in work.load().scenes], LiftParams(), AskParams(), 7)
    figures = _at(measured, "depth_noise", 0.0)
    assert set(figures["labels"]) == set(QUALITATIVE)
    assert min(figures["labels"].values()) >= 0.99
    assert max(figures["abs_rel"].values()) < 0.02


def test_a_wrong_scale_is_an_error_of_all_lengths_and_of_no_relation(measured: dict[str, Any]) -> None:
    for level in (0.8, 1.25):
        figures = _at(measured, "depth_scale", level)
        assert figures["abs_rel"]["distance"] == pytest.approx(abs(level - 1), abs=0.03)
        assert figures["labels"]["left_right"] == 1.0


def test_more_error_is_worse(measured: dict[str, Any]) -> None:
    for kind, fact in (
        ("depth_noise", "height"),
        ("mask_erosion", "width"),
        ("tilt_degrees", "vertical_distance"),
    ):
        exact, (*_, most) = curves.KINDS[kind][1:]
        assert _at(measured, kind, most)["abs_rel"][fact] > _at(measured, kind, exact)["abs_rel"][fact] + 0.02
    assert _at(measured, "mask_erosion", 4.0)["objects"] <= measured["objects"]


def test_no_camera_sees_the_back(measured: dict[str, Any]) -> None:
    surface, cuboids = (_at(measured, "depth_noise", 0.0, t)["abs_rel"] for t in curves.TRUTHS)
    assert cuboids["width"] > surface["width"]


def test_the_same_scenes_give_the_same_curves(rows: list[dict[str, Any]], measured: dict[str, Any]) -> None:
    assert curves.measure(rows, LiftParams(), AskParams(), 7) == measured


def test_what_cannot_be_used_is_passed_over(rows: list[dict[str, Any]]) -> None:
    assert all(map(curves.accepts, rows))
    assert not curves.accepts({**rows[0], "depth_source": "some/model"})
    assert not curves.accepts({**rows[0], "gravity": None})
    assert not curves.accepts({**rows[0], "regions": []})
    assert not curves.accepts({**rows[0], "regions": [{**rows[0]["regions"][0], "mask_source": "boxes"}]})
    broken = [{**rows[0], "depth": b"no depth"}, {**rows[0], "gravity": [0.0, 0.0, 0.0]}]
    assert curves.measure(broken, LiftParams(), AskParams(), 7) == {"scenes": 0, "objects": 0, "curves": []}


def test_they_are_drawn_for_both_truths(measured: dict[str, Any]) -> None:
    drawn = report.curve_charts(measured)
    for truth in curves.TRUTHS:
        for kind, lines in (("labels", 6), ("abs_rel", 5)):
            assert len(drawn[truth][kind]) == len(curves.KINDS)
            for chart in drawn[truth][kind]:
                svg = ElementTree.fromstring(chart)
                assert len([g for g in svg.iter("g") if "line" in g.get("class", "")]) == lines
    nothing = report.curve_charts({"curves": []})
    assert nothing["surface"] == {"labels": [], "abs_rel": []}
