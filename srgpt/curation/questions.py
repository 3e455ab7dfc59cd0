"""Questions: which facts of a scene are asked, of which objects, in which words.

Choices are made in an order that keeps answers fair: first what is asked (the half, the group, the
category), then what the answer shall be, then the pair, and last who is mentioned first, so that the answer
comes out as wanted. Every relation turns around when its objects are swapped, so any pair that is no tie
gives either answer.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np

from srgpt.curation import reasoning
from srgpt.curation.facts import PAIRED, SINGLE, Spread, Subject, fact, is_clear, sigma
from srgpt.curation.phrasing import state
from srgpt.curation.reference import ask_as_reference
from srgpt.params import AskParams
from srgpt.randomness import seeded
from srgpt.records import (
    QUALITATIVE,
    QUANTITATIVE,
    AskedRegion,
    Conversation,
    Rejected,
    SceneGraph,
    Turn,
)

_GROUPS: dict[str, tuple[str, ...]] = {**QUALITATIVE, **QUANTITATIVE}


_Pair = tuple[Subject, Subject | None]


@dataclass
class Balance:
    """Positive and negative answers so far, by category: the rarer one is wanted next.

    Fair coins would leave a category outside 45 to 55 % too often at some hundred questions; this keeps it
    even, whatever the size of the dataset. One balance serves one shard, in the order of its rows.
    """

    counts: dict[str, list[int]] = field(default_factory=lambda: defaultdict(lambda: [0, 0]))

    def wanted(self, category: str, rng: np.random.Generator) -> bool:
        """Return the answer that the next question shall have; a coin decides between equals."""
        coin = bool(rng.integers(2))
        negative, positive = self.counts[category]
        return coin if negative == positive else positive < negative

    def add(self, category: str, answer: bool) -> None:
        """Count an answer."""
        self.counts[category][int(answer)] += 1


def ask_scene(
    graph: SceneGraph, params: AskParams, seed: int, balance: Balance | None = None
) -> list[Conversation] | Rejected:
    """Ask about one scene: ``params.conversations`` conversations, or the scene set aside with the reason.

    Reasons: ``no-objects``, ``no-truth`` or ``no-perceived`` (no object has the box that ``params.truth``
    names), ``nothing-to-ask`` (every fact is a tie, there is no pair where the reference asks about pairs, or
    nothing for the families in ``params.reasoning`` where they have all places).
    """
    objects = list(_usable(graph, params))
    if not objects:
        lacking = "no-truth" if params.truth == "cuboids" else "no-perceived"
        reason = lacking if graph.nodes else "no-objects"
        return Rejected(graph.scene_id, reason, f"ask.truth is {params.truth}; {len(graph.nodes)} objects")
    balance = balance if balance is not None else Balance()
    found = []
    for index in range(params.conversations):
        rng = seeded(seed, graph.dataset, graph.scene_id, "ask", str(index))
        if params.compat == "reference":
            turns = ask_as_reference(graph, rng, state_facts="facts" in params.reasoning)
        else:
            turns = _turns(objects, params, rng, balance)
        if not turns:
            return Rejected(graph.scene_id, "nothing-to-ask", f"{len(objects)} objects, {_why(params)}")
        found.append(_conversation(graph, index, turns, params))
    return found


def _why(params: AskParams) -> str:
    """Say why nothing was asked about a scene's objects."""
    if params.compat == "reference":  # it knows no ties
        return "and ask.compat=reference asks about pairs"
    if _only_beyond(params):
        return f"too few or too uncertain for {', '.join(params.reasoning)}"
    return "every fact a tie"


def _usable(graph: SceneGraph, params: AskParams) -> Iterator[Subject]:
    for node in graph.nodes:
        box = node.truth if params.truth == "cuboids" else node.perceived
        if box is not None:
            known = Spread.of(node, graph.scale_sigma) if params.truth == "perceived" else None
            yield Subject(node, box, known)


def _conversation(graph: SceneGraph, index: int, turns: Sequence[Turn], params: AskParams) -> Conversation:
    asked = {region for turn in turns for region in turn.regions}
    return Conversation(
        graph.dataset,
        graph.scene_id,
        f"{graph.scene_id}-{index}",
        params.truth,
        graph.width,
        graph.height,
        tuple(AskedRegion(n.id, n.category, n.rle, n.bbox) for n in graph.nodes if n.id in asked),
        tuple(turns),
    )


# What is asked --------------------------------------------------------------------------------------------


