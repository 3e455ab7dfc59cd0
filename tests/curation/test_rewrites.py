"""The validator: what a rewrite may change, and what it must not."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from srgpt.curation import rewrites
from srgpt.curation.completions import Completion
from srgpt.curation.phrasing import templates
from srgpt.curation.rephrasing import FIELDS, must_say, read
from srgpt.curation.rewrites import Limits, problem, quantities, read_fields, tidy_answer, tidy_question
from srgpt.geometry.language import read_value
from srgpt.records import CATEGORIES, REASONING, UNIT_OF, Turn


def turn(category: str, question: str, answer: str, value: float | None, regions: int = 2) -> Turn:
    return Turn(
        question, answer, category, tuple(range(5, 5 + regions)), value, UNIT_OF.get(category, "text")
    )


LEFT = turn(
    "left_predicate", "Is <region0> left of <region1>?", "Region [0] is left of Region [1], so yes.", 1.0
)
NOT_LEFT = turn(
    "left_predicate", "Is <region0> left of <region1>?", "Region [0] is right of Region [1], so no.", 0.0
)
TALLER = turn(
    "tall_choice", "Which is taller, <region0> or <region1>?",
    "Region [0] is shorter than Region [1], so Region [1].", 0.0,
)  # fmt: skip
WIDTH = turn("width_data", "How wide is <region0>?", "The width of Region [0] is 1.52 meters.", 1.52, 1)
FAR = turn(
    "distance_data",
    "How far is <region0> from <region1>?",
    "Region [0] is 3.40 feet from Region [1].",
    1.03632,
)
CLOCK = turn(
    "direction",
    "Standing at <region0> with straight ahead at 12 o'clock, in which direction is <region1>?",
    "From Region [0], you find Region [1] at 3 o'clock.",
    3.0,
)
REACH = turn(
    "reach", "Whoever stands at <region0> reaches 80.00 centimeters far. Is <region1> within reach?",
    "The gap is 1.20 meters, so no.", 0.0,
)  # fmt: skip
TOUCH = turn("reach", REACH.question, "The gap is 0.50 meters, so yes.", 1.0)
ALONG = turn(
    "horizontal_distance_data", "Horizontally, how far apart are <region0> and <region1>?",
    "Along the ground, Region [0] is 3.40 feet from Region [1].", 1.03632,
)  # fmt: skip
UP = turn(
    "vertical_distance_data", "Vertically, how far apart are <region0> and <region1>?",
    "Region [0] and Region [1] are 0.75 meters apart vertically.", 0.75,
)  # fmt: skip
RATIO = turn(
    "width_ratio", "How many times as wide as <region1> is <region0>?",
    "Region [0] is 2.00 times as wide as Region [1].", 2.0,
)  # fmt: skip
LEFT_FACT = turn(
    "left_fact", "How do <region0> and <region1> lie from side to side?",
    "Region [1] is to the left of Region [0].", 1.0,
)  # fmt: skip
TALLEST = turn(
    "tallest", "Which is the tallest of <region0>, <region1> and <region2>?",
    "Region [2] is the tallest of them.", 2.0, 3,
)  # fmt: skip
COUNT = turn(
    "count_left", "How many of <region1> and <region2> are left of <region0>?",
    "Region [1] is left of Region [0], so one.", 1.0, 3,
)  # fmt: skip


LIMITS = Limits()


def check(template: Turn, limits: Limits = LIMITS, **texts: str) -> str | None:
    tidy = {"question": tidy_question, "answer": tidy_answer}
    return problem(template, replace(template, **{k: tidy[k](v) for k, v in texts.items()}), limits)


@pytest.mark.parametrize(
    ("template", "question"),
    [
        (LEFT, "Do you see <region0> to the left of <region1>?"),
        (LEFT, "Compared with where you stand, is Region [0] on the left side of region 1?"),
        (LEFT, "<region0>: is it left of <region1>, yes or no?"),
        (LEFT, "Is <region0>'s place further left than that of <region1>?"),
        (TALLER, "Of <region0> and <region1>, which one stands taller?"),
        (TALLER, "Which one is not as short: <region0>, or <region1>?"),
        (WIDTH, "From one side to the other, what does <region0> measure?"),
        (FAR, "What distance lies between <region0> and <region1>?"),
        (ALONG, "Seen from above, how far apart are <region0> and <region1>?"),
        (ALONG, "Leaving out height, how far is <region0> from <region1>?"),
        (UP, "Without going sideways, how far is <region0> from <region1>?"),
        (UP, "By how much do <region0> and <region1> differ in height?"),
        (WIDTH, "What does <region0> measure across?"),
        (
            CLOCK,
            "With 12 o'clock straight ahead, where does a viewer who waits near <region0> see <region1>?",
        ),
        (CLOCK, "From the place of <region0>, 12 o'clock ahead, you look for <region1>. In which direction?"),
        (REACH, "Reaching 80 cm from <region0>: yes or no, is <region1> near enough?"),
        (LEFT_FACT, "From left to right, how are <region0> and <region1> placed?"),
        (CLOCK, "Someone at <region0> has 12 o'clock straight ahead; in which direction would <region1> be?"),
        (CLOCK, "With twelve o'clock ahead of <region0>, where on the dial is <region1>?"),
        (REACH, "With a reach of 80 cm, can somebody at <region0> touch <region1>?"),
        (REACH, "A person at <region0> has a reach of 80.0 centimetres. Can they get to <region1>?"),
        (TALLEST, "Among <region0>, <region1>, and <region2>, which is tallest?"),
        (COUNT, "Of <region1> and <region2>, how many lie left of <region0>?"),
    ],
)
def test_questions_in_other_words(template, question):
    assert check(template, question=question) is None


@pytest.mark.parametrize(
    ("template", "answer"),
    [
        (LEFT, "Yes, Region [0] is on the left of Region [1]."),
        (LEFT, "Indeed it is."),
        (LEFT, "Yes, it is."),
        (LEFT, "Yes, it is to the left of Region [1]."),
        (LEFT, "Yes - Region [1] is to the right of Region [0]."),
        (LEFT, "Yes, since Region [1] lies right of Region [0]."),
        (LEFT, "Yes, seen from Region [1], Region [0] is to the left."),
        (NOT_LEFT, "No, it isn't."),
        (LEFT, "Yes: <region0> lies further left than <region1>!"),
        (LEFT, "Correct. Region [0] isn’t right of Region [1]."),
        (LEFT, "Region 0 sits to the left of [Region 1], so the answer is yes."),
        (NOT_LEFT, "No, Region [0] is not to the left of Region [1]."),
        (NOT_LEFT, "No. Region [0] (you see it at once) lies to the right of Region [1]."),
        (TALLER, "Region [0] is less tall than Region [1], so Region [1]."),
        (TALLER, "Region [1] is taller than Region [0]."),
        (WIDTH, "Region [0] is about 1.52 m wide."),
        (WIDTH, "About 1.52 meters."),
        (WIDTH, "It has a breadth of 1.52 meters."),
        (FAR, "They are 3.40 feet apart."),
        (UP, "Vertically, 0.75 meters."),
        (LEFT_FACT, "Region [1] is the one further to the left, beside Region [0]."),
        (LEFT_FACT, "Region [0] is to the right of Region [1], so Region [1]."),
        (WIDTH, "Region [0]'s width comes to 1.520 metres."),
        (WIDTH, "It is Region [0] that measures 1.52 meters from left to right."),
        (FAR, "Between Region [0] and Region [1] there are roughly 3.4 feet."),
        (CLOCK, "For Region [0], Region [1] is at three o'clock."),
        (REACH, "No: the gap measures 1.20 meters."),
        (TALLEST, "Region [2] stands tallest."),
        (COUNT, "Only Region [1] is left of Region [0], so one."),
    ],
)
def test_answers_in_other_words(template, answer):
    assert check(template, answer=answer) is None


@pytest.mark.parametrize(
    ("template", "question", "reason"),
    [
        (LEFT, LEFT.question, "unchanged"),
        (LEFT, "", "empty"),
        (LEFT, "Is <region0> left of <region1>" + " now" * 200 + "?", "too-long"),
        (LEFT, "Is <region0> left of <region1>\u200b?", "odd-characters"),
        (LEFT, "Is <region0> left of <region1>\ud800?", "odd-characters"),
        (LEFT, "Is <region0> left of <region1> \u0661?", "odd-characters"),
        (LEFT, "请问 <region0> left of <region1>?", "odd-characters"),
        (LEFT, "Is <mask> left of <region0> and <region1>?", "stray-markup"),
        (LEFT, "Is <region0> left of <region1>?<|eot_id|>", "stray-markup"),
        (LEFT, "Is **<region0>** left of <region1>?", "stray-markup"),
        (LEFT, "Tell me if <region0> is left of <region1>.", "not-a-question"),
        (LEFT, "Is <region0> left of it?", "regions-changed"),
        (LEFT, "Is <region0> left of <region2>?", "regions-changed"),
        (LEFT, "Is <region1> left of <region0>?", "regions-changed"),
        (LEFT, "Is <region0> left of <region1>, <region1>?", "regions-changed"),
        (LEFT, "Is <region0> right of <region1>?", "relation-changed"),
        (LEFT, "Is <region0> not left of <region1>?", "relation-changed"),
        (LEFT, "Is <region0> left or right of <region1>?", "relation-changed"),
        (LEFT, "Is <region0> above <region1>?", "relation-changed"),
        (LEFT, "Yes or what, is <region0> left of <region1>?", "answer-in-question"),
        (LEFT, "<region0> is left of <region1>, isn't it?", "answer-in-question"),
        (LEFT, "<region0> is left of <region1>, right?", "answer-in-question"),
        (LEFT, "<region0> is left. Is it left of <region1>?", "answer-in-question"),
        (LEFT, "Given that one is on that side, is <region0> left of <region1>?", "answer-in-question"),
        (WIDTH, "How tall is <region0>?", "quantity-changed"),
        (WIDTH, "How wide and tall is <region0>?", "quantity-changed"),
        (WIDTH, "How big is <region0>?", "quantity-changed"),
        (FAR, "Seen from above, how far apart are <region0> and <region1>?", "quantity-changed"),
        (FAR, "Ignoring height, how far apart are <region0> and <region1>?", "quantity-changed"),
        (ALONG, "How far apart are <region0> and <region1>?", "quantity-changed"),
        (ALONG, "What is the difference in height between <region0> and <region1>?", "quantity-changed"),
        (UP, "What is the horizontal distance between <region0> and <region1>?", "quantity-changed"),
        (UP, "Ignoring height, how far apart are <region0> and <region1>?", "quantity-changed"),
        (RATIO, "How many times as tall as <region1> is <region0>?", "quantity-changed"),
        (LEFT_FACT, "How do <region0> and <region1> lie in height?", "quantity-changed"),
        (CLOCK, "With 12 o'clock ahead, in which direction is <region0> seen from <region1>?", "relation-changed"),
        (CLOCK, "With 12 o'clock ahead, where is <region0>, if you stand at <region1>?", "relation-changed"),
        (CLOCK, "With 12 o'clock ahead, where is <region0> relative to <region1>?", "relation-changed"),
        (CLOCK, "Standing at <region0>, 12 o'clock ahead, where is it from <region1>?", "relation-changed"),
        (REACH, "Who stands at <region0> reaches 80 cm far. Is <region1> out of reach?", "relation-changed"),
        (REACH, "Reaching 80 cm from <region0>, is <region1> not within reach?", "relation-changed"),
        (REACH, "Reaching 80 cm from <region0>, can't they get to <region1>?", "relation-changed"),
        (TALLER, "Which is shorter, <region0> or <region1>?", "relation-changed"),
        (TALLEST, "Which is the shortest of <region0>, <region1> and <region2>?", "relation-changed"),
        (WIDTH, "Is <region0> 1.52 meters wide?", "answer-in-question"),
        (WIDTH, "How wide is <region0>, in steps of 2 centimeters?", "numbers-changed"),
        (WIDTH, "How many meters wide is <region0>?", "numbers-changed"),
        (WIDTH, "How many feet wide is <region0>?", "numbers-changed"),
        (FAR, "How far is <region0> in front of <region1>?", "relation-changed"),
        (CLOCK, "Standing at <region0>, in which direction is <region1>?", "numbers-changed"),
        (CLOCK, "With 12 o'clock ahead of <region0>, is <region1> at three o'clock?", "answer-in-question"),
        (REACH, "With a reach of 90 cm, can somebody at <region0> touch <region1>?", "numbers-changed"),
        (COUNT, "Is it one of <region1> and <region2> that is left of <region0>?", "answer-in-question"),
    ],
)  # fmt: skip
def test_questions_that_are_no_longer_the_same(template, question, reason):
    assert check(template, question=question) == reason


@pytest.mark.parametrize(
    ("template", "answer", "reason"),
    [
        (LEFT, "Yes, Region [0] is, or is it?", "not-an-answer"),
        (LEFT, "Affirmative.", "value-changed"),
        (LEFT, "Yes, Region [1] is.", "relation-changed"),
        (LEFT, "Yes, it is to the left of Region [0].", "relation-changed"),
        (LEFT, "Yes, Region [1] is to the left.", "relation-changed"),
        (LEFT, "Yes, Region [1] is to the left of Region [0].", "relation-changed"),
        (LEFT, "Yes, Region [0] has Region [1] to its left.", "relation-changed"),
        (LEFT, "Yes, Region [0] has to its left Region [1].", "relation-changed"),
        (LEFT, "Yes, seen from Region [1], Region [0] is to the right.", "relation-changed"),
        (LEFT, "Yes, right of Region [1] is Region [0].", "relation-changed"),
        (LEFT, "Yes, Region [0] is left of Region [1], unlike Region [2].", "regions-changed"),
        (LEFT, "Yes, Region [1] has Region [0] to its left.", "relation-changed"),
        (LEFT, "No, Region [0] is left of Region [1].", "value-changed"),
        (LEFT, "No, Region [0] is left of Region [1], so yes.", "value-changed"),
        (LEFT, "Region [0] is left of Region [1].", "value-changed"),
        (LEFT, "Yes, Region [0] is right of Region [1].", "relation-changed"),
        (LEFT, "Yes, Region [0] is not left of Region [1].", "relation-changed"),
        (LEFT, "Yes, Region [0] is 2 meters left of Region [1].", "numbers-changed"),
        (LEFT, "Yes, regions 0 and 1 say Region [0] is left of Region [1].", "stray-markup"),
        (TALLER, "Region [0] is taller than Region [1], so Region [0].", "value-changed"),
        (TALLER, "Region [1] is shorter than Region [0].", "relation-changed"),
        (TALLER, "It is Region [1].", "regions-changed"),
        (WIDTH, "Region [0] is 1.5 meters wide.", "numbers-changed"),
        (WIDTH, "Region [0] is 1.52 feet wide.", "numbers-changed"),
        (WIDTH, "Region [0] is 1.52 wide.", "numbers-changed"),
        (WIDTH, "Region [0] is 1,52 meters wide.", "numbers-changed"),
        (WIDTH, "Region [0] is -1.52 meters wide.", "numbers-changed"),
        (WIDTH, "Region [0] is 1.52 meters wide, or 5 feet.", "numbers-changed"),
        (WIDTH, "Region [0] is 1.52 meters wide, half a meter more than I thought.", "numbers-changed"),
        (WIDTH, "Region [0] is less than 1.52 meters wide.", "numbers-changed"),
        (WIDTH, "Region [0] isn't 1.52 meters wide.", "numbers-changed"),
        (WIDTH, "Region [0] is 1.52 meters tall.", "quantity-changed"),
        (WIDTH, "1.52 meters tall.", "quantity-changed"),
        (WIDTH, "It is 152 centimeters wide.", "numbers-changed"),
        (FAR, "Horizontally, Region [0] is 3.40 feet from Region [1].", "quantity-changed"),
        (UP, "Along the ground, they are 0.75 meters apart.", "quantity-changed"),
        (UP, "Ignoring height, they are 0.75 meters apart.", "quantity-changed"),
        (RATIO, "It is 2.00 times as tall.", "regions-changed"),
        (RATIO, "Region [0] is 2.00 times as tall as Region [1].", "quantity-changed"),
        (LEFT_FACT, "Region [1] is above Region [0].", "relation-changed"),
        (LEFT_FACT, "Region [1] is left of and above Region [0].", "relation-changed"),
        (LEFT_FACT, "Region [1] is to the right of Region [0].", "relation-changed"),
        (LEFT_FACT, "Region [1] has Region [0] to its left.", "relation-changed"),
        (LEFT_FACT, "Region [1] is what I would say, not Region [0].", "relation-changed"),
        (LEFT_FACT, "Region [0] is to the right of Region [1].", "value-changed"),  # true, but reads as Region [0]
        (LEFT_FACT, "Region [0] is to the left of Region [1], so Region [1].", "relation-changed"),
        (CLOCK, "Region [0] is at 3 o'clock from Region [1].", "relation-changed"),
        (CLOCK, "Region [0] is what Region [1] sees at 3 o'clock.", "relation-changed"),
        (TOUCH, "Yes, it is out of reach: the gap is 0.50 meters.", "relation-changed"),
        (WIDTH, "Region [0] is ½ of 1.52 meters wide.", "odd-characters"),
        (FAR, "Region [0] is 3.40 feet behind Region [1].", "relation-changed"),
        (CLOCK, "From Region [0], you find Region [1] at 4 o'clock.", "numbers-changed"),
        (REACH, "Yes: the gap is 1.20 meters.", "value-changed"),
        (TALLEST, "Region [1] is the tallest of them, not Region [2].", "value-changed"),
        (TALLEST, "Region [2] is the shortest of them.", "relation-changed"),
        (COUNT, "Region [1] is left of Region [0], so two.", "value-changed"),
    ],
)  # fmt: skip
def test_answers_that_are_no_longer_the_same(template, answer, reason):
    assert check(template, answer=answer) == reason


def test_names_of_what_the_regions_show():
    limits = Limits(forbidden=("office chair", "shelf", "box"))
    assert check(WIDTH, limits, question="How wide is the office chair <region0>?") == "category-named"
    assert check(WIDTH, limits, answer="Region [0] is 1.52 meters wide, as chairs go.") == "category-named"
    assert check(WIDTH, limits, answer="Region [0] is a box 1.52 meters wide.") is None  # says nothing
    assert check(WIDTH, limits, answer="Region [0] is 1.52 meters wide, chairman.") is None
    assert check(WIDTH, answer="Region [0] is a chair 1.52 meters wide.") is None
    named = replace(WIDTH, answer="The shelf Region [0] is 1.52 meters wide.")
    assert check(named, limits, answer="The shelf called Region [0] is 1.52 meters wide.") is None


def test_a_question_may_ask_in_another_way_where_it_is_meant_to():
    free = Limits(free_question=True)
    question = "If I walk in from the camera's left, do I pass <region0> before <region1>?"
    assert check(LEFT, question=question.replace("left", "near side")) == "relation-changed"
    assert check(LEFT, free, question=question, answer="Yes, Region [0] is left of Region [1].") is None
    assert (
        check(LEFT, free, question=question, answer="Yes, Region [0] is right of Region [1].")
        == "relation-changed"
    )
    assert check(WIDTH, free, question="Can a 2 meters wide cart pass <region0>?") == "numbers-changed"
    assert check(WIDTH, free, question="Tell the width of <region0>.") == "not-a-question"


@pytest.mark.parametrize("category", [*CATEGORIES, *REASONING["facts"]])
def test_a_template_may_stand_in_for_another_of_its_category(category):
    """So the rules understand all words that the templates use, and their sides."""
    asked = {"A": "<region0>", "B": "<region1>"}
    said = {
        "A": "Region [0]",
        "B": "Region [1]",
        "X": "3 o'clock" if category == "direction" else "1.52 meters",
    }
    if UNIT_OF[category] == "region":
        said |= {"X": "Region [1]", "Y": "Region [0]"}
    words = templates()[category]
    placing = "higher than the other"  # no rule can see that this places neither of the two
    regions = 1 if category.startswith(("width_", "height_")) else 2
    for kind, value in (("positive", 1.0), ("negative", 0.0), ("answers", 3.0)):
        answers = [a.format(**said) for a in words.get(kind, []) if placing not in a]
        questions = [q.format(**asked) for q in words["questions"]]
        for answer in answers:
            base = turn(category, questions[0], answer, value, regions)
            for other in answers:
                found = check(base, answer=other)
                mentions = [re.findall(r"\[\d]", t) for t in (answer, other)]
                if set(mentions[0]) <= set(mentions[1]) and len(mentions[0]) < 3 and category != "direction":
                    assert found in (None, "unchanged"), (answer, other)
            for other in questions:
                found = check(base, question=other)
                if other.endswith("?") and "12" not in questions[0] + other:
                    assert found in (None, "unchanged"), (questions[0], other)


def test_the_examples_of_the_prompts_pass():
    """What the model is shown is what is accepted from it."""
    data = rewrites.words()
    categories = {
        "Is <region0> to the left of <region1>?": "left_predicate",
        "How far apart are <region0> and <region1>?": "distance_data",
        "Which is taller, <region0> or <region1>?": "tall_choice",
        "How wide is <region0>?": "width_data",
        "Which is further left, <region0> or <region1>?": "left_choice",
        "Is <region0> nearer than <region1>?": "front_predicate",
        "If you stand at <region0> and look the way the camera does, at which clock hour is <region1>?": "direction",
    }
    for name, fields in FIELDS.items():
        for example in data[name]["examples"]:
            category = categories[example["question"]]
            answer = example.get("answer", "Region [0] and Region [1].")
            value = {"no": 0.0, "yes": 1.0}.get(example.get("value"), 1.0)
            template = Turn(example["question"], answer, category, (0, 1), value, UNIT_OF[category])
            text = '{"' + '", "'.join(f'{k}": "{v}' for k, v in example["output"].items()) + '"}'
            limits = Limits(free_question=name == "reason")
            assert read(Completion(text), template, fields, limits) == example["output"], example
            if "value" in example:
                assert example["value"] in must_say(template)
            assert example["style"] in data["styles"]


def test_every_reason_has_a_sentence_for_the_model():
    assert set(rewrites.words()["problems"]) == set(rewrites.REASONS)


# Reading ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        '{"question": "a", "answer": "b"}',
        'Sure! Here it is:\n```json\n{"answer": "b", "question": "a"}\n```',
        '<think>{"question": "x", "answer": "y"} no</think>\n{"question": "a", "answer": "b"}',
        'The set {1, 2} and {"k": 1}, then {"question": "a", "answer": "b"}.',
    ],
)
def test_the_object_is_found(text):
    assert read_fields(text, ("question", "answer")) == {"question": "a", "answer": "b"}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not-json"), ("yes", "not-json"), ('{"question": "a"', "not-json"), ("{'question': 'a'}", "not-json"),
        ('["question"]', "not-json"), ("{" * 5000, "not-json"), ('{"question": ' + "[" * 5000, "not-json"),
        ("{}", "wrong-schema"), ('{"question": 1}', "wrong-schema"), ('{"question": null}', "wrong-schema"),
        ('{"question": "a", "why": "b"}', "wrong-schema"), ('{"Question": "a"}', "wrong-schema"),
    ],
)  # fmt: skip
def test_the_object_is_missing(text, reason):
    assert read_fields(text, ("question",)) == reason


def test_quantities():
    text = "Region [3] is 1.50 m from <region2>; three o'clock, 12 o'clock, 5-foot, 7, a meter, 1,200 mm. 2 in front."
    assert dict(quantities(text)) == {
        ("1.5", "1"): 1, ("3", "clock"): 1, ("12", "clock"): 1, ("5", "0.3048"): 1, ("7", ""): 1, ("", "1"): 1,
        ("1200", "0.001"): 1, ("2", ""): 1,
    }  # fmt: skip


# Fuzz ---------------------------------------------------------------------------------------------------------

TEMPLATES = [LEFT, NOT_LEFT, TALLER, WIDTH, FAR, UP, CLOCK, REACH, TALLEST, COUNT, LEFT_FACT]
PIECES = st.sampled_from(
    [
        "yes",
        "no",
        "not",
        "left",
        "right",
        "taller",
        "shorter",
        "Region [0]",
        "Region [1]",
        "region 0",
        "<region0>",
        "<region1>",
        "1.52 meters",
        "3.40 feet",
        "3 o'clock",
        "12",
        "o'clock",
        "so",
        ",",
        ".",
        "?",
        "less than",
        "one",
        "<|end|>",
        "1.5",
        "2 m",
        "is",
        "{",
        "\u200b",
        "é",
    ]
)
TEXTS = st.one_of(st.text(max_size=60), st.lists(PIECES, max_size=25).map(" ".join))


@given(st.sampled_from(TEMPLATES), TEXTS, TEXTS, st.booleans())
def test_what_is_accepted_keeps_everything(template, question, answer, free):
    rewrite = replace(template, question=tidy_question(question), answer=tidy_answer(answer))
    if problem(template, rewrite, Limits(free_question=free)) is None:
        assert re.findall(r"<region\d+>", rewrite.question) == re.findall(r"<region\d+>", template.question)
        assert quantities(rewrite.question) == quantities(template.question)
        assert quantities(rewrite.answer) == quantities(template.answer)
        assert read_value(rewrite.answer, template.category) == read_value(template.answer, template.category)
        (rewrite.question + rewrite.answer).encode()


@given(
    st.sampled_from([WIDTH, FAR]),
    st.decimals(min_value=0, max_value=10**6, places=2),
    st.sampled_from(["meters", "feet", "inches", "centimeters", "m", "ft", "cm", "", "yards", "o'clock"]),
)
def test_no_other_number_or_unit_passes(template, number, unit):
    said = f"{number} {unit}"
    assume(quantities(said) != quantities(re.search(r"[0-9.]+ [a-z]+", template.answer)[0]))
    answer = re.sub(r"[0-9.]+ [a-z]+", said, template.answer)
    assert check(template, answer=answer) == "numbers-changed"


@given(
    st.sampled_from([LEFT, TALLER, FAR, CLOCK, TALLEST]),
    st.permutations([0, 1, 2]),
    st.sampled_from("?,.!;:'"),
)
def test_regions_are_seen_beside_any_punctuation(template, order, mark):
    names = [f"<region{k}>" for k in order]
    question = re.sub(r"<region(\d)>", lambda m: names[int(m[1])] + mark + " ", template.question)
    same = [n for n in names if n in template.question] == sorted(
        set(re.findall(r"<region\d>", template.question))
    )
    same = same and set(re.findall(r"<region\d>", question)) == set(
        re.findall(r"<region\d>", template.question)
    )
    found = check(template, question=question)
    assert (found == "regions-changed") == (not same and found != "stray-markup"), (question, found)


@given(st.text(max_size=300))
def test_no_text_of_a_model_breaks_it(text):
    found = read(Completion(text), LEFT, ("question", "answer"), Limits())
    assert isinstance(found, (str, dict))


@given(st.sampled_from(TEMPLATES), st.integers(0, 60), st.characters())
def test_one_character_more_does_no_harm(template, place, character):
    for field, tidy in (("question", tidy_question), ("answer", tidy_answer)):
        text = getattr(template, field)
        changed = tidy(text[:place] + character + text[place:])
        rewrite = replace(template, **{field: changed})
        if problem(template, rewrite, Limits()) is None and field == "answer":
            assert read_value(changed, template.category) == read_value(template.answer, template.category)
