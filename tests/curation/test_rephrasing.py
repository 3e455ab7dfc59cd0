"""Rephrasing a shard of conversations through a real local server that answers well, badly, or not at all."""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from srgpt import storage
from srgpt.curation.checks import answer_problem, mentions_problem
from srgpt.curation.completions import Completion
from srgpt.curation.questions import ask_scene
from srgpt.curation.rephrasing import prompt, read, rephrase, statistics
from srgpt.curation.rewrites import Limits
from srgpt.errors import SrgptError
from srgpt.params import AskParams, Params, RephraseParams
from srgpt.records import AskedRegion, Box, Conversation, Node, SceneGraph, Turn
from srgpt.stages import ask
from tests.curation import chat_server as bad
from tests.curation.chat_server import Chat
from tests.curation.test_completions import KEY, free_port


@pytest.fixture
def chat(monkeypatch: pytest.MonkeyPatch) -> Iterator[Chat]:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server = Chat()
    yield server
    server.close()


@pytest.fixture(scope="module")
def shard() -> list[Conversation]:
    """Six scenes of five chairs, asked in the templates' words."""
    return [c for i in range(6) for c in ask_scene(graph(i), AskParams(turns=8), 7)]


def graph(index: int) -> SceneGraph:
    rng = np.random.default_rng(index)
    nodes = []
    for i in range(5):
        box = Box(rng.uniform([-3, -1, 1], [3, 1, 9]), rng.uniform(0.1, 1.5, 3))
        nodes.append(Node(20 + i, "chair", "red chair", (0, 0, 9, 9), None, perceived=box, truth=box))
    return SceneGraph("toy", f"s{index}", 60, 40, np.eye(3), tuple(nodes))


def params(chat: Chat | None, folder: Path, **changes) -> RephraseParams:
    values = {
        "endpoint": chat.url if chat else f"http://127.0.0.1:{free_port()}/v1",
        "model": "m",
        "share": 1.0,
        "cache": str(folder / "cache"),
        "backoff": 0.001,
        "timeout": 10.0,
    }
    return RephraseParams.model_validate({**values, **changes})


def turns(conversations: list[Conversation]) -> list[Turn]:
    return [t for c in conversations for t in c.turns]


def asked(body: dict) -> str:
    return body["messages"][-1]["content"]


def test_other_words_for_the_same_facts(chat, tmp_path, shard):
    found, counts = rephrase(shard, params(chat, tmp_path), 7)
    assert (
        len(turns(found)) == len(turns(shard)) == counts["turns"] == counts["chosen"] == counts["rephrased"]
    )
    for old, new in zip(turns(shard), turns(found), strict=True):
        assert new.question != old.question
        assert new.answer.endswith(old.answer)
        same = ("category", "regions", "value", "unit", "sigma")
        assert all(getattr(old, n) == getattr(new, n) for n in same)
        assert mentions_problem(new.to_row()) is None
        assert answer_problem(new.to_row()) is None
    assert [c.regions for c in found] == [c.regions for c in shard]
    assert counts["accepted"] == counts["rewrites"] == 2 * counts["turns"]
    assert counts["requests"] + counts["cache_hits"] == counts["rewrites"]
    assert counts["prompt_tokens"] == 100 * counts["requests"]


def test_who_rewrites_a_question_does_not_know_the_answer(chat, tmp_path, shard):
    rephrase(shard, params(chat, tmp_path), 7)
    shown = [
        asked(b)
        for b in chat.bodies
        if b["response_format"]["json_schema"]["schema"]["required"] == ["question"]
    ]
    assert shown
    assert not any("nswer" in text or "Region [" in text for text in shown)


def test_the_cache_makes_the_same_words_whatever_the_concurrency(chat, tmp_path, shard):
    first, counts = rephrase(shard, params(chat, tmp_path, concurrency=8), 7)
    sent = len(chat.bodies)
    assert sent == counts["requests"]
    for concurrency in (1, 32):
        again, counts = rephrase(shard, params(chat, tmp_path, concurrency=concurrency), 7)
        assert again == first
        assert (counts["requests"], counts["prompt_tokens"]) == (0, 0)
    assert len(chat.bodies) == sent
    # also a dead endpoint writes the same from a whole cache
    again, counts = rephrase(shard, params(None, tmp_path), 7)
    assert again == first
    assert counts["failed"] == 0
    # and without the cache the words differ: the server never says the same twice
    other, _ = rephrase(shard, params(chat, tmp_path / "other"), 7)
    assert other != first


