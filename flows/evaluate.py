"""The evaluation flow: score the trained model anew."""

from __future__ import annotations

from pathlib import Path

from prefect import flow
from prefect.states import Completed, State

from flows import ROOT, artifacts
from flows.retrain import apply_params, run_chain
from flows.workspace import exclusive


@flow(name="evaluate")
def evaluate(overrides: list[str] | None = None, workspace: Path | None = None) -> State[None]:
    """Score the model of the workspace on the benchmark, beside its blind and RGB-only controls.

    Args:
        overrides: Single values to change, each as section.key=value, for example evaluate.max_questions=500.
        workspace: Folder of the checkout to work in. Empty means the one these flows come from.
    """
    root = (workspace or ROOT).resolve()
    with exclusive(root):
        params = apply_params(root, None, overrides or [])
        outcomes = run_chain(root, params, ("evaluate",))
        return Completed(message=artifacts.publish(root, params, outcomes))
