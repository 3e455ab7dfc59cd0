"""Mentions become regions and back; what cannot be used is left out with its reason."""

import contextlib
import copy
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from srgpt.exchange.masks import count_pixels, pixels_of
from srgpt.exchange.turns import Talk, read_talk, write_talk
from srgpt.records import AskedRegion, Conversation, Turn, decode_rle, encode_rle, rle_runs
from srgpt.sources.pictures import UnusableError
from tests.exchange.rows import HEIGHT, WIDTH, mask, osd_row

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="<>[]"), min_size=1, max_size=20)


@st.composite
def columns(draw: Any) -> dict[str, Any]:
    """The columns of a row as OSD has them, with mentions anywhere."""
    regions = [(mask(left, width=3), [left, 4.5, left + 3, 16]) for left in (1, 11, 21)]
    said: list[dict[str, str]] = []
    rle, bbox = [], []
    for turn in range(draw(st.integers(1, 4))):
        asked = draw(st.lists(st.integers(0, 2), max_size=3))
        question = draw(TEXT) + "".join(f"<mask> <depth>{draw(TEXT)}" for _ in asked)
        answer = draw(TEXT)
        if asked:
            answer += f"Region [{draw(st.integers(0, len(asked) - 1))}]" + draw(TEXT)
        said.append({"from": "human", "value": question if turn else f"<image>\n{question}"})
        said.append({"from": "gpt", "value": answer})
        rle += [regions[k][0] for k in asked]
        bbox += [regions[k][1] for k in asked]
    return {"conversations": said, "rle": rle, "bbox": bbox}


def conversation(talk: Talk) -> Conversation:
    width, height = talk.size or (0, 0)
    return Conversation("d", "s", "c", "imported", width, height, talk.regions, talk.turns)


@given(row=columns())
def test_a_row_comes_back_as_it_was(row: dict[str, Any]) -> None:
    before = copy.deepcopy(row)
    talk = read_talk(**row)
    assert row == before
    assert talk.dropped == ()
    assert len(talk.regions) == len({r.bbox for r in talk.regions})
    back = write_talk(conversation(talk))
    assert back.conversations == row["conversations"]
    assert (back.rle or []) == row["rle"]
    assert back.bbox == row["bbox"]


def test_mentions_count_on_through_a_conversation_and_restart_in_each_turn() -> None:
    talk = read_talk(**{k: v for k, v in osd_row(1).items() if k != "filename"})
    first, second, third = talk.turns
    assert first.question == "Is <region0> to the left of <region1>?"
    assert third.question == "What is the width of <region0>?"
    assert {*first.regions} == {*second.regions} == {0, 1}
    assert talk.size == (WIDTH, HEIGHT)
    assert [r.category for r in talk.regions] == ["object", "object"]
    where = {r.id: r.bbox[0] for r in talk.regions}
    for turn in (first, second):
        assert turn.category == "left_predicate"
        assert turn.value == float(where[turn.regions[0]] < where[turn.regions[1]])
    assert (third.category, third.unit) == ("width_data", "metres")


def test_our_own_mentions_are_numbered_as_they_stand() -> None:
    regions = tuple(AskedRegion(i, "box", None, (float(i), 0.0, i + 4.0, 4.0)) for i in (7, 9))
    turn = Turn(
        "Is <region1> above <region0>, and is <region1> big?", "Region [1] is, not Region [0].",
        "text", (7, 9), None, "text",
    )  # fmt: skip
    found = write_talk(Conversation("d", "s", "c", "cuboids", 20, 20, regions, (turn,)))
    assert found.rle is None
    assert [b[0] for b in found.bbox] == [9.0, 7.0, 9.0]
    assert found.conversations[1]["value"] == "Region [0] is, not Region [1]."


def test_an_answer_about_a_region_that_is_not_asked_about_cannot_be_said() -> None:
    region = AskedRegion(0, "box", None, (0.0, 0.0, 4.0, 4.0))
    turn = Turn("How many boxes?", "One: Region [0].", "text", (0,), None, "text")
    with pytest.raises(UnusableError, match=r"does not mention Region \[0\]"):
        write_talk(Conversation("d", "s", "c", "cuboids", 20, 20, (region,), (turn,)))


def test_a_box_among_masks_becomes_a_mask() -> None:
    regions = (
        AskedRegion(0, "a", mask(2), (2.0, 4.0, 11.0, 16.0)),
        AskedRegion(1, "b", None, (30.0, 4.0, 33.2, 6.0)),
    )
    turn = Turn("<region0> or <region1>?", "Region [1].", "text", (0, 1), None, "text")
    found = write_talk(Conversation("d", "s", "c", "cuboids", WIDTH, HEIGHT, regions, (turn,)))
    assert found.rle is not None
    assert int(decode_rle(found.rle[1]).sum()) == 12


# What is left out -----------------------------------------------------------------------------------------


def row() -> dict[str, Any]:
    return {k: copy.deepcopy(v) for k, v in osd_row(1).items() if k != "filename"}


def put(key: str, index: int, value: Any) -> dict[str, Any]:
    changed = row()
    changed[key][index] = value
    return changed


def said(index: int, value: Any) -> dict[str, Any]:
    changed = row()
    changed["conversations"][index]["value"] = value
    return changed


WHOLE = {"size": [HEIGHT, WIDTH]}


