"""Tagging: words for what a picture shows, from a captioning model (Florence-2)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from srgpt.errors import InputError
from srgpt.params import TaggingParams
from srgpt.perception.roles import Tagger
from srgpt.perception.weights import Loaded, load

if TYPE_CHECKING:
    from PIL.Image import Image

_TASKS = {"objects": "<OD>", "region_captions": "<DENSE_REGION_CAPTION>"}
"""Florence-2's names of ``perceive.tagging.task``."""

_PLACE = re.compile(r"(?:<loc_\d+>)+")


class Florence2Tagger:
    """Asks Florence-2 for the objects of a picture and takes their names; their boxes are left to detection."""

    def __init__(self, loaded: Loaded, task: str, max_new_tokens: int) -> None:
        self._loaded = loaded
        self._prompt = _TASKS[task]
        self._max_new_tokens = max_new_tokens

    def tag(self, pictures: Sequence[Image]) -> list[tuple[str, ...]]:
        """Return the distinct names of each picture, lower-case, in the order of mention."""
        import torch

        loaded = self._loaded
        inputs = loaded.processor(
            images=list(pictures), text=[self._prompt] * len(pictures), padding=True, return_tensors="pt"
        )
        with torch.inference_mode():
            tokens = loaded.model.generate(
                **loaded.place(inputs), max_new_tokens=self._max_new_tokens, num_beams=1, do_sample=False
            )
        texts = loaded.processor.batch_decode(tokens, skip_special_tokens=False)
        return [names(text) for text in texts]


def names(text: str) -> tuple[str, ...]:
    """Return the distinct names in Florence-2's answer ``name<loc_1><loc_2><loc_3><loc_4>name...``.

    A name without a place is the rest of an answer that was cut off, and dropped.
    """
    plain = re.sub(r"</?s>|<pad>|<unk>", "", text)
    parts = _PLACE.split(plain)[:-1]
    found = (re.sub(r"<[^>]*>", " ", part).strip().lower() for part in parts)
    return tuple(dict.fromkeys(name for name in found if name))


@lru_cache(maxsize=8)
def load_tagger(params: TaggingParams, device: str = "auto") -> Tagger:
    """Load the tagger, once per process and settings."""
    loaded = load("ImageTextToText", params, device, "bfloat16")
    if loaded.kind != "florence2":
        raise InputError(
            f"perceive.tagging.model = {params.model!r} is a {loaded.kind} model. Expected a Florence-2 one, or set "
            "perceive.tags=vocabulary and list the words in perceive.tagging.vocabulary."
        )
    return Florence2Tagger(loaded, params.task, params.max_new_tokens)
