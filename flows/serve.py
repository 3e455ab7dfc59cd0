"""Serve every flow from this machine: retraining on a schedule, and all of them at the press of a button.

``python -m flows.serve`` stays in the foreground; schedules pause when it stops. It needs a Prefect server
(``prefect server start``). For several machines with work pools, see ``prefect.yaml`` beside this file.
"""

from __future__ import annotations

import argparse
from typing import cast

from prefect import serve
from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
from prefect.deployments.runner import EntrypointType, RunnerDeployment

from flows.curate import curate
from flows.evaluate import evaluate
from flows.promote import promote
from flows.retrain import retrain

CRON = "0 2 * * *"
"""Every night at two."""

_SKIP = ConcurrencyLimitConfig(limit=1, collision_strategy=ConcurrencyLimitStrategy.CANCEL_NEW)
_QUEUE = ConcurrencyLimitConfig(limit=1, collision_strategy=ConcurrencyLimitStrategy.ENQUEUE)


def deployments(cron: str = CRON) -> list[RunnerDeployment]:
    """Return what is served: ``retrain`` by schedule (skipped while one runs), all on demand (queued)."""
    nightly = retrain.to_deployment(
        name="nightly",
        cron=cron,
        concurrency_limit=_SKIP,
        parameters={"refresh": True},
        tags=["srgpt"],
        entrypoint_type=EntrypointType.MODULE_PATH,
    )
    on_demand = [
        a_flow.to_deployment(
            name="on-demand",
            concurrency_limit=_QUEUE,
            tags=["srgpt"],
            entrypoint_type=EntrypointType.MODULE_PATH,
        )
        for a_flow in (retrain, curate, evaluate, promote)
    ]
    return cast(list[RunnerDeployment], [nightly, *on_demand])


def main() -> None:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(
        prog="python -m flows.serve", description="Serve the flows from this machine."
    )
    parser.add_argument("--cron", default=CRON, help=f"when to retrain (default: {CRON!r})")
    serve(*deployments(parser.parse_args().cron), limit=1)


if __name__ == "__main__":
    main()
