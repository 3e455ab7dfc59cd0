"""SrgptProcessor: from pictures and questions to the model's inputs, and from its output to answers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import BatchFeature, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from srgpt.errors import InputError
from srgpt.geometry.camera import Camera
from srgpt.model.pixels import (
    MEAN,
    POINTS,
    STD,
    Channels,
    DepthInput,
    MaskResize,
    Picture,
    box_mask,
    make_picture,
    normalise,
    without_scale,
)
from srgpt.model.prompts import (
    DEPTH,
    IMAGE,
    MASK,
    Box,
    Inputs,
    PromptTemplate,
    region_marks,
    region_mentions,
)
from srgpt.model.tokenizer import token_id
from srgpt.records import Conversation, Scene, decode_rle

FILE = "processor_config.json"
_SENTINEL, _ANSWER = "\x00", "\x01"


@dataclass(frozen=True, eq=False)
class View:
    """A picture as its source has it, before it is made ready for a model.

    ``rgb`` (H, W, 3) uint8; ``masks`` (H, W) bool by region id; ``depth`` (H, W) metres, 0 = no reading, or None.
    """

    rgb: NDArray[np.uint8]
    masks: dict[int, NDArray[np.bool_]]
    depth: NDArray[np.floating[Any]] | None = None
    camera: Camera | None = None

    @classmethod
    def of(cls, scene: Scene, conversation: Conversation, *, relative: bool = False) -> View:
        """Return the picture that a conversation asks about; a region without a mask is its box.

        Where the scene has no metric depth, relative depth takes its place for a model that sees no scale anyway.
        """
        masks = {
            r.id: box_mask(r.bbox, scene.width, scene.height) if r.rle is None else decode_rle(r.rle)
            for r in conversation.regions
        }
        depth: NDArray[np.floating[Any]] | None = None
        if scene.depth is not None:
            depth = scene.depth_metres()
        elif scene.relative_depth is not None and relative:
            depth = without_scale(scene.relative_depth)
        camera = Camera.of(scene.width, scene.height, scene.intrinsics, scene.gravity)
        return cls(scene.rgb(), masks, depth, camera)


@dataclass(frozen=True)
class Question:
    """A question about a picture: ``<regionK>`` in ``text`` is the region with id ``regions[K]``.

    The picture may be missing where the model is asked blind; ``boxes`` are needed where it reads coordinates.
    """

    text: str
    regions: tuple[int, ...] = ()
    picture: Picture | None = None
    boxes: tuple[Box, ...] = ()


@dataclass(frozen=True)
class Mentions:
    """Which images and regions the placeholders of some rows stand for, in the rows' order."""

    images: list[int]
    masks: list[int]
    depths: list[int]


