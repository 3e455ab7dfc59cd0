"""Perception: what a source did not give is supplied here, and marked with who supplied it."""

from srgpt.perception.chain import complete_all
from srgpt.perception.gaps import Gap, IncompleteError, SetAsideError

__all__ = ["Gap", "IncompleteError", "SetAsideError", "complete_all"]
