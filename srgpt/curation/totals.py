"""The frames about whole tables: rows, what was set aside, lineage, and the balance of answers."""

from __future__ import annotations

from collections import Counter

import numpy as np

from srgpt import storage
from srgpt.curation.frames import Frames
from srgpt.records import CATEGORIES, GROUP_OF, QUALITATIVE


def add_tables(frames: Frames, urls: dict[str, str]) -> None:
    """Add one ``tables`` row per table, upstream first: rows, what was set aside, what it was made from.

    Set aside are scenes; single objects that a stage dropped from a scene that it kept do not count.
    """
    before: storage.Manifest | None = None
    kept: set[str] = set()
    for role, url in urls.items():
        manifest = storage.read_manifest(url)
        here = _scenes_of(frames, role)
        lost = len(kept - here) if before else _scenes_rejected(url, here)
        frames.add(
            "tables",
            {
                "table": role,
                "rows": manifest.rows,
                "rejected": lost,
                "rejected_share": lost / (lost + len(here)) if lost else 0.0,
                "lineage_problem": _lineage_problem(manifest, before),
            },
        )
        before, kept = manifest, here


def _scenes_of(frames: Frames, role: str) -> set[str]:
    rows = frames.rows.get("scenes" if role == "perceived" else role, [])
    return {row["scene_id"] for row in rows if row.get("table", role) == role}


def _scenes_rejected(url: str, kept: set[str]) -> int:
    """Count the scenes that ingest set aside; a slash in an id says that it is of a part: SCENE/ANNOTATION."""
    ids = {rejected["id"] for rejected in storage.read_rejected(url)}
    return len({i for i in ids if "/" not in i} - kept)


def _lineage_problem(manifest: storage.Manifest, before: storage.Manifest | None) -> str | None:
    recorded = [entry["fingerprint"] for entry in manifest.inputs.values()]
    if before is None or before.fingerprint in recorded:
        return None
    return f"made from another {before.table} table than the one that is there now; run the chain again"


def add_balance(frames: Frames, min_questions: int) -> None:
    """Add one ``balance`` row per qualitative category; only those with enough questions are judged."""
    asked: Counter[str] = Counter()
    positive: Counter[str] = Counter()
    for turn in frames.rows.get("turns", []):
        asked[turn["category"]] += 1
        positive[turn["category"]] += turn["value"] == 1.0
    for category in CATEGORIES:
        if GROUP_OF[category] not in QUALITATIVE:
            continue
        share = positive[category] / asked[category] if asked[category] else np.nan
        judged = asked[category] >= min_questions
        row = {"category": category, "questions": asked[category], "yes_share": share}
        frames.add("balance", {**row, "judged_yes_share": share if judged else np.nan})
