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

Inputs = Literal["rgbd", "rgb", "blind"]

IMAGE, MASK, DEPTH = "<image>", "<mask>", "<depth>"
_MENTION = re.compile(r"<region(\d+)>")


@dataclass(frozen=True)
class PromptTemplate:
    """The fixed parts around a question and its answer, cut from a tokenizer's chat template.

    ``head`` opens the prompt, ``suffix`` follows the image, ``tail`` follows the question and ends where the
    answer begins. ``image_tokens`` placeholders stand for one image. In training, ``lead`` (white space or
    nothing) stands between ``tail`` and the answer, and the token ``end`` after it; without ``end`` that is the
    tokenizer's own.

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

    def prefix(self, inputs: Inputs) -> str:
        """Return the prefix; nothing where the model is asked blind."""
        return "" if inputs == "blind" else f"{self.head}{IMAGE * self.image_tokens}"

    def turn(self, question: str, regions: int, inputs: Inputs, reserved: Sequence[str]) -> str:
        """Return the turn of ``question``, which may mention ``<region0>`` to ``<region{regions-1}>``."""
        opening = self.head if inputs == "blind" else self.suffix
        return opening + region_text(question, regions, inputs, reserved) + self.tail


def region_mentions(question: str) -> list[int]:
    """Return which regions a question mentions, in order, repetitions included."""
    return [int(k) for k in _MENTION.findall(question)]


def region_text(question: str, regions: int, inputs: Inputs, reserved: Sequence[str]) -> str:
    """Replace the mentions in a question by what the model reads for them.

    Raises :class:`InputError` where a mention has no region, or where the question contains one of the
    ``reserved`` strings (special tokens), which only the program may write.
    """
    for token in reserved:
        if token in question:
            raise InputError(f"question {question!r}: {token!r} is reserved; name regions as <region0>, ...")
    for k in region_mentions(question):
        if k >= regions:
            raise InputError(f"question {question!r}: mentions <region{k}>, but has {regions} region(s)")
    if inputs == "blind":
        return _MENTION.sub(lambda m: f"Region [{m.group(1)}]", question)
    return _MENTION.sub(f"{MASK} {DEPTH}" if inputs == "rgbd" else MASK, question)