@pytest.mark.parametrize(
    ("changed", "turns", "reason"),
    [
        (put("rle", 0, {**WHOLE, "counts": "x"}), [0], "broken-mask"),
        (put("rle", 0, {**WHOLE, "counts": ""}), [0], "broken-mask"),
        (put("rle", 0, {**WHOLE, "counts": [5]}), [0], "broken-mask"),
        (put("rle", 0, None), [0], "broken-mask"),
        (put("rle", 0, {"size": [True, 4], "counts": "4"}), [0], "broken-mask"),
        (put("rle", 0, {"size": [10**9, 10**9], "counts": "0" * 9}), [0], "broken-mask"),
        (put("rle", 0, encode_rle(np.zeros((HEIGHT, WIDTH)))), [0], "empty-mask"),
        (put("rle", 4, encode_rle(np.ones((5, 5)))), [2], "sizes-differ"),
        (put("bbox", 2, [1, 2, 3]), [1], "broken-box"),
        (put("bbox", 2, [5, 2, 3, 4]), [1], "broken-box"),
        (put("bbox", 2, [float("nan"), 2, 3, 4]), [1], "broken-box"),
        (put("bbox", 2, [1, 2, 10**400, 4]), [1], "broken-box"),
        (put("bbox", 2, [1, 2, True, 4]), [1], "broken-box"),
        (said(1, "Region [2] is."), [0], "answer-names-no-region"),
        (said(1, ""), [0], "bad-text"),
        (said(1, 5), [0], "bad-text"),
        (said(1, "so \ud800"), [0], "bad-text"),
        (said(1, "<mask> is"), [0], "reserved-text"),
        (said(1, "</s>"), [0], "reserved-text"),
        (said(2, "Is <region0> <mask> left of <mask>?"), [1], "reserved-text"),
        (said(2, "<|eot_id|> <mask> left of <mask>?"), [1], "reserved-text"),
    ],
)
def test_a_turn_that_cannot_be_used_is_left_out_alone(
    changed: dict[str, Any], turns: list[int], reason: str
) -> None:
    talk = read_talk(**changed)
    assert [(number, why) for number, why, _ in talk.dropped] == [(t, reason) for t in turns]
    assert len(talk.turns) == 3 - len(turns)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({**row(), "rle": row()["rle"][1:]}, "mentions-without-regions"),
        ({**row(), "bbox": {}}, "mentions-without-regions"),
        ({**row(), "rle": None, "bbox": None}, "mentions-without-regions"),
        ({**row(), "conversations": None}, "bad-conversations"),
        ({**row(), "conversations": row()["conversations"][1:]}, "bad-conversations"),
        (put("conversations", 1, {"from": "human", "value": "x"}), "bad-conversations"),
        (put("conversations", 1, "x"), "bad-conversations"),
        (said(2, "<image> <mask> <mask>"), "bad-image-placeholder"),
        (said(0, "<image><image> <mask> <mask>"), "bad-image-placeholder"),
        (
            {"conversations": [{"from": "human", "value": "<image>\nx"}, {"from": "gpt", "value": ""}]},
            "no-usable-turns",
        ),
    ],
)
def test_a_row_that_cannot_be_used_says_why(changed: dict[str, Any], reason: str) -> None:
    with pytest.raises(UnusableError) as caught:
        read_talk(**changed)
    assert caught.value.reason == reason


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4) | st.just("<mask>"),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.fixed_dictionaries({"from": st.sampled_from(["human", "gpt"]), "value": inner})
            | st.fixed_dictionaries({"size": inner, "counts": inner})
        ),
        max_leaves=8,
    ).flatmap(lambda value: st.tuples(st.just(value), st.just(value), st.permutations([0, 1, 2])))
)
def test_nothing_makes_it_crash(drawn: tuple[Any, Any, list[int]]) -> None:
    value, other, order = drawn
    arguments = [value, other, osd_row(0)["conversations"]]
    with contextlib.suppress(UnusableError):
        read_talk(*(arguments[k] for k in order))


@given(st.lists(st.text(st.characters(min_codepoint=40, max_codepoint=120), max_size=30), max_size=5))
def test_pixels_are_counted_as_runs_have_them(masks: list[str]) -> None:
    for text, counted in zip(masks, count_pixels(masks), strict=True):
        runs = rle_runs(text) if text else None
        if runs is None or counted is None:
            # longer numbers than a mask can have are refused here, and would be too large in any case
            assert counted is None
            assert runs is None or max(runs) >= 2**28 or len(text) > 6
        else:
            assert counted == (sum(runs), any(runs[1::2]))


@given(st.lists(st.tuples(st.integers(0, 2**32), st.floats(0, 1)), max_size=4))
def test_pixels_of_real_masks(drawn: list[tuple[int, float]]) -> None:
    masks = [np.random.default_rng(seed).random((17, 23)) < share for seed, share in drawn]
    assert count_pixels([encode_rle(m)["counts"] for m in masks]) == [(m.size, bool(m.any())) for m in masks]


def test_one_broken_mask_among_many_costs_no_other() -> None:
    masks = [mask(left)["counts"] for left in range(30)] * 7
    texts = [f"{text}{'' if k % 50 else '~'}" for k, text in enumerate(masks)]
    columns = [[{"counts": text} for text in texts], None, [None, {"counts": 3}, "x"], {}]
    found = pixels_of(columns)
    assert found.keys() == set(texts)
    for text, counted in found.items():
        assert counted == (None if text.endswith("~") else (WIDTH * HEIGHT, True))
