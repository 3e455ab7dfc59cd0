"""A question is recognised only where there is no doubt, and then always as what it is."""

import pytest

from srgpt.curation.phrasing import templates
from srgpt.exchange.recognition import category_of, recognise
from srgpt.records import GROUP_OF

A, B = "<region0>", "<region1>"


def test_our_own_phrasings_are_never_taken_for_something_else() -> None:
    recognised = 0
    for category, words in templates().items():
        if category not in GROUP_OF:
            continue
        said = "3 o'clock" if category == "direction" else "1.50 meters"
        for question in words["questions"]:
            for kind in ("answers", "positive", "negative"):
                for answer in words.get(kind, ()):
                    found, value, _ = recognise(
                        question.format(A=A, B=B), answer.format(A="Region [0]", B="Region [1]", X=said)
                    )
                    assert found in (category, "imported"), question
                    if found == category:
                        recognised += 1
                        expected = {"positive": 1.0, "negative": 0.0}.get(
                            kind, 3.0 if category == "direction" else 1.5
                        )
                        assert value == expected, (question, answer)
    assert recognised > 500


@pytest.mark.parametrize(
    ("question", "answer", "expected"),
    [
        (f"Is {A} to the left of {B} from the viewer's perspective?", "Yes, it is.", ("left_predicate", 1.0)),
        (
            f"Does {A} appear on the right side of {B}?",
            "Incorrect, it is not on the right.",
            ("right_predicate", 0.0),
        ),
        (f"Can you confirm if {A} is positioned higher than {B}?", "Indeed.", ("above_predicate", 1.0)),
        (
            f"Does {A} have a greater height compared to {B}?",
            "No, Region [0] is not.",
            ("tall_predicate", 0.0),
        ),
        (f"Is {A} further away from the viewer than {B}?", "Yes.", ("behind_predicate", 1.0)),
        (f"Is {A} closer to the camera than {B}?", "No.", ("front_predicate", 0.0)),
        (f"Who is positioned more to the left, {A} or {B}?", "Region [1] appears so.", ("left_choice", 0.0)),
        (f"Which is taller, {A} or {B}?", "Region [0] is taller than Region [1].", ("tall_choice", 1.0)),
        (f"How far apart are {A} and {B}?", "They are 1.5 meters apart.", ("distance_data", 1.5)),
        (
            f"What is the horizontal distance between {A} and {B}?",
            "50 cm.",
            ("horizontal_distance_data", 0.5),
        ),
        (f"How far apart are {A} and {B} vertically?", "2 feet.", ("vertical_distance_data", 0.6096)),
        (f"Find out how wide {A} is.", "Region [0] is 1.2 m.", ("width_data", 1.2)),
        (f"What are the vertical dimensions of {A}?", "2 meters", ("height_data", 2.0)),
        (f"If you are at {A}, where will you find {B}?", "At 3 o'clock.", ("direction", 3.0)),
    ],
)
def test_plain_questions_are_recognised(question: str, answer: str, expected: tuple[str, float]) -> None:
    assert recognise(question, answer)[:2] == (expected[0], pytest.approx(expected[1]))


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        (f"If I walk from {A} to {B}, how far do I go?", "1 meter"),
        (f"Is {A} not to the left of {B}?", "Yes"),
        (f"Is {A} to the left or to the right of {B}?", "Yes"),
        (f"Is {B} to the left of {A}?", "Yes"),
        (f"Is {A} closer to {B}?", "Yes"),
        (f"Is {A} to the left of {B}?", "Perhaps."),
        (f"Is {A} to the left of {B}?", "No doubt about it."),
        (f"Is {A} to the left of {B}?", "Yes, but not by much: it is not left."),
        (f"Which is taller, {A} or {B}?", "Region [0] is shorter than Region [1]."),
        (f"Which is taller, {A} or {B}?", "Both, Region [0] and Region [1]."),
        (f"Which is taller, {A} or {B}?", "Compared to Region [0], Region [1] is taller."),
        (f"Which is wider, {A} or {B}?", "Region [0]."),
        (f"How far apart are {A} and {B}?", "Between 1 and 2 meters."),
        (f"How far apart are {A} and {B}?", "Not far."),
        (f"How wide and tall is {A}?", "1 meter"),
        (f"How many chairs are as wide as {A}?", "2 meters"),
        (f"Where is {B} from {A} on the clock?", "Region [0] is at 3 o'clock from Region [1]."),
        (f"How far apart are {A}, {B} and <region2>?", "1 meter"),
        ("What is in the picture?", "A chair."),
    ],
)
def test_where_there_is_doubt_it_stays_words(question: str, answer: str) -> None:
    assert recognise(question, answer) == ("imported", None, "text")


def test_a_category_of_the_question_alone() -> None:
    assert category_of(f"Which is thinner, {A} or {B}?") is None  # not asked in the benchmark
    assert category_of(f"Is {A} thinner than {B}?") == "thin_predicate"
