"""The funnel: how many pictures and objects enter each stage of the chain, how many leave it, and why not all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from srgpt import storage
from srgpt.curation.figures import Figures
from srgpt.curation.store import Store
from srgpt.curation.totals import is_part, scenes_of

_PICTURES = {"graphs": "pictures with a graph", "conversations": "pictures asked about"}

OTHER = "not-recorded"
"""Why something is missing downstream without a record of the reason."""


@dataclass(frozen=True)
class Step:
    """What one stage did: how many it left over, and how many it set aside, by reason."""

    stage: str
    kept: int
    lost: Mapping[str, int] = field(default_factory=dict)
    note: str = ""
    """What ``kept`` counts."""

    @property
    def entered(self) -> int:
        """What is left over and what was set aside together."""
        return self.kept + sum(self.lost.values())

    def to_json(self) -> dict[str, Any]:
        """Convert to what ``summary.json`` holds."""
        return {
            "stage": self.stage,
            "entered": self.entered,
            "kept": self.kept,
            "lost": dict(self.lost),
            "note": self.note,
        }


def of_scenes(store: Store, urls: Mapping[str, str]) -> list[Step]:
    """Return the funnel of pictures: each table's scenes, and those that its stage set aside."""
    steps: list[Step] = []
    for role, url in urls.items():
        manifest = storage.read_manifest(url)
        kept = scenes_of(store, role)
        lost: Counter[str] = Counter()
        seen: set[str] = set()
        for rejected in storage.read_rejected(url):
            # parts are objects, and counted with these
            if not is_part(rejected["id"], manifest.stage) and rejected["id"] not in seen:
                seen.add(rejected["id"])
                lost[rejected["reason"]] += 1
        if steps:
            missing = steps[-1].kept - kept
            lost = _fitted(lost, missing)
        steps.append(Step(manifest.stage, kept, _sorted(lost), _PICTURES.get(role, "pictures")))
    return steps


def _fitted(lost: Counter[str], missing: int) -> Counter[str]:
    """Add what is missing without a recorded reason."""
    unexplained = missing - lost.total()
    return lost + Counter({OTHER: unexplained}) if unexplained > 0 else lost


def of_objects(store: Store, figures: Figures, urls: Mapping[str, str], truths: set[str]) -> list[Step]:
    """Return the funnel of objects: annotated or detected, lifted to a box, asked about."""
    manifests = {role: storage.read_manifest(url) for role, url in urls.items()}
    steps: list[Step] = []
    if "scenes" in manifests:
        manifest = manifests["scenes"]
        held = store.query("SELECT count(*) FROM regions WHERE key LIKE 'scenes/%'")[0][0]
        total = int(manifest.statistics.get("objects", held))
        dropped = manifest.dropped
        steps.append(
            Step(manifests["scenes"].stage, total - sum(dropped.values()), _sorted(dropped), "regions")
        )
    if "perceived" in manifests:
        steps.append(
            Step(
                manifests["perceived"].stage,
                figures.masked,
                _none("no-mask", figures.regions - figures.masked),
                "masks",
            )
        )
    if "graphs" in manifests:
        steps.append(
            Step(manifests["graphs"].stage, figures.perceived, _sorted(figures.dropped), "perceived boxes")
        )
    if "conversations" in manifests:
        usable = figures.true if truths == {"cuboids"} else figures.perceived
        boxes = "true boxes" if truths == {"cuboids"} else "perceived boxes"
        silent = max(0, usable - figures.asked_objects) if "graphs" in manifests else 0
        note = f"asked about, of {boxes}" if "graphs" in manifests else "asked about"
        steps.append(
            Step(
                manifests["conversations"].stage,
                figures.asked_objects,
                _none("not-asked-about", silent),
                note,
            )
        )
    return steps


def _none(reason: str, count: int) -> dict[str, int]:
    return {reason: count} if count > 0 else {}


def _sorted(lost: Mapping[str, int]) -> dict[str, int]:
    return dict(sorted(lost.items(), key=lambda item: (-item[1], item[0])))