def test_no_more_requests_at_a_time_than_allowed(chat, tmp_path, shard):
    chat.delay = 0.01
    rephrase(shard[:4], params(chat, tmp_path, concurrency=3), 7)
    assert chat.most_at_once == 3


def test_a_share_is_drawn_by_name_not_by_place(chat, tmp_path, shard):
    found, counts = rephrase(shard, params(chat, tmp_path, share=0.4), 7)
    changed = [a != b for a, b in zip(turns(shard), turns(found), strict=True)]
    assert sum(changed) == counts["chosen"] == counts["rephrased"]
    assert 0.2 < np.mean(changed) < 0.6
    backwards, _ = rephrase(shard[::-1], params(chat, tmp_path, share=0.4), 7)
    assert backwards[::-1] == found
    more, _ = rephrase(shard, params(chat, tmp_path, share=0.7), 7)
    assert all(n != o for o, n, c in zip(turns(shard), turns(more), changed, strict=True) if c)
    other, _ = rephrase(shard, params(chat, tmp_path, share=0.4), 8)
    assert [a != b for a, b in zip(turns(shard), turns(other), strict=True)] != changed
    assert rephrase(shard, params(chat, tmp_path, share=0.0), 7)[0] == shard
    assert rephrase([], params(chat, tmp_path), 7) == ([], Counter())


def test_equal_wordings_get_several_rewrites_and_not_more(chat, tmp_path):
    question, answer = "Is <region0> left of <region1>?", "Region [0] is left of Region [1], so yes."
    regions = tuple(AskedRegion(i, "chair", None, (0, 0, 1, 1)) for i in range(2))
    turn = Turn(question, answer, "left_predicate", (0, 1), 1.0, "truth")
    many = [Conversation("d", f"s{i}", f"s{i}-0", "perceived", 9, 9, regions, (turn,) * 5) for i in range(20)]
    found, counts = rephrase(many, params(chat, tmp_path, variants=3), 7)
    assert len({t.question for t in turns(found)}) == len({t.answer for t in turns(found)}) == 3
    assert counts["requests"] == 6
    assert len({asked(b).splitlines()[-1] for b in chat.bodies}) == 3  # each in a style of its own


# What is not accepted -----------------------------------------------------------------------------------------


def test_a_rejected_rewrite_is_tried_once_more_with_the_reason_and_then_the_template_stays(
    chat, tmp_path, shard
):
    chat.usual = bad.said('{"question": "How?", "answer": "So."}')
    found, counts = rephrase(shard[:2], params(chat, tmp_path), 7)
    assert found == shard[:2]
    assert counts["rejected/wrong-schema"] == counts["rewrites"] == 2 * 2 * counts["chosen"]
    assert counts["kept/wrong-schema"] == counts["chosen"] == 16
    second = next(b for b in chat.bodies if "cannot be used" in asked(b))
    assert second["messages"][-2] == {"role": "assistant", "content": '{"question": "How?", "answer": "So."}'}
    assert "exactly the keys" in asked(second)
    # it was the model that failed, not the network: no run pays for it again
    sent = len(chat.bodies)
    rephrase(shard[:2], params(chat, tmp_path), 7)
    assert len(chat.bodies) == sent


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (bad.said("Of course!"), "not-json"),
        (bad.said(None), "not-json"),
        (bad.said('{"question": "Is it?"}', finish="length"), "cut-off"),
        (bad.said("", finish="content_filter"), "refused"),
        (bad.said('{"question": ["a"], "answer": 3}'), "wrong-schema"),
    ],
)
def test_reasons_are_counted(chat, tmp_path, shard, reply, reason):
    chat.usual = reply
    found, counts = rephrase(shard[:1], params(chat, tmp_path, mode="reason", rewrites=1), 7)
    assert found == shard[:1]
    assert counts[f"rejected/{reason}"] == counts[f"kept/{reason}"] == counts["rewrites"] == 8


