"""The endpoint and its cache, against a real local server that also misbehaves."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import signal
import socket
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srgpt.curation.completions import Cache, Completion, Endpoint, Failure, Request, retry_after
from srgpt.errors import InputError, SrgptError
from srgpt.params import RephraseParams
from tests.curation import chat_server as bad
from tests.curation.chat_server import Chat

KEY = "sk-test-0123456789"


@pytest.fixture
def chat(monkeypatch: pytest.MonkeyPatch) -> Iterator[Chat]:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server = Chat()
    server.usual = bad.said("fine")
    yield server
    server.close()


def params(chat: Chat | None, folder: Path, **changes) -> RephraseParams:
    values = {
        "endpoint": chat.url if chat else f"http://127.0.0.1:{free_port()}/v1",
        "model": "m",
        "cache": str(folder / "cache"),
        "backoff": 0.001,
        "timeout": 5.0,
    }
    return RephraseParams.model_validate({**values, **changes})


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def request(text: str = "hello", seed: int = 0) -> Request:
    return Request(({"role": "user", "content": text},), ("answer",), seed)


def ask(p: RephraseParams, requests: Sequence[Request], one_by_one: bool = False):
    """Return the results, the counts and the endpoint."""
    counts: Counter[str] = Counter()

    async def run() -> tuple[list[Completion | Failure], Endpoint]:
        async with Endpoint(p, counts) as endpoint:
            if one_by_one:
                return [await endpoint.complete(r) for r in requests], endpoint
            return list(await asyncio.gather(*(endpoint.complete(r) for r in requests))), endpoint

    results, endpoint = asyncio.run(run())
    return results, counts, endpoint


def test_an_answer_with_its_tokens(chat, tmp_path):
    results, counts, _ = ask(params(chat, tmp_path, temperature=0.25, max_tokens=77), [request(seed=5)])
    assert results == [Completion("fine", "stop", 100, 10)]
    assert counts == Counter(requests=1, prompt_tokens=100, completion_tokens=10)
    body = chat.bodies[0]
    assert (body["model"], body["temperature"], body["max_tokens"], body["seed"]) == ("m", 0.25, 77, 5)
    schema = body["response_format"]["json_schema"]["schema"]
    assert schema["required"] == ["answer"]
    assert schema["additionalProperties"] is False
    assert chat.headers[0]["authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize(
    "trouble",
    [
        bad.status(429, retry_after="0"),
        bad.status(408),
        bad.status(500),
        bad.status(502),
        bad.status(503, retry_after="0.01"),
        bad.raw(b'{"choices": [{"mess', length=4000),
        bad.raw(b'{"choices": [{"mess'),
        bad.raw(b"<html>busy</html>", "text/html"),
        bad.raw(b"null"),
        bad.raw(b'"text"'),
        bad.raw(b'{"choices": []}'),
        bad.raw(b'{"choices": [{"message": {"content": {"a": 1}}, "finish_reason": "stop"}]}'),
        bad.raw(b"\xff\xfe\x00"),
        bad.cut_chunks,
        bad.hang_up,
    ],
    ids=lambda f: getattr(f, "__name__", None),
)
def test_what_may_pass_is_tried_again(chat, tmp_path, trouble):
    chat.script = [trouble, trouble]
    results, counts, _ = ask(params(chat, tmp_path), [request()])
    assert results == [Completion("fine", "stop", 100, 10)]
    assert (counts["retries"], counts["requests"], counts["failed"]) == (2, 1, 0)


@pytest.mark.parametrize("trouble", [bad.hang, bad.trickle])
def test_a_server_that_does_not_finish_is_left(chat, tmp_path, trouble):
    chat.script = [trouble]
    started = time.monotonic()
    results, counts, _ = ask(params(chat, tmp_path, timeout=0.3), [request()])
    assert isinstance(results[0], Completion)
    assert counts["retries"] == 1
    assert 0.3 <= time.monotonic() - started < 5


def test_retry_after_is_honoured_by_all(chat, tmp_path):
    chat.script = [bad.status(429, retry_after="0.5")]
    started = time.monotonic()
    results, _, _ = ask(params(chat, tmp_path), [request("a")])
    assert isinstance(results[0], Completion)
    assert time.monotonic() - started >= 0.5


def test_a_server_that_asks_for_too_much_patience_is_not_waited_for(chat, tmp_path):
    chat.usual = bad.status(429, retry_after="3600")
    started = time.monotonic()
    results, counts, _ = ask(params(chat, tmp_path, max_wait=0.5), [request()])
    assert results == [Failure("endpoint-failed")]
    assert counts == Counter(failed=1, retries=0)
    assert time.monotonic() - started < 3


def test_attempts_end(chat, tmp_path):
    chat.usual = bad.status(503)
    results, counts, endpoint = ask(params(chat, tmp_path, attempts=3), [request()])
    assert results == [Failure("endpoint-failed")]
    assert (counts["retries"], counts["failed"], len(chat.bodies)) == (2, 1, 3)
    assert "503" in endpoint.trouble
    assert not endpoint.given_up


@pytest.mark.parametrize("code", [401, 403, 404])
def test_a_wrong_key_or_model_is_given_up_at_once_and_the_key_not_repeated(chat, tmp_path, code, caplog):
    chat.usual = bad.status(code, f"what is {KEY}?")
    results, _, endpoint = ask(params(chat, tmp_path), [request("a"), request("b")], one_by_one=True)
    assert results == [Failure("endpoint-failed"), Failure("endpoint-given-up")]
    assert len(chat.bodies) == 1
    assert "what is ***?" in endpoint.trouble
    assert KEY not in caplog.text + endpoint.trouble


def test_a_dead_endpoint_is_given_up_and_the_cache_goes_on_answering(chat, tmp_path):
    ask(params(chat, tmp_path), [request("kept")])
    dead = params(None, tmp_path, max_failures=3, attempts=2)
    requests = [request(str(i)) for i in range(10)] + [request("kept")]
    results, counts, endpoint = ask(dead, requests, one_by_one=True)
    assert results[:3] == [Failure("endpoint-failed")] * 3
    assert results[3:-1] == [Failure("endpoint-given-up")] * 7
    assert results[-1] == Completion("fine", "stop", 100, 10)
    assert (counts["failed"], counts["cache_hits"]) == (3, 1)
    assert endpoint.given_up
    assert "connection" in endpoint.trouble


def test_one_success_starts_the_count_of_failures_again(chat, tmp_path):
    fails, works = bad.status(500), bad.said("fine")
    chat.script = [fails, fails, works] * 4
    requests = [request(str(i)) for i in range(12)]
    results, _, endpoint = ask(params(chat, tmp_path, attempts=1, max_failures=3), requests, one_by_one=True)
    assert [isinstance(r, Completion) for r in results] == [False, False, True] * 4
    assert not endpoint.given_up


def test_giving_up_ends_every_wait(tmp_path):
    dead = params(None, tmp_path, max_failures=1, attempts=2, backoff=60, max_wait=60, concurrency=4)
    counts: Counter[str] = Counter()

    async def run() -> None:
        async with Endpoint(dead, counts) as endpoint:
            waiting = asyncio.create_task(endpoint.complete(request()))
            await asyncio.sleep(0.2)
            endpoint._given_up.set()
            assert await asyncio.wait_for(waiting, 2) == Failure("endpoint-given-up")

    asyncio.run(run())


def test_required_is_an_error_that_says_what_to_do(tmp_path):
    with pytest.raises(SrgptError, match=r"no connection.*Start the server.*ask\.rephrase\.required=false"):
        ask(params(None, tmp_path, required=True, attempts=1), [request(), request("b")])


def test_a_server_without_schemas_is_asked_without_from_then_on(chat, tmp_path):
    chat.usual = bad.no_schema
    results, counts, _ = ask(
        params(chat, tmp_path), [request("Question: a?"), request("Question: b?")], one_by_one=True
    )
    assert all(isinstance(r, Completion) and json.loads(r.text)["question"] for r in results)
    assert ["response_format" in b for b in chat.bodies] == [True, False, False]
    assert (counts["requests"], counts["retries"], counts["failed"]) == (2, 0, 0)


def test_a_request_that_is_malformed_in_every_form_fails_alone(chat, tmp_path):
    chat.script = [bad.status(400, "too long")] * 4
    results, counts, endpoint = ask(params(chat, tmp_path), [request("a"), request("b")], one_by_one=True)
    assert results == [Failure("endpoint-failed"), Completion("fine", "stop", 100, 10)]
    assert "max_completion_tokens" in chat.bodies[3]
    assert "response_format" in chat.bodies[4]  # nothing was learnt from it
    assert "too long" in endpoint.trouble
    assert counts["retries"] == 0


def test_servers_that_tell_no_tokens(chat, tmp_path):
    answer = {"choices": [{"message": {"role": "assistant", "content": None}, "finish_reason": None}]}
    chat.usual = bad.raw(json.dumps(answer).encode())
    results, _, _ = ask(params(chat, tmp_path), [request()])
    assert results == [Completion("", "stop", 0, 0)]


def test_a_key_that_no_header_carries_is_an_error_without_it(chat, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "gehéim\nnis")
    with pytest.raises(InputError, match="OPENAI_API_KEY") as caught:
        ask(params(chat, tmp_path), [request()])
    assert "nis" not in str(caught.value)


def test_no_key_is_fine_and_another_variable_may_hold_it(chat, tmp_path, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    monkeypatch.setenv("OTHER_KEY", "other")
    ask(params(chat, tmp_path), [request("a")])
    ask(params(chat, tmp_path, api_key_env="OTHER_KEY"), [request("b")])
    assert chat.headers[1]["authorization"] == "Bearer other"
    assert KEY not in json.dumps(chat.headers)


# The cache ----------------------------------------------------------------------------------------------------


def test_equal_requests_are_sent_once_now_and_never_again(chat, tmp_path):
    chat.delay = 0.05
    _, counts, _ = ask(params(chat, tmp_path), [request()] * 5)
    assert (counts["requests"], counts["cache_hits"], len(chat.bodies)) == (1, 4, 1)
    results, counts, _ = ask(params(chat, tmp_path), [request()])
    assert results == [Completion("fine", "stop", 100, 10)]
    assert (counts["requests"], counts["cache_hits"], len(chat.bodies)) == (0, 1, 1)


def test_the_key_is_all_that_the_answer_depends_on(tmp_path):
    base = params(None, tmp_path)
    keys = {
        request().key(base),
        request("other").key(base),
        request(seed=1).key(base),
        Request(request().messages, ("question",), 0).key(base),
        *(
            request().key(base.model_copy(update=c))
            for c in ({"model": "n"}, {"temperature": 0.1}, {"max_tokens": 9})
        ),
    }
    assert len(keys) == 7
    how = {
        "cache": "x",
        "concurrency": 3,
        "timeout": 1.0,
        "attempts": 1,
        "api_key_env": "K",
        "endpoint": "http://h",
    }
    assert request().key(base.model_copy(update=how)) == request().key(base)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"text": 3}', b"\xff", b"[" * 100_000,
                b'{"text": "x", "finish": "stop", "prompt_tokens": "y", "completion_tokens": 0}'],
)  # fmt: skip
def test_a_broken_entry_is_asked_again(chat, tmp_path, content):
    p = params(chat, tmp_path)
    path = Cache(p.cache)._path(request().key(p))
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    results, counts, _ = ask(p, [request()])
    assert isinstance(results[0], Completion)
    assert counts["requests"] == 1
    assert Cache(p.cache).get(request().key(p)) == results[0]


def test_the_first_of_two_answers_stays(tmp_path):
    cache = Cache(str(tmp_path / "c"))
    assert cache.put("ab12", Completion("first")) == Completion("first")
    assert cache.put("ab12", Completion("second")) == Completion("first")
    assert cache.get("ab12") == Completion("first")
    assert [p.name for p in (tmp_path / "c" / "ab").iterdir()] == ["ab12.json"]


def _fill(folder: str, name: str, results) -> None:
    cache = Cache(folder)
    results.put([cache.put(f"{i:064x}", Completion(f"{name} {i}" * 50)) for i in range(200)])


def _fill_forever(folder: str) -> None:
    cache, i = Cache(folder), 0
    while True:
        cache.put(f"{i:064x}", Completion("x" * 20_000))
        i += 1


def test_processes_agree_on_every_answer(tmp_path):
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    workers = [context.Process(target=_fill, args=(str(tmp_path), n, results)) for n in ("one", "two")]
    for worker in workers:
        worker.start()
    first, second = results.get(), results.get()
    for worker in workers:
        worker.join()
    assert first == second
    assert len(first) == 200


def test_kill_9_leaves_whole_answers_only(tmp_path):
    context = multiprocessing.get_context("fork")
    for _ in range(3):
        worker = context.Process(target=_fill_forever, args=(str(tmp_path),))
        worker.start()
        time.sleep(0.1)
        os.kill(worker.pid, signal.SIGKILL)
        worker.join()
    kept = sorted(p.stem for p in tmp_path.glob("*/*.json"))
    assert kept
    assert {Cache(str(tmp_path)).get(key) for key in kept} == {Completion("x" * 20_000)}


def test_a_folder_that_cannot_be_is_an_input_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"ask\.rephrase\.cache"):
        Cache(str(tmp_path / "file" / "cache"))


def test_an_answer_that_cannot_be_kept_is_an_error(chat, tmp_path):
    p = params(chat, tmp_path)
    folder = Path(p.cache)
    folder.mkdir()
    (folder / request().key(p)[:2]).write_text("in the way")
    with pytest.raises(SrgptError, match="cannot be kept"):
        ask(p, [request(), request()])


# Retry-After --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("3", 3.0), ("0.5", 0.5), (" 7 ", 7.0), ("-2", 0.0), ("", None), ("soon", None), ("nan", None), ("inf", None),
        ("Thu, 01 Jan 1970 00:01:40 GMT", 10.0), ("Thu, 01 Jan 1970 00:00:10 GMT", 0.0),
    ],
)  # fmt: skip
def test_retry_after(text, seconds):
    assert retry_after({"retry-after": text}, now=90.0) == seconds


@given(st.text())
def test_no_header_breaks_it(text):
    seconds = retry_after({"retry-after": text}, now=0.0)
    assert seconds is None or seconds >= 0
