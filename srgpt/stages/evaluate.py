"""evaluate: a model answers the benchmark beside its controls; grades, statistics, a report, MLflow runs."""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from srgpt import storage, tracking
from srgpt.errors import InputError
from srgpt.evaluation.controls import Variants, variants_of
from srgpt.evaluation.grading import GRADER
from srgpt.evaluation.predict import Predictor
from srgpt.evaluation.report import Evaluation, write_report
from srgpt.evaluation.statistics import Metrics
from srgpt.model.prompts import Inputs
from srgpt.params import Params
from srgpt.progress import progress_bar
from srgpt.records import Conversation, Prediction, Scene
from srgpt.tracking import Lineage

log = logging.getLogger(__name__)

PREDICTIONS = "predictions"


def run(params: Params, *, source: str, model: str, out: str) -> dict[str, Any]:
    """Evaluate the model folder ``model`` on the conversations at ``source``; write the report ``out``.

    ``out`` gets ``metrics.json``, ``predictions/`` (a table), ``plots/``, ``index.html``, ``lineage.json``.
    Returns what ``metrics.json`` holds. A killed evaluation goes on from its finished shards, one that failed
    later (in its report, at the tracking server) from its predictions.
    Raises :class:`SrgptError` before any work where the tracking server does not answer,
    :class:`InputError` where there is nothing to ask or the model is none.
    """
    tracking.connect(params.tracking)
    manifest = storage.read_manifest(source, "conversations")
    scenes = storage.scenes_of(source)
    reads = [source, scenes, model]
    with storage.local_copy(model) as folder, storage.staged_folder(out, keep=True, reads=reads) as local:
        _clear(local)
        predictor = Predictor.load(
            folder, batch_size=params.evaluate.batch_size, max_new_tokens=params.evaluate.max_new_tokens
        )
        variants = variants_of(scenes, predictor.processor.depth, _learnt(folder))
        if variants.note:
            log.warning("%s: %s", manifest.dataset, variants.note)
        trained = _trained_lineage(folder)
        lineage = Lineage.of(
            params,
            {**trained.get("data", {}), manifest.dataset: manifest.fingerprint},
            trained.get("run_id", ""),
        )
        started = time.monotonic()
        table = _predict(params, predictor, variants, source, scenes, _identity(folder), local / PREDICTIONS)
        seconds = time.monotonic() - started
        evaluation = Evaluation(
            manifest.dataset,
            manifest.fingerprint,
            {"commit": lineage.commit, "profile": lineage.profile, "parameters": lineage.params_hash},
            variants,
            _read_predictions(local / PREDICTIONS, variants),
            sum(table.rejected.values()),
        )
        metrics = write_report(
            local,
            evaluation,
            examples=params.evaluate.gallery,
            conversations=map(Conversation.from_row, storage.read_rows(source, "conversations")),
            scenes=map(Scene.from_row, storage.read_rows(scenes, "scenes")),
        )
        log.info("%d answers in %.0f s", table.rows, seconds)
        runs = _track(params, evaluation, lineage, local)
        record = {**vars(lineage), "runs": runs}
        storage.write_json(str(local / "lineage.json"), record)
    return metrics


# Predictions ----------------------------------------------------------------------------------------------


def _predict(
    params: Params,
    predictor: Predictor,
    variants: Variants,
    source: str,
    scenes: str,
    model: str,
    out: Path,
) -> storage.Manifest:
    """Answer the questions shard by shard, once per kind of input; write the table of predictions."""
    manifest = storage.read_manifest(source, "conversations")
    limits = _limits(source, manifest, params.evaluate.max_questions)
    total = sum(limits.values())
    if total == 0:
        raise InputError(f"{source}: holds no questions. Run `srgpt ask` with scenes that have objects.")
    settings = params.evaluate.model_dump(mode="json", include={"max_new_tokens", "max_questions"})
    writer = storage.TableWriter(
        str(out),
        "predictions",
        stage="evaluate",
        dataset=manifest.dataset,
        params={**settings, "inputs": list(variants.inputs), "model": model, "grader": GRADER},
        inputs={"conversations": source},
    )
    pictured = {s.name: s for s in storage.read_manifest(scenes, "scenes").shards}
    shards = [s for s in manifest.shards if limits[s.name]]
    missing = set(writer.missing([s.name for s in shards]))
    with progress_bar("evaluate", total=total * len(variants.inputs), unit="answers") as advance:
        for shard in shards:
            limit = limits[shard.name]
            if shard.name not in missing:
                advance(limit * len(variants.inputs))
                continue
            if shard.name not in pictured:
                raise InputError(f"{scenes}: has no shard {shard.name}, from which {source} was made")
            found = storage.read_shard(scenes, pictured[shard.name], "scenes").to_pylist()
            asked, rejected = predictor.prepare(
                _conversations(source, shard), {r["scene_id"]: Scene.from_row(r) for r in found}, limit
            )
            rows = [p.to_row() for i in variants.inputs for p in predictor.predict(asked, i, advance)]
            storage.write_shard(writer.work, shard.name, "predictions", rows, rejected)
    return writer.commit([s.name for s in shards])


