"""``train``: conversations in, a model folder out; metrics and lineage to MLflow.

The stages of a training work in folders of their own within the work folder, ``1-align``, ``2-pretrain`` and so on; a
stage is finished when its summary is there, and the last one's model is the model. All report to one MLflow run, on
one axis of steps. Beside the work folder (``.NAME.work``) lie, while a training is unfinished, its state (what it is a
training of, in which MLflow run; it goes only after the model was published) and a lock against a second trainer.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from srgpt.errors import InputError, SrgptError
from srgpt.params import Params, TrackingParams
from srgpt.storage import digest, is_local, read_json, read_manifest, staged_folder, work_url, write_json
from srgpt.tracking import Lineage, Run, connect, has_run, start_run
from srgpt.training.delivery import PAGES, UNDELIVERED
from srgpt.training.launch import Node, join, launch
from srgpt.training.plan import SUMMARY, Stage, data_of, model_identity, plan, warn_of_undeclared
from srgpt.training.stopping import STOP, StoppedError
from srgpt.training.worker import CHECKPOINTS, Job

log = logging.getLogger(__name__)

_JOB = "job.json"

_PATIENCE = 600
"""Seconds that other nodes wait for the first to begin."""

_NEUTRAL = {
    "accumulation", "batch_images", "cache_mb", "checkpoint_steps", "data_workers", "dataset", "init", "log_steps",
    "nodes", "offload", "ranks", "sample_steps", "spike_factor", "stages", "threads", "zero_stage",
}  # fmt: skip
"""Keys of a stage's parameters that do not change the model; ``dataset`` and ``init`` only name what is looked at.

How the images of a step fall to ranks and batches does not, either, as long as they are as many.
"""


def run(params: Params, *, source: str, out: str, node_rank: int | None = None) -> dict[str, Any]:
    """Train the stages of ``train.stages``; write the model folder ``out``; return its ``training.json``.

    A stage without a mixture trains on the conversations at ``source``. With several nodes, ``node_rank`` (else
    ``NODE_RANK``) says which one this is. Node 0 owns the work folder, the MLflow run and the publication; the others
    only run ranks, and return nothing.

    Killed and started again with the same data and parameters, it goes on from its last checkpoint, in the same
    MLflow run, to the same loss, and leaves out the stages that are finished; where only the publication failed, it
    publishes. Raises :class:`SrgptError` where another process trains the same folder.
    """
    node = Node.find(params.train, node_rank)
    if node.count > 1 and not is_local(out):
        raise InputError(
            f"{out}: several nodes need a folder that all of them share, at the same path on each"
        )
    if node.rank > 0:
        _join_stages(params, source, Path(work_url(out)).absolute(), node)
        return {}
    connect(params.tracking)
    stages = plan(params, source)
    warn_of_undeclared(params, stages, Path("dvc.yaml"), source)
    reads = [url for stage in stages for s in stage.sources for url in (s.url, s.scenes)]
    reads += [] if params.train.init is None else [params.train.init]
    with contextlib.ExitStack() as held:
        with staged_folder(out, keep=True, reads=list(dict.fromkeys(reads))) as work:
            held.enter_context(_only_trainer(work))
            summary = _train(params, stages, work, node)
            _clear(work, stages)
        state_file(work).unlink(missing_ok=True)
    return summary


def _identity(params: Params, stages: Sequence[Stage], data: dict[str, str]) -> str:
    """Return a digest of what decides the model: the stages, the seed, all data, and the model to start from.

    ``data`` is what :func:`data_of` says of the stages.
    """
    recipes = [
        {
            **s.params.model_dump(mode="json", exclude=_NEUTRAL),
            "name": s.name,
            "global": s.params.global_batch,
        }
        for s in stages
    ]
    scenes = sorted(
        {read_manifest(s.scenes, "scenes").fingerprint for stage in stages for s in stage.sources}
    )
    return digest([recipes, params.seed, data, scenes, model_identity(params.train.init)])


def state_file(work: Path) -> Path:
    """Return where the state of the training in the folder ``work`` is: beside it, for it is not published."""
    return work.with_name(f"{work.name}.state.json")


def _state(work: Path) -> dict[str, Any]:
    """Return the state of the training in the folder ``work``, empty where there is none."""
    path = state_file(work)
    found: dict[str, Any] = read_json(str(path)) if path.exists() else {}
    return found


def chosen_params(params: Params) -> dict[str, Any]:
    """Return the parameters people compare runs by; all are in ``params.yaml``."""
    train = params.train
    flat = {f"train.{k}": v for k, v in train.model_dump(mode="json", exclude={"model", "stages"}).items()}
    for stage in train.stages if len(train.stages) > 1 else []:
        own = stage.model_dump(mode="json", exclude={"name"})
        flat |= {f"train.{stage.name}.{k}": v for k, v in own.items()}
    for part in ("vision", "text"):
        sizes = getattr(train.model, part).model_dump(mode="json")
        flat |= {f"{part}.{k}": v for k, v in sizes.items()}
    flat["depth"] = train.model.depth
    return {**flat, "seed": params.seed, "profile": params.profile}


def _train(params: Params, stages: Sequence[Stage], work: Path, node: Node) -> dict[str, Any]:
    """Train in the folder ``work``, unless a whole model is there already, and report to MLflow."""
    data = data_of(stages)
    identity = _identity(params, stages, data)
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
            active.set_tags({"srgpt.train.stages": ", ".join(stage.name for stage in stages)})
        if (work / SUMMARY).exists():
            log.info("%s: the model was trained before; it is published", work)
        else:
            _train_stages(params, stages, work.absolute(), data, active, node)
        return _report(active, work)


def _train_stages(
    params: Params, stages: Sequence[Stage], work: Path, data: dict[str, str], active: Run, node: Node
) -> None:
    """Train the stages that are not finished, each from the model before; leave the last one's model in ``work``."""
    init, steps, summaries = params.train.init, 0, []
    for stage in stages:
        folder = stage.folder(work)
        if not (folder / SUMMARY).exists():
            folder.mkdir(exist_ok=True)
            sources = [asdict(s) for s in stage.sources]
            job = Job(params.dump(), stage.number, sources, data, str(folder), active.id, init, steps)
            launch(job, stage.params, folder / _JOB, node)
            _go_on(stage, stages, folder)
        _deliver(active, folder)
        shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
        summaries.append({"name": stage.name, **read_json(str(folder / SUMMARY))})
        init, steps = str(folder), steps + summaries[-1]["steps"]
    _take_model(stages[-1].folder(work), work)
    write_json(str(work / SUMMARY), {**_sum_up(summaries), "init": params.train.init})


