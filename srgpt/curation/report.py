"""The page that a person reads after *validate*, and the same figures, flat, for comparing datasets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from itertools import groupby
from typing import Any

from jinja2 import Environment, StrictUndefined

from srgpt.curation import charts
from srgpt.curation.expectations import plain
from srgpt.curation.gallery import Card, group_of
from srgpt.records import QUALITATIVE, QUANTITATIVE, UNIT_OF

TRUTHS = {"cuboids": "true boxes", "perceived": "perceived boxes", "imported": "the import"}
"""Where facts come from, as people read it."""

FIRST = 4
"""Scenes of the gallery that are open at first."""


def page(summary: dict[str, Any], cards: Sequence[Card] = ()) -> str:
    """Return the report as one self-contained HTML page.

    ``summary`` is what ``summary.json`` holds, ``cards`` are the scenes of the gallery.
    """
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(percent=percent, number=number, words=words, cell=cell)
    template = (resources.files("srgpt") / "curation" / "report.html.j2").read_text(encoding="utf-8")
    tables = [
        {"name": name, "rules": rules, "broken": sum(not rule["passed"] for rule in rules)}
        for name, group in groupby(summary["rules"], key=lambda rule: rule["table"])
        for rules in [list(group)]
    ]
    return environment.from_string(template).render(
        summary=summary,
        tables=tables,
        broken=[rule for rule in summary["rules"] if not rule["passed"]],
        tiles=tiles(summary),
        questions=question_rows(summary),
        shapes={
            **{name: charts.funnel(steps) for name, steps in summary["funnel"].items()},
            **{name: charts.histogram(found, name) for name, found in _lengths(summary).items()},
        },
        said={
            words(category): charts.columns(values, words(category))
            for category, values in summary["distributions"]["said"].items()
        },
        lengths=_lengths(summary),
        curves=curve_charts(summary["curves"]),
        cards=cards,
        first=FIRST,
        groups=sorted({group for card in cards for group in card.groups}),
        names=sorted({name for card in cards for name in card.names}),
    )


def _lengths(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Return the distributions of lengths that are drawn, by title; those without values are left out."""
    found = summary["distributions"]
    named = {
        "distance from the camera": found["camera_distance"],
        **{f"object {name}": lengths for name, lengths in found["sizes"].items()},
        **{
            f"answers: {words(group_of(category))}": lengths
            for category, lengths in found["answers"].items()
            if category not in ("width_data", "height_data")
        },
    }
    return {title: lengths for title, lengths in named.items() if lengths["bars"]}


# Figures --------------------------------------------------------------------------------------------------


def label_accuracy(summary: Mapping[str, Any]) -> float | None:
    """Return the share of relations that perception gets right, of pairs that are no tie in truth."""
    rows = [r for r in summary["quality"]["labels"] if r["clear_count"]]
    total = sum(r["clear_count"] for r in rows)
    return sum(r["clear_accuracy"] * r["clear_count"] for r in rows) / total if total else None