def _turns(
    objects: Sequence[Subject], params: AskParams, rng: np.random.Generator, balance: Balance
) -> list[Turn]:
    """Choose up to ``params.turns`` questions: the families' by their share, then two halves by theirs.

    Each half is asked evenly over its groups. Families that run out of questions leave their places to the halves,
    and a half to the other, unless the other's share is 0. A pair is asked about once per group, so that no question
    repeats or turns around another.
    """
    beyond = _beyond(objects, params, rng, balance)
    share, places = params.quantitative_share, 0 if _only_beyond(params) else params.turns - len(beyond)
    quantitative = int(share * places + rng.random())
    halves = (
        (_questions(objects, QUANTITATIVE, params, rng), quantitative, share),
        (_questions(objects, QUALITATIVE, params, rng), places - quantitative, 1 - share),
    )
    chosen: list[tuple[str, _Pair]] = []
    for questions, quota, _ in halves:
        chosen += _take(questions, quota)
    for questions, _, allowed in halves:
        if allowed > 0:
            chosen += _take(questions, places - len(chosen))
    turns = beyond + [_turn(category, pair, params, rng, balance) for category, pair in chosen]
    return [turns[i] for i in rng.permutation(len(turns))]


def _only_beyond(params: AskParams) -> bool:
    return bool(params.reasoning) and params.reasoning_share == 1


def _beyond(
    objects: Sequence[Subject], params: AskParams, rng: np.random.Generator, balance: Balance
) -> list[Turn]:
    """Choose the questions of the families in ``params.reasoning``, up to their share."""
    turns: list[Turn] = []
    if not params.reasoning:
        return turns
    quota = int(params.reasoning_share * params.turns + rng.random())
    found = reasoning.questions(objects, params, rng, balance.wanted)
    while len(turns) < quota and (turn := next(found, None)) is not None:
        if turn.unit == "truth":
            balance.add(turn.category, bool(turn.value))
        turns.append(turn)
    return turns


def _take(questions: Iterator[tuple[str, _Pair]], count: int) -> list[tuple[str, _Pair]]:
    """Take at most ``count`` items; unlike ``islice`` of a drained half, never one too many."""
    return [item for _, item in zip(range(count), questions, strict=False)]


def _questions(
    objects: Sequence[Subject],
    groups: Mapping[str, tuple[str, ...]],
    params: AskParams,
    rng: np.random.Generator,
) -> Iterator[tuple[str, _Pair]]:
    """Yield (category, objects) that are no ties, round and round the groups until all are empty."""
    names = list(groups)
    open_groups = {names[i]: _pairs(objects, names[i], params, rng) for i in rng.permutation(len(names))}
    while open_groups:
        for group in list(open_groups):
            pair = next(open_groups[group], None)
            if pair is None:
                del open_groups[group]
                continue
            categories = groups[group]
            yield categories[int(rng.integers(len(categories)))], pair


def _pairs(
    objects: Sequence[Subject], group: str, params: AskParams, rng: np.random.Generator
) -> Iterator[_Pair]:
    """Yield the pairs (single objects, where the group is about one) that are no ties, in random order."""
    category = _GROUPS[group][0]  # all categories of a group share their ties
    pairs: list[_Pair]
    if category in SINGLE:
        pairs = [(a, None) for a in objects]
    else:
        pairs = list(combinations(objects, 2))
    for i in rng.permutation(len(pairs)):
        a, b = pairs[i]
        if is_clear(category, a, b, params):
            yield a, b


# In which words -------------------------------------------------------------------------------------------


def _turn(category: str, pair: _Pair, params: AskParams, rng: np.random.Generator, balance: Balance) -> Turn:
    a, b = pair
    if category in SINGLE:
        return _stated(category, (a,), fact(category, a.box), params, rng)
    assert b is not None
    if category in PAIRED:
        if rng.integers(2):
            a, b = b, a
        return _stated(category, (a, b), fact(category, a.box, b.box), params, rng)
    wanted = balance.wanted(category, rng)
    balance.add(category, wanted)
    if bool(fact(category, a.box, b.box)) != wanted:
        a, b = b, a
    return _stated(category, (a, b), float(wanted), params, rng)


def _stated(
    category: str, subjects: tuple[Subject, ...], value: float, params: AskParams, rng: np.random.Generator
) -> Turn:
    return state(category, subjects, value, rng, sigma=sigma(category, *subjects), units=params.units)
