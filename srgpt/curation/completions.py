"""Answers of a language model behind an OpenAI-compatible endpoint: retried, given up in time, kept on disk.

What goes wrong on the way is not an exception but a :class:`Failure` with a reason, because whoever asks has
something to fall back on. Every answer is kept in a folder under a key of all that it was asked with, so that a
second run asks nothing again and gets the same words.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import numpy as np

from srgpt.errors import InputError, SrgptError
from srgpt.params import RephraseParams
from srgpt.storage import digest

log = logging.getLogger(__name__)

Message = dict[str, str]
"""``role`` and ``content`` of one chat message."""


@dataclass(frozen=True)
class Completion:
    """What a model answered: ``finish`` is the API's finish reason, tokens are 0 where the server tells none."""

    text: str
    finish: str = "stop"
    prompt_tokens: int = 0
    completion_tokens: int = 0


@dataclass(frozen=True)
class Failure:
    """No answer. Reasons: ``endpoint-failed`` (all attempts), ``endpoint-given-up`` (too many failed before)."""

    reason: str


@dataclass(frozen=True)
class Request:
    """One chat completion: ``fields`` are the texts of the JSON object that is wanted, ``seed`` the sampling seed."""

    messages: tuple[Message, ...]
    fields: tuple[str, ...]
    seed: int

    def key(self, params: RephraseParams) -> str:
        """Return the SHA-256 of everything that the answer depends on, as far as a client can know."""
        sampling = [params.model, params.temperature, params.max_tokens, self.seed]
        return digest([sampling, list(self.messages), list(self.fields)])

    def body(self, params: RephraseParams) -> dict[str, Any]:
        """Return what the API is sent, less what :data:`_LADDER` takes away."""
        return {
            "model": params.model,
            "messages": list(self.messages),
            "temperature": params.temperature,
            "max_tokens": params.max_tokens,
            "max_completion_tokens": params.max_tokens,
            "seed": self.seed,
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "rewrite", "strict": True, "schema": _schema(self.fields)},
            },
        }


def _schema(fields: Sequence[str]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {name: {"type": "string"} for name in fields},
        "required": list(fields),
        "additionalProperties": False,
    }


# On disk --------------------------------------------------------------------------------------------------


class Cache:
    """One small file per answer. Whoever writes first wins, so that all processes use the same words.

    A file appears whole or not at all; one that cannot be read counts as absent. Raises :class:`InputError`
    where the folder cannot be made.
    """

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"ask.rephrase.cache = {folder!r}: cannot be made ({error.strerror}). Name a folder that can be "
                "written."
            ) from error

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.json"

    def get(self, key: str) -> Completion | None:
        """Return what is kept under a key; None where nothing is."""
        try:
            row = json.loads(self._path(key).read_bytes())
            found = Completion(row["text"], row["finish"], row["prompt_tokens"], row["completion_tokens"])
        except (OSError, ValueError, TypeError, KeyError, RecursionError):
            return None
        sound = isinstance(found.text, str) and isinstance(found.finish, str)
        counted = all(type(n) is int for n in (found.prompt_tokens, found.completion_tokens))
        return found if sound and counted else None

    def put(self, key: str, completion: Completion) -> Completion:
        """Keep an answer; return the one that is kept, which may be another process's."""
        path = self._path(key)
        data = json.dumps(asdict(completion), sort_keys=True).encode()
        try:
            path.parent.mkdir(exist_ok=True)
            partial = path.with_name(f".{key}.{os.getpid()}.{threading.get_ident()}.tmp")
            try:
                partial.write_bytes(data)
                try:
                    path.hardlink_to(partial)  # fails where there is one, unlike a rename
                except OSError:
                    if (first := self.get(key)) is not None:
                        return first
                    partial.replace(path)  # it cannot be read, or the file system has no links
            finally:
                partial.unlink(missing_ok=True)
        except OSError as error:
            raise SrgptError(
                f"{path}: the answer cannot be kept ({error.strerror}). Make room, or set ask.rephrase.cache to "
                "another folder, and run the same command again: what was kept is not asked again."
            ) from error
        return completion


# Over the network -----------------------------------------------------------------------------------------

