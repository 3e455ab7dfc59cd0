"""Packing: one picture's prefix and its turns as a run of tokens, each turn seeing the picture and itself only.

    tokens     <bos> ... <image> x T | \\n question answer <eos> | \\n question answer <eos> | ...
    segment    prefix                | 1                        | 2                        | ...
    position   0     1   2 ...   P-1 | P ...                    | P ...                    | ...

What a turn computes is what it would compute alone, and the image is paid for once. In a dialogue whose turns refer
to earlier ones (``history``), all turns are one segment. A batch is all its samples' runs in one row, without padding.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from srgpt.errors import InputError
from srgpt.model.processing import SrgptProcessor, box_shares, mention_indices
from srgpt.model.prompts import Inputs
from srgpt.records import GROUP_OF, QUALITATIVE, QUANTITATIVE, REASONING, Conversation, Turn

IGNORE = -100
"""Label of tokens that are not learnt."""

FAMILIES = (*QUALITATIVE, *QUANTITATIVE, *REASONING, "text")
"""Task families, by which losses are told apart; ``text`` is whatever *ask* did not make."""

NO_FAMILY = -1
"""Family of tokens that are not learnt."""

_FAMILY_OF = {
    **{category: FAMILIES.index(group) for category, group in GROUP_OF.items()},
    **{category: FAMILIES.index(name) for name, units in REASONING.items() for category in units},
}

TEXTS_KEPT = 65_536
"""Different texts whose tokens are remembered."""

T = TypeVar("T")
K = TypeVar("K")

_STATED = re.compile(
    r"\b(?:yes|no|left|right|higher|lower|above|below|behind|front|farther|nearer|closer|wider|thinner|narrower|"
    r"taller|shorter|bigger|larger|smaller)\b|(?<=\bso region \[)\d+",
    re.IGNORECASE,
)
"""Words by which an answer states a relation or a verdict, and the region that it concludes on."""

_NUMBER = re.compile(r"(?<![\[\d.])(?P<leading>\d{2,}\.?|0\.0*[1-9]\d?|\d(?:\.\d)?)(?P<rest>\d*)")
"""A number, but not a region's: its whole digits and decimals up to the second significant digit, and the rest."""


@dataclass
class Row:
    """One packed conversation: token by token ``ids``, ``labels``, ``weights``, ``positions`` and ``families``.

    ``prefix`` is the prefix's length, ``segments`` those after it; ``regions`` has, per ``<mask>`` in order, the index
    of its region in the conversation, and the first ``depths`` of them have a ``<depth>``.
    """

    inputs: Inputs
    prefix: int
    ids: list[int]
    labels: list[int]
    weights: list[float]
    positions: list[int]
    families: list[int]
    segments: list[int] = field(default_factory=list)
    regions: list[int] = field(default_factory=list)
    depths: int = 0
    left_out: int = 0
    """Turns that did not fit, or not whole."""

    @classmethod
    def begin(cls, inputs: Inputs, prefix: list[int]) -> Row:
        """Return a row that has its prefix only."""
        count = len(prefix)
        row = cls(inputs, count, [], [], [], [], [])
        row.append(prefix, [IGNORE] * count, [0.0] * count, position=0, family=NO_FAMILY)
        return row

    def append(
        self, ids: list[int], labels: list[int], weights: list[float], *, position: int, family: int
    ) -> None:
        """Add tokens at positions from ``position`` on; those with a label are of ``family``."""
        self.ids.extend(ids)
        self.labels.extend(labels)
        self.weights.extend(weights)
        self.positions.extend(range(position, position + len(ids)))
        self.families.extend(NO_FAMILY if label == IGNORE else family for label in labels)


