from __future__ import annotations

import re
from collections import Counter, defaultdict

import numpy as np
import pytest

from srgpt.curation.facts import fact, is_tie, unit_of
from srgpt.curation.phrasing import templates
from srgpt.curation.questions import Balance, ask_scene
from srgpt.geometry.language import read_value
from srgpt.params import AskParams
from srgpt.randomness import seeded
from srgpt.records import (
    CATEGORIES,
    GROUP_OF,
    QUALITATIVE,
    QUANTITATIVE,
    UNIT_OF,
    Box,
    Conversation,
    Node,
    Rejected,
    SceneGraph,
    Turn,
)

PAIR_QUALITATIVE = [c for c in CATEGORIES if GROUP_OF[c] in QUALITATIVE]
ONE_REGION = ("width_data", "height_data")


def graph(seed: int, count: int | None = None, dataset: str = "d", truth: bool = True) -> SceneGraph:
    rng = np.random.default_rng(seed)
    count = int(rng.integers(3, 9)) if count is None else count
    nodes = []
    for i in range(count):
        low = np.array([-3, -0.5, 1.5])
        box = Box(rng.uniform(low, [3, 1.5, 9]), rng.uniform(0.1, 1.8, 3))
        noisy = Box(box.center + 0.05, box.size * 1.1)
        nodes.append(
            Node(10 + i, "thing", "thing", (0, 0, 5, 5), None, perceived=noisy, truth=box if truth else None)
        )
    return SceneGraph(dataset, f"s{seed}", 100, 80, np.eye(3), tuple(nodes))


def ask(value: SceneGraph, balance: Balance | None = None, seed: int = 7, **params) -> list[Conversation]:
    found = ask_scene(value, AskParams(**params), seed, balance)
    assert not isinstance(found, Rejected), found
    return found


@pytest.fixture(scope="module")
def dataset() -> list[tuple[SceneGraph, Conversation]]:
    """Four hundred scenes, asked as one shard."""
    balance = Balance()
    return [(g, c) for g in map(graph, range(400)) for c in ask(g, balance)]


def turns(dataset) -> list[Turn]:
    return [turn for _, conversation in dataset for turn in conversation.turns]


def test_every_answer_states_the_fact(dataset):
    for scene, conversation in dataset:
        boxes = {n.id: n.perceived for n in scene.nodes}
        for turn in conversation.turns:
            asked = [boxes[i] for i in turn.regions]
            assert turn.value == fact(turn.category, *asked)
            assert not is_tie(turn.category, asked[0], asked[1] if len(asked) > 1 else None, AskParams())
            assert turn.unit == unit_of(turn.category)
            read = read_value(turn.answer, turn.category)
            assert read is not None
            # two decimals of a metre are the coarsest that answers are rounded to
            assert read == pytest.approx(turn.value, abs=0.0051 if turn.unit == "metres" else 0)


def test_regions_are_numbered_in_the_order_of_mention(dataset):
    for _, conversation in dataset:
        known = {r.id for r in conversation.regions}
        assert known == {i for t in conversation.turns for i in t.regions}
        for turn in conversation.turns:
            mentioned = re.findall(r"<region(\d+)>", turn.question)
            assert mentioned == [str(i) for i in range(len(turn.regions))]
            assert len(turn.regions) == (1 if turn.category in ONE_REGION else 2)
            assert len(set(turn.regions)) == len(turn.regions)
            named = {int(i) for i in re.findall(r"Region \[(\d+)\]", turn.answer)}
            assert named <= set(range(len(turn.regions)))


def test_answers_are_balanced_per_category(dataset):
    positive, asked = Counter(), Counter()
    for turn in turns(dataset):
        asked[turn.category] += 1
        positive[turn.category] += int(turn.value == 1.0)
    for category in PAIR_QUALITATIVE:
        assert asked[category] > 30
        assert positive[category] / asked[category] == pytest.approx(0.5, abs=0.03), category


