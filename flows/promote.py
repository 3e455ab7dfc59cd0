"""The promotion flow: put an export behind the gates, or go back to the champion before."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from prefect import flow
from prefect.states import Completed, State

from flows import ROOT
from flows.stages import act
from flows.workspace import exclusive


@flow(name="promote")
def promote(action: Literal["promote", "rollback"] = "promote", workspace: Path | None = None) -> State[None]:
    """Serve the exported model if it passes every gate, or serve the previous champion again.

    Args:
        action: What to do.
        workspace: Folder of the checkout to work in. Empty means the one these flows come from.
    """
    root = (workspace or ROOT).resolve()
    with exclusive(root):
        return Completed(message=act(action, root))
