"""A chat completion server of the OpenAI kind on a local port, that misbehaves as it is told."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Reply = Callable[["_Handler", dict[str, Any]], None]


def said(content: Any, finish: str = "stop") -> Reply:
    """Answer with a chat completion."""

    def reply(handler: _Handler, body: dict[str, Any]) -> None:
        handler.send_json(200, completion(content, body.get("model", ""), finish))

    return reply


def status(code: int, message: str = "no", **headers: str) -> Reply:
    """Answer with an error status; ``retry_after`` becomes ``Retry-After``."""

    def reply(handler: _Handler, body: dict[str, Any]) -> None:
        names = {k.replace("_", "-"): v for k, v in headers.items()}
        handler.send_json(code, {"error": {"message": message}}, names)

    return reply


def raw(data: bytes, kind: str = "application/json", length: int | None = None) -> Reply:
    """Answer with bytes; a longer ``length`` than there are bytes is a cut connection."""

    def reply(handler: _Handler, body: dict[str, Any]) -> None:
        handler.start(200, {"Content-Type": kind, "Content-Length": str(length or len(data))})
        handler.wfile.write(data)
        # after a whole answer it stays open: a client that used it again would count one failure more
        handler.close_connection = length is not None

    return reply


def cut_chunks(handler: _Handler, body: dict[str, Any]) -> None:
    """Start a chunked answer and hang up in the middle of it."""
    handler.start(200, {"Content-Type": "application/json", "Transfer-Encoding": "chunked"})
    handler.wfile.write(b'10\r\n{"choices": [{"m')
    handler.close_connection = True


def hang_up(handler: _Handler, body: dict[str, Any]) -> None:
    """Close the connection without a word."""
    handler.close_connection = True


def hang(handler: _Handler, body: dict[str, Any]) -> None:
    """Say nothing for a long time."""
    handler.server.over.wait(20)
    handler.close_connection = True


def trickle(handler: _Handler, body: dict[str, Any]) -> None:
    """Send a byte now and then, so that no read ever times out."""
    handler.start(200, {"Content-Type": "application/json", "Content-Length": "100000"})
    while not handler.server.over.wait(0.02):
        try:
            handler.wfile.write(b" ")
            handler.wfile.flush()
        except OSError:
            break
    handler.close_connection = True


def no_schema(handler: _Handler, body: dict[str, Any]) -> None:
    """Know no ``response_format``, as an older server."""
    if "response_format" in body:
        handler.send_json(400, {"error": {"message": "response_format: extra inputs are not permitted"}})
    else:
        say_it_again(handler, body)


def say_it_again(handler: _Handler, body: dict[str, Any]) -> None:
    """Rewrite well: the same words after a few others, different ones every time."""
    told = [
        m["content"] for m in body["messages"] if m["content"].startswith(("Question: ", "Plain question: "))
    ]
    lines = told[-1].splitlines() if told else []
    texts = {name: next((x[len(name) :] for x in lines if x.startswith(name)), "") for name in _LINES}
    count = handler.server.chat.count()
    question = texts["Question: "] or texts["Plain question: "]
    answer = texts["Answer: "] or texts["Its answer: "]
    wanted = (
        body["response_format"]["json_schema"]["schema"]["required"] if "response_format" in body else None
    )
    both = {"question": f"{_letters(count)}, {question}", "answer": f"{_letters(count)}, {answer}"}
    fields = wanted or (["question"] if not answer else ["answer"])
    handler.send_json(200, completion(json.dumps({k: both[k] for k in fields}), body["model"]))


_LINES = ("Question: ", "Plain question: ", "Answer: ", "Its answer: ")


def _letters(count: int) -> str:
    return "Look" + "".join(chr(ord("a") + int(d)) for d in str(count))


def completion(content: Any, model: str, finish: str = "stop") -> dict[str, Any]:
    message = {"role": "assistant", "content": content}
    return {
        "id": "c1",
        "object": "chat.completion",
        "created": 0,
        "model": model,
        "choices": [{"index": 0, "message": message, "finish_reason": finish}],
        "usage": {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110},
    }


class Chat:
    """A running server. ``script`` holds the replies to come, ``usual`` the one after them."""

    def __init__(self) -> None:
        self.script: list[Reply] = []
        self.usual: Reply = say_it_again
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.delay = 0.0
        self.most_at_once = 0
        self._at_once = 0
        self._count = 0
        self._lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.chat = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def count(self) -> int:
        with self._lock:
            self._count += 1
            return self._count

    def answer(self, handler: _Handler, body: dict[str, Any]) -> None:
        with self._lock:
            self.bodies.append(body)
            self.headers.append({k.lower(): v for k, v in handler.headers.items()})
            reply = self.script.pop(0) if self.script else self.usual
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            time.sleep(self.delay)
        finally:
            with self._lock:
                self._at_once -= 1
        reply(handler, body)

    def close(self) -> None:
        self._server.over.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    chat: Chat

    def __init__(self, *args: Any) -> None:
        self.over = threading.Event()
        super().__init__(*args)

    def handle_error(self, request: Any, address: Any) -> None:
        """Clients hang up here all the time."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.chat.answer(self, body)

    def start(self, code: int, headers: dict[str, str]) -> None:
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def send_json(self, code: int, value: Any, headers: dict[str, str] | None = None) -> None:
        data = json.dumps(value).encode()
        self.start(
            code, {"Content-Type": "application/json", "Content-Length": str(len(data)), **(headers or {})}
        )
        self.wfile.write(data)

    def log_message(self, *args: Any) -> None:
        """Keep quiet."""