def test_answers_are_nearly_balanced_in_many_small_shards():
    positive, asked = Counter(), Counter()
    for shard in range(60):
        balance = Balance()
        for scene in range(4):
            for conversation in ask(graph(1000 * shard + scene), balance):
                for turn in conversation.turns:
                    asked[GROUP_OF[turn.category]] += 1
                    positive[GROUP_OF[turn.category]] += int(turn.value == 1.0)
    for group in QUALITATIVE:
        assert positive[group] / asked[group] == pytest.approx(0.5, abs=0.08)


def test_groups_are_asked_about_equally_often_and_forms_are_mixed(dataset):
    groups = Counter(GROUP_OF[t.category] for t in turns(dataset))
    for halves in (QUALITATIVE, QUANTITATIVE):
        counts = [groups[g] for g in halves]
        assert min(counts) / max(counts) > 0.75
    categories = Counter(t.category for t in turns(dataset))
    for group in QUALITATIVE.values():
        counts = [categories[c] for c in group]
        assert min(counts) / max(counts) > 0.6


def test_the_order_of_mention_is_random(dataset):
    """Neither the scene's order nor the answer's is given away by who is mentioned first."""
    pairs = [t.regions for t in turns(dataset) if len(t.regions) == 2]
    assert np.mean([a < b for a, b in pairs]) == pytest.approx(0.5, abs=0.04)


def test_quantitative_share():
    for share in (0.0, 0.3, 0.5, 1.0):
        found = [t for i in range(60) for c in ask(graph(i, 8), quantitative_share=share) for t in c.turns]
        assert np.mean([t.unit != "truth" for t in found]) == pytest.approx(share, abs=0.06)
    odd = [t for i in range(200) for c in ask(graph(i, 8), turns=1) for t in c.turns]
    assert np.mean([t.unit != "truth" for t in odd]) == pytest.approx(0.5, abs=0.12)


def test_no_question_repeats_or_turns_around_another(dataset):
    for _, conversation in dataset:
        keys = [(GROUP_OF[t.category], frozenset(t.regions)) for t in conversation.turns]
        assert len(set(keys)) == len(keys)


def test_ten_turns_where_the_scene_has_them_else_fewer(dataset):
    assert {len(c.turns) for _, c in dataset} == {10}
    (two,) = ask(graph(3, 2))
    assert 4 <= len(two.turns) <= 10
    (one,) = ask(graph(3, 1))
    assert sorted(t.category for t in one.turns) == ["height_data", "width_data"]
    (many,) = ask(graph(3, 8), turns=60)
    assert len(many.turns) == 60


def test_truth_says_where_facts_come_from():
    scene = graph(5)
    (conversation,) = ask(scene, truth="cuboids")
    assert conversation.truth == "cuboids"
    truths = {n.id: n.truth for n in scene.nodes}
    for turn in conversation.turns:
        assert turn.value == fact(turn.category, *[truths[i] for i in turn.regions])


def test_objects_without_the_wanted_box_are_not_asked_about():
    scene = graph(5, 4)
    without = Node(99, "thing", "thing", (0, 0, 1, 1), None, dropped="few-points")
    scene = SceneGraph(scene.dataset, scene.scene_id, 100, 80, np.eye(3), (*scene.nodes, without))
    assert all(99 not in t.regions for c in ask(scene) for t in c.turns)


@pytest.mark.parametrize(
    ("value", "params", "reason"),
    [
        (graph(0, 0), {}, "no-objects"),
        (graph(0, 3, truth=False), {"truth": "cuboids"}, "no-truth"),
        (graph(0, 3), {"tie_metres": 100, "tie_margin": 1, "quantitative_share": 0.0}, "nothing-to-ask"),
    ],
)
def test_scenes_that_give_no_question_are_set_aside(value, params, reason):
    found = ask_scene(value, AskParams(**params), 7)
    assert isinstance(found, Rejected)
    assert (found.id, found.reason) == (value.scene_id, reason)


