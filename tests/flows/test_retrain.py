"""The flows over a small DVC project: chaining, doing nothing twice, failure, retries, what the UI shows."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId, LogFilter, LogFilterFlowRunId
from prefect.states import Failed, State

from flows import stages
from flows.curate import curate
from flows.evaluate import evaluate
from flows.promote import promote
from flows.retrain import retrain
from flows.stages import StageError
from srgpt.errors import InputError
from srgpt.storage import Manifest, Shard
from tests.flows.conftest import STAGES, Workspace


def run(workspace: Workspace, flow: Any = retrain, **parameters: Any) -> State[Any]:
    if flow is retrain:
        parameters = {"promote": False, **parameters}
    return flow(workspace=workspace.root, return_state=True, **parameters)


def task_runs(state: State[Any]) -> dict[str, Any]:
    with get_client(sync_client=True) as client:
        runs = client.read_task_runs(
            flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[state.state_details.flow_run_id]))
        )
    return {r.name: r for r in runs}


@pytest.fixture(scope="module")
def chained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, State[Any]]:
    """A workspace after its first full run, promotion included, and that run's state."""
    workspace = Workspace(tmp_path_factory.mktemp("chained"))
    with pytest.MonkeyPatch.context() as patch:
        replace_verbs(patch, "import sys; print(f'{sys.argv[1]}: srgpt version 3 is champion and serves')")
        return workspace, run(workspace, promote=True)


def test_chain_runs_in_order_and_promotes(
    chained: tuple[Workspace, State[Any]], artifacts_of: Callable[[str], list[Any]]
) -> None:
    workspace, state = chained
    assert state.is_completed()
    assert workspace.ran() == list(STAGES)
    headline = "qualitative micro 83.1 % (RGB only 76.2 %, blind 55.0 %); quantitative micro 66.4 %"
    assert state.message.startswith(headline)
    assert "ran ingest, perceive, lift, ask, validate, train, evaluate, export" in state.message
    assert state.message.endswith("promote: srgpt version 3 is champion and serves")
    runs = task_runs(state)
    assert set(runs) == {"params", *STAGES, "promote"}
    assert runs["promote"].start_time > runs["export"].end_time

    table = artifacts_of("benchmark")[0].data
    assert '"score": "qualitative micro", "model": "83.1", "RGB only": "76.2", "blind": "55.0"' in table
    assert '"score": "left right", "model": "90.0", "RGB only": "-", "blind": "-"' in table
    lineage = artifacts_of("lineage")[0].data
    assert "| commit | `abc` |" in lineage
    assert "| data train | `f00` |" in lineage
    assert re.search(r"\| train \| ran \| `models/srgpt` \| `[0-9a-f]{12}` \|", lineage)
    reports = artifacts_of("reports")[0].data
    assert f"| Data Docs, train | `{workspace.root}/reports/validation/train/index.html` |" in reports
    assert "`r1`" in reports


def test_only_what_changed_runs(chained: tuple[Workspace, State[Any]]) -> None:
    workspace, _ = chained
    workspace.ran()
    state = run(workspace, overrides=["train.steps=9"], refresh=True)
    # their outputs are the same as before, so that nothing follows from them
    assert workspace.ran() == ["ingest", "train"]
    assert "ran ingest, train. not promoted" in state.message
    text = (workspace.root / "params.yaml").read_text()
    assert "steps: 9" in text
    assert "seed: 7  # stays" in text


def test_curation_shows_rows_speed_and_rejects_by_reason(
    workspace: Workspace, artifacts_of: Callable[[str], list[Any]]
) -> None:
    manifest = Manifest("graphs", "lift", "train", (Shard("part-00000.parquet", 5, 1, "0"),), {},
                        rejected={"broken-depth": 2, "kills-worker": 1})  # fmt: skip
    workspace.files["lift"] = {"data/graphs/train/manifest.json": json.dumps(manifest.to_json())}
    workspace.commands["lift"] = (
        "from srgpt.progress import tally\n"
        "with tally('lift train', total=8, unit='scenes') as counted:\n    counted.count(8)"
    )
    workspace.write()
    assert run(workspace, curate).is_completed()
    (row,) = json.loads(artifacts_of("curation")[0].data)
    assert row.pop("scenes/s") > 0
    assert row == {
        "dataset": "train", "stage": "lift", "rows": 5, "set aside": 3, "why": "2 broken-depth, 1 kills-worker",
    }  # fmt: skip
    run(workspace, curate)
    (row,) = json.loads(artifacts_of("curation")[0].data)
    assert row["scenes/s"] == "-", "it did not run again"


def test_evaluate_scores_the_model_that_is_there(chained: tuple[Workspace, State[Any]]) -> None:
    workspace, _ = chained
    workspace.ran()
    workspace.commands["evaluate"] = "# other code"
    workspace.write()
    state = run(workspace, evaluate)
    assert workspace.ran() == ["evaluate"]
    assert state.message.startswith("qualitative micro 83.1 %")


def test_wrong_parameters_fail_before_anything_runs(workspace: Workspace) -> None:
    before = (workspace.root / "params.yaml").read_text()
    state = run(workspace, overrides=["train.steps=0"])
    assert state.is_failed()
    assert "train.steps = 0" in state.message
    with pytest.raises(InputError):
        state.result()
    assert workspace.ran() == []
    assert (workspace.root / "params.yaml").read_text() == before


