"""Cards: the ``README.md`` of a model or a dataset, as the Hugging Face hub knows it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml


def card_licence(card: Path) -> str | None:
    """Read ``license`` (``license_name`` where that is "other") of a card's YAML front matter.

    Several licences have a comma between them. None where there is no card, or where it names no licence.
    """
    try:
        text = card.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    if not text.startswith("---"):
        return None
    try:
        front = yaml.safe_load(text.split("---", 2)[1])
    except (yaml.YAMLError, ValueError, RecursionError):
        return None
    if not isinstance(front, dict):
        return None
    found = front.get("license")
    if found in ("other", ["other"]):
        found = front.get("license_name", found)
    named: list[Any] = found if isinstance(found, list) else [found]
    return ", ".join(named) or None if all(isinstance(name, str) for name in named) else None
