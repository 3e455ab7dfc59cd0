"""The frames about whole tables: rows, what was set aside, lineage, and the balance of answers."""

from __future__ import annotations

import re
from collections.abc import Mapping

from srgpt import storage
from srgpt.curation.store import Store
from srgpt.records import QUALITATIVE, REASONING

BALANCED = (
    *(category for categories in QUALITATIVE.values() for category in categories),
    *(c for units in REASONING.values() for c, unit in units.items() if unit == "truth"),
)
"""The categories with two answers, of which neither should be the better guess."""

_TURN = re.compile(r"-\d+/\d+$")


def add_tables(store: Store, urls: Mapping[str, str]) -> None:
    """Add one ``tables`` row per table, upstream first: rows, what was set aside, what it was made from.

    Set aside are scenes; single objects that a stage dropped from a scene that it kept do not count.
    """
    before: storage.Manifest | None = None
    above = ""
    for role, url in urls.items():
        manifest = storage.read_manifest(url)
        here = scenes_of(store, role)
        if before is None:
            lost = scenes_rejected(store, role, url)
        else:
            lost = _missing(store, above, role)
        store.add(
            "tables",
            {
                "table": role,
                "rows": manifest.rows,
                "rejected": lost,
                "rejected_share": lost / (lost + here) if lost else 0.0,
                "lineage_problem": _lineage_problem(manifest, before),
            },
        )
        before, above = manifest, role


def _ids(role: str) -> str:
    """Return a SELECT of the scene ids of a table."""
    if role in ("scenes", "perceived"):
        return f"SELECT scene_id FROM scenes WHERE \"table\" = '{role}'"  # noqa: S608 (our own names)
    return f"SELECT scene_id FROM {role}"  # noqa: S608


def scenes_of(store: Store, role: str) -> int:
    """Return how many different scenes a table has rows of."""
    return int(store.query(f"SELECT count(DISTINCT scene_id) FROM ({_ids(role)})")[0][0])  # noqa: S608


def _missing(store: Store, before: str, role: str) -> int:
    """Return how many scenes of the table ``before`` the table ``role`` lacks."""
    return int(store.query(f"SELECT count(*) FROM ({_ids(before)} EXCEPT {_ids(role)})")[0][0])  # noqa: S608


def is_part(identifier: str, stage: str) -> bool:
    """Return whether what a stage set aside is a part of a scene: SCENE/ANNOTATION, or an import's ROW/TURN."""
    if stage == "import":  # ids of rows end in their number, and may have slashes
        return _TURN.search(identifier) is not None
    return "/" in identifier


def scenes_rejected(store: Store, role: str, url: str) -> int:
    """Count the scenes that a source set aside."""
    stage = storage.read_manifest(url).stage
    ids = sorted({r["id"] for r in storage.read_rejected(url) if not is_part(r["id"], stage)})
    kept = 0
    for start in range(0, len(ids), 500):
        some = ids[start : start + 500]
        marks = ", ".join("?" * len(some))
        found = f"SELECT count(DISTINCT scene_id) FROM ({_ids(role)}) WHERE scene_id IN ({marks})"  # noqa: S608
        kept += int(store.query(found, some)[0][0])
    return len(ids) - kept


def _lineage_problem(manifest: storage.Manifest, before: storage.Manifest | None) -> str | None:
    recorded = [entry["fingerprint"] for entry in manifest.inputs.values()]
    if before is None or before.fingerprint in recorded:
        return None
    return f"made from another {before.table} table than the one that is there now; run the chain again"


def add_balance(
    store: Store, asked: Mapping[str, int], positive: Mapping[str, int], min_questions: int
) -> None:
    """Add one ``balance`` row per category with two answers; only those with enough questions are judged.

    ``asked`` counts questions by category, ``positive`` those answered yes, or by the first region.
    """
    for category in BALANCED:
        count = asked.get(category, 0)
        if not count and category not in _BENCHMARK:
            continue
        share = positive.get(category, 0) / count if count else None
        row = {"category": category, "questions": count, "yes_share": share}
        store.add("balance", {**row, "judged_yes_share": share if count >= min_questions else None})


_BENCHMARK = frozenset(c for categories in QUALITATIVE.values() for c in categories)
