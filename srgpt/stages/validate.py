"""*validate*: judge the tables of a dataset by rules, write a report, and fail where a rule is broken."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from srgpt import storage, tracking
from srgpt.curation import (
    blind,
    curves,
    data_docs,
    expectations,
    figures,
    frames,
    funnel,
    gallery,
    quality,
    report,
    rules,
    totals,
)
from srgpt.curation.store import Store
from srgpt.errors import SrgptError
from srgpt.params import Params
from srgpt.progress import progress_bar

log = logging.getLogger(__name__)

CHAIN = {"scenes": "ingest", "perceived": "perceive", "graphs": "lift", "conversations": "ask"}
"""Role of a table -> the stage that wrote it, upstream first."""

_SHOWN = 5
_STEPS = 3
"""Of work that is no shard: curves and quality, rules, pages."""


def run(params: Params, *, source: str, out: str) -> dict[str, Any]:
    """Validate the conversations table at ``source`` and every table that it was made from.

    Writes to ``out``: ``index.html`` (verdict, funnel, distributions, quality, gallery, rules), ``data_docs/``
    (Great Expectations' own pages) and ``summary.json``, which is also returned, and logs the figures to MLflow;
    a tracking server that does not answer is a warning. Raises :class:`SrgptError` where a rule is broken, naming
    rule, file and rows, after the report is written; :class:`InputError` where a file is not what its manifest
    says. Needs the memory of a few shards, whatever the size of the dataset.
    """
    manifest = storage.read_manifest(source, "conversations")
    urls = chain(source)
    with storage.staged_folder(out, reads=list(urls.values())) as folder:
        with tempfile.TemporaryDirectory(prefix=".work-", dir=folder) as work:
            summary, cards = _judge(params, manifest, urls, folder, Path(work))
        storage.write_json(str(folder / "summary.json"), summary)
        (folder / "index.html").write_text(report.page(summary, cards), encoding="utf-8")
        _track(params, summary, folder)
    if not summary["passed"]:
        raise SrgptError(failure(summary, urls, out))
    for warning in (r for r in summary["rules"] if not r["passed"]):
        log.warning("%s: %s (%s)", manifest.dataset, warning["rule"], warning["demands"])
    return summary


def chain(source: str) -> dict[str, str]:
    """Return the tables that conversations were made from, by role, upstream first.

    What *ask* wrote has all of :data:`CHAIN`; imported conversations have what their manifests name, be it nothing.
    """
    if storage.read_manifest(source).stage == CHAIN["conversations"]:
        made = {role: storage.trace(source, stage) for role, stage in CHAIN.items() if role != "scenes"}
        return {"scenes": storage.input_url(made["perceived"], "scenes"), **made}  # of ingest, or imported
    found = {"conversations": source}
    pending = [source]
    while pending:
        url = pending.pop()
        for role in storage.read_manifest(url).inputs:
            above = storage.input_url(url, role)
            table = storage.read_manifest(above)
            name = "perceived" if table.stage == CHAIN["perceived"] else table.table
            if name in CHAIN and name not in found:
                found[name] = above
                pending.append(above)
    return {role: found[role] for role in CHAIN if role in found}


def _judge(
    params: Params, manifest: storage.Manifest, urls: dict[str, str], folder: Path, work: Path
) -> tuple[dict[str, Any], list[gallery.Card]]:
    settings = params.validate_
    manifests = {role: storage.read_manifest(url) for role, url in urls.items()}
    some_graphs = quality.stride(manifests["graphs"].rows if "graphs" in urls else 0, quality.MAX_SCENES)
    some_talks = quality.stride(manifest.rows, blind.MAX_CONVERSATIONS)
    counted, measured, read = figures.Figures(), quality.Measure(params.ask), blind.Blind()
    shown = gallery.Sample(settings.gallery, "gallery")
    curved = gallery.Sample(settings.curve_scenes, "curves", curves.accepts)
    shards = sum(len(m.shards) for m in manifests.values())
    with (
        Store(work / "frames.db") as store,
        progress_bar("validate", total=shards + _STEPS, unit="steps") as advance,
    ):
        data = frames.Frames(
            store,
            frozenset(urls),
            check_facts=_has_own_facts(manifest),
            imported=manifest.stage == "import",
        )
        graphs = talks = 0
        for part in frames.collect(data, urls, advance):
            counted.add(part)
            shown.add(part)
            curved.add(part)
            for graph in part.graphs:
                if graphs % some_graphs == 0:
                    measured.add(graph)
                graphs += 1
            for talk in part.conversations:
                if talks % some_talks == 0:
                    read.add(talk)
                talks += 1
        totals.add_tables(store, urls)
        totals.add_balance(store, counted.asked, counted.positive, settings.min_balance_rows)
        perceived = measured.report(graphs)
        judged_quality = quality.judged(data.truths, synthetic=data.synthetic)
        for row in quality.rows(perceived):
            store.add("quality", row)
        answered = read.report()
        for row in blind.rows(answered, settings.min_balance_rows):
            store.add("blind", row)
        degraded = curves.measure((c.scene for c in curved.chosen()), params.lift, params.ask, params.seed)
        advance(1, "curation quality")
        judged = rules.rules(
            settings,
            manifest.dataset,
            judge_quality=judged_quality,
            judge_balance=data.check_facts and data.truths != {"imported"},
        )
        outcomes = expectations.run(store, judged, dataset=manifest.dataset, docs=folder / "data_docs")
        advance(1, "rules")
        data_docs.finish(folder / "data_docs", outcomes)
        cards = gallery.cards(shown.chosen())
        advance(1, "pages")
        summary = {
            "dataset": manifest.dataset,
            "passed": all(outcome.passed or outcome.severity == "warning" for outcome in outcomes),
            "fingerprint": manifest.fingerprint,
            "rules": [outcome.to_json() for outcome in outcomes],
            "quality": {**perceived, "judged": judged_quality, "min_count": quality.MIN_COUNT},
            "curves": degraded,
            "blind": answered,
            "yes_share": list(settings.yes_share),
            "balance": {
                row["category"]: report.figures(row, "questions", "yes_share")
                for row in store.rows("balance")
            },
            "rows": {row["table"]: row["rows"] for row in store.rows("tables")},
            "rejected": {role: m.rejected for role, m in manifests.items()},
            "objects": {
                role: {"objects": m.statistics["objects"], "dropped": m.dropped}
                for role, m in manifests.items()
                if "objects" in m.statistics
            },
            "funnel": {
                "pictures": [step.to_json() for step in funnel.of_scenes(store, urls)],
                "objects": [step.to_json() for step in funnel.of_objects(store, counted, urls, data.truths)],
            },
            "distributions": counted.to_json(),
            "truths": sorted(data.truths),
            "synthetic": data.synthetic,
        }
    return summary, cards


def _has_own_facts(manifest: storage.Manifest) -> bool:
    """Return whether values are facts of boxes as this project defines them, so that graphs can confirm them."""
    asked = manifest.params.get("ask")
    return not (isinstance(asked, dict) and asked.get("compat") == "reference")


# MLflow ---------------------------------------------------------------------------------------------------


def _track(params: Params, summary: Mapping[str, Any], folder: Path) -> None:
    """Log the figures and the page as a run of their own; the report stands without it."""
    dataset = summary["dataset"]
    try:
        lineage = tracking.Lineage.of(params, {dataset: summary["fingerprint"]})
        tags = {"srgpt.dataset": dataset, "srgpt.passed": str(summary["passed"]).lower()}
        with tracking.start_run(
            params.tracking, f"curation {dataset}", stage="validate", lineage=lineage, tags=tags
        ) as run_:
            run_.log_dataset(dataset, summary["fingerprint"], context="curation")
            run_.log_metrics(report.metrics(summary))
            for name in ("index.html", "summary.json"):
                run_.log_artifact(folder / name)
    except (SrgptError, OSError) as error:
        log.warning("%s: the report is not in MLflow: %s", dataset, error)


# Failures -------------------------------------------------------------------------------------------------


def failure(summary: dict[str, Any], urls: dict[str, str], out: str) -> str:
    """Say which rules are broken, in which files and rows, and where the whole report is."""
    broken = [rule for rule in summary["rules"] if not rule["passed"] and rule["severity"] == "critical"]
    lines = [f"{summary['dataset']}: {len(broken)} of {len(summary['rules'])} rules are broken."]
    for rule in broken:
        lines.append(
            f"  {rule['rule']} ({rule['demands']}): {rule['failed']} of {rule['checked']} {rule['table']}"
        )
        lines += [f"    {_place(example, urls)}" for example in rule["examples"][:_SHOWN]]
        if rule["failed"] > _SHOWN:
            lines.append(f"    and {rule['failed'] - _SHOWN} more")
    report_url = storage.join(out, "index.html")
    lines.append(
        f"Report: {report_url}. Mend the source or the stage that wrote the file, then run the chain again."
    )
    return "\n".join(lines)


def _place(example: dict[str, Any], urls: dict[str, str]) -> str:
    """Write where an offender is: file, row, ids, and what was found there."""
    rest = {key: value for key, value in example.items() if key not in ("file", "row", "found")}
    words = ", ".join(f"{key} {value}" for key, value in rest.items())
    if "file" in example:
        role, _, shard = example["file"].partition("/")
        words = f"{storage.join(urls[role], shard)} row {example['row']} ({words})"
    found = example.get("found")
    return f"{words}: {found}" if found is not None else words
