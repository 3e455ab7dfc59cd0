"""Packing: all turns about one image in one row, each seeing the image and itself only.

    tokens     <bos> ... <image> x T \\n | question answer <eos> | question answer <eos> | ...
    segment    0     0   0            0  | 1        1      1     | 2        2      2     | ...
    position   0     1   2 ...      P-1  | P ...                 | P ...                 | ...

What a turn computes is what it would compute alone, and the image is paid for once.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from srgpt.errors import InputError
from srgpt.model.processing import SrgptProcessor, mention_indices
from srgpt.model.prompts import Inputs
from srgpt.records import GROUP_OF, Conversation

IGNORE = -100
"""Label of tokens that are not learnt."""

PADDING = -1
"""Segment of padding."""

FAMILIES = tuple(dict.fromkeys(GROUP_OF.values()))
"""Families of questions, of which the loss is reported apart; a label's family is an index into these, or -1."""

_FAMILY_OF = {category: FAMILIES.index(group) for category, group in GROUP_OF.items()}

_STATED = re.compile(
    r"\b(?:yes|no|left|right|higher|lower|above|below|behind|front|farther|nearer|closer|wider|thinner|narrower|"
    r"taller|shorter|bigger|larger|smaller)\b|(?<=\bso region \[)\d+",
    re.IGNORECASE,
)
"""Words by which an answer states a relation or a verdict, and the region that it concludes on."""

_WHOLE = re.compile(r"(?<![\[\d.])\d+")
"""Whole numbers and whole parts, but not a region's number."""


@dataclass
class Row:
    """One packed row. ``regions`` has, per mention in order, the index of its region in the conversation."""

    inputs: Inputs
    ids: list[int] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    segments: list[int] = field(default_factory=list)
    families: list[int] = field(default_factory=list)
    regions: list[int] = field(default_factory=list)


class Packer:
    """Turns conversations into rows; remembers the tokens of texts it has seen.

    Answer tokens that state a relation or a verdict (``wider``, ``yes``) count ``key_weight`` times, whole
    numbers its square root, all else once: the wording is learnt soon, decimals never, and there is much more of
    both.
    """

    def __init__(self, processor: SrgptProcessor, *, key_weight: float = 1.0, max_length: int = 4096) -> None:
        self.processor = processor
        self.key_weight = key_weight
        self.max_length = max_length
        self._questions: dict[tuple[str, int, Inputs], list[int]] = {}
        self._answers: dict[str, tuple[list[int], list[float]]] = {}

    def pack(self, conversation: Conversation, inputs: Inputs) -> Row:
        """Return the row of a conversation. Turns beyond ``max_length`` tokens are left out."""
        prefix = self.processor.prefix_ids(inputs)
        row = Row(inputs)
        _append(row, prefix, [IGNORE] * len(prefix), [0.0] * len(prefix), start=0, segment=0, family=-1)
        index_of = {r.id: k for k, r in enumerate(conversation.regions)}
        for segment, turn in enumerate(conversation.turns, start=1):
            question = self._question(turn.question, len(turn.regions), inputs)
            answer, weights = self._answer(turn.answer)
            if len(row.ids) + len(question) + len(answer) > self.max_length:
                break
            if inputs != "blind":
                row.regions.extend(mention_indices(turn.question, turn.regions, index_of))
            _append(
                row,
                [*question, *answer],
                [IGNORE] * len(question) + answer,
                [0.0] * len(question) + weights,
                start=len(prefix),
                segment=segment,
                family=_FAMILY_OF.get(turn.category, -1),
            )
        if len(row.ids) == len(prefix):
            raise InputError(
                f"conversation {conversation.conversation_id}: no turn fits into {self.max_length} tokens; "
                "raise train.model.text.max_length"
            )
        return row

    def _question(self, text: str, regions: int, inputs: Inputs) -> list[int]:
        key = text, regions, inputs
        if key not in self._questions:
            self._questions[key] = self.processor.turn_ids(text, regions, inputs)
        return self._questions[key]

    def _answer(self, text: str) -> tuple[list[int], list[float]]:
        if text not in self._answers:
            ids = self.processor.answer_ids(text)
            self._answers[text] = ids, self._weights(text)
        return self._answers[text]

    def _weights(self, text: str) -> list[float]:
        encoded = self.processor.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        spans = [(m.span(), self.key_weight) for m in _STATED.finditer(text)]
        spans += [(m.span(), self.key_weight**0.5) for m in _WHOLE.finditer(text)]
        weights = [1.0] * (len(encoded["input_ids"]) + 1)  # and the end token
        for k, (start, end) in enumerate(encoded["offset_mapping"]):
            weights[k] = next((w for (a, b), w in spans if start < b and a < end), 1.0)
        return weights


def _append(
    row: Row,
    ids: list[int],
    labels: list[int],
    weights: list[float],
    *,
    start: int,
    segment: int,
    family: int,
) -> None:
    row.ids.extend(ids)
    row.labels.extend(labels)
    row.weights.extend(weights)
    row.positions.extend(range(start, start + len(ids)))
    row.segments.extend([segment] * len(ids))
    row.families.extend([family] * len(ids))


def block_mask(segments_BL: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return what each token may attend to, (B, L, L) bool: the prefix and its own turn, up to itself.

    Padding sees itself only, so that no row of the mask is empty.
    """
    length = segments_BL.shape[1]
    key, query = segments_BL[:, None, :], segments_BL[:, :, None]
    causal = np.tri(length, dtype=bool)
    allowed = causal & (query != PADDING) & ((key == 0) | (key == query))
    return allowed | np.eye(length, dtype=bool)