def test_a_second_try_may_be_accepted(chat, tmp_path, shard):
    chat.script = [bad.said("Of course!")]
    found, counts = rephrase(shard[:1], params(chat, tmp_path, concurrency=1), 7)
    assert counts["rephrased"] == 8
    assert counts["rejected/not-json"] == 1
    assert all(a != b for a, b in zip(turns(shard), turns(found), strict=False))


def test_half_a_rewrite_is_used(chat, tmp_path, shard):
    def only_questions(handler, body):
        if "answer" in body["response_format"]["json_schema"]["schema"]["required"]:
            bad.said('{"answer": "42"}')(handler, body)
        else:
            bad.say_it_again(handler, body)

    chat.usual = only_questions
    found, counts = rephrase(shard[:1], params(chat, tmp_path, rewrites=1), 7)
    for old, new in zip(turns(shard), turns(found), strict=False):
        assert new.question != old.question
        assert new.answer == old.answer
    assert (counts["rephrased"], counts["accepted"], counts["rewrites"]) == (8, 8, 16)


# An endpoint that fails ---------------------------------------------------------------------------------------


def test_a_dead_endpoint_costs_words_not_the_dataset(tmp_path, shard, caplog):
    started = time.monotonic()
    found, counts = rephrase(shard, params(None, tmp_path, concurrency=2), 7)
    assert time.monotonic() - started < 10
    assert found == shard
    assert counts["kept/endpoint-failed"] + counts["kept/endpoint-given-up"] == counts["chosen"] == 48
    assert 8 <= counts["failed"] <= 9  # one more may have been on its way
    assert len(caplog.records) == 1
    for words in ("given up", "no connection", "48 questions", "Start the server", "OPENAI_API_KEY"):
        assert words in caplog.text


def test_it_can_be_required(tmp_path, shard):
    with pytest.raises(SrgptError, match="Start the server"):
        rephrase(shard, params(None, tmp_path, required=True, attempts=2), 7)


def test_a_server_that_misbehaves_all_the_time_loses_nothing(chat, tmp_path, shard):
    troubles = [
        bad.status(429, retry_after="0.01"), bad.status(500), bad.cut_chunks, bad.hang_up, bad.hang,
        bad.raw(b'{"choices": [{"mess', length=900), bad.raw(b"<html>", "text/html"),
    ]  # fmt: skip
    chat.script = [reply for trouble in troubles * 2 for reply in (trouble, bad.say_it_again)]
    p = params(chat, tmp_path, timeout=0.5, concurrency=4, attempts=20)  # one may meet all the troubles
    found, counts = rephrase(shard[:3], p, 7)
    assert counts["rephrased"] == counts["chosen"] == 24
    assert counts["retries"] >= 14  # more where the machine itself is slower than the time limit
    assert all(a != b for a, b in zip(turns(shard), turns(found), strict=False))


def test_the_key_goes_to_the_server_and_nowhere_else(chat, tmp_path, shard, caplog):
    caplog.set_level("DEBUG")
    chat.usual = bad.status(401, f"bad key {KEY}")
    rephrase(shard, params(chat, tmp_path), 7)
    assert len(chat.bodies) <= 16
    assert "bad key ***" in caplog.text
    assert KEY not in caplog.text
    kept = [p.read_text() for p in tmp_path.rglob("*") if p.is_file()]
    assert KEY not in json.dumps([kept, chat.bodies])
    assert {h["authorization"] for h in chat.headers} == {f"Bearer {KEY}"}


# Reasoning, names, figures ------------------------------------------------------------------------------------


def test_reasoning_asks_for_both_at_once_and_keeps_the_value(chat, tmp_path):
    turn = Turn(
        "How wide is <region0>?",
        "The width of Region [0] is 1.52 meters.",
        "width_data",
        (4,),
        1.52,
        "metres",
    )
    regions = (AskedRegion(4, "sofa", None, (0, 0, 1, 1)),)
    conversation = Conversation("d", "s", "s-0", "perceived", 9, 9, regions, (turn,))
    question = "Movers must get [Region 0] through the door sideways. How wide must the door be at least?"
    answer = "<region0> is 1.52 m wide, so the door must be wider than that."
    chat.usual = bad.said(f"```json\n{json.dumps({'question': question, 'answer': answer})}\n```")
    found, counts = rephrase([conversation], params(chat, tmp_path, mode="reason"), 7)
    assert found[0].turns[0] == Turn(
        question.replace("[Region 0]", "<region0>"),
        answer.replace("<region0>", "Region [0]"),
        "width_data", (4,), 1.52, "metres",
    )  # fmt: skip
    assert counts["requests"] == 1
    assert "The new answer must say: The width of Region [0] is 1.52 meters" in asked(chat.bodies[0])
    assert "sofa" not in json.dumps(chat.bodies)


