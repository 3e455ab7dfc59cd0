"""The report of an evaluation: ``metrics.json``, plots, the gallery page, and the table of a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from srgpt.evaluation import gallery, plots
from srgpt.evaluation.controls import TITLES, VARIANTS, Variants, compare_controls, main_inputs
from srgpt.evaluation.grading import GRADER
from srgpt.evaluation.statistics import GROUPS, Metrics, measure, score_name
from srgpt.model.prompts import Inputs
from srgpt.records import QUALITATIVE, Conversation, Prediction, Scene
from srgpt.storage import write_json

AVERAGES = {
    "qualitative_micro": "qualitative",
    "quantitative_micro": "quantitative",
    "quantitative_macro_6": "  mean of 6",
    "quantitative_macro_5": "  mean of 5",
}
"""Averages by metric name, and what people read for them; the five groups leave out direction."""


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found, and on what."""

    dataset: str
    fingerprint: str
    """Of the benchmark's conversations."""
    tags: Mapping[str, str]
    """Lineage to show: commit, profile, data."""
    variants: Variants
    predictions: Mapping[Inputs, Sequence[Prediction]]
    rejected: int = 0
    """Conversations that were set aside."""

    @cached_property
    def scores(self) -> dict[Inputs, Metrics]:
        """The flat metrics for each kind of input."""
        return {i: measure(self.predictions[i]) for i in self.variants.inputs}

    def metrics(self) -> dict[str, Any]:
        """Return what ``metrics.json`` holds: flat metrics by input, paired comparisons by control."""
        compared = compare_controls(self.predictions, self.variants)
        return {
            **{str(i): m for i, m in self.scores.items()},
            "comparisons": {c: {g: v.to_json() for g, v in found.items()} for c, found in compared.items()},
        }


def write_report(
    folder: Path,
    evaluation: Evaluation,
    *,
    examples: int,
    conversations: Iterable[Conversation],
    scenes: Iterable[Scene],
) -> dict[str, Any]:
    """Write ``metrics.json``, ``plots/*.svg`` and ``index.html`` into ``folder``; return the metrics."""
    metrics = evaluation.metrics()
    write_json(str(folder / "metrics.json"), metrics)
    drawn = {
        "scores": plots.score_bars(evaluation.scores),
        "lengths": plots.length_scatter(evaluation.predictions[evaluation.variants.main]),
    }
    (folder / "plots").mkdir(exist_ok=True)
    for name, svg in drawn.items():
        (folder / "plots" / f"{name}.svg").write_bytes(svg)
    shown = gallery.make_examples(
        evaluation.predictions, evaluation.variants, examples, conversations, scenes
    )
    (folder / "index.html").write_text(
        gallery.render(page_of(evaluation, metrics), shown, drawn), encoding="utf-8"
    )
    return metrics


# Tables ---------------------------------------------------------------------------------------------------


def summary_table(metrics: Mapping[str, Any]) -> Table:
    """Return the scores in ``metrics.json`` as a table for a terminal: the model, its controls, its lead."""
    main, rows = main_inputs(metrics), score_rows(metrics)
    controls = [i for i in VARIANTS if i in metrics and i != main]
    table = Table(
        title="share of right answers",
        caption="± half of the 95 % interval; lead over the control in points, * p < 0.05",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
        show_edge=False,
    )
    table.add_column("", no_wrap=True)
    table.add_column(TITLES[main], justify="right", style="bold cyan", no_wrap=True)
    for control in controls:
        table.add_column(TITLES[control], justify="right", no_wrap=True)
    for control in controls:
        table.add_column(f"lead:\n{TITLES[control]}", justify="right", no_wrap=True)
    table.add_column("error", justify="right", style="dim", no_wrap=True)
    table.add_column("n", justify="right", style="dim", no_wrap=True)
    for row in rows:
        leads = [_styled_lead(row["leads"].get(c)) for c in controls]
        cells = [_cell(row["scores"].get(main), interval=True)]
        cells += [_cell(row["scores"].get(c)) for c in controls]
        count = "" if row["count"] is None else str(row["count"])
        title = Text(row["title"].replace("l distance", "l dist."), "bold" if row["average"] else "")
        table.add_row(title, *cells, *leads, row["error"], count, end_section=row["last"])
    return table