_LADDER: tuple[frozenset[str], ...] = (
    frozenset({"max_completion_tokens"}),
    frozenset({"max_completion_tokens", "response_format"}),
    frozenset({"max_completion_tokens", "response_format", "seed"}),
    frozenset({"max_tokens", "temperature", "seed"}),
)
"""What a request leaves out, one step after the other, as long as the server refuses it as malformed.

The last step is for hosted reasoning models, which know only the newer name of ``max_tokens``.
"""

_MALFORMED = (400, 422)
_HOPELESS = (401, 403, 404, 405, 501)
"""A wrong key, model or address: no later request will do better."""


class _TroubleError(Exception):
    """One attempt failed. ``wait`` is what the server asks for, seconds; ``again`` whether another may help."""

    def __init__(
        self, what: str, *, wait: float | None = None, again: bool = True, hopeless: bool = False
    ) -> None:
        super().__init__(what)
        self.wait = wait
        self.again = again
        self.hopeless = hopeless


class Endpoint:
    """A model that is asked through a cache; an async context manager for one event loop.

    ``counts`` gains ``requests`` (answers that were paid for), ``cache_hits``, ``retries``, ``failed``,
    ``prompt_tokens`` and ``completion_tokens`` (paid for). After ``params.max_failures`` failed requests in a
    row, or at once where the server refuses the key, the model or the address, nothing is asked any more.
    Raises :class:`SrgptError` instead of returning a :class:`Failure` where ``params.required``.
    """

    def __init__(self, params: RephraseParams, counts: Counter[str]) -> None:
        self.params = params
        self.counts = counts
        self.cache = Cache(params.cache)
        self.trouble = ""
        """What went wrong last, for a person."""
        self._key = _read_key(params.api_key_env)
        self._asked: dict[str, asyncio.Future[Completion | Failure]] = {}
        self._step = 0
        self._failed_in_a_row = 0
        self._given_up = asyncio.Event()
        self._resume_at = 0.0
        # only the waiting depends on it, and processes must not wait in step
        self._jitter = np.random.default_rng()

    async def __aenter__(self) -> Endpoint:
        import openai

        self._client = openai.AsyncOpenAI(
            base_url=self.params.endpoint,
            api_key=self._key or "none",  # servers of one's own need none
            max_retries=0,
            timeout=self.params.timeout,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()

    @property
    def given_up(self) -> bool:
        """Whether nothing is asked any more."""
        return self._given_up.is_set()

    async def complete(self, request: Request) -> Completion | Failure:
        """Return the answer to a request, from the cache where it is there; equal requests are sent once."""
        key = request.key(self.params)
        if (asked := self._asked.get(key)) is not None:
            result = await asyncio.shield(asked)
            self.counts["cache_hits"] += isinstance(result, Completion)
            return result
        self._asked[key] = future = asyncio.get_running_loop().create_future()
        try:
            result = await self._fetch(key, request)
        except BaseException:
            future.cancel()
            raise
        future.set_result(result)
        return result

    async def _fetch(self, key: str, request: Request) -> Completion | Failure:
        if (kept := self.cache.get(key)) is not None:
            self.counts["cache_hits"] += 1
            return kept
        trouble = _TroubleError("it was not asked")
        for attempt in range(self.params.attempts):
            await self._pause(self._resume_at - time.monotonic())
            if self.given_up:
                return Failure("endpoint-given-up")
            self.counts["retries"] += attempt > 0
            try:
                completion = await self._ask(request)
            except _TroubleError as error:
                trouble = error
                if not error.again or (error.wait or 0.0) > self.params.max_wait:
                    break
                if error.wait is not None:  # it is the server that is busy: the others wait, too
                    self._resume_at = max(self._resume_at, time.monotonic() + error.wait)
                if attempt + 1 < self.params.attempts:
                    await self._pause(self._delay(attempt))
            else:
                self._failed_in_a_row = 0
                self.counts["requests"] += 1
                self.counts["prompt_tokens"] += completion.prompt_tokens
                self.counts["completion_tokens"] += completion.completion_tokens
                return self.cache.put(key, completion)
        return self._fail(trouble)

    def _delay(self, attempt: int) -> float:
        """Return seconds to wait after a failed attempt: exponential, with full jitter, at most ``max_wait``."""
        return float(min(self.params.backoff * 2.0**attempt, self.params.max_wait) * self._jitter.random())

    async def _pause(self, seconds: float) -> None:
        """Wait, but not for a server that was given up."""
        if seconds > 0:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._given_up.wait(), seconds)

    def _fail(self, trouble: _TroubleError) -> Failure:
        self.counts["failed"] += 1
        self._failed_in_a_row += 1
        self.trouble = str(trouble)
        if self.params.required:
            self._given_up.set()
            raise SrgptError(
                f"ask.rephrase: {self.params.endpoint}: {trouble}. Start the server, or correct the endpoint, the "
                f"model or the key in {self.params.api_key_env}, and run the same command again: what was answered "
                "is kept. With ask.rephrase.required=false the questions would keep their templates."
            )
        if trouble.hopeless or self._failed_in_a_row >= self.params.max_failures:
            self._given_up.set()
        return Failure("endpoint-failed")

    async def _ask(self, request: Request) -> Completion:
        """Send one request, with less in it as long as the server calls it malformed."""
        body = request.body(self.params)
        for step in range(self._step, len(_LADDER)):
            try:
                completion = await self._send({k: v for k, v in body.items() if k not in _LADDER[step]})
            except _MalformedError as error:
                trouble = error
                continue
            self._step = max(self._step, step)
            return completion
        raise _TroubleError(str(trouble), again=False)

    async def _send(self, body: Mapping[str, Any]) -> Completion:
        import openai

        try:
            # httpx counts the seconds between two bytes; a server that trickles must end, too
            async with asyncio.timeout(self.params.timeout):
                # not chat.completions.create: checking the messages' types takes it longer than all else together
                response = await self._client.post("/chat/completions", cast_to=object, body=body)
            return _read(response)
        except openai.APIStatusError as error:
            status = error.status_code
            what = f"it answers {status}: {self._without_key(error.message)}"
            if status in _MALFORMED:
                raise _MalformedError(what) from None
            hopeless = status in _HOPELESS
            again = status in (408, 409, 425, 429) or (status >= 500 and not hopeless)
            wait = retry_after(error.response.headers)
            raise _TroubleError(what, wait=wait, again=again, hopeless=hopeless) from None
        except (TimeoutError, openai.APITimeoutError):
            raise _TroubleError(f"it does not answer within {self.params.timeout:g} s") from None
        except openai.APIConnectionError as error:
            cause = error.__cause__ or error
            raise _TroubleError(
                f"no connection, or it was cut ({type(cause).__name__}: {self._without_key(str(cause))})"
            ) from None
        except (openai.OpenAIError, ValueError, TypeError, AttributeError, LookupError) as error:
            raise _TroubleError(f"its answer is no chat completion ({type(error).__name__})") from None

    def _without_key(self, text: str) -> str:
        """Return a server's words, shortened, and without the key that it may repeat."""
        return " ".join((text.replace(self._key, "***") if self._key else text).split())[:300]


