"""A real local S3 server that misbehaves on purpose: it refuses requests, and lets one hang."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

_REFUSAL = (
    b'<?xml version="1.0"?><Error><Code>ServiceUnavailable</Code><Message>Please try again.</Message></Error>'
)


class Unruly:
    """A WSGI application around moto's S3: a share of the requests is refused, one hangs before it is served.

    A refused request is refused either before it does anything, or after it was carried out, as when a proxy
    loses the answer: the client cannot know.
    """

    def __init__(self, app: Callable[..., Iterable[bytes]], *, seed: int, share: float, hang: float) -> None:
        self._app = app
        self._share = share
        self._hang = hang
        self._rng = random.Random(seed)
        self._lock = threading.Lock()
        self.armed = False
        self.requests = self.refused = self.hung = 0

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        with self._lock:
            refuse = self.armed and self._rng.random() < self._share
            late = self._rng.random() < 0.3
            hang = self.armed and not self.hung and self.requests >= 20 and not refuse
            self.requests += self.armed
            self.refused += refuse
            self.hung += hang
        if hang:
            time.sleep(self._hang)
        if not refuse:
            return self._app(environ, start_response)
        if late:
            for _ in self._app(environ, lambda *_: None):
                pass
        start_response("503 Service Unavailable", [("Content-Type", "application/xml"),
                                                   ("Content-Length", str(len(_REFUSAL)))])  # fmt: skip
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [_REFUSAL]


class UnrulyServer:
    """The server of an :class:`Unruly` application, on a port of its own."""

    def __init__(self, *, seed: int = 0, share: float = 1 / 3, hang: float = 8.0) -> None:
        from moto.moto_server.werkzeug_app import (
            DomainDispatcherApplication,
            MotoRequestHandler,
            create_backend_app,
        )
        from werkzeug.serving import make_server

        self.app = Unruly(DomainDispatcherApplication(create_backend_app), seed=seed, share=share, hang=hang)
        self._server = make_server(
            "127.0.0.1", 0, self.app, threaded=True, request_handler=MotoRequestHandler
        )
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._thread.join()
