"""*validate*: judge the tables of a dataset by rules, write a report, and fail where a rule is broken."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from srgpt import storage
from srgpt.curation import data_docs, expectations, frames, quality, report, rules, totals
from srgpt.errors import SrgptError
from srgpt.params import Params
from srgpt.progress import progress_bar

CHAIN = {"scenes": "ingest", "perceived": "perceive", "graphs": "lift", "conversations": "ask"}
"""Role of a table -> the stage that wrote it, upstream first."""

_SHOWN = 5


def run(params: Params, *, source: str, out: str) -> dict[str, Any]:
    """Validate the conversations table at ``source`` and every table that it was made from.

    Writes to ``out``: ``index.html`` (verdict, rules, curation quality, balance), ``data_docs/`` (Great
    Expectations' own pages) and ``summary.json``, which is also returned. Raises :class:`SrgptError` where a
    rule is broken, naming rule, file and rows, after the report is written; :class:`InputError` where a file
    is not what its manifest says.
    """
    manifest = storage.read_manifest(source, "conversations")
    urls = {role: storage.trace(source, stage) for role, stage in CHAIN.items()}
    with storage.staged_folder(out, reads=list(urls.values())) as folder:
        summary = _judge(params, manifest, urls, folder)
        storage.write_json(str(folder / "summary.json"), summary)
        (folder / "index.html").write_text(report.page(summary))
    if not summary["passed"]:
        raise SrgptError(failure(summary, urls, out))
    return summary


def _judge(params: Params, manifest: storage.Manifest, urls: dict[str, str], folder: Path) -> dict[str, Any]:
    shards = sum(len(storage.read_manifest(url).shards) for url in urls.values())
    with progress_bar("validate", total=shards + 2, unit="steps") as advance:
        data = frames.collect(urls, advance)
        totals.add_tables(data, urls)
        totals.add_balance(data, params.validate_.min_balance_rows)
        measured = quality.measure(list(data.graphs.values()), params.ask)
        judged_quality = quality.judged(data.truths, synthetic=data.synthetic)
        advance(1, "curation quality")
        data.rows["quality"] = quality.rows(measured)
        judged = rules.rules(params.validate_, manifest.dataset, judge_quality=judged_quality)
        with tempfile.TemporaryDirectory(prefix="srgpt-gx-") as work:
            outcomes = expectations.run(
                {name: data.frame(name) for name in frames.KEYS},
                judged,
                dataset=manifest.dataset,
                work=Path(work),
                docs=folder / "data_docs",
            )
        advance(1, "rules")
        data_docs.finish(folder / "data_docs", outcomes)
    return {
        "dataset": manifest.dataset,
        "passed": all(outcome.passed for outcome in outcomes),
        "fingerprint": manifest.fingerprint,
        "rules": [outcome.to_json() for outcome in outcomes],
        "quality": {**measured, "judged": judged_quality, "min_count": quality.MIN_COUNT},
        "yes_share": list(params.validate_.yes_share),
        "balance": {
            row["category"]: report.figures(row, "questions", "yes_share") for row in data.rows["balance"]
        },
        "rows": {row["table"]: row["rows"] for row in data.rows["tables"]},
        "rejected": {role: storage.read_manifest(url).rejected for role, url in urls.items()},
        "objects": {
            role: {"objects": table.statistics["objects"], "dropped": table.dropped}
            for role, table in ((role, storage.read_manifest(url)) for role, url in urls.items())
            if "objects" in table.statistics
        },
    }


def failure(summary: dict[str, Any], urls: dict[str, str], out: str) -> str:
    """Say which rules are broken, in which files and rows, and where the whole report is."""
    broken = [rule for rule in summary["rules"] if not rule["passed"]]
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