def _conversations(source: str, shard: storage.Shard) -> list[Conversation]:
    return [Conversation.from_row(r) for r in storage.read_shard(source, shard, "conversations").to_pylist()]


def _limits(source: str, manifest: storage.Manifest, most: int) -> dict[str, int]:
    """Return how many questions to ask from each shard: all, or the first ``most`` of the table."""
    limits = {}
    left = most
    for shard in manifest.shards:
        turns = storage.read_shard(source, shard, "conversations", ["turns"])["turns"]
        count = sum(len(t) for t in turns)
        limits[shard.name] = min(count, left) if most else count
        left -= limits[shard.name]
    return limits


def _read_predictions(table: Path, variants: Variants) -> dict[Inputs, list[Prediction]]:
    found: dict[str, list[Prediction]] = defaultdict(list)
    for row in storage.read_rows(str(table), "predictions"):
        found[row["inputs"]].append(Prediction.from_row(row))
    if not found:
        raise InputError(f"{table}: not one question could be asked; its rejected.jsonl says why")
    return {i: found[i] for i in variants.inputs}


def _identity(folder: Path) -> str:
    """Return a hash of the model's files, so that a killed evaluation is resumed with the same model only."""
    names = ["config.json", "processor_config.json", "tokenizer.json"]
    weights = sorted(p.name for p in folder.glob("*.safetensors"))
    return storage.digest(
        [storage.digest((folder / n).read_bytes()) for n in [*names, *weights] if (folder / n).exists()]
    )


def _clear(local: Path) -> None:
    """Leave of an unfinished evaluation only its predictions, for the table's writer to take up or to refuse."""
    whole = local / PREDICTIONS
    work = Path(storage.work_url(str(whole)))
    if whole.exists():
        storage.move(str(whole), str(work))
    for child in local.iterdir():
        if child != work:
            storage.remove(str(child))


def _trained_lineage(folder: Path) -> dict[str, Any]:
    path = folder / "lineage.json"
    if not path.exists():
        log.info("%s: no lineage.json, so the model's training run is not known", folder.name)
        return {}
    record = storage.read_json(str(path))
    if not isinstance(record, dict):
        raise InputError(f"{path}: an object was expected")
    return record


def _learnt(folder: Path) -> Sequence[Inputs]:
    """Return the kinds of input that the model was trained on; all but coordinates where that is not known."""
    path = folder / "training.json"
    found = storage.read_json(str(path)).get("inputs") if path.exists() else None
    return ("rgbd", "rgb", "blind") if found is None else found


# Tracking -------------------------------------------------------------------------------------------------


def _track(params: Params, evaluation: Evaluation, lineage: Lineage, folder: Path) -> dict[str, str]:
    """Log one run per kind of input, the report to the model's own; return their ids by input."""
    runs: dict[str, str] = {}
    settings = params.evaluate.model_dump(
        mode="json", include={"batch_size", "max_new_tokens", "max_questions"}
    )
    for inputs, metrics in evaluation.scores.items():
        tags = {"srgpt.inputs": inputs, "srgpt.dataset": evaluation.dataset, "srgpt.grader": GRADER}
        if lineage.run_id:
            tags["srgpt.train_run"] = lineage.run_id
        with tracking.start_run(
            params.tracking, f"evaluate {inputs}", stage="evaluate", lineage=lineage, tags=tags
        ) as run_:
            runs[inputs] = run_.id
            run_.log_params({**settings, "inputs": inputs, "dataset": evaluation.dataset, "grader": GRADER})
            run_.log_dataset(evaluation.dataset, evaluation.fingerprint, context="evaluation")
            run_.log_metrics(tracked_metrics(metrics))
            run_.log_dict(metrics, "scores.json")
            if inputs == evaluation.variants.main:
                run_.log_artifacts(folder)
    _log_on_training_run(params, evaluation, lineage.run_id)
    return runs


def tracked_metrics(metrics: Metrics) -> Metrics:
    """Return the metrics that runs are compared by: all but the bounds of intervals and the counts."""
    hidden = ("_low", "_high", "_count", "_unreadable")
    return {k: v for k, v in metrics.items() if not k.endswith(hidden)}


def _log_on_training_run(params: Params, evaluation: Evaluation, run_id: str) -> None:
    if not run_id:
        return
    metrics = tracked_metrics(evaluation.scores[evaluation.variants.main])
    tags = {"srgpt.evaluated_on": evaluation.dataset}
    if not tracking.log_to_run(params.tracking, run_id, metrics, tags):
        log.warning(
            "run %s of the model is not on this tracking server; its metrics stay with this one", run_id
        )
