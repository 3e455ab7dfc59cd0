"""One promotion at a time, and a switch that survives a crash.

The aliases live in the registry and the route on the server's disk; no transaction spans both. So the state
that is aimed at is written down first, in ``switch.json``: whoever comes next completes what was begun.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from srgpt.errors import SrgptError
from srgpt.params import Params
from srgpt.promotion import server
from srgpt.storage import write_json


@dataclass(frozen=True)
class Serving:
    """Which versions are champion and previous."""

    champion: int | None
    previous: int | None


@contextlib.contextmanager
def locked(params: Params) -> Iterator[None]:
    """Hold the deployment's lock (it ends with its process); raise :class:`SrgptError` where it is taken."""
    path = server.folder(params.serve) / "promotion.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "?"
            raise SrgptError(
                f"another promotion, rollback or start is under way here (process {holder}, {path}). "
                "Wait for it, then run this again."
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def read(params: Params) -> Serving | None:
    """Return the switch that was begun and not completed, if any."""
    path = _path(params)
    try:
        return Serving(**json.loads(path.read_text()))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise SrgptError(
            f"{path}: not readable ({error}). Check the aliases in the registry and remove it."
        ) from error


def write(params: Params, aim: Serving) -> None:
    """Note the switch that begins now."""
    write_json(str(_path(params)), asdict(aim))


def clear(params: Params) -> None:
    """The switch is complete."""
    _path(params).unlink(missing_ok=True)


def _path(params: Params) -> Path:
    return server.folder(params.serve) / "switch.json"
