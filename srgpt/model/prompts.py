"""The text of prompts: how a question about regions becomes the string that is tokenised.

A prompt is a *prefix*, which depends on the image only, and a *turn*. Each turn of a training row sees the
prefix and itself, so that a single question at inference sees what it saw in training.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from srgpt.errors import InputError

Inputs = Literal["rgbd", "rgb", "boxes", "blind"]
"""What a model is shown: regions with depth; regions; the image, with regions as coordinates in words; only words."""

Box = tuple[float, float, float, float]
"""``xyxy``, as shares of the picture's sides."""

IMAGE, MASK, DEPTH = "<image>", "<mask>", "<depth>"
_MENTION = re.compile(r"<region(\d+)>")


@dataclass(frozen=True)
class PromptTemplate:
    """The fixed parts around a question and its answer, cut from a tokenizer's chat template.

    ``head`` opens the prompt, ``suffix`` follows the image, ``tail`` follows the question and ends where the
    answer begins. ``image_tokens`` placeholders stand for one image. In training, ``lead`` (white space or
    nothing) stands between ``tail`` and the answer, and the token ``end`` after it; without ``end`` that is the
    tokenizer's own. Where another question follows in the same conversation, the token ``break_`` stands after the
    answer instead, and ``again`` opens the question.

    Prefix and turn are tokenised apart. They are cut at the image, because any tokenizer cuts at a placeholder:
    elsewhere, the pieces of a text need not have the tokens of the whole. A blind prompt has no such place, so it
    has no prefix.
    """

    head: str
    suffix: str
    tail: str
    image_tokens: int
    lead: str = ""
    end: str = ""
    break_: str = ""
    again: str = ""

    def prefix(self, inputs: Inputs) -> str:
        """Return the prefix; nothing where the model is asked blind."""
        return "" if inputs == "blind" else f"{self.head}{IMAGE * self.image_tokens}"

    def turn(
        self,
        question: str,
        inputs: Inputs,
        marks: Sequence[str],
        reserved: Sequence[str],
        *,
        follows: bool = False,
    ) -> str:
        """Return the turn of ``question``, which may mention ``<region0>`` to the last that has a mark.

        It is the conversation's first, or ``follows`` the answer to another.
        """
        first = self.head if inputs == "blind" else self.suffix
        return (self.again if follows else first) + region_text(question, marks, reserved) + self.tail


def region_mentions(question: str) -> list[int]:
    """Return which regions a question mentions, in order, repetitions included."""
    return [int(k) for k in _MENTION.findall(question)]


def region_marks(inputs: Inputs, count: int, boxes: Sequence[Box] = ()) -> list[str]:
    """Return what the model reads in place of each of ``count`` regions; ``boxes`` where that is coordinates.

    Coordinates are hundredths of the picture's sides, from 0 to 99.
    """
    if inputs == "boxes":
        corners = ([min(int(100 * v), 99) for v in box] for box in boxes)
        return [f"Region [{k}] at {found}" for k, found in enumerate(corners)]
    if inputs == "blind":
        return [f"Region [{k}]" for k in range(count)]
    return [f"{MASK} {DEPTH}" if inputs == "rgbd" else MASK] * count


def region_text(question: str, marks: Sequence[str], reserved: Sequence[str]) -> str:
    """Replace the mentions in a question by the regions' marks.

    Raises :class:`InputError` where a mention has no region, or where the question contains one of the
    ``reserved`` strings (special tokens), which only the program may write.
    """
    for token in reserved:
        if token in question:
            raise InputError(f"question {question!r}: {token!r} is reserved; name regions as <region0>, ...")
    for k in region_mentions(question):
        if k >= len(marks):
            raise InputError(f"question {question!r}: mentions <region{k}>, but has {len(marks)} region(s)")
    return _MENTION.sub(lambda m: marks[int(m.group(1))], question)
