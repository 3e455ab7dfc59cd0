"""The retraining flow: the whole chain, then promotion.

``python -m flows.retrain --profile demo`` runs it once, here; ``python -m flows.serve`` puts it on a
schedule.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any, Literal, get_args

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger
from prefect.runtime import flow_run
from prefect.states import Completed, State

from flows import ROOT, artifacts
from flows.remote import configure
from flows.stages import CHAIN, Outcome, StageError, act, reproduce_all
from flows.stages import push as send
from flows.workspace import exclusive
from srgpt.errors import InputError, SrgptError
from srgpt.params import Params, load, write

Profile = Literal["demo", "cpu-long", "gpu", "full"]


@task(name="params", task_run_name="params", cache_policy=NO_CACHE)
def apply_params(workspace: Path, profile: Profile | None, overrides: list[str]) -> Params:
    """Write the profile and the overrides into the workspace's ``params.yaml``; refuse wrong ones."""
    if profile or overrides:
        params = write(workspace / "params.yaml", profile, overrides)
        get_run_logger().info("profile %s, with %s", params.profile, ", ".join(overrides) or "no overrides")
        return params
    return load(workspace / "params.yaml")


def _run_name() -> str:
    profile = flow_run.parameters.get("profile") or "as-set"
    return f"retrain-{profile}-{flow_run.scheduled_start_time:%Y%m%d-%H%M}"


@flow(name="retrain", flow_run_name=_run_name)
def retrain(
    profile: Profile | None = None,
    overrides: list[str] | None = None,
    promote: bool = True,
    force: bool = False,
    refresh: bool = False,
    push: bool = False,
    workspace: Path | None = None,
) -> State[Any]:
    """Bring the whole chain up to date, from scenes to the export, and promote it if it passes the gates.

    Only what changed runs: a stage whose inputs, parameters and code are those of last time is skipped. A run
    that failed or was cancelled goes on from where it stopped when it is started again.

    Args:
        profile: Scale to work at. Empty keeps what the workspace's params.yaml says.
        overrides: Single values to change, each as section.key=value, for example train.steps=2000.
        promote: Serve the new model, if it is not worse than the one that serves now.
        force: Promote even if the benchmark comparison with the champion fails; every other gate still holds.
        refresh: Read the sources again even if their parameters are the same (new data has arrived).
        push: Send data and models to the DVC remote at the end.
        workspace: Folder of the checkout to work in. Empty means the one these flows come from.
    """
    root = (workspace or ROOT).resolve()
    with exclusive(root):
        configure(root)
        params = apply_params(root, profile, overrides or [])
        outcomes = run_chain(root, params, CHAIN, force=("ingest",) if refresh else ())
        headline = artifacts.publish(root, params, outcomes)
        if push:
            send(root)
        promoted = act("promote", root, force=force) if promote else "not promoted"
    ran = [target for outcome in outcomes.values() for target in outcome.ran]
    work = f"ran {', '.join(ran)}" if ran else "nothing had changed"
    return Completed(message=". ".join(filter(None, (headline, work, promoted))))


def run_chain(
    root: Path, params: Params, stages: tuple[str, ...], force: tuple[str, ...] = ()
) -> dict[str, Outcome]:
    """Run stages; where one fails, publish why before the failure goes on."""
    try:
        return reproduce_all(stages, root, force=force)
    except StageError as error:
        artifacts.failed(error, root, params)
        raise


def main() -> None:
    """Run the flow once from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m flows.retrain", description="Run the retraining flow once, here."
    )
    parser.add_argument(
        "--profile", choices=get_args(Profile), help="scale to work at (default: as params.yaml says)"
    )
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="section.key=value")
    parser.add_argument("--no-promote", dest="promote", action="store_false", help="stop after the export")
    parser.add_argument(
        "--force",
        action="store_true",
        help="promote even if the benchmark comparison with the champion fails",
    )
    parser.add_argument("--refresh", action="store_true", help="read the sources again")
    parser.add_argument("--push", action="store_true", help="send data and models to the DVC remote")
    parser.add_argument("--workspace", type=Path, help="checkout to work in (default: this one)")
    try:
        state = retrain(**vars(parser.parse_args()), return_state=True)
        state.result()
        sys.stdout.write(f"{state.message}\n")
    except InputError as error:
        sys.exit(_say(error, 2))
    except SrgptError as error:
        sys.exit(_say(error, 1))


def _say(error: SrgptError, code: int) -> int:
    sys.stderr.write(f"error: {error}\n")
    return code


if __name__ == "__main__":
    main()