class Packer:
    """Turns conversations into rows; remembers the tokens of texts it has seen.

    Answer tokens that state a relation or a verdict (``wider``, ``yes``) count ``key_weight`` times, a number's whole
    digits and its decimals up to the second significant digit ``number_weight`` times, decimals after them its inverse,
    all else once: the wording is learnt soon, the last decimals never, and there is much more of both.
    """

    def __init__(
        self,
        processor: SrgptProcessor,
        *,
        key_weight: float = 1.0,
        number_weight: float = 1.0,
        max_length: int = 4096,
    ) -> None:
        self.processor = processor
        self.key_weight, self.number_weight = key_weight, number_weight
        self.max_length = max_length
        self._questions: dict[tuple[str, int, Inputs, bool], list[int]] = {}
        self._answers: dict[str, tuple[list[int], list[float]]] = {}

    def pack(self, conversation: Conversation, inputs: Inputs, *, history: bool = False) -> Row:
        """Return the row of a conversation.

        Turns beyond ``max_length`` tokens are left out; a first turn that does not fit is cut off there. Both are
        counted. Raises :class:`InputError` where even the prefix does not fit.
        """
        row = Row.begin(inputs, self.processor.prefix_ids(inputs))
        if row.prefix >= self.max_length:
            raise InputError(
                f"conversation {conversation.conversation_id}: its prefix alone has {row.prefix} of at most "
                f"{self.max_length} tokens; raise train.model.text.max_length"
            )
        index_of = {r.id: k for k, r in enumerate(conversation.regions)}
        for number, turn in enumerate(conversation.turns):
            follows = history and bool(row.segments)
            question = self._question(conversation, turn, inputs, follows)
            if not self._append(row, turn, question, index_of, follows):
                row.left_out = len(conversation.turns) - number
                break
        return row

    def _append(
        self, row: Row, turn: Turn, question: list[int], index_of: dict[int, int], follows: bool
    ) -> bool:
        """Add a turn to a row; return whether there may be room for more."""
        answer, weights = self._answer(turn.answer)
        room = self.max_length - len(row.ids)
        fits = len(question) + len(answer) <= room
        if not fits and row.segments:
            return False
        ids = [*question, *answer][:room]
        if row.inputs in ("rgbd", "rgb"):
            mentions = mention_indices(turn.question, turn.regions, index_of)
            row.regions.extend(mentions[: ids.count(self.processor.mask_id)])
            row.depths += ids.count(self.processor.depth_id) if row.inputs == "rgbd" else 0
        if follows:  # the answer before is not the conversation's last
            row.ids[-1] = row.labels[-1] = self.processor.break_id
        row.append(
            ids,
            ([IGNORE] * len(question) + answer)[:room],
            ([0.0] * len(question) + weights)[:room],
            position=row.prefix + (row.segments[0] if follows else 0),
            family=_FAMILY_OF.get(turn.category, FAMILIES.index("text")),
        )
        if follows:
            row.segments[0] += len(ids)
        else:
            row.segments.append(len(ids))
        return fits

    def _question(self, conversation: Conversation, turn: Turn, inputs: Inputs, follows: bool) -> list[int]:
        if inputs == "boxes":  # hardly ever the same text
            boxes = box_shares(conversation, turn.regions)
            return self.processor.turn_ids(turn.question, len(turn.regions), inputs, boxes, follows=follows)
        key = turn.question, len(turn.regions), inputs, follows
        return _remembered(self._questions, key, lambda: self.processor.turn_ids(*key[:3], follows=follows))

    def _answer(self, text: str) -> tuple[list[int], list[float]]:
        return _remembered(self._answers, text, lambda: self._encode(text))

    def _encode(self, text: str) -> tuple[list[int], list[float]]:
        ids, covers = self.processor.encode_answer(text)
        return ids, self._weights(text, covers)

    def _weights(self, text: str, covers: list[tuple[int, int]]) -> list[float]:
        spans = [(m.span(), self.key_weight) for m in _STATED.finditer(text)]
        for m in _NUMBER.finditer(text):
            spans += [(m.span("leading"), self.number_weight), (m.span("rest"), 1 / self.number_weight)]
        return [next((w for (a, b), w in spans if start < b and a < end), 1.0) for start, end in covers]


def _remembered(known: dict[K, T], key: K, make: Callable[[], T]) -> T:
    if key not in known:
        if len(known) >= TEXTS_KEPT:
            known.clear()
        known[key] = make()
    return known[key]
