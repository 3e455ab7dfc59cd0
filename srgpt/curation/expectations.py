"""Run the rules with Great Expectations: one suite per frame, one checkpoint, Data Docs by its action."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import great_expectations as gx
import pandas as pd
from great_expectations.checkpoint import UpdateDataDocsAction
from great_expectations.core.run_identifier import RunIdentifier
from great_expectations.data_context.types.base import ProgressBarsConfig

from srgpt.curation.frames import KEYS
from srgpt.curation.rules import Rule
from srgpt.errors import SrgptError

EXAMPLES = 20
"""Offending rows kept per rule."""

_SITE = "srgpt"
_PLACE = "place"


@dataclass(frozen=True)
class Outcome:
    """What became of one rule: how many rows it looked at, how many broke it, and the first of them."""

    rule: str
    table: str
    demands: str
    passed: bool
    checked: int
    failed: int
    examples: tuple[dict[str, Any], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Convert to what ``summary.json`` holds."""
        return {**asdict(self), "examples": list(self.examples)}


def run(
    frames: Mapping[str, pd.DataFrame], judged: tuple[Rule, ...], *, dataset: str, work: Path, docs: Path
) -> tuple[Outcome, ...]:
    """Judge the frames in one checkpoint, which renders Data Docs into ``docs``; outcomes in rule order.

    The Great Expectations project, with the frames as Parquet files, is made in ``work``. Frames without rows
    are passed over: nothing in them can be wrong.
    """
    named = {name: _with_place(name, frames[name]) for name in dict.fromkeys(r.frame for r in judged)}
    context = _context(work, docs)
    source = context.data_sources.add_pandas("tables")
    definitions = []
    for name, frame in named.items():
        if frame.empty:
            continue
        path = work / f"{name}.parquet"
        frame.to_parquet(path)
        batch = source.add_parquet_asset(name, path=path).add_batch_definition_whole_dataframe("all rows")
        suite = gx.ExpectationSuite(
            name, expectations=[rule.build() for rule in judged if rule.frame == name]
        )
        definition = gx.ValidationDefinition(data=batch, suite=context.suites.add(suite), name=name)
        definitions.append(context.validation_definitions.add(definition))
    results = _run_checkpoint(context, definitions, dataset)
    return tuple(_outcome(rule, named[rule.frame], results.get(rule.name)) for rule in judged)


def _with_place(name: str, frame: pd.DataFrame) -> pd.DataFrame:
    """Add the column that says in words where a row is; Great Expectations shows it beside what it found."""
    if frame.empty:
        return frame
    keys = KEYS[name]
    columns = zip(*(frame[key] for key in keys), strict=True)
    words = [", ".join(f"{key} {value}" for key, value in zip(keys, row, strict=True)) for row in columns]
    return frame.assign(**{_PLACE: words})


def _context(work: Path, docs: Path) -> Any:
    context = gx.get_context(mode="file", project_root_dir=str(work))
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


def _run_checkpoint(context: Any, definitions: list[Any], dataset: str) -> dict[str, Any]:
    checkpoint = gx.Checkpoint(
        name="validate",
        validation_definitions=definitions,
        actions=[UpdateDataDocsAction(name="data_docs", site_names=[_SITE])],
        result_format={
            "result_format": "SUMMARY",
            "unexpected_index_column_names": [_PLACE],
            "partial_unexpected_count": EXAMPLES,
        },
    )
    done = context.checkpoints.add(checkpoint).run(run_id=RunIdentifier(run_name=dataset))
    return {r.expectation_config.meta["rule"]: r for v in done.run_results.values() for r in v.results}


def _outcome(rule: Rule, frame: pd.DataFrame, result: Any) -> Outcome:
    if frame.empty:
        return Outcome(rule.name, rule.frame, rule.demands, True, 0, 0)
    if result is None or "unexpected_count" not in result.result:
        detail = "no result" if result is None else str(result.exception_info)[-500:]
        raise SrgptError(
            f"rule {rule.name}: Great Expectations could not judge {rule.frame}.{rule.column}: {detail}"
        )
    found = result.result
    examples = tuple(_example(rule, frame, row) for row in found.get("partial_unexpected_index_list") or [])
    checked = found["element_count"] - found.get("missing_count", 0)
    failed = found["unexpected_count"]
    return Outcome(rule.name, rule.frame, rule.demands, bool(result.success), checked, failed, examples)


def _example(rule: Rule, frame: pd.DataFrame, row: dict[str, Any]) -> dict[str, Any]:
    """Return the keys of one offender, and what was found there."""
    place = frame.loc[frame[_PLACE] == row[_PLACE]].iloc[0]
    keys = {key: plain(place[key]) for key in KEYS[rule.frame]}
    return (
        keys if rule.column not in row or rule.column in keys else {**keys, "found": plain(row[rule.column])}
    )


def plain(value: Any) -> Any:
    """Return a numpy or pandas scalar as what JSON can hold; NaN and infinities become None."""
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and not math.isfinite(value) else value
