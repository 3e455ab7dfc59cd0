"""What ``python -m flows.serve`` registers: forms, limits, and a schedule that really makes runs."""

from __future__ import annotations

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterDeploymentId

from flows.serve import deployments


def test_the_schedule_makes_runs() -> None:
    nightly = deployments("*/5 * * * *")[0]
    identity = nightly.apply()
    with get_client(sync_client=True) as client:
        deployment = client.read_deployment(identity)
        assert deployment.name == "nightly"
        assert deployment.concurrency_options.collision_strategy.value == "CANCEL_NEW"
        assert deployment.global_concurrency_limit.limit == 1
        assert deployment.entrypoint == "flows.retrain.retrain"
        client._client.post(f"/deployments/{identity}/schedule").raise_for_status()
        wanted = FlowRunFilter(deployment_id=FlowRunFilterDeploymentId(any_=[identity]))
        runs = client.read_flow_runs(flow_run_filter=wanted)
        assert len(runs) >= 3
        assert all(run.state.is_scheduled() and run.parameters == {"refresh": True} for run in runs)


def test_on_demand_deployments_queue() -> None:
    names = {(d.flow_name, d.name) for d in deployments()}
    assert names == {("retrain", "nightly")} | {
        (flow, "on-demand") for flow in ("retrain", "curate", "evaluate", "promote")
    }
    for deployment in deployments()[1:]:
        assert deployment.concurrency_limit == 1
        assert deployment.concurrency_options.collision_strategy.value == "ENQUEUE"
        assert not deployment.schedules