def test_several_conversations_differ():
    first, second = ask(graph(2), conversations=2)
    assert (first.conversation_id, second.conversation_id) == ("s2-0", "s2-1")
    assert first.turns != second.turns


def test_the_same_again_and_another_with_another_seed():
    assert ask(graph(2)) == ask(graph(2))
    assert ask(graph(2)) != ask(graph(2), seed=8)
    assert ask(graph(2))[0].turns != ask(graph(2, dataset="other"))[0].turns


def test_seeds_are_stable():
    assert seeded(7, "d", "s", "ask", "0").integers(1 << 30) == seeded(7, "d", "s", "ask", "0").integers(
        1 << 30
    )
    draws = {int(seeded(7, "d", s, "ask").integers(1 << 62)) for s in ("a", "b", "ab", "")}
    assert len(draws) == 4


# Templates ------------------------------------------------------------------------------------------------

LEAST = defaultdict(lambda: {"questions": 3, "positive": 3, "negative": 3, "answers": 3})
LEAST |= {
    "behind_predicate": {"questions": 8, "positive": 6, "negative": 6},
    "front_predicate": {"questions": 8, "positive": 6, "negative": 6},
    "direction": {"questions": 1, "answers": 2},
    "distance_data": {"questions": 16, "answers": 8},
    "vertical_distance_data": {"questions": 14, "answers": 10},
    "horizontal_distance_data": {"questions": 14, "answers": 10},
    "width_data": {"questions": 12, "answers": 5},
    "height_data": {"questions": 12, "answers": 5},
}


def test_there_are_phrasings_for_all_categories():
    assert set(templates()) == set(UNIT_OF)


@pytest.mark.parametrize("category", CATEGORIES)
def test_phrasings_are_as_many_as_the_reference_has_and_all_differ(category):
    words = templates()[category]
    answers = {"positive", "negative"} if GROUP_OF[category] in QUALITATIVE else {"answers"}
    assert set(words) == {"questions", *answers}
    for kind, texts in words.items():
        assert len(texts) >= LEAST[category][kind], (category, kind)
        assert len(set(texts)) == len(texts)
        assert all(isinstance(t, str) and t[0] in "{" + t[0].upper() and t[-1] in ".?" for t in texts)


@pytest.mark.parametrize("category", CATEGORIES)
def test_questions_mention_each_region_once_in_order(category):
    expected = ["A"] if category in ONE_REGION else ["A", "B"]
    for question in templates()[category]["questions"]:
        assert re.findall(r"\{(.)\}", question) == expected, question


@pytest.mark.parametrize("category", CATEGORIES)
def test_every_phrasing_of_an_answer_reads_back(category):
    names = {"A": "Region [0]", "B": "Region [1]"}
    for kind, texts in templates()[category].items():
        if kind == "questions":
            continue
        for text in texts:
            if kind != "answers":
                assert read_value(text.format(**names), category) == float(kind == "positive")
                assert re.search(r", so (yes|no|\{[AB]\})\.$", text)
            elif category == "direction":
                for hour in range(1, 13):
                    assert read_value(text.format(X=f"{hour} o'clock", **names), category) == hour
            else:
                for said, metres in (("1.52 meters", 1.52), ("5.00 feet", 1.524), ("12.50 inches", 0.3175)):
                    assert read_value(text.format(X=said, **names), category) == pytest.approx(metres)
                assert read_value(text.format(X="40.10 centimeters", **names), category) == pytest.approx(
                    0.401
                )


def test_answers_in_metres_alone_read_back() -> None:
    families = ["camera", "ratio", "multi_hop", "facts"]
    for seed in range(20):
        (told,) = ask(graph(seed), reasoning=families, units="metres")
        answers = " ".join(t.answer for t in told.turns)
        assert not re.search(r"feet|inches|centimeters", answers)
        assert told.turns
        for turn in told.turns:
            if turn.unit == "metres":
                assert read_value(turn.answer, turn.category) == pytest.approx(turn.value, abs=0.0051)
