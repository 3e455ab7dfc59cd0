"""``train``: conversations in, a model folder out; metrics and lineage to MLflow.

Beside the work folder (``.NAME.work``) lie, while a training is unfinished, its state (what it is a training
of, in which MLflow run; it goes only after the model was published) and a lock against a second trainer.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from srgpt.errors import InputError, SrgptError
from srgpt.params import Params, TrackingParams
from srgpt.storage import (
    digest,
    is_local,
    read_json,
    read_manifest,
    scenes_of,
    staged_folder,
    work_url,
    write_json,
)
from srgpt.tracking import Lineage, Run, connect, has_run, start_run
from srgpt.training.delivery import PAGES, UNDELIVERED
from srgpt.training.launch import Node, join, launch
from srgpt.training.stopping import STOP
from srgpt.training.worker import CHECKPOINTS, Job

log = logging.getLogger(__name__)

_JOB = "job.json"
_SUMMARY = "training.json"
"""Written last: with it, the model is whole."""

_NEUTRAL = {
    "accumulation", "batch_images", "checkpoint_steps", "data_workers", "dataset", "log_steps", "nodes", "offload",
    "ranks", "sample_steps", "spike_factor", "zero_stage",
}  # fmt: skip
"""Keys of the ``train`` section that do not change the model; ``dataset`` only names the usual source.

