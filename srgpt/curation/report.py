"""The page that a person reads after *validate*: verdict, rules, curation quality, balance of answers."""

from __future__ import annotations

from importlib import resources
from itertools import groupby
from typing import Any

from jinja2 import Environment, StrictUndefined

from srgpt.curation.expectations import plain


def page(summary: dict[str, Any]) -> str:
    """Return the report as one self-contained HTML page; ``summary`` is what ``summary.json`` holds."""
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["percent"] = percent
    environment.filters["number"] = number
    template = (resources.files("srgpt") / "curation" / "report.html.j2").read_text()
    tables = [
        {"name": name, "rules": rules, "broken": sum(not rule["passed"] for rule in rules)}
        for name, group in groupby(summary["rules"], key=lambda rule: rule["table"])
        for rules in [list(group)]
    ]
    broken = [rule for rule in summary["rules"] if not rule["passed"]]
    return environment.from_string(template).render(summary=summary, tables=tables, broken=broken)


def figures(row: dict[str, Any], *names: str) -> dict[str, Any]:
    """Return some columns of a row as plain numbers; what could not be measured is None."""
    return {name: plain(row[name]) for name in names}


def percent(share: float | None) -> str:
    """Write a share: ``0.4831`` is ``48.3 %``; nothing measured is a dash."""
    return "–" if share is None else f"{share * 100:.1f} %"


def number(value: float | None, digits: int = 3) -> str:
    """Write a figure with thousands separators; nothing measured is a dash."""
    if value is None:
        return "–"
    return f"{value:,}" if isinstance(value, int) else f"{value:,.{digits}f}"
