"""Perceived against true boxes, with figures worked out by hand."""

from __future__ import annotations

from typing import Any

import pytest

from srgpt.curation import quality
from srgpt.params import AskParams
from srgpt.records import Node

ASK = AskParams(tie_margin=0.1, tie_metres=0.05, min_distance=0.05)


def _box(
    center: tuple[float, float, float], size: tuple[float, float, float] = (1.0, 1.0, 1.0)
) -> dict[str, Any]:
    return {"center": list(center), "size": list(size)}


def _graph(*objects: tuple[dict[str, Any] | None, dict[str, Any] | None]) -> dict[str, Any]:
    nodes = [
        {
            **dict.fromkeys(Node.__dataclass_fields__),
            "id": number,
            "bbox": [0.0, 0.0, 1.0, 1.0],
            **dict.fromkeys(("visibility", "truncation", "depth_coverage"), 1.0),
            "kept_points": 500,
            "perceived": perceived,
            "truth": truth,
        }
        for number, (perceived, truth) in enumerate(objects)
    ]
    return {"nodes": nodes, "scale_sigma": 0.0}


def _label(measured: dict[str, Any], fact: str) -> dict[str, Any]:
    return next(row for row in measured["labels"] if row["fact"] == fact)


def _metric(measured: dict[str, Any], fact: str) -> dict[str, Any]:
    return next(row for row in measured["metrics"] if row["fact"] == fact)


def test_labels_are_compared_on_the_pairs_that_would_be_asked() -> None:
    graph = _graph(
        (_box((0.0, 0.0, 5.0)), _box((0.0, 0.0, 5.0))),
        (_box((0.5, 0.0, 5.0)), _box((-0.5, 0.0, 5.0))),  # on the other side of the first in truth
        (_box((2.0, 0.01, 9.0)), _box((2.0, 0.01, 9.0))),
    )
    measured = quality.measure([graph], ASK)
    assert _label(measured, "left_right") == {
        "fact": "left_right",
        "count": 3,
        "accuracy": pytest.approx(2 / 3, abs=1e-6),
        "clear_count": 3,
        "clear_accuracy": pytest.approx(2 / 3, abs=1e-6),
    }
    assert _label(measured, "behind_front")["count"] == 2  # the first two are equally near
    assert _label(measured, "below_above")["count"] == 0  # a centimetre is a tie
    assert _label(measured, "below_above")["accuracy"] is None


def test_a_tie_in_truth_counts_as_asked_and_not_as_clear() -> None:
    graph = _graph(
        (_box((0.0, 0.0, 5.0)), _box((0.0, 0.0, 5.0))),
        (_box((0.2, 0.0, 5.0)), _box((0.01, 0.0, 5.0))),
    )
    row = _label(quality.measure([graph], ASK), "left_right")
    assert (row["count"], row["accuracy"], row["clear_count"], row["clear_accuracy"]) == (1, 1.0, 0, None)


def test_relative_errors() -> None:
    graph = _graph(
        (_box((0.0, 0.0, 5.0), (0.9, 1.0, 1.0)), _box((0.0, 0.0, 5.0), (1.0, 1.0, 1.0))),
        (_box((3.0, 0.0, 5.0), (2.4, 1.0, 1.0)), _box((4.0, 0.0, 5.0), (2.0, 1.0, 1.0))),
    )
    measured = quality.measure([graph], ASK)
    # widths are off by 10 % and by 20 %, each object once; distances 3 for 4 metres
    assert _metric(measured, "width") == {
        "fact": "width",
        "count": 2,
        "median_abs_rel": pytest.approx(0.15),
        "mean_abs_rel": pytest.approx(0.15),
    }
    assert _metric(measured, "height")["mean_abs_rel"] == 0.0
    assert _metric(measured, "distance") == {
        "fact": "distance",
        "count": 1,
        "median_abs_rel": pytest.approx(0.25),
        "mean_abs_rel": pytest.approx(0.25),
    }
    assert _metric(measured, "vertical_distance")["count"] == 0


def test_directions_are_compared_around_the_clock() -> None:
    # seen from the first: perceived straight ahead (12), true to the right (3); seen from the second: 6 and 9
    graph = _graph(
        (_box((0.0, 0.0, 5.0)), _box((0.0, 0.0, 5.0))),
        (_box((0.0, 0.0, 8.0)), _box((3.0, 0.0, 5.0))),
    )
    assert quality.measure([graph], ASK)["direction"] == {
        "fact": "direction",
        "count": 2,
        "mean_hours": 3.0,
        "within_one_hour": 0.0,
    }


@pytest.mark.parametrize(
    "objects",
    [
        [],
        [(None, _box((0.0, 0.0, 5.0)))],
        [(_box((0.0, 0.0, 5.0)), None)],
        [(_box((0.0, 0.0, float("nan"))), _box((0.0, 0.0, 5.0)))],
        [(_box((0.0, 0.0, 5.0), (1.0, -1.0, 1.0)), _box((0.0, 0.0, 5.0)))],
        [({"center": [], "size": [1.0]}, _box((0.0, 0.0, 5.0)))],
    ],
)
def test_without_pairs_of_boxes_it_says_so(objects: list[Any]) -> None:
    measured = quality.measure([_graph(*objects)], ASK)
    assert not measured["available"]
    assert "cannot be measured" in measured["note"]
    assert all(row["count"] == 0 for row in measured["labels"] + measured["metrics"])


def test_few_pairs_are_not_judged() -> None:
    graph = _graph(
        (_box((0.0, 0.0, 5.0)), _box((0.0, 0.0, 5.0))), (_box((1.0, 0.0, 7.0)), _box((1.0, 0.0, 7.0)))
    )
    few, many = (quality.rows(quality.measure([graph] * n, ASK)) for n in (49, 50))
    judged = {row["fact"]: row["judged_accuracy"] for row in many}
    assert judged["left_right"] == 1.0
    assert judged["direction"] == 1.0
    left = next(row for row in few if row["fact"] == "left_right")
    assert left["judged_accuracy"] != left["judged_accuracy"]  # NaN


@pytest.mark.parametrize(
    ("truths", "synthetic", "judged"),
    [({"perceived"}, True, True), ({"cuboids"}, True, False), ({"perceived"}, False, False)],
)
def test_what_is_judged(truths: set[str], synthetic: bool, judged: bool) -> None:
    assert quality.judged(truths, synthetic=synthetic) is judged


def test_large_datasets_are_measured_on_a_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quality, "MAX_SCENES", 4)
    good = _graph((_box((0.0, 0.0, 5.0)), _box((0.0, 0.0, 5.0))))
    measured = quality.measure([good] * 10, ASK)
    assert measured["objects"] == 4  # every third
    assert "in 4 of 10 scenes" in measured["note"]


def test_pairs_that_ask_holds_for_uncertain_are_left_out() -> None:
    graph = _graph(
        (_box((0.0, 0.0, 5.0)), _box((0.0, 0.0, 5.0))),
        (_box((0.2, 0.0, 5.0)), _box((-0.2, 0.0, 5.0))),
    )
    assert _label(quality.measure([graph], ASK), "left_right")["count"] == 1
    for node in graph["nodes"]:
        node.update(center_sigma=[0.3, 0.3, 0.3], size_sigma=[0.1, 0.1, 0.1])
    assert _label(quality.measure([graph], ASK), "left_right")["count"] == 0


def test_true_boxes_in_one_place_have_no_direction() -> None:
    same = _box((0.0, 0.0, 5.0))
    measured = quality.measure([_graph((same, same), (_box((0.0, 0.0, 8.0)), same))], ASK)
    assert measured["direction"]["count"] == 0