def score_rows(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of the score table: averages first, then every group that has questions.

    ``scores`` maps inputs to ``(share, low, high)`` (bounds None for macro averages), ``leads`` a control to
    the paired comparison (of averages over questions and groups).
    """
    main = main_inputs(metrics)
    compared = metrics.get("comparisons", {})
    comparison_of = {"qualitative_micro": "qualitative", "quantitative_micro": "quantitative"}
    names = [(n, t, "average") for n, t in AVERAGES.items()]
    names += [(score_name(g), g.replace("_", " / " if g in QUALITATIVE else " "), g) for g in GROUPS]
    rows = []
    for name, title, group in names:
        if name not in metrics[main]:
            continue
        scores = {
            i: (m[name], m.get(f"{name}_low"), m.get(f"{name}_high"))
            for i, m in metrics.items()
            if i in VARIANTS and name in m
        }
        key = comparison_of.get(name, group)
        count = metrics[main].get(f"{key}_count") if not name.startswith("quantitative_macro") else None
        rows.append(
            {
                "title": title,
                "scores": scores,
                "leads": {c: found[key] for c, found in compared.items() if key in found},
                "error": _error(metrics[main], group),
                "count": count,
                "last": name == "quantitative_macro_5" or group == tuple(QUALITATIVE)[-1],
                "average": group == "average",
            }
        )
    return rows


def _error(metrics: Metrics, group: str) -> str:
    """Mean degrees of directions, median relative error of lengths."""
    if f"{group}_error_degrees" in metrics:
        return f"{metrics[f'{group}_error_degrees']:.0f}°"
    if f"{group}_abs_rel" in metrics:
        return f"{metrics[f'{group}_abs_rel_median']:.2f}"
    return ""


def _cell(score: tuple[float, float | None, float | None] | None, *, interval: bool = False) -> str:
    if score is None:
        return "–"
    share, low, high = score
    spread = f" ±{50 * (high - low):4.1f}" if low is not None and high is not None else " " * 6
    return f"{100 * share:.1f}{spread if interval else ''}"


def _styled_lead(comparison: Mapping[str, float] | None) -> Text:
    if comparison is None:
        return Text("")
    sure = comparison["p_value"] < 0.05
    style = ("green" if comparison["difference"] > 0 else "red") if sure else "dim"
    return Text(f"{100 * comparison['difference']:+.1f}{'*' if sure else ' '}", style)


def page_of(evaluation: Evaluation, metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Return the figures that the gallery page shows."""
    main = evaluation.variants.main
    predictions = evaluation.predictions[main]
    return {
        "dataset": evaluation.dataset,
        "fingerprint": evaluation.fingerprint[:12],
        "tags": dict(evaluation.tags),
        "note": evaluation.variants.note,
        "titles": TITLES,
        "main": main,
        "controls": evaluation.variants.controls,
        "rows": score_rows(metrics),
        "tiles": _tiles(evaluation, metrics),
        "questions": len(predictions),
        "scenes": len({p.scene_id for p in predictions}),
        "unreadable": {TITLES[i]: int(m["unreadable"]) for i, m in evaluation.scores.items()},
        "rejected": evaluation.rejected,
        "grader": GRADER,
    }


def _tiles(evaluation: Evaluation, metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the two micro averages, each with its lead over the blind control."""
    main, tiles = evaluation.variants.main, []
    for kind in ("qualitative", "quantitative"):
        name = f"{kind}_micro"
        if name not in metrics[main]:
            continue
        lead = metrics["comparisons"].get("blind", {}).get(kind)
        scores = metrics[main]
        tiles.append(
            {
                "title": kind,
                "share": scores[name],
                "low": scores[f"{name}_low"],
                "high": scores[f"{name}_high"],
                "lead": lead,
            }
        )
    return tiles
