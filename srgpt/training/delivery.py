"""Delivery to the tracking server: points and pages are sent, or kept and sent later; the training goes on."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from srgpt.errors import SrgptError
from srgpt.storage import read_json, write_json
from srgpt.training.metrics import Log

log = logging.getLogger(__name__)

UNDELIVERED = "undelivered.json"
"""Points that never got to the tracking server: a list of ``[step, {name: value}]``."""

PAGES = "samples"
"""The folder of pages that wait, in a job's folder and among the run's artifacts."""

_PAUSE = 60.0
"""Seconds between attempts while the server does not answer: each may hold up the training."""


class Delivery:
    """Sends points, and the pages in a folder; what fails waits for later attempts."""

    def __init__(
        self,
        send: Log,
        kept: Path,
        pause: float = _PAUSE,
        *,
        send_page: Callable[[Path], None] | None = None,
        pages: Path | None = None,
    ) -> None:
        """Points that wait are in the file ``kept``, those of an earlier process too.

        Pages are files in the folder ``pages``, each deleted once ``send_page`` has sent it.
        """
        self._send, self._kept, self._send_page, self._pages = send, kept, send_page, pages
        self._pause = pause
        self._waiting: list[tuple[int, dict[str, float]]] = read_json(str(kept)) if kept.exists() else []
        self._failed_at: float | None = None

    def __call__(self, values: Mapping[str, float], step: int) -> None:
        """Send the ``values`` of ``step`` after those that wait; without any, just what waits."""
        if values:
            self._waiting.append((step, dict(values)))
        # a server that did not answer a moment ago is left alone for a while
        if self._failed_at is None or time.monotonic() - self._failed_at >= self._pause:
            self._flush()
        self._keep()

    def close(self) -> None:
        """Try once more, and say what still waits."""
        self._flush()
        self._keep()
        pages = len(self._left())
        if self._waiting:
            log.warning(
                "%d points did not get to the tracking server; they are in %s", len(self._waiting), self._kept
            )
        if pages:
            log.warning("%d pages did not get to the tracking server; they are in %s", pages, self._pages)

    def _keep(self) -> None:
        """Have the file hold what waits, so that not even a kill loses it."""
        with contextlib.suppress(OSError, SrgptError):  # of a full disk checkpoints tell
            if self._waiting:
                write_json(str(self._kept), self._waiting)
            else:
                self._kept.unlink(missing_ok=True)

    def _left(self) -> list[Path]:
        return sorted(self._pages.glob("*.html")) if self._pages is not None else []

    def _flush(self) -> None:
        try:
            while self._waiting:
                step, values = self._waiting[0]
                self._send(values, step)
                del self._waiting[0]
            for page in self._left():
                if self._send_page is not None:
                    self._send_page(page)
                    page.unlink()
        except SrgptError as error:
            if self._failed_at is None:
                log.warning("%s\nThe training goes on; its metrics are kept and sent later.", error)
            self._failed_at = time.monotonic()
        else:
            self._failed_at = None
