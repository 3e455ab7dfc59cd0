"""Many small trainings in one process per rank: ``python -m tests.training.matrix PLAN.json``.

The plan names a dataset and cases; each case is a ``train`` section, a folder of checkpoints, after which step to
stop, and parts of the model to freeze. Rank 0 writes what each came to. One start for all of them saves most of the
time.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from srgpt.process import run
from srgpt.training.worker import CHECKPOINTS, process_group
from tests.training.data import tiny_job, tiny_params


def run_case(case: dict[str, Any], source: str, rank: int, world: int) -> dict[str, Any]:
    """Train as the case says, from its folder's checkpoint where there is one; return every step's losses."""
    from srgpt.dataset.packing import FAMILIES
    from srgpt.training import checkpoint
    from srgpt.training.engine import start_engine
    from srgpt.training.loop import Hooks, train
    from srgpt.training.metrics import Reporter
    from srgpt.training.session import Session
    from srgpt.training.stopping import StoppedError

    folder = Path(case["folder"])
    params = tiny_params(folder, **case["train"])
    session = Session(tiny_job(params, source, folder), params, rank, world)
    for part in case.get("freeze", ()):
        session.model.get_submodule(part).requires_grad_(False)
    found = checkpoint.latest(folder / CHECKPOINTS)
    universal = found is not None and found.universal(world, params.train.zero_stage)
    engine = start_engine(session.model, params.train, universal=universal)
    seen: dict[int, dict[str, float]] = {}
    reporter = Reporter(
        lambda values, step: seen.update({step: dict(values)}), case.get("every", 1), families=FAMILIES
    )
    stop_at = case.get("stop")
    done = [0]
    hooks = Hooks(
        # one rank alone is asked to stop, the last
        stop=lambda: stop_at is not None and done[-1] + 1 == stop_at and rank == world - 1,
        after=done.append,
        name_of=session.dataset.name_of,
    )
    ended = ""
    try:
        train(
            engine, session.batches, session.sampler, params.train,
            checkpoints=folder / CHECKPOINTS, reporter=reporter, hooks=hooks,
        )  # fmt: skip
    except StoppedError as error:
        ended = str(error)
    points = {step: {k.removeprefix("train/"): v for k, v in values.items()} for step, values in seen.items()}
    return {"losses": {s: v["loss"] for s, v in points.items()}, "points": points, "ended": ended}


def run_plan(folder: Path, source: str, world: int, cases: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Run cases on ``world`` ranks, each in a folder below ``folder`` by its name; return what each came to."""
    for name, case in cases.items():
        case.setdefault("folder", str(folder / name))
        Path(case["folder"]).mkdir(exist_ok=True)
    path = folder / f"plan-{len(list(folder.glob('plan-*.json')))}.json"
    path.write_text(json.dumps({"source": source, "cases": cases}))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={world}"]
    run([*command, "-m", "tests.training.matrix", str(path)], on_line=lambda line: None)
    results: dict[str, Any] = json.loads(path.with_suffix(".result.json").read_text())
    return results


def main(path: Path) -> None:
    """Run every case of a plan."""
    plan = json.loads(path.read_text())
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    results = {}
    with process_group():
        for name, case in plan["cases"].items():
            results[name] = run_case(case, plan["source"], rank, world)
    if rank == 0:
        path.with_suffix(".result.json").write_text(json.dumps(results))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