def test_names_are_told_and_said_only_where_allowed(chat, tmp_path):
    turn = Turn(
        "How wide is <region0>?", "Region [0] is 1.52 meters wide.", "width_data", (4,), 1.52, "metres"
    )
    regions = (AskedRegion(4, "sofa", None, (0, 0, 1, 1)),)
    conversation = Conversation("d", "s", "s-0", "perceived", 9, 9, regions, (turn,))
    answer = {
        "question": "What is the width of the sofa <region0>?",
        "answer": "The sofa Region [0] is 1.52 meters wide.",
    }
    chat.usual = bad.said(json.dumps(answer))
    found, counts = rephrase([conversation], params(chat, tmp_path, mode="reason"), 7)
    assert found == [conversation]
    assert counts["kept/category-named"] == 1
    found, _ = rephrase([conversation], params(chat, tmp_path, mode="reason", allow_categories=True), 7)
    assert found[0].turns[0].question == answer["question"]
    assert "<region0> is a sofa" in asked(chat.bodies[-1])


def test_prompts_hold_the_turn_and_no_leftover(shard):
    for turn in turns(shard):
        for name in ("question", "answer", "reason"):
            messages = prompt(name, turn, 3, ("chair", "")[: len(turn.regions)])
            assert [m["role"] for m in messages[:2]] == ["system", "user"]
            assert turn.question in messages[-1]["content"]
            assert (turn.answer in messages[-1]["content"]) == (name != "question")
            assert not re.search(r"\{[a-z]+\}", json.dumps([m["content"] for m in messages]))


def test_statistics_of_several_shards(chat, tmp_path, shard):
    chat.script = [bad.said("no json")]
    p = params(chat, tmp_path, input_price=2.0, output_price=10.0)
    counts = rephrase(shard[:3], p, 7)[1] + rephrase(shard[3:], p, 7)[1]
    figures = statistics(counts, p)
    assert figures["turns"] == figures["chosen"] == figures["rephrased"] == len(turns(shard))
    bad_ones = figures["rejected_by_reason"].pop("not-json")  # equal wordings got it from the cache
    assert figures["rejected_by_reason"] == {}
    assert figures["rewrites"] == figures["accepted"] + bad_ones == 2 * len(turns(shard)) + bad_ones
    assert figures["acceptance"] == round(figures["accepted"] / figures["rewrites"], 4) < 1
    assert figures["kept_by_reason"] == {}
    assert figures["requests"] == len(chat.bodies)
    assert figures["cost"] == pytest.approx(len(chat.bodies) * (100 * 2.0 + 10 * 10.0) / 1e6)
    assert statistics({}, p)["acceptance"] == 0.0


def test_what_the_manifest_holds_says_nothing_of_how_it_was_asked(tmp_path):
    one = AskParams(rephrase=params(None, tmp_path, concurrency=3, api_key_env="OTHER"))
    two = AskParams(
        rephrase=one.rephrase.model_copy(update={"cache": "x", "concurrency": 9, "api_key_env": "K"})
    )
    assert one.recorded() == two.recorded()
    assert one.recorded()["rephrase"]["model"] == "m"
    assert AskParams().recorded() == AskParams().model_dump(mode="json")


def test_finish_reasons_are_looked_at_first(shard):
    turn = turns(shard)[0]
    good = Completion('{"question": "x"}', "length")
    assert read(good, turn, ("question",), Limits()) == "cut-off"


# The stage ----------------------------------------------------------------------------------------------------


@pytest.fixture
def graphs(tmp_path: Path) -> str:
    url = str(tmp_path / "graphs")
    writer = storage.TableWriter(url, "graphs", stage="lift", dataset="toy", params={})
    names = [storage.shard_name(i) for i in range(2)]
    for i, name in enumerate(names):
        rows = [graph(k).to_row() for k in range(3 * i, 3 * i + 3)]
        storage.write_shard(writer.work, name, "graphs", rows)
    writer.commit(names)
    return url


