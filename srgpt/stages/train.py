"""``train``: conversations in, a model folder out; metrics and lineage to MLflow."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

from srgpt.errors import InputError
from srgpt.params import Params
from srgpt.storage import digest, exists, read_json, read_manifest, staged_folder, trace, write_json
from srgpt.tracking import Lineage, connect, start_run
from srgpt.training.launch import launch
from srgpt.training.worker import Job

log = logging.getLogger(__name__)

_STATE = "state.json"
_JOB = "job.json"


def run(params: Params, *, source: str, out: str) -> dict[str, Any]:
    """Train on the conversations at ``source``; write the model folder ``out``; return its ``training.json``.

    Killed and started again with the same data and parameters, it goes on from its last checkpoint, in the
    same MLflow run, to the same loss.
    """
    connect(params.tracking)
    manifest = read_manifest(source, "conversations")
    if manifest.rows == 0:
        raise InputError(f"{source}: has no conversations to train on")
    scenes = trace(source, "perceive")
    data = {params.train.dataset: manifest.fingerprint}
    with staged_folder(out, keep=True) as work:
        identity = digest([params.train.model_dump(mode="json"), params.seed, data])
        run_id = _previous_run(work, identity)
        lineage = Lineage.of(params, data)
        with start_run(
            params.tracking,
            f"train-{params.profile}",
            stage="train",
            lineage=lineage,
            run_id=run_id,
            system_metrics=True,
        ) as active:
            write_json(str(work / _STATE), {"identity": identity, "run_id": active.id})
            if run_id is None:
                active.log_params(chosen_params(params))
                active.log_dict(params.dump(), "params.yaml")
            job = Job(params.dump(), source, scenes, str(work), active.id)
            launch(job, params.train.ranks, work / _JOB)
            summary: dict[str, Any] = read_json(str(work / "training.json"))
            active.log_metrics({f"train/{k}": v for k, v in summary.items() if isinstance(v, int | float)})
            for name in ("training.json", "lineage.json"):
                active.log_artifact(work / name)
        _clear(work)
    return summary


def chosen_params(params: Params) -> dict[str, Any]:
    """Return the parameters people compare runs by; all are in ``params.yaml``."""
    train = params.train
    flat = {f"train.{k}": v for k, v in train.model_dump(mode="json").items() if k != "model"}
    for part in ("vision", "text"):
        sizes = getattr(train.model, part).model_dump(mode="json")
        flat |= {f"{part}.{k}": v for k, v in sizes.items()}
    flat["depth_encoding"] = train.model.depth_encoding
    return {**flat, "seed": params.seed, "profile": params.profile}


def _previous_run(work: Path, identity: str) -> str | None:
    """Return the MLflow run of a killed training of the same data and parameters; else empty the work folder."""
    path = str(work / _STATE)
    if exists(path):
        state = read_json(path)
        if state.get("identity") == identity:
            log.info("going on with run %s", state["run_id"])
            return str(state["run_id"])
    for child in work.iterdir():
        shutil.rmtree(child) if child.is_dir() else child.unlink()
    return None


def _clear(work: Path) -> None:
    """Leave the model only."""
    shutil.rmtree(work / "checkpoints", ignore_errors=True)
    for name in (_STATE, _JOB):
        (work / name).unlink()
