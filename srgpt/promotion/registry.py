"""What the model registry knows: versions with lineage and figures, and the aliases that decide what serves.

Aliases: ``champion`` serves, ``previous`` is what a rollback returns to, ``candidate`` is being tried.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from srgpt import tracking
from srgpt.errors import InputError
from srgpt.export import LINEAGE, PARITY
from srgpt.export.questions import SmokeQuestion
from srgpt.params import Params
from srgpt.progress import console
from srgpt.promotion.gate import BENCHMARK_METRICS, Score, read_scores
from srgpt.serving.bundle import bundle_hash, read_manifest, verify
from srgpt.storage import read_manifest as read_table_manifest
from srgpt.storage import read_rows
from srgpt.tracking import Lineage, Run, Version

ALIASES = ("champion", "previous", "candidate")
ARTIFACTS = "export"
"""Folder of the export among a run's artifacts."""


@dataclass(frozen=True)
class Export:
    """An export on disk, verified, with its evaluation."""

    folder: Path
    hash: str
    """Identifies the model folder: graphs, settings, shell and runtime."""
    device: str
    parity: dict[str, Any]
    lineage: Lineage
    benchmark: str
    """Fingerprint of the benchmark's conversations."""
    scores: dict[str, Score]

    def tags(self) -> dict[str, str]:
        """Return what the registered version carries."""
        figures = {
            f"srgpt.metric.{name}{suffix}": value
            for name, score in self.scores.items()
            for suffix, value in (("", f"{score.share:.6f}"), ("_count", str(score.count)))
        }
        return {
            **self.lineage.tags(),
            **figures,
            "srgpt.train_run": self.lineage.run_id,
            "srgpt.benchmark": self.benchmark[:16],
            "srgpt.export_hash": self.hash,
            "srgpt.device": self.device,
            "srgpt.max_logit_error": f"{self.parity['max_logit_error']:.3g}",
        }


def open_export(export: str, evaluation: str, model_name: str) -> Export:
    """Read and verify an export and its evaluation; raise :class:`InputError` where something is off.

    ``model_name`` is the name that it is to be promoted as, which is that of its model folder.
    """
    folder = Path(export)
    if not folder.is_dir():
        raise InputError(f"{export}: no export here. Run `srgpt export` first.")
    version = _model_folder(folder, model_name) / "1"
    manifest = read_manifest(version)
    verify(version, manifest)
    parity, lineage = _json(folder / PARITY), _json(folder / LINEAGE)
    _belong_together(export, lineage, evaluation, _json(Path(evaluation) / LINEAGE))
    metrics = _json(Path(evaluation) / "metrics.json")
    main = next((m for m in ("rgbd", "rgb") if m in metrics), None)
    if main is None:
        raise InputError(
            f"{evaluation}/metrics.json: holds no figures of the model. Run `srgpt evaluate` again."
        )
    fields = {name: lineage.get(name, "") for name in ("commit", "profile", "params_hash", "run_id")}
    return Export(
        folder,
        bundle_hash(manifest),
        str(manifest["device"]),
        parity,
        Lineage(**fields, data=dict(lineage.get("data") or {})),
        str(lineage.get("benchmark", "")),
        read_scores(metrics[main], f"{evaluation}/metrics.json"),
    )


def _model_folder(export: Path, model_name: str) -> Path:
    folder = export / "triton" / model_name
    if not folder.is_dir():
        found = ", ".join(sorted(p.name for p in folder.parent.glob("*"))) or "none"
        raise InputError(
            f"{folder.parent}: the export's model is named {found}, but promote.model_name is {model_name}. "
            "Run `srgpt export` again, or promote with the name that it was exported with."
        )
    return folder


def _belong_together(
    export: str, exported: Mapping[str, Any], evaluation: str, evaluated: Mapping[str, Any]
) -> None:
    """Make sure that the exported model was evaluated, and on the benchmark that the export was proven on."""
    ours, theirs = exported.get("run_id"), evaluated.get("run_id")
    if not ours or ours != theirs:
        raise InputError(
            f"{evaluation}/{LINEAGE}: is of the model of training run {theirs or '(not named)'}, but {export} "
            f"of that of run {ours or '(not named)'}. Run `srgpt evaluate` and `srgpt export` on one model."
        )
    benchmark, seen = str(exported.get("benchmark", "")), dict(evaluated.get("data") or {})
    if benchmark not in seen.values():
        known = ", ".join(f"{name} {value[:12]}" for name, value in sorted(seen.items())) or "no data"
        raise InputError(
            f"{evaluation}/{LINEAGE}: names {known}, but {export} was proven on the benchmark "
            f"{benchmark[:12] or '(not named)'}. Run `srgpt evaluate` and `srgpt export` on one benchmark."
        )


