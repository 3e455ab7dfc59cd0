"""A source of a mixture: which table, and how often. Apart from the mixture itself, which needs torch to be read."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class MixtureSource:
    """One table of a mixture.

    ``url`` is the conversations table and ``scenes`` that of its pictures; an epoch sees each row ``weight`` times
    (0.5: one half now, the other in the next). With ``history`` a conversation's turns see those before them, as
    dialogues need; without, each turn sees the picture and itself, as questions do that stand alone.
    """

    url: str
    scenes: str
    weight: float = 1.0
    history: bool = False