def test_a_failing_stage_fails_the_run_with_its_last_lines(
    workspace: Workspace, artifacts_of: Callable[[str], list[Any]]
) -> None:
    workspace.commands["lift"] = "print('working'); sys.exit('no depth in scene 12')"
    workspace.write()
    state = run(workspace)
    assert state.is_failed()
    assert workspace.ran() == ["ingest", "perceive"]
    assert "lift failed" in state.message
    assert "no depth in scene 12" in state.message
    runs = task_runs(state)
    assert runs["lift"].state.is_failed()
    assert runs["lift"].run_count == 1, "wrong input is not tried again"
    assert set(runs) == {"params", "ingest", "perceive", "lift"}
    assert "no depth in scene 12" in artifacts_of("failure")[0].data


def test_what_may_pass_is_tried_again(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace.commands["ingest"] = (
        "marker = pathlib.Path('tried')\n"
        "if not marker.exists():\n"
        "    marker.touch()\n"
        "    sys.exit('s3://b: the object store did not answer (timeout)')"
    )
    workspace.commands["perceive"] = "sys.exit('stop here')"
    workspace.write()
    original = stages.reproduce.with_options
    at_once = lambda _, **options: original(**options, retry_delay_seconds=0)  # noqa: E731
    monkeypatch.setattr(type(stages.reproduce), "with_options", at_once)
    state = run(workspace, curate)
    assert workspace.ran() == ["ingest"]
    runs = task_runs(state)
    assert runs["ingest"].run_count == 2
    assert runs["ingest"].state.is_completed()
    assert runs["perceive"].run_count == 1


def test_output_is_in_the_runs_log(workspace: Workspace) -> None:
    state = run(workspace, evaluate)
    assert state.is_failed(), "there is no model yet"
    wanted = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[state.state_details.flow_run_id]))
    with get_client(sync_client=True) as client:
        for _ in range(100):  # logs are sent in the background
            if any("models/srgpt" in log.message for log in client.read_logs(wanted, limit=200)):
                return
            time.sleep(0.1)
    pytest.fail("what DVC said is not in the log")


# Promotion --------------------------------------------------------------------------------------------------


def replace_verbs(patch: pytest.MonkeyPatch, code: str) -> None:
    """Run Python code instead of ``srgpt promote`` and ``srgpt rollback``."""
    real = stages.process.run

    def run_code(command: Any, **options: Any) -> None:
        real([command[0], "-c", code, *command[3:]] if "srgpt.cli" in command else command, **options)

    patch.setattr(stages.process, "run", run_code)


def test_rollback(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    replace_verbs(monkeypatch, "import sys; print(f'{sys.argv[1]}: version 2 is champion')")
    assert run(workspace, promote, action="rollback").message == "rollback: version 2 is champion"


def test_force_reaches_the_command_and_only_promote_takes_it(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace_verbs(monkeypatch, "import sys; print(*sys.argv[1:])")
    assert run(workspace, promote).message == "promote"
    assert run(workspace, promote, force=True).message == "promote --force"
    refused = run(workspace, promote, action="rollback", force=True)
    assert refused.is_failed()
    assert "rollback has no gate to override" in refused.message
    assert promote.parameters.model_dump()["properties"]["force"]["description"]


def test_a_refused_promotion_fails_the_run_and_says_why(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace_verbs(monkeypatch, "raise SystemExit('error: gate benchmark: 61.0 % is below the champion')")
    state = run(workspace, promote)
    assert state.is_failed()
    assert "promote failed (exit code 1)" in state.message
    assert "gate benchmark: 61.0 % is below the champion" in state.message
    error = state.result(raise_on_failure=False)
    assert error.lines == ["error: gate benchmark: 61.0 % is below the champion"]


# The form ---------------------------------------------------------------------------------------------------


def test_parameters_make_a_good_form() -> None:
    schema = retrain.parameters.model_dump()
    properties = schema["properties"]
    assert list(properties) == ["profile", "overrides", "promote", "force", "refresh", "push", "workspace"]
    assert all(p.get("description") for p in properties.values())
    assert schema["required"] == []
    choices = next(o["enum"] for o in properties["profile"]["anyOf"] if "enum" in o)
    assert choices == ["demo", "cpu-long", "gpu", "full"]
    assert properties["promote"]["type"] == "boolean"


def test_only_transient_errors_are_worth_retrying() -> None:
    def verdict(*lines: str) -> bool:
        return stages.worth_retrying(None, None, Failed(data=StageError("train", 255, lines)))

    assert verdict("ERROR: Unable to acquire lock. Most likely another DVC process is running")
    assert verdict("ERROR: '/x/models/srgpt' is busy, it is being blocked by:", "  (PID 13998): dvc repro")
    assert verdict("error: MLflow tracking server http://h:5000 does not answer (refused). Start it")
    assert not verdict("error: train.steps = 0: input should be greater than 0")
    assert not verdict()


def test_stage_errors_read_well() -> None:
    error = StageError("lift", 1, ["a", "", "b"])
    assert str(error) == "lift failed (exit code 1). Its last lines:\n  | a\n  | b"


def test_workspace_is_this_checkout_by_default(root: Path) -> None:
    import flows

    assert root == flows.ROOT
