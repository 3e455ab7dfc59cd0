"""The curation flow: from sources to validated conversations, without training."""

from __future__ import annotations

from pathlib import Path

from prefect import flow

from flows import ROOT, artifacts
from flows.remote import configure
from flows.retrain import Profile, apply_params, run_chain
from flows.stages import CURATION
from flows.workspace import exclusive


@flow(name="curate")
def curate(
    profile: Profile | None = None,
    overrides: list[str] | None = None,
    refresh: bool = False,
    workspace: Path | None = None,
) -> None:
    """Bring the datasets up to date: scenes, perception, graphs, questions, and the report that judges them.

    Args:
        profile: Scale to work at. Empty keeps what the workspace's params.yaml says.
        overrides: Single values to change, each as section.key=value, for example ask.turns=12.
        refresh: Read the sources again even if their parameters are the same (new data has arrived).
        workspace: Folder of the checkout to work in. Empty means the one these flows come from.
    """
    root = (workspace or ROOT).resolve()
    with exclusive(root):
        configure(root)
        params = apply_params(root, profile, overrides or [])
        outcomes = run_chain(root, params, CURATION, force=("ingest",) if refresh else ())
        artifacts.publish(root, params, outcomes)