class SrgptProcessor:
    """Holds the tokenizer and how pixels are prepared; saved beside the model.

    ``template`` has the fixed text around a question. A batch for ``generate`` comes from :meth:`batch`,
    answers from :meth:`answers`.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        *,
        image_size: int,
        image_tokens: int,
        depth: DepthInput = "relative",
        template: PromptTemplate | None = None,
        image_mean: Channels = MEAN,
        image_std: Channels = STD,
        mask_resize: MaskResize = "area",
    ) -> None:
        self.tokenizer = tokenizer
        self.image_size = image_size
        self.depth: DepthInput = depth
        self.image_mean, self.image_std = image_mean, image_std
        self.mask_resize: MaskResize = mask_resize
        self.template = template or cut_template(tokenizer, image_tokens)
        self.image_id, self.mask_id, self.depth_id = (token_id(tokenizer, t) for t in (IMAGE, MASK, DEPTH))
        special = {str(t) for t in tokenizer.added_tokens_decoder.values() if t.special}
        self._reserved = tuple(
            sorted({*special, *map(str, tokenizer.all_special_tokens), IMAGE, MASK, DEPTH})
        )
        self.end_id = token_id(tokenizer, self.template.end or str(tokenizer.eos_token))
        self.break_id = token_id(tokenizer, self.template.break_) if self.template.break_ else self.end_id
        self._tail = self._tokenise(self.template.tail)
        self._prefixes: dict[Inputs, list[int]] = {
            inputs: self._tokenise(self.template.prefix(inputs)) for inputs in get_args(Inputs)
        }

    # Saving and loading -------------------------------------------------------------------------------------

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the tokenizer's files and ``processor_config.json``."""
        self.tokenizer.save_pretrained(str(folder))
        config = {
            "processor_class": type(self).__name__,
            "image_size": self.image_size,
            "depth": self.depth,
            "image_mean": list(self.image_mean),
            "image_std": list(self.image_std),
            "mask_resize": self.mask_resize,
            "template": asdict(self.template),
            "token_ids": {"image": self.image_id, "mask": self.mask_id, "depth": self.depth_id},
            "bos_token_id": self.tokenizer.bos_token_id,
            "eos_token_id": self.tokenizer.eos_token_id,
            "pad_token_id": self.tokenizer.pad_token_id,
            "reserved": list(self._reserved),
        }
        (Path(folder) / FILE).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> SrgptProcessor:
        """Read what :meth:`save_pretrained` wrote."""
        path = Path(folder) / FILE
        try:
            config = json.loads(path.read_text())
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror}); model folders have it") from None
        template = PromptTemplate(**config["template"])
        return cls(
            PreTrainedTokenizerFast.from_pretrained(str(folder)),
            image_size=config["image_size"],
            image_tokens=template.image_tokens,
            depth=config["depth"],
            template=template,
            image_mean=tuple(config["image_mean"]),
            image_std=tuple(config["image_std"]),
            mask_resize=config["mask_resize"],
        )

    # Pixels -------------------------------------------------------------------------------------------------

    def picture(self, view: View) -> Picture:
        """Prepare a picture; raises :class:`InputError` where its parts do not fit together."""
        return make_picture(
            view.rgb,
            view.depth,
            view.masks,
            size=self.image_size,
            form=self.depth,
            camera=view.camera,
            mask_resize=self.mask_resize,
        )

    def picture_of(self, scene: Scene, conversation: Conversation) -> Picture:
        """Prepare the picture that a conversation asks about."""
        return self.picture(self.view_of(scene, conversation))

    def view_of(self, scene: Scene, conversation: Conversation) -> View:
        """Return the picture that a conversation asks about, with the depth that this model can use."""
        return View.of(scene, conversation, relative=self.depth == "relative")

    def pixel_inputs(self, pictures: Sequence[Picture]) -> dict[str, torch.Tensor]:
        """Stack pictures: ``pixel_values`` (I, 3, S, S), ``region_masks`` (R, S, S) in 0..1, ``region_images`` (R,),
        and what tells of depth: ``depth_values`` (I, 3, S, S) or ``region_points`` (R, POINTS, 3) metres.

        A picture without depth gets a black depth image, or points that are no readings; no ``<depth>`` token shows
        either.
        """
        counts = [len(p.region_ids) for p in pictures]
        inputs = {
            "pixel_values": self._normal([p.rgb for p in pictures]),
            "region_masks": torch.from_numpy(np.concatenate([p.masks for p in pictures])).float() / 255,
            "region_images": torch.repeat_interleave(torch.arange(len(pictures)), torch.tensor(counts)),
        }
        if self.depth == "relative":
            dark = np.zeros((self.image_size, self.image_size), np.uint8)
            inputs["depth_values"] = self._normal([dark if p.depth is None else p.depth for p in pictures])
        if self.depth == "metric":
            none = [np.zeros((count, POINTS, 3), np.float32) for count in counts]
            points = [n if p.points is None else p.points for p, n in zip(pictures, none, strict=True)]
            inputs["region_points"] = torch.from_numpy(np.concatenate(points))
        return inputs

    def _normal(self, images: Sequence[NDArray[np.uint8]]) -> torch.Tensor:
        return torch.from_numpy(normalise(np.stack(images), self.image_mean, self.image_std))

    # Text ---------------------------------------------------------------------------------------------------

    def prefix_ids(self, inputs: Inputs) -> list[int]:
        """Return the token ids before the question."""
        return self._prefixes[inputs]

    def turn_ids(
        self,
        question: str,
        regions: int,
        inputs: Inputs,
        boxes: Sequence[Box] = (),
        *,
        follows: bool = False,
    ) -> list[int]:
        """Return the token ids of a question with ``regions`` regions, up to where its answer begins.

        Where it ``follows`` another in the same conversation, that one's answer ends with :attr:`break_id`.
        """
        marks = region_marks(inputs, regions, boxes)
        return self._tokenise(self.template.turn(question, inputs, marks, self._reserved, follows=follows))

    def answer_ids(self, answer: str) -> list[int]:
        """Return the token ids of an answer as it follows its question, with its end token."""
        return self.encode_answer(answer)[0]

    def encode_answer(self, answer: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Return an answer's token ids with its end token, and the characters of it that each token covers.

        It is tokenised behind the end of its question, since some tokenizers join a space to the word after it.
        """
        before = self.template.tail + self.template.lead
        ids, spans = self._tokenise_spans(before + answer)
        cut = len(self._tail)
        if ids[:cut] != self._tail:  # the answer's own white space would join the prompt's
            before, cut = self.template.lead, 0
            ids, spans = self._tokenise_spans(before + answer)
        own = [(max(0, a - len(before)), max(0, b - len(before))) for a, b in spans[cut:]]
        return [*ids[cut:], self.end_id], [*own, (len(answer), len(answer))]

    def batch(self, questions: Sequence[Question], inputs: Inputs = "rgbd") -> BatchFeature:
        """Return left-padded inputs for ``generate``; every picture is encoded once for all its questions."""
        rows = [
            [*self.prefix_ids(inputs), *self.turn_ids(q.text, len(q.regions), inputs, q.boxes)]
            for q in questions
        ]
        length = max(len(r) for r in rows)
        pad = self.tokenizer.pad_token_id
        ids = torch.tensor([[pad] * (length - len(r)) + r for r in rows])
        mask = torch.tensor([[0] * (length - len(r)) + [1] * len(r) for r in rows])
        data = {"input_ids": ids, "attention_mask": mask}
        if inputs != "blind":
            pictures = list({id(q.picture): q.picture for q in questions}.values())
            data |= self.pixel_inputs([_needed(p) for p in pictures])
            data |= index_inputs(self.mentions(questions, inputs))
            if inputs != "rgbd":
                data.pop("depth_values", None)
                data.pop("region_points", None)
        return BatchFeature(data)

    def mentions(self, questions: Sequence[Question], inputs: Inputs) -> Mentions:
        """Return what the placeholders of the questions' rows stand for, images numbered as first seen."""
        result = Mentions([], [], [])
        numbers: dict[int, int] = {}
        offsets: dict[int, dict[int, int]] = {}
        total = 0
        for question in questions:
            picture = _needed(question.picture)
            if id(picture) not in numbers:
                numbers[id(picture)] = len(numbers)
                offsets[id(picture)] = {region: total + k for k, region in enumerate(picture.region_ids)}
                total += len(picture.region_ids)
            result.images.append(numbers[id(picture)])
            if inputs == "boxes":
                continue
            chosen = mention_indices(question.text, question.regions, offsets[id(picture)])
            result.masks.extend(chosen)
            if inputs == "rgbd":
                result.depths.extend(chosen)
        return result

    def answers(self, generated: torch.Tensor, prompt_length: int) -> list[str]:
        """Turn the output of ``generate`` into answers: what follows the prompt, up to the end token."""
        texts = self.tokenizer.batch_decode(generated[:, prompt_length:], skip_special_tokens=True)
        return [t.strip() for t in texts]

    def _tokenise(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _tokenise_spans(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        encoded = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        return list(encoded["input_ids"]), list(encoded["offset_mapping"])


def mention_indices(text: str, regions: Sequence[int], index_of: dict[int, int]) -> list[int]:
    """Return the index of the region behind every mention in a question, by each region's index."""
    missing = [r for r in regions if r not in index_of]
    if missing:
        raise InputError(f"question {text!r}: region(s) {missing} are not among {list(index_of)}")
    return [index_of[regions[k]] for k in region_mentions(text)]


def box_shares(conversation: Conversation, regions: Sequence[int]) -> tuple[Box, ...]:
    """Return the boxes of regions, by id, as shares of the picture's sides."""
    boxes = {r.id: r.bbox for r in conversation.regions}
    width, height = conversation.width, conversation.height
    return tuple(
        (x1 / width, y1 / height, x2 / width, y2 / height) for x1, y1, x2, y2 in (boxes[r] for r in regions)
    )


def index_inputs(mentions: Mentions) -> dict[str, torch.Tensor]:
    """Return the model's index inputs."""
    lists = {"image_index": mentions.images, "mask_index": mentions.masks, "depth_index": mentions.depths}
    return {name: torch.tensor(values, dtype=torch.long) for name, values in lists.items()}


def cut_template(tokenizer: PreTrainedTokenizerBase, image_tokens: int) -> PromptTemplate:
    """Cut a tokenizer's chat template, rendered with sentinels, into its parts around question and answer."""
    messages = [{"role": "user", "content": f"{IMAGE}\n{_SENTINEL}"}]
    prompt = str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
    head, image, rest = prompt.partition(IMAGE)
    suffix, question, tail = rest.partition(_SENTINEL)
    if not image or not question:
        raise InputError("the tokenizer's chat template does not pass a user's message through unchanged")
    messages.append({"role": "assistant", "content": _ANSWER})
    before, _, after = str(tokenizer.apply_chat_template(messages, tokenize=False)).partition(_ANSWER)
    lead = before.removeprefix(prompt)
    messages.append({"role": "user", "content": _SENTINEL})
    between = str(tokenizer.apply_chat_template(messages, tokenize=False)).partition(_ANSWER)[2]
    between = between.partition(_SENTINEL)[0]
    break_ = _first_special(tokenizer, between)
    return PromptTemplate(
        head,
        suffix,
        tail,
        image_tokens,
        lead=lead if lead.isspace() else "",
        end=_first_special(tokenizer, after),
        break_=break_,
        again=between.removeprefix(break_),
    )


def _first_special(tokenizer: PreTrainedTokenizerBase, text: str) -> str:
    """Return the special token that ``text`` begins with, or else the tokenizer's end token."""
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    added = tokenizer.added_tokens_decoder.get(ids[0]) if ids else None
    return str(added) if added is not None and added.special else str(tokenizer.eos_token)


def _needed(picture: Picture | None) -> Picture:
    if picture is None:
        raise InputError("a question without a picture can be asked blind only")
    return picture
