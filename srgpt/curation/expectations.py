"""Run the rules with Great Expectations: one suite and checkpoint per frame, then Data Docs of them all."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import great_expectations as gx
from great_expectations.core.run_identifier import RunIdentifier
from great_expectations.data_context.types.base import ProgressBarsConfig

from srgpt.curation.rules import Rule, Severity
from srgpt.curation.store import KEYS, Store
from srgpt.errors import SrgptError

EXAMPLES = 20
"""Offending rows kept per rule."""

_SITE = "srgpt"


@dataclass(frozen=True)
class Outcome:
    """What became of one rule: how many rows it looked at, how many broke it, and the first of them."""

    rule: str
    table: str
    demands: str
    severity: Severity
    passed: bool
    checked: int
    failed: int
    examples: tuple[dict[str, Any], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Convert to what ``summary.json`` holds."""
        return {**asdict(self), "examples": list(self.examples)}


def run(store: Store, judged: tuple[Rule, ...], *, dataset: str, docs: Path) -> tuple[Outcome, ...]:
    """Judge the frames and render Data Docs into ``docs``; return the outcomes in rule order.

    Great Expectations reads the store's file. Frames without rows are passed over: nothing in them can be wrong.
    """
    filled = {name for name in dict.fromkeys(r.frame for r in judged) if store.count(name)}
    context = _context(docs)
    source = context.data_sources.add_sqlite("tables", connection_string=f"sqlite:///{store.path}")
    definitions = []
    for name in KEYS:
        if name not in filled:
            continue
        asset = source.add_table_asset(name, table_name=name)
        batch = asset.add_batch_definition_whole_table("all rows")
        suite = gx.ExpectationSuite(
            name, expectations=[rule.build() for rule in judged if rule.frame == name]
        )
        definition = gx.ValidationDefinition(data=batch, suite=context.suites.add(suite), name=name)
        definitions.append(context.validation_definitions.add(definition))
    results: dict[str, Any] = {}
    for definition in definitions:
        results |= _run_checkpoint(context, definition, dataset)
    render(context)
    return tuple(_outcome(rule, rule.frame in filled, results.get(rule.name)) for rule in judged)


def _context(docs: Path) -> Any:
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    context.delete_data_docs_site("local_site")
    site: Any = {
        "class_name": "SiteBuilder",
        "show_how_to_buttons": False,
        "store_backend": {
            "class_name": "TupleFilesystemStoreBackend",
            "base_directory": str(docs.resolve()),
        },
        "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
    }
    context.add_data_docs_site(_SITE, site)
    return context


def render(context: Any) -> None:
    """Render the results of all checkpoints as Data Docs, which takes longer than to judge."""
    context.build_data_docs(site_names=[_SITE])


def _run_checkpoint(context: Any, definition: Any, dataset: str) -> dict[str, Any]:
    """Run one frame's suite: each has its own columns by which it names a row."""
    checkpoint = gx.Checkpoint(
        name=definition.name,
        validation_definitions=[definition],
        actions=[],
        result_format={
            "result_format": "SUMMARY",
            "unexpected_index_column_names": list(KEYS[definition.name]),
            "partial_unexpected_count": EXAMPLES,
        },
    )
    done = context.checkpoints.add(checkpoint).run(run_id=RunIdentifier(run_name=dataset))
    return {r.expectation_config.meta["rule"]: r for v in done.run_results.values() for r in v.results}


def _outcome(rule: Rule, filled: bool, result: Any) -> Outcome:
    about = (rule.name, rule.frame, rule.demands, rule.severity)
    if not filled:
        return Outcome(*about, True, 0, 0)
    if result is None or "unexpected_count" not in result.result:
        detail = "no result" if result is None else str(result.exception_info)[-500:]
        raise SrgptError(
            f"rule {rule.name}: Great Expectations could not judge {rule.frame}.{rule.column}: {detail}"
        )
    found = result.result
    examples = tuple(_example(rule, row) for row in found.get("partial_unexpected_index_list") or [])
    checked = found["element_count"] - (found.get("missing_count") or 0)
    failed = found["unexpected_count"]
    return Outcome(*about, bool(result.success), checked, failed, examples)


def _example(rule: Rule, row: dict[str, Any]) -> dict[str, Any]:
    """Return the keys of one offender, and what was found there."""
    keys = {key: plain(row[key]) for key in KEYS[rule.frame]}
    return (
        keys if rule.column not in row or rule.column in keys else {**keys, "found": plain(row[rule.column])}
    )


def plain(value: Any) -> Any:
    """Return a numpy or pandas scalar as what JSON can hold; NaN and infinities become None."""
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and not math.isfinite(value) else value
