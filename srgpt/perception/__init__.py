"""Perception: what a source did not give is supplied here, and marked with who supplied it."""

from srgpt.perception.chain import complete_all
from srgpt.perception.gaps import Gap, IncompleteError

__all__ = ["Gap", "IncompleteError", "complete_all"]
