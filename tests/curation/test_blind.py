"""What text alone answers: leaks are found, and their absence, too."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from srgpt.curation import blind


def _report(turns: list[dict[str, Any]], per_scene: int = 4) -> dict[str, dict[str, Any]]:
    found = blind.Blind()
    for i in range(0, len(turns), per_scene):
        found.add({"dataset": "toy", "scene_id": f"s{i}", "turns": turns[i : i + per_scene]})
    return {row["category"]: row for row in found.report()["categories"]}


def _turn(category: str, question: str, value: float | None, unit: str, regions: int = 2) -> dict[str, Any]:
    return {
        "category": category, "question": question, "value": value, "unit": unit,
        "regions": list(range(regions)),
    }  # fmt: skip


def test_a_word_that_gives_the_answer_away_is_found() -> None:
    rng = np.random.default_rng(1)
    values = rng.integers(2, size=400)
    leaky = [
        _turn(
            "left_predicate",
            f"Is {'the' if v else 'that'} <region0> left of <region1>?",
            float(v),
            "truth",
        )
        for v in values
    ]
    row = _report(leaky)["left_predicate"]
    assert row["from_text"] == 1.0
    assert row["chance"] == 0.5
    (judged,) = blind.rows({"categories": [row]}, 40)
    assert judged["judged_lead"] > 0.45


def test_a_coin_cannot_be_read() -> None:
    rng = np.random.default_rng(2)
    templates = ("Is <region0> left of <region1>?", "Would you say that <region0> is left of <region1>?")
    fair = [
        _turn("left_predicate", templates[rng.integers(2)], float(rng.integers(2)), "truth")
        for _ in range(600)
    ]
    row = _report(fair)["left_predicate"]
    assert abs(row["lead"]) < 0.1
    (judged,) = blind.rows({"categories": [row]}, 40)
    assert judged["judged_lead"] < 0.05


def test_a_lopsided_answer_is_beyond_a_toss() -> None:
    row = _report(
        [_turn("left_predicate", "Is <region0> left?", float(i % 10 > 0), "truth") for i in range(200)]
    )
    assert row["left_predicate"]["from_text"] == pytest.approx(0.9)
    assert row["left_predicate"]["chance"] == 0.5


def test_names_of_things_give_their_sizes_away() -> None:
    rng = np.random.default_rng(3)
    sizes = {"car": 1.8, "mug": 0.08, "door": 0.9, "bus": 2.5, "pen": 0.01}

    def ask(named: bool) -> dict[str, Any]:
        turns = []
        for _ in range(500):
            name = str(rng.choice(list(sizes)))
            words = f"How wide is the {name} <region0>?" if named else "How wide is <region0>?"
            turns.append(_turn("width_data", words, sizes[name] * rng.uniform(0.9, 1.1), "metres", 1))
        return _report(turns)["width_data"]

    named, plain = ask(True), ask(False)
    assert named["from_text"] > 0.95
    assert named["lead"] > 0.6
    assert plain["lead"] == pytest.approx(0, abs=1e-9)
    assert plain["chance"] == plain["same_answer"]


def test_hours_count_as_in_the_benchmark() -> None:
    """An hour off is right, the short way round: always saying 12 meets 11 and 1, and not 6."""
    hours = (11.0, 1.0, 12.0, 6.0)
    turns = [_turn("direction", "Where is <region1>?", hours[i % 4], "clock_hours") for i in range(400)]
    assert _report(turns)["direction"]["same_answer"] == pytest.approx(0.75)


def test_choices_among_many_have_their_own_chance() -> None:
    rng = np.random.default_rng(4)
    turns = [
        _turn("tallest", "Which of <region0>, <region1>, <region2>, <region3> is tallest?",
              float(rng.integers(4)), "region", 4)
        for _ in range(400)
    ]  # fmt: skip
    row = _report(turns)["tallest"]
    assert row["chance"] == 0.25
    assert abs(row["lead"]) < 0.1


@pytest.mark.parametrize(
    ("category", "regions", "answers"),
    [("path_choice", 4, (2, 3)), ("closest_to", 3, (1, 2)), ("filtered_tallest", 4, (1, 2, 3)),
     ("left_fact", 2, (0, 1)), ("nearest", 3, (0, 1, 2))],
)  # fmt: skip
def test_regions_that_cannot_be_the_answer_do_not_count(
    category: str, regions: int, answers: tuple[int, ...]
) -> None:
    """Answers drawn from those that are possible are no lead over chance."""
    rng = np.random.default_rng(6)
    turns = [
        _turn(category, "Which of them is it?", float(rng.choice(answers)), "region", regions)
        for _ in range(400)
    ]
    row = _report(turns)[category]
    assert row["chance"] == pytest.approx(1 / len(answers), abs=1e-6)
    (judged,) = blind.rows({"categories": [row]}, 40)
    assert judged["judged_lead"] < 0.05


def test_what_cannot_be_graded_is_counted_and_what_is_rare_is_not_measured() -> None:
    found = blind.Blind()
    turns = [
        _turn("caption", "What is this?", None, "text"), _turn("left_predicate", "?", float("nan"), "truth"),
        _turn("left_predicate", "Is <region0> left?", 1.0, "truth"),
    ]  # fmt: skip
    found.add({"dataset": "toy", "scene_id": "a", "turns": turns})
    found.add({"dataset": "toy", "scene_id": "b", "turns": None})
    report = found.report()
    assert report["text"] == 2
    (row,) = report["categories"]
    assert (row["questions"], row["from_text"], row["lead"]) == (1, None, None)
    assert blind.rows(report, 0)[0]["judged_lead"] is None


def test_questions_of_one_scene_are_never_learnt_from_and_asked() -> None:
    """Every scene has a word of its own that gives its answers away: useless for other scenes."""
    rng = np.random.default_rng(5)
    turns = []
    for scene in range(100):
        value = float(rng.integers(2))
        turns += [_turn("left_predicate", f"Is <region0> left, {'x' * scene}?", value, "truth")] * 4
    assert _report(turns)["left_predicate"]["from_text"] < 0.65
