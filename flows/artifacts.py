"""What a run shows in the Prefect UI: the benchmark, curation, where reports are, lineage, why a stage failed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from prefect.artifacts import create_markdown_artifact, create_table_artifact

from flows.stages import Outcome, StageError
from srgpt import tracking
from srgpt.evaluation.statistics import GROUPS, HEADLINES, score_name
from srgpt.params import Params
from srgpt.storage import MANIFEST

TABLES = {"ingest": "scenes", "perceive": "perceived", "lift": "graphs", "ask": "conversations"}
"""Curation stage -> folder of its table under ``data``."""

INPUTS = {"rgbd": "model", "rgb": "RGB only", "boxes": "no regions", "blind": "blind"}
"""Key in ``metrics.json`` -> what the column is called."""


def publish(workspace: Path, params: Params, outcomes: Mapping[str, Outcome]) -> str:
    """Publish what the workspace has to show; return the benchmark's headline, where there is one."""
    create_markdown_artifact(
        lineage(workspace, outcomes), key="lineage", description="What was made from what"
    )
    create_markdown_artifact(links(workspace, params), key="reports", description="Where to look")
    tables = curation(workspace, params.datasets, outcomes)
    if tables:
        create_table_artifact(tables, key="curation", description="Rows, speed and what was set aside")
    metrics = _read(workspace / "reports" / "evaluation" / "metrics.json")
    rows = benchmark(metrics)
    if rows:
        create_table_artifact(rows, key="benchmark", description="Scores in percent, beside the controls")
    return headline(metrics)


def failed(error: StageError, workspace: Path, params: Params) -> None:
    """Publish why a stage failed."""
    shown = "\n".join(error.lines)
    text = f"# {error.stage} failed\n\nExit code {error.code}. Its last lines:\n\n```text\n{shown}\n```\n\n"
    create_markdown_artifact(
        text + links(workspace, params), key="failure", description=f"Why {error.stage} failed"
    )


def curation(
    workspace: Path, datasets: Iterable[str], outcomes: Mapping[str, Outcome]
) -> list[dict[str, Any]]:
    """Return one row per dataset and curation stage: rows, scenes per second, and what was set aside and why."""
    found = []
    rates = {target: rate for outcome in outcomes.values() for target, rate in outcome.rates.items()}
    for dataset in datasets:
        for stage, folder in TABLES.items():
            manifest = _read(workspace / "data" / folder / dataset / MANIFEST)
            if not manifest:
                continue
            rejected = manifest["rejected"]
            found.append(
                {
                    "dataset": dataset,
                    "stage": stage,
                    "rows": manifest["rows"],
                    "scenes/s": rates.get(f"{stage}@{dataset}", "-"),
                    "set aside": sum(rejected.values()),
                    "why": ", ".join(f"{count} {reason}" for reason, count in rejected.items()) or "-",
                }
            )
    return found


def benchmark(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return one row per headline and group: the score of the model and of each control in percent."""
    columns = {key: title for key, title in INPUTS.items() if isinstance(metrics.get(key), dict)}
    names = {
        **{h: h.replace("_", " ") for h in HEADLINES},
        **{score_name(g): g.replace("_", " ") for g in GROUPS},
    }
    return [
        {"score": title, **{columns[c]: _percent(metrics[c].get(name)) for c in columns}}
        for name, title in names.items()
        if any(name in metrics[c] for c in columns)
    ]


def headline(metrics: Mapping[str, Any]) -> str:
    """Return the benchmark in one line, or an empty text where there is none."""
    rows = [r for r in benchmark(metrics) if r["score"] in ("qualitative micro", "quantitative micro")]
    shown = []
    for row in rows:
        controls = [f"{title} {row[title]} %" for title in list(INPUTS.values())[1:] if title in row]
        if "model" in row:
            beside = f" ({', '.join(controls)})" if controls else ""
            shown.append(f"{row['score']} {row['model']} %{beside}")
    return "; ".join(shown)


def links(workspace: Path, params: Params) -> str:
    """Return Markdown that says where the run, the reports and the pictures are."""
    reports = {
        "Evaluation and gallery": workspace / "reports" / "evaluation" / "index.html",
        **{
            f"Data Docs, {name}": workspace / "reports" / "validation" / name / "index.html"
            for name in params.datasets
        },
        "Parity of the export": workspace / "exports" / "srgpt" / "parity.json",
    }
    lines = ["| | |", "|---|---|", *(f"| {t} | `{p}` |" for t, p in reports.items() if p.exists())]
    run_id = _read(workspace / "models" / "srgpt" / "lineage.json").get("run_id")
    if run_id:
        lines.append(f"| MLflow run | {_run_link(params, run_id)} |")
    return "\n".join(lines) + "\n"


def lineage(workspace: Path, outcomes: Mapping[str, Outcome]) -> str:
    """Return Markdown with the model's lineage record and the DVC hash of every output."""
    record = _read(workspace / "models" / "srgpt" / "lineage.json")
    lines = ["| record | |", "|---|---|"] if record else []
    lines += [f"| {key.replace('_', ' ')} | `{value}` |" for key, value in record.items() if key != "data"]
    lines += [f"| data {name} | `{value}` |" for name, value in record.get("data", {}).items()]
    ran = {target for outcome in outcomes.values() for target in outcome.ran}
    lines += ["", "| stage | this run | output | DVC hash | MB |", "|---|---|---|---|---|"]
    lock = workspace / "dvc.lock"
    stages = yaml.safe_load(lock.read_text())["stages"] if lock.exists() else {}
    for name, stage in stages.items():
        for out in stage.get("outs", []):
            did = "ran" if name in ran else "unchanged"
            lines.append(
                f"| {name} | {did} | `{out['path']}` | `{out['md5'][:12]}` | {out['size'] / 1e6:.1f} |"
            )
    return "\n".join(lines) + "\n"


def _run_link(params: Params, run_id: str) -> str:
    page = tracking.run_page(params.tracking, run_id)
    return f"[{run_id}]({page})" if page else f"`{run_id}` (`make mlflow`, then http://127.0.0.1:5000)"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def _read(file: Path) -> dict[str, Any]:
    return json.loads(file.read_text()) if file.exists() else {}