def all_params(rephrase: RephraseParams, workers: int = 1) -> Params:
    section = {"turns": 6, "rephrase": rephrase.model_dump()}
    return Params.model_validate({"ask": section, "engine": {"workers": workers}})


def test_the_stage_writes_the_same_again_with_the_cache(chat, tmp_path, graphs):
    p = params(chat, tmp_path, input_price=1.0)
    cold = ask.run(all_params(p), source=graphs, out=str(tmp_path / "cold"))
    figures = cold.statistics["rephrase"]
    assert (figures["turns"], figures["rephrased"], figures["requests"]) == (36, 36, len(chat.bodies))
    assert figures["cost"] == pytest.approx(len(chat.bodies) * 100 / 1e6)
    assert cold.statistics["counts"]["accepted"] == 72
    written = storage.read_rows(str(tmp_path / "cold"), "conversations")
    assert all(turn["question"].startswith("Look") for row in written for turn in row["turns"])
    sent = len(chat.bodies)
    manifests = []
    for name, workers, concurrency in (("warm", 1, 1), ("two", 2, 9)):
        again = p.model_copy(update={"concurrency": concurrency, "timeout": 3.0, "api_key_env": "OTHER"})
        warm = ask.run(all_params(again, workers), source=graphs, out=str(tmp_path / name))
        assert warm.shards == cold.shards
        manifests.append((tmp_path / name / "manifest.json").read_bytes())
    assert manifests[0] == manifests[1]
    assert len(chat.bodies) == sent
    plain = ask.run(Params.model_validate({"ask": {"turns": 6}}), source=graphs, out=str(tmp_path / "plain"))
    assert "rephrase" not in plain.statistics


def test_what_a_stopped_stage_counted_is_not_lost(chat, tmp_path, graphs):
    """Its first shard is done when the key is withdrawn: the second run asks for the rest, and reports all."""

    def until_the_second(handler, body):
        dead = any(p for p in tmp_path.rglob("part-00000.parquet.done") if "out" in p.parent.name)
        (bad.status(401) if dead else bad.say_it_again)(handler, body)

    chat.usual = until_the_second
    p = params(chat, tmp_path, required=True, variants=1000, concurrency=2)
    with pytest.raises(SrgptError, match="401"):
        ask.run(all_params(p), source=graphs, out=str(tmp_path / "out"))
    chat.usual = bad.say_it_again
    figures = ask.run(all_params(p), source=graphs, out=str(tmp_path / "out")).statistics["rephrase"]
    assert (figures["turns"], figures["rephrased"], figures["rewrites"]) == (36, 36, 72)
    assert figures["requests"] == len(list((tmp_path / "cache").rglob("*.json")))


def test_counts_outlive_a_kill_at_the_very_end(chat, tmp_path, graphs, monkeypatch):
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    p = all_params(params(chat, tmp_path))
    with monkeypatch.context() as patch:
        patch.setattr("srgpt.storage.writer.move", killed)
        with pytest.raises(KeyboardInterrupt):
            ask.run(p, source=graphs, out=str(tmp_path / "out"))
    sent = len(chat.bodies)
    figures = ask.run(p, source=graphs, out=str(tmp_path / "out")).statistics["rephrase"]
    assert (figures["turns"], figures["requests"], len(chat.bodies)) == (36, sent, sent)


def test_every_kind_of_turn_can_be_accepted():
    families = ["camera", "ratio", "ranking", "counting", "multi_hop"]
    both = [AskParams(turns=60), AskParams(turns=60, reasoning=families, reasoning_share=1.0)]
    found = [t for i in range(12) for p in both for c in ask_scene(graph(i), p, 7) for t in c.turns]
    assert len({t.category for t in found}) > 40
    for turn in found:
        for name in ("question", "reason"):
            texts = {"question": f"As you see it, {turn.question}", "answer": f"As I see it, {turn.answer}"}
            limits = Limits(max_characters=1000, free_question=name == "reason")
            if name == "reason" and not turn.question.endswith("?"):
                continue
            assert read(Completion(json.dumps(texts)), turn, ("question", "answer"), limits) == texts, turn
