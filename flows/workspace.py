"""One run at a time per workspace.

DVC locks a workspace for three seconds and then gives up, and a run also changes ``params.yaml``; so a run
holds two things from beginning to end: a lock file, which the system lets go however the run ends, and the
slot of a Prefect concurrency limit, which people see in the UI. Whoever holds the lock file frees the slot
first: a run that was killed together with its temporary server leaves one taken that nobody would ever release.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import platform
import time
from collections.abc import Iterator
from pathlib import Path

from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitUpdate
from prefect.concurrency.sync import concurrency
from prefect.exceptions import ObjectAlreadyExists, PrefectHTTPStatusError
from prefect.logging import get_run_logger

_LEASE_SECONDS = 60.0
"""How often the slot is renewed, and how long it stays taken in the UI after its run was killed."""

_POLL_SECONDS = 0.5


def limit_name(root: Path) -> str:
    """Return the name of the concurrency limit of the workspace ``root`` on this machine."""
    workspace = f"{platform.node()}:{root.resolve()}"
    return f"dvc-workspace-{hashlib.sha256(workspace.encode()).hexdigest()[:12]}"


@contextlib.contextmanager
def exclusive(root: Path) -> Iterator[None]:
    """Hold the workspace ``root``; waits for whoever holds it now."""
    name = limit_name(root)
    get_run_logger().info("waiting for %s (limit %s)", root, name)
    with lock_file(root / ".srgpt" / "workspace.lock"):
        _free_limit(name)
        # A renewal that fails once must not end a long training: the lock file still keeps others out.
        with concurrency(
            name, strict=True, lease_duration=_LEASE_SECONDS, raise_on_lease_renewal_failure=False
        ):
            yield


def _free_limit(name: str) -> None:
    """Make the limit where there is none, and free its slot."""
    with get_client(sync_client=True) as client:
        try:
            client.upsert_global_concurrency_limit_by_name(name, 1)
        except (ObjectAlreadyExists, PrefectHTTPStatusError):  # another run made it between look and creation
            client.read_global_concurrency_limit_by_name(name)
        client.update_global_concurrency_limit(name, GlobalConcurrencyLimitUpdate(active_slots=0))


@contextlib.contextmanager
def lock_file(path: Path) -> Iterator[None]:
    """Hold an advisory lock on a file, which the system lets go when this process ends, however it ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        told = False
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not told:
                    get_run_logger().warning("%s is held by process %s; waiting", path, _holder(path))
                    told = True
                time.sleep(_POLL_SECONDS)
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def _holder(path: Path) -> str:
    return path.read_text() or "unknown"
