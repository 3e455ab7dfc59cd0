"""Counts, distributions and templates, with figures worked out by hand."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from srgpt.curation import figures
from srgpt.curation.frames import Part
from srgpt.curation.phrasing import listed, templates
from srgpt.records import UNIT_OF


def test_quantiles_are_right_to_a_bin() -> None:
    lengths = figures.Lengths()
    rng = np.random.default_rng(1)
    values = np.exp(rng.normal(0, 1.5, 5000))
    for value in values:
        lengths.add(float(value))
    for share in (0.05, 0.5, 0.95):
        assert lengths.quantile(share) == pytest.approx(float(np.quantile(values, share)), rel=0.06)
    drawn = lengths.to_json()
    assert drawn["count"] == 5000
    assert sum(count for *_, count in drawn["bars"]) == 5000


@given(st.lists(st.floats(0, 1e6), max_size=30))
def test_any_lengths_have_bars(values: list[float]) -> None:
    lengths = figures.Lengths()
    for value in values:
        lengths.add(value)
    bars = lengths.to_json()["bars"]
    assert sum(count for *_, count in bars) == sum(value > 1e-9 for value in values)
    assert all(a[1] == pytest.approx(b[0]) for a, b in pairwise(bars))


def _asked(category: str, index: int, regions: int) -> str:
    tags = [f"<region{i}>" for i in range(regions)]
    words = {
        **dict(zip("ABCDEFGH", tags, strict=False)), "all": listed(tags), "others": listed(tags[1:]),
        "X": "1.20 meters", "Y": "3.00 feet",
    }  # fmt: skip
    return templates()[category]["questions"][index].format(**words)


@pytest.mark.parametrize("category", list(UNIT_OF))
def test_every_template_is_recognised_in_its_questions(category: str) -> None:
    known = templates()[category]["questions"]
    for regions in (4, 5):
        for index in range(len(known)):
            assert figures.template_of(category, _asked(category, index, regions)) == index, known[index]


def test_other_words_are_of_no_template() -> None:
    assert figures.template_of("left_predicate", "Hey, is <region0> left of <region1>?") == figures.REWORDED
    assert figures.template_of("no such category", "Is <region0> here?") == figures.REWORDED


def test_a_scene_is_counted_once_whatever_is_asked() -> None:
    box = {"center": [0.0, 0.0, 4.0], "size": [1.0, 2.0, 0.5]}
    node = {"id": 1, "category": "chair", "perceived": box, "truth": None, "dropped": None}
    turns = [
        {"category": "width_data", "question": "How wide is <region0>?", "answer": "3.28 feet.",
         "value": 1.0, "unit": "metres", "regions": [1]},
        {"category": "direction", "question": "?", "answer": "At 3 o'clock.", "value": 3.0,
         "unit": "clock_hours", "regions": [1, 2]},
        {"category": "my own", "question": "Why?", "answer": "So.", "value": None, "unit": "text", "regions": []},
    ]  # fmt: skip
    lost = {"id": 2, "category": "mug", "perceived": None, "truth": box, "dropped": "few-points"}
    part = Part(
        scenes=[{"regions": [{"rle": {}, "category": "chair"}, {"rle": None, "category": "mug"}]}],
        graphs=[{"nodes": [node, lost]}],
        conversations=[{"scene_id": "a", "turns": turns[:2]}, {"scene_id": "a", "turns": turns[2:]}],
    )
    found = figures.Figures()
    found.add(part)
    assert (found.regions, found.masked, found.nodes, found.perceived, found.true) == (2, 1, 2, 1, 1)
    assert found.asked_objects == 2
    assert found.turns == {3: 1}
    written = found.to_json()
    assert written["objects"]["named"] == [["chair", 1], ["mug", 1]]
    assert written["units"] == {"feet": 1}
    assert written["said"] == {"direction": [[3.0, 1]]}
    assert list(written["questions"]) == ["width_data", "direction", "my own"]
    assert written["templates"]["width_data"]["used"] == 1
    assert written["camera_distance"]["median"] == pytest.approx(4.0, rel=0.06)
    assert written["sizes"]["height"]["median"] == pytest.approx(2.0, rel=0.06)