def _read_key(name: str) -> str:
    key = os.environ.get(name, "").strip()
    if not (key.isascii() and key.isprintable()):
        raise InputError(f"{name}: the key in it has characters that no HTTP header can carry. Set it again.")
    return key


class _MalformedError(Exception):
    """The server does not understand the request."""


def _read(response: Any) -> Completion:
    """Read a chat completion from plain JSON; raises where it is none."""
    choice = response["choices"][0]
    text, finish = choice["message"].get("content"), choice.get("finish_reason")
    if text is not None and not isinstance(text, str):
        raise TypeError("content is no text")
    usage = response.get("usage") or {}
    tokens = [usage.get(name) for name in ("prompt_tokens", "completion_tokens")]
    return Completion(
        text or "",
        "content_filter" if choice["message"].get("refusal") else str(finish or "stop"),
        *(n if type(n) is int and n >= 0 else 0 for n in tokens),
    )


def retry_after(headers: Mapping[str, str], now: float | None = None) -> float | None:
    """Return the seconds that a server asks to wait (``Retry-After`` in seconds or as a date); None for none.

    ``now`` is the present time, seconds since the epoch.
    """
    text = headers.get("retry-after", "").strip()
    try:
        seconds = float(text)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(text).timestamp() - (time.time() if now is None else now)
        except (ValueError, TypeError, OverflowError):
            return None
    return max(seconds, 0.0) if np.isfinite(seconds) else None