How the images of a step fall to ranks and batches does not, either, as long as they are as many.
"""


def run(params: Params, *, source: str, out: str, node_rank: int | None = None) -> dict[str, Any]:
    """Train on the conversations at ``source``; write the model folder ``out``; return its ``training.json``.

    With several nodes, ``node_rank`` (else ``NODE_RANK``) says which one this is. Node 0 owns the work folder, the
    MLflow run and the publication; the others only run ranks, and return nothing.

    Killed and started again with the same data and parameters, it goes on from its last checkpoint, in the
    same MLflow run, to the same loss; where only the publication failed, it publishes. Raises
    :class:`SrgptError` where another process trains the same folder.
    """
    node = Node.find(params.train, node_rank)
    if node.count > 1 and not is_local(out):
        raise InputError(
            f"{out}: several nodes need a folder that all of them share, at the same path on each"
        )
    if node.rank > 0:
        join(params.train, Path(work_url(out)).absolute() / _JOB, node)
        return {}
    connect(params.tracking)
    manifest = read_manifest(source, "conversations")
    if manifest.rows == 0:
        raise InputError(f"{source}: has no conversations to train on")
    scenes = scenes_of(source)
    data = {manifest.dataset: manifest.fingerprint}
    with contextlib.ExitStack() as held:
        with staged_folder(out, keep=True, reads=[source, scenes]) as work:
            held.enter_context(_only_trainer(work))
            summary = _train(params, source, scenes, work, data, node)
            _clear(work)
        state_file(work).unlink(missing_ok=True)
    return summary


def state_file(work: Path) -> Path:
    """Return where the state of the training in the folder ``work`` is: beside it, for it is not published."""
    return work.with_name(f"{work.name}.state.json")


def chosen_params(params: Params) -> dict[str, Any]:
    """Return the parameters people compare runs by; all are in ``params.yaml``."""
    train = params.train
    flat = {f"train.{k}": v for k, v in train.model_dump(mode="json").items() if k != "model"}
    for part in ("vision", "text"):
        sizes = getattr(train.model, part).model_dump(mode="json")
        flat |= {f"{part}.{k}": v for k, v in sizes.items()}
    flat["depth_encoding"] = train.model.depth_encoding
    return {**flat, "seed": params.seed, "profile": params.profile}


def _train(
    params: Params, source: str, scenes: str, work: Path, data: dict[str, str], node: Node
) -> dict[str, Any]:
    """Train in the folder ``work``, unless a whole model is there already, and report to MLflow."""
    recipe = {**params.train.model_dump(mode="json", exclude=_NEUTRAL), "global": params.train.global_batch}
    identity = digest([recipe, params.seed, data])
    run_id = _previous_run(params.tracking, work, identity)
    with start_run(
        params.tracking,
        f"train-{params.profile}",
        stage="train",
        lineage=Lineage.of(params, data),
        run_id=run_id,
        system_metrics=True,
    ) as active:
        write_json(str(state_file(work)), {"identity": identity, "run_id": active.id})
        if run_id is None:
            active.log_params(chosen_params(params))
            active.log_dict(params.dump(), "params.yaml")
        if (work / _SUMMARY).exists():
            log.info("%s: the model was trained before; it is published", work)
        else:
            job = Job(params.dump(), source, scenes, str(work.absolute()), active.id)
            launch(job, params.train, work.absolute() / _JOB, node)
        return _report(active, work)


def _report(active: Run, work: Path) -> dict[str, Any]:
    """Log what the training left in the folder ``work``; return its summary."""
    undelivered = work / UNDELIVERED
    if undelivered.exists():
        for step, values in read_json(str(undelivered)):
            active.log_metrics(values, step)
        undelivered.unlink()
    for page in sorted((work / PAGES).glob("*.html")):
        active.log_artifact(page, PAGES)
    lineage = read_json(str(work / "lineage.json"))
    if lineage["run_id"] != active.id:  # a new run has taken the place of one that is gone
        write_json(str(work / "lineage.json"), {**lineage, "run_id": active.id})
    summary: dict[str, Any] = read_json(str(work / _SUMMARY))
    active.log_metrics({f"train/{k}": v for k, v in summary.items() if isinstance(v, int | float)})
    for name in (_SUMMARY, "lineage.json"):
        active.log_artifact(work / name)
    return summary


# The work folder ------------------------------------------------------------------------------------------


def _previous_run(tracking: TrackingParams, work: Path, identity: str) -> str | None:
    """Return the MLflow run of an unfinished training of the same data and parameters, where there is one.

    Unfinished work of other data or parameters is set aside.
    """
    if not any((work / name).exists() for name in (_JOB, CHECKPOINTS, _SUMMARY)):
        return None  # nothing was begun, or the last model was published
    path = state_file(work)
    state = read_json(str(path)) if path.exists() else {}
    if state.get("identity") != identity:
        _set_aside(work)
        return None
    run_id = str(state["run_id"])
    if not has_run(tracking, run_id):
        log.warning(
            "%s: its MLflow run %s is not on the tracking server any more; going on from its checkpoints "
            "in a new run",
            work,
            run_id,
        )
        return None
    log.info("going on with run %s", run_id)
    return run_id


def _set_aside(work: Path) -> None:
    """Move unfinished work to a folder beside, in place of what was set aside before, and say so."""
    aside = work.with_name(f"{work.name}.earlier")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    for child in work.iterdir():
        child.rename(aside / child.name)
    log.warning(
        "%s: the unfinished training here was of other data or parameters, so this one starts anew; "
        "it was moved to %s. Delete that folder if it is not needed.",
        work,
        aside,
    )


def _clear(work: Path) -> None:
    """Leave the model only."""
    for name in (CHECKPOINTS, PAGES):
        shutil.rmtree(work / name, ignore_errors=True)
    for name in (_JOB, STOP):
        (work / name).unlink(missing_ok=True)


@contextlib.contextmanager
def _only_trainer(work: Path) -> Iterator[None]:
    """Hold the lock beside the folder ``work``, which ends with this process however that ends."""
    path = work.with_name(f"{work.name}.lock")
    with _locked(path, work) as file:
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        work.mkdir(exist_ok=True)  # who held the lock until now may have moved it into place
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def _locked(path: Path, work: Path) -> IO[str]:
    """Open and lock the file ``path``; closing it unlocks it."""
    while True:
        file = path.open("a+")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        except FileNotFoundError:
            pass  # its holder has just removed it
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "unknown"
            file.close()
            raise SrgptError(
                f"{work}: process {holder} trains here already. "
                "Wait for it to end, or end it, or train to another folder."
            ) from None
        file.close()