def evaluated(questions: Sequence[SmokeQuestion], evaluation: str) -> list[SmokeQuestion]:
    """Return the questions with the answers that ``evaluation`` holds for them.

    So an evaluation of another model is found out: its answers are not those that are served. A question that
    was not to be evaluated keeps the export's answer: the manifest of the predictions says which inputs were
    given, and whether ``evaluate.max_questions`` cut the table. Raises :class:`InputError` for any other that
    is missing.
    """
    table = str(Path(evaluation) / "predictions")
    settings = read_table_manifest(table, "predictions").params
    wanted = {_question_key(q): q for q in questions}
    found = {}
    columns = ["conversation_id", "turn", "inputs", "prediction"]
    for row in read_rows(table, "predictions", columns):
        key = (row["conversation_id"], row["turn"], row["inputs"])
        if key in wanted:
            found[key] = row["prediction"]
    due = [k for k in wanted if k not in found and k[2] in settings["inputs"]]
    if due and not settings["max_questions"]:
        conversation, turn, inputs = due[0]
        raise InputError(
            f"{table}: holds no answer to {len(due)} of the export's {len(wanted)} smoke questions, though "
            f"evaluate.max_questions was 0 (the first: {conversation}, turn {turn}, with {inputs}). "
            "Run `srgpt evaluate` and `srgpt export` on one benchmark."
        )
    if len(found) < len(wanted):
        console.print(
            f"promote: {len(wanted) - len(found)} of {len(wanted)} smoke questions were not evaluated "
            f"(max_questions {settings['max_questions']}, inputs {', '.join(settings['inputs'])}); "
            "the export's own answers stand for them"
        )
    return [replace(q, answer=found.get(key, q.answer)) for key, q in wanted.items()]


def _question_key(question: SmokeQuestion) -> tuple[str, int, str]:
    return question.conversation_id, question.turn, question.inputs


def alias(params: Params, name: str) -> Version | None:
    """Return the version that carries an alias of the served model."""
    return tracking.version_of_alias(params.tracking, params.promote.model_name, name)


def register(params: Params, export: Export, run: Run) -> Version:
    """Upload an export to ``run`` and register it as the next version."""
    with tempfile.TemporaryDirectory(prefix="srgpt-register-") as temporary:
        staged = Path(temporary) / ARTIFACTS
        # the model folder holds the graphs already; they are not uploaded twice
        shutil.copytree(
            export.folder, staged, ignore=lambda at, _: ["onnx"] if Path(at) == export.folder else []
        )
        run.log_artifacts(staged, ARTIFACTS)
    source = f"{run.artifact_uri}/{ARTIFACTS}"
    return tracking.register(
        params.tracking, params.promote.model_name, source=source, run_id=run.id, tags=export.tags()
    )


def fetch(params: Params, version: Version, target: Path) -> Path:
    """Download a version's export into ``target``; return the folder."""
    return tracking.download(params.tracking, version.source, target)


def scores_of(version: Version) -> dict[str, Score]:
    """Return the benchmark figures that a version was promoted with."""
    scores = {}
    for name in BENCHMARK_METRICS:
        share, count = (version.tags.get(f"srgpt.metric.{name}{s}") for s in ("", "_count"))
        if share is not None and count is not None:
            scores[name] = Score(float(share), int(count))
    return scores


def lineage_of(version: Version) -> Mapping[str, str]:
    """Return a version's lineage tags, by short name."""
    names = ("commit", "profile", "params_hash", "train_run", "benchmark", "export_hash")
    data = {k.removeprefix("srgpt."): v for k, v in version.tags.items() if k.startswith("srgpt.data.")}
    return {n: version.tags[f"srgpt.{n}"] for n in names if f"srgpt.{n}" in version.tags} | data


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text())
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror}). The stage that writes it has not finished."
        ) from None
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({error})") from None
    if not isinstance(value, dict):
        raise InputError(f"{path}: an object was expected")
    return value
