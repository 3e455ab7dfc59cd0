"""Turns and their regions: between the mentions of a conversation in OSD's manner and our records.

There, every ``<mask> <depth>`` in a question stands for the next entry of ``rle`` and ``bbox``, which run over the
whole conversation and repeat a region as often as it is mentioned; ``Region [k]`` in an answer is mention k of its own
question. Here, a conversation has each region once, a turn lists the ids of its mentions, and ``<region0>`` and
``Region [0]`` are the first of them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from srgpt.exchange.masks import MAX_PIXELS, Pixels, pixels_of
from srgpt.exchange.recognition import recognise
from srgpt.records import AskedRegion, Conversation, Turn, encode_rle
from srgpt.sources.pictures import UnusableError

IMAGE, MENTION = "<image>", "<mask> <depth>"
CATEGORY = "object"
"""Of a region whose category the file does not name."""

_FAR = 1e9
"""Pixels from the picture beyond which a corner is an error."""

_MENTION = re.compile(r"<mask>(?: ?<depth>)?")
_OURS = re.compile(r"<region(\d+)>")
_ANSWERED = re.compile(r"(Region \[)(\d+)(?=\])")
_IMAGE = re.compile(rf"{IMAGE}\n|\n{IMAGE}|{IMAGE}")
_RESERVED = re.compile(
    r"<(?:mask|depth|image|region\d+|s|/s|pad|unk|bos|eos|user|assistant|\|[a-z0-9_]+\|)>", re.IGNORECASE
)
"""What only the program may write into a prompt: placeholders, and special tokens of common tokenizers."""

_HUMAN, _MODEL = ("human", "user"), ("gpt", "assistant")


@dataclass(frozen=True)
class Talk:
    """The turns of one row and the regions that they mention; ``dropped`` are turns left out, each with
    its number from 0, reason and detail.

    ``size`` is (width, height) of the masks; None where there is no mask.
    """

    regions: tuple[AskedRegion, ...]
    turns: tuple[Turn, ...]
    size: tuple[int, int] | None = None
    dropped: tuple[tuple[int, str, str], ...] = ()


# In -------------------------------------------------------------------------------------------------------


def read_talk(conversations: Any, rle: Any = None, bbox: Any = None, pixels: Pixels | None = None) -> Talk:
    """Read the columns ``conversations``, ``rle`` and ``bbox`` of a row; ``pixels`` are those of its masks.

    A turn that cannot be used is left out. Raises :class:`UnusableError` where the row as a whole cannot:
    ``bad-conversations``, ``bad-image-placeholder``, ``mentions-without-regions``, ``sizes-differ``,
    ``no-usable-turns``.
    """
    pairs = _pairs(conversations)
    count = sum(len(question) - 1 for question, _ in pairs)
    masks, boxes = _mentions("rle", rle, count), _mentions("bbox", bbox, count)
    if count and masks is None and boxes is None:
        raise UnusableError("mentions-without-regions", f"{count} mentions, neither rle nor bbox")
    regions = _Regions(masks, boxes, pixels_of([masks]) if pixels is None else pixels)
    turns: list[Turn] = []
    dropped: list[tuple[int, str, str]] = []
    mention = 0
    for number, (question, answer) in enumerate(pairs):
        here = len(question) - 1
        try:
            turns.append(_turn(question, answer, regions.ids(range(mention, mention + here))))
        except UnusableError as error:
            dropped.append((number, error.reason, error.detail))
        mention += here
    if not turns:
        _, reason, detail = dropped[0]
        raise UnusableError("no-usable-turns", f"{len(dropped)} turns, the first: {reason}: {detail}")
    return Talk(regions.used(turns), tuple(turns), regions.size, tuple(dropped))


def text_of(value: Any, name: str, reason: str = "bad-text") -> str:
    """Return a string that is not empty and can be stored; :class:`UnusableError` where it is none."""
    if not isinstance(value, str) or not value:
        raise UnusableError(reason, f"{name}: a text was expected, found {_shown(value)}")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise UnusableError(reason, f"{name}: character {error.start} is not Unicode") from None
    return value


def _shown(value: Any) -> str:
    """Return a value for a message, cut off and plain."""
    text = ascii(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _pairs(conversations: Any) -> list[tuple[list[str], str]]:
    """Return questions, split at their mentions and without the placeholder of the image, and answers."""
    if not isinstance(conversations, list) or not conversations or len(conversations) % 2:
        raise UnusableError("bad-conversations", "a list of questions and answers in turn was expected")
    said = []
    for number, message in enumerate(conversations):
        speakers = _MODEL if number % 2 else _HUMAN
        if not isinstance(message, dict) or message.get("from") not in speakers:
            raise UnusableError("bad-conversations", f"message {number}: 'from' must be {speakers[0]!r}")
        value = message.get("value")
        said.append(value if isinstance(value, str) else "")
    if sum(text.count(IMAGE) for text in said) != said[0].count(IMAGE) or said[0].count(IMAGE) > 1:
        raise UnusableError("bad-image-placeholder", f"{IMAGE} was expected once, in the first question")
    said[0] = _IMAGE.sub("", said[0])
    return list(zip(map(_MENTION.split, said[::2]), said[1::2], strict=True))


def _mentions(name: str, values: Any, count: int) -> list[Any] | None:
    """Return the entries, one for each mention; None where there are none."""
    if values is None or (values == [] and count == 0):
        return None
    if not isinstance(values, list) or len(values) != count:
        found = len(values) if isinstance(values, list) else type(values).__name__
        raise UnusableError("mentions-without-regions", f"{count} mentions, {name} has {found}")
    return values


def _turn(question: list[str], answer: str, regions: tuple[int, ...]) -> Turn:
    plain = "".join(question)
    if not regions or plain:  # a question may be its mentions alone
        _check_text("question", plain)
    _check_text("answer", answer)
    for _, k in _ANSWERED.findall(answer):
        if int(k) >= len(regions):
            raise UnusableError(
                "answer-names-no-region", f"Region [{k}], the question mentions {len(regions)}"
            )
    asked = question[0]
    for number, text in enumerate(question[1:]):
        asked += f"<region{number}>{text}"
    category, value, unit = recognise(asked, answer)
    return Turn(asked, answer, category, regions, value, unit)


def _check_text(name: str, text: str) -> None:
    text_of(text, name)
    if "<" in text and (found := _RESERVED.search(text)):
        raise UnusableError("reserved-text", f"{name}: {found[0]} is not text")


_MaskKey = tuple[str, int, int]
"""Counts, height and width."""


class _Regions:
    """The regions behind the mentions of a row, equal ones being one, numbered as they are first mentioned."""

    def __init__(self, masks: list[Any] | None, boxes: list[Any] | None, pixels: Pixels) -> None:
        self._masks, self._boxes, self._pixels = masks, boxes, pixels
        self._found: dict[tuple[Any, ...], AskedRegion] = {}
        self.size: tuple[int, int] | None = None

    def ids(self, mentions: Iterable[int]) -> tuple[int, ...]:
        """Return the region of each mention; :class:`UnusableError` where a region is broken."""
        return tuple([self._region(mention).id for mention in mentions])

    def used(self, turns: Sequence[Turn]) -> tuple[AskedRegion, ...]:
        """Return the regions that the turns mention."""
        ids = {region for turn in turns for region in turn.regions}
        return tuple(region for region in self._found.values() if region.id in ids)

    def _region(self, mention: int) -> AskedRegion:
        rle = None if self._masks is None else self._masks[mention]
        box = None if self._boxes is None else self._boxes[mention]
        try:
            key = rle and (rle["counts"], *rle["size"]), box and (*box,)
            known = self._found.get(key)
        except (TypeError, KeyError):
            key, known = (None, None), None  # it is broken, as will be found
        if known is None:
            known = self._found[key] = self._new(rle, box, mention)
        return known

    def _new(self, rle: Any, box: Any, mention: int) -> AskedRegion:
        mask = None if self._masks is None else _mask_key(rle, mention)
        corners = None if self._boxes is None else _box(box, mention)
        if mask is not None:
            self._check(mask, mention)
            self.size = mask[2], mask[1]
        plain = None if mask is None else {"size": [*mask[1:]], "counts": mask[0]}
        return AskedRegion(len(self._found), CATEGORY, plain, corners or _box_of(plain or {}))

    def _check(self, mask: _MaskKey, mention: int) -> None:
        counts, height, width = mask
        counted = self._pixels[counts]
        if counted is None or min(height, width) <= 0 or not height * width == counted[0] <= MAX_PIXELS:
            raise UnusableError("broken-mask", f"mention {mention}: its runs do not add up to its size")
        if not counted[1]:
            raise UnusableError("empty-mask", f"mention {mention}: no pixel is in it")
        if self.size not in (None, (width, height)):
            raise UnusableError("sizes-differ", f"mention {mention}: mask of another size than those before")


def _mask_key(rle: Any, mention: int) -> _MaskKey:
    size, counts = (rle.get("size"), rle.get("counts")) if isinstance(rle, dict) else (None, None)
    if not isinstance(counts, str) or not isinstance(size, list) or [*map(type, size)] != [int, int]:
        raise UnusableError("broken-mask", f"mention {mention}: not a compressed COCO RLE")
    return counts, size[0], size[1]


def _box(box: Any, mention: int) -> tuple[float, float, float, float]:
    if isinstance(box, list) and len(box) == 4 and {*map(type, box)} <= {int, float}:
        x1, y1, x2, y2 = box
        if -_FAR < x1 <= x2 < _FAR and -_FAR < y1 <= y2 < _FAR:
            return float(x1), float(y1), float(x2), float(y2)
    raise UnusableError("broken-box", f"mention {mention}: not x1, y1, x2, y2 in pixels: {_shown(box)}")


def _box_of(rle: dict[str, Any]) -> tuple[float, float, float, float]:
    from pycocotools import mask as coco

    x, y, w, h = coco.toBbox({"size": rle["size"], "counts": rle["counts"].encode("ascii")}).tolist()
    return (x, y, x + w, y + h)


# Out ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Columns:
    """The columns ``conversations``, ``rle`` and ``bbox`` of a row; ``rle`` is None where no region has a mask."""

    conversations: list[dict[str, str]]
    rle: list[dict[str, Any]] | None
    bbox: list[list[float]]


def write_talk(conversation: Conversation) -> Columns:
    """Undo :func:`read_talk`.

    Mentions are numbered anew, as they stand in a question. Where only some regions have masks, the others' boxes
    become masks. Raises :class:`UnusableError` (``answer-names-no-region``) where an answer names a region that its
    question does not mention.
    """
    regions = {region.id: region for region in conversation.regions}
    masked = any(region.rle is not None for region in conversation.regions)
    messages: list[dict[str, str]] = []
    mentioned: list[AskedRegion] = []
    for number, turn in enumerate(conversation.turns):
        order = [int(k) for k in _OURS.findall(turn.question)]
        mentioned += [regions[turn.regions[k]] for k in order]
        question = _OURS.sub(MENTION, turn.question)
        messages.append({"from": "human", "value": question if number else f"{IMAGE}\n{question}"})
        messages.append({"from": "gpt", "value": _renumbered(turn.answer, order)})
    size = conversation.width, conversation.height
    masks = [r.rle if r.rle is not None else _mask_of(r.bbox, *size) for r in mentioned] if masked else None
    return Columns(messages, masks, [list(r.bbox) for r in mentioned])


def _renumbered(answer: str, order: Sequence[int]) -> str:
    def number(match: re.Match[str]) -> str:
        if int(match[2]) not in order:
            raise UnusableError("answer-names-no-region", f"the question does not mention {match[0]}]")
        return f"{match[1]}{order.index(int(match[2]))}"

    return _ANSWERED.sub(number, answer)


def _mask_of(box: tuple[float, float, float, float], width: int, height: int) -> dict[str, Any]:
    """Return the mask of a box: every pixel whose centre it holds, at least one."""
    x1, y1 = (min(max(math.ceil(v), 0), side - 1) for v, side in zip(box[:2], (width, height), strict=True))
    x2, y2 = (math.floor(v) for v in box[2:])
    mask = np.zeros((height, width), bool)
    mask[y1 : max(y2, y1) + 1, x1 : max(x2, x1) + 1] = True
    return encode_rle(mask)