def _join_stages(params: Params, source: str, work: Path, node: Node) -> None:
    """Run this node's ranks of the stages that node 0 trains in the folder ``work``."""
    stages = plan(params, source)
    _wait_for_first_node(work, _identity(params, stages, data_of(stages)))
    for stage in stages:
        folder = stage.folder(work)
        if not (folder / SUMMARY).exists():
            join(stage.params, folder / _JOB, node)
            _go_on(stage, stages, folder)


def _wait_for_first_node(work: Path, identity: str) -> None:
    """Wait until node 0 has made the folder ``work`` this training's, so that both see the same stages finished."""
    for _ in range(_PATIENCE):
        if _state(work).get("identity") == identity:
            return
        time.sleep(1)
    raise SrgptError(
        f"{work}: node 0 has not begun this training there within {_PATIENCE} seconds. Give all nodes the same folder, "
        "data and parameters, and look at what node 0 says."
    )


def _go_on(stage: Stage, stages: Sequence[Stage], folder: Path) -> None:
    """Raise :class:`StoppedError` where a stage was asked to stop as it ended, and another one would follow."""
    if stage is not stages[-1] and (folder / STOP).exists():
        raise StoppedError(
            f"the training was asked to stop and did, after stage {stage.name}. The same command goes on from there."
        )


def _sum_up(stages: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the summary of a training: sums over its stages, the last one's result, and each stage's own."""
    total = {k: v for k, v in stages[-1].items() if k != "name"}
    for key in ("steps", "seconds", "samples_seen"):
        total[key] = sum(stage.get(key, 0) for stage in stages)
    return {**total, "stages": list(stages)}


def _take_model(folder: Path, work: Path) -> None:
    """Move a stage's model into the work folder; its summary stays, and says that the stage is finished."""
    for child in folder.iterdir():
        if child.name not in (SUMMARY, _JOB, PAGES, STOP) and not child.name.startswith(UNDELIVERED):
            child.rename(work / child.name)


def _deliver(active: Run, folder: Path) -> None:
    """Log what a stage could not deliver while it trained."""
    undelivered = folder / UNDELIVERED
    if undelivered.exists():
        for step, values in read_json(str(undelivered)):
            active.log_metrics(values, step)
        undelivered.unlink()
    for page in sorted((folder / PAGES).glob("*.html")):
        active.log_artifact(page, PAGES)


def _report(active: Run, work: Path) -> dict[str, Any]:
    """Log what the training left in the folder ``work``; return its summary."""
    lineage = read_json(str(work / "lineage.json"))
    if lineage["run_id"] != active.id:  # a new run has taken the place of one that is gone
        write_json(str(work / "lineage.json"), {**lineage, "run_id": active.id})
    summary: dict[str, Any] = read_json(str(work / SUMMARY))
    active.log_metrics({f"train/{k}": v for k, v in summary.items() if isinstance(v, int | float)})
    for name in (SUMMARY, "lineage.json"):
        active.log_artifact(work / name)
    return summary


# The work folder ------------------------------------------------------------------------------------------


def _previous_run(tracking: TrackingParams, work: Path, identity: str) -> str | None:
    """Return the MLflow run of an unfinished training of the same data and parameters, where there is one.

    Unfinished work of other data or parameters is set aside.
    """
    if not (work / SUMMARY).exists() and not any(child.is_dir() for child in work.iterdir()):
        return None  # nothing was begun, or the last model was published
    state = _state(work)
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


def _clear(work: Path, stages: Sequence[Stage]) -> None:
    """Leave the model only."""
    for stage in stages:
        shutil.rmtree(stage.folder(work), ignore_errors=True)


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