def length_error(summary: Mapping[str, Any]) -> float | None:
    """Return the middle one of the quantities' median relative errors."""
    errors = sorted(r["median_abs_rel"] for r in summary["quality"]["metrics"] if r["count"])
    return errors[len(errors) // 2] if errors else None


def from_text(summary: Mapping[str, Any], groups: Iterable[str]) -> tuple[float, float] | None:
    """Return the share of questions of some groups that their text answers, and chance; None where unmeasured."""
    wanted = set(groups)
    rows = [
        r
        for r in summary["blind"]["categories"]
        if r["lead"] is not None and group_of(r["category"]) in wanted
    ]
    total = sum(r["questions"] for r in rows)
    if not total:
        return None
    share, chance = (sum(r[n] * r["questions"] for r in rows) / total for n in ("from_text", "chance"))
    return share, chance


def tiles(summary: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return what a person reads first: a title, a figure and a line below it each."""
    pictures, objects = summary["funnel"]["pictures"], summary["funnel"]["objects"]
    found = summary["distributions"]
    asked = sum(found["questions"].values())
    accuracy, error = label_accuracy(summary), length_error(summary)
    origin = " and ".join(TRUTHS.get(t, t) for t in summary["truths"])
    result = [
        {
            "title": "pictures asked about",
            "figure": number(pictures[-1]["kept"]),
            "below": f"of {number(pictures[0]['entered'])} that came in",
        },
        {
            "title": "objects asked about",
            "figure": number(objects[-1]["kept"]),
            "below": f"{number(found['objects']['categories'])} categories",
        },
        {
            "title": "questions",
            "figure": number(asked),
            "below": f"{number(len(found['questions']))} categories, facts from {origin}",
        },
    ]
    if accuracy is not None:
        pairs = sum(r["clear_count"] for r in summary["quality"]["labels"])
        result.append(
            {
                "title": "relations right",
                "figure": percent(accuracy),
                "below": f"of {number(pairs)} perceived pairs",
            }
        )
    if error is not None:
        result.append(
            {"title": "error of lengths", "figure": percent(error), "below": "median, perceived against true"}
        )
    for title, groups in (("relations", QUALITATIVE), ("quantities", QUANTITATIVE)):
        blind = from_text(summary, groups)
        if blind is not None:
            below = f"answered from the text alone; chance {percent(blind[1])}"
            result.append(
                {"title": f"{title} without a picture", "figure": percent(blind[0]), "below": below}
            )
    return result


def question_rows(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return one row per category of questions: count, balance, templates, and what text alone answers."""
    found = summary["distributions"]
    blind = {row["category"]: row for row in summary["blind"]["categories"]}
    warned = {
        example["category"]
        for rule in summary["rules"]
        if rule["table"] == "blind" and not rule["passed"]
        for example in rule["examples"]
    }
    most = max(found["questions"].values(), default=1)
    return [
        {
            "category": category,
            "group": group_of(category),
            "unit": UNIT_OF.get(category, "text"),
            "count": count,
            "share": count / most,
            "yes": summary["balance"].get(category, {}).get("yes_share"),
            "templates": found["templates"][category],
            "blind": blind.get(category),
            "warned": category in warned,
        }
        for category, count in found["questions"].items()
    ]


def curve_charts(curves: Mapping[str, Any]) -> dict[str, Any]:
    """Return the charts of relations and of lengths by truth, one per degradation, with their legends."""
    drawn: dict[str, Any] = {}
    for truth in ("surface", "cuboids"):
        charted: dict[str, list[Any]] = {"labels": [], "abs_rel": []}
        for curve in curves["curves"]:
            levels = [point["level"] for point in curve["points"]]
            for kind, (low, high) in {"labels": (0.5, 1.0), "abs_rel": (0.0, 0.5)}.items():
                series = {
                    name: [point[truth][kind][name] for point in curve["points"]]
                    for name in curve["points"][0][truth][kind]
                }
                charted[kind].append(charts.lines(curve["title"], levels, series, low=low, high=high))
        drawn[truth] = charted
    first = curves["curves"][0]["points"][0]["surface"] if curves["curves"] else {"labels": {}, "abs_rel": {}}
    drawn["legends"] = {kind: charts.legend(list(first[kind])) for kind in ("labels", "abs_rel")}
    return drawn


def metrics(summary: Mapping[str, Any]) -> dict[str, float]:
    """Return the figures by which datasets are compared, flat; what could not be measured is left out."""
    pictures, objects = summary["funnel"]["pictures"], summary["funnel"]["objects"]
    asked = summary["distributions"]["questions"]
    quality, broken = summary["quality"], [rule for rule in summary["rules"] if not rule["passed"]]
    found: dict[str, float | None] = {
        "pictures": pictures[-1]["kept"],
        "pictures_rejected": sum(step["entered"] - step["kept"] for step in pictures),
        "objects": objects[-1]["kept"],
        "questions": sum(asked.values()),
        "rules_broken": sum(rule["severity"] == "critical" for rule in broken),
        "rules_warned": sum(rule["severity"] == "warning" for rule in broken),
        "label_accuracy": label_accuracy(summary),
        "abs_rel": length_error(summary),
        "direction_within_one_hour": quality["direction"]["within_one_hour"],
        **{f"label_accuracy/{row['fact']}": row["clear_accuracy"] for row in quality["labels"]},
        **{f"abs_rel/{row['fact']}": row["median_abs_rel"] for row in quality["metrics"]},
        **{f"yes_share/{category}": row["yes_share"] for category, row in summary["balance"].items()},
    }
    for title, groups in (("qualitative", QUALITATIVE), ("quantitative", QUANTITATIVE)):
        blind = from_text(summary, groups)
        if blind is not None:
            found |= {f"blind_{title}": blind[0], f"blind_{title}_chance": blind[1]}
    found |= {f"blind_lead/{row['category']}": row["lead"] for row in summary["blind"]["categories"]}
    return {name: float(value) for name, value in found.items() if value is not None}


def figures(row: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """Return some columns of a row as plain numbers; what could not be measured is None."""
    return {name: plain(row[name]) for name in names}


# Words ----------------------------------------------------------------------------------------------------


def percent(share: float | None) -> str:
    """Write a share: ``0.4831`` is ``48.3 %``; nothing measured is a dash."""
    return "–" if share is None else f"{share * 100:.1f} %"


def number(value: float | None, digits: int = 3) -> str:
    """Write a figure with thousands separators; nothing measured is a dash."""
    if value is None:
        return "–"
    return f"{value:,}" if isinstance(value, int) else f"{value:,.{digits}f}"


def cell(value: object) -> str:
    """Write what a rule found, whatever it is."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return "–" if value is None else str(value)


def words(name: str) -> str:
    """Write a name of the code as people read it: ``horizontal_distance`` is ``horizontal distance``."""
    return name.replace("_", " ")
