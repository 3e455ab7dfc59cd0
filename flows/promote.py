"""The promotion flow: put an export behind the gates, or go back to the champion before."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from prefect import flow
from prefect.states import Completed, State

from flows import ROOT
from flows.stages import act
from flows.workspace import exclusive
from srgpt.errors import InputError


@flow(name="promote")
def promote(
    action: Literal["promote", "rollback"] = "promote", force: bool = False, workspace: Path | None = None
) -> State[None]:
    """Serve the exported model if it passes every gate, or serve the previous champion again.

    Args:
        action: What to do.
        force: Promote even if the benchmark comparison with the champion fails; every other gate still holds.
        workspace: Folder of the checkout to work in. Empty means the one these flows come from.
    """
    if force and action != "promote":
        raise InputError(f"force = True: {action} has no gate to override; leave force off")
    root = (workspace or ROOT).resolve()
    with exclusive(root):
        return Completed(message=act(action, root, force=force))
