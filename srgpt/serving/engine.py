"""The engine: answers batches of requests from an export, on ONNX Runtime.

What becomes of a request (the first line once per image; its features are kept for the next question)::

    image, depth --prepare--> pixels --tower, connector--> image tokens, feature maps
    regions ------prepare--> masks (points) --region graphs--> an embedding each
    question ----tokenizer--> token embeddings, the above put in their places --decoder--> answer
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from srgpt.errors import SrgptError
from srgpt.serving.bundle import open_bundle
from srgpt.serving.decoder import Decoder
from srgpt.serving.preprocess import Prepared, Preprocessor
from srgpt.serving.protocol import Answer, Request, RequestError, read_answer

log = logging.getLogger(__name__)

Array = NDArray[np.float32]

CACHE_BYTES = 256 * 2**20
"""How much memory the features of images seen before may take."""


@dataclass(frozen=True, eq=False)
class ImageFeatures:
    """An RGB image's tokens (T, D) and refined map (16 L, C), or a depth image's features (L, C) as map."""

    tokens: Array
    map: Array


class Engine:
    """One exported model, opened. Not for use from several threads at once.

    ``folder`` is the export's ``onnx`` folder. ``name`` and ``identity``, the export's hash (that of the graphs
    where it is not given), become the answers' ``model``.
    """

    def __init__(
        self,
        folder: Path,
        *,
        name: str = "srgpt",
        identity: str = "",
        device: str = "cpu",
        threads: int = 0,
        max_batch: int = 16,
        max_new_tokens: int = 32,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        bundle = open_bundle(folder, device=device, threads=threads)
        self.version = f"{name}@{(identity or bundle.hash)[:12]}"
        self.max_batch = max_batch
        self.max_new_tokens = max_new_tokens
        self.preprocessor = Preprocessor(bundle.model["processor"])
        self.decoder = Decoder(bundle)
        self._tower = bundle.session("tower.onnx")
        self._connector = bundle.session("connector.onnx")
        self._region = bundle.session("region.onnx")
        depth_graph = {"relative": "depth_region.onnx", "metric": "points.onnx"}.get(self.preprocessor.form)
        self._depth_region = None if depth_graph is None else bundle.session(depth_graph)
        self._ids: dict[str, int] = bundle.model["processor"]["token_ids"]
        self._tokenizer = bundle.tokenizer()
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._features = _Cache(cache_bytes)

    def answer(self, requests: Sequence[Request]) -> list[Answer | RequestError]:
        """Answer a batch; a request that cannot be answered gets its error, and the others their answers."""
        results: list[Answer | RequestError | None] = [None] * len(requests)
        for start in range(0, len(requests), self.max_batch):
            chunk = range(start, min(start + self.max_batch, len(requests)))
            self._answer_chunk([requests[i] for i in chunk], results, start)
        assert all(r is not None for r in results)
        return results  # type: ignore[return-value]

    def ask(self, request: Request) -> Answer:
        """Answer one request; raise :class:`RequestError` where it cannot be."""
        result = self.answer([request])[0]
        if isinstance(result, RequestError):
            raise result
        return result

    def prompt(self, request: Request) -> Array:
        """Return the embeddings (T, D) that the decoder would get for one request."""
        prepared = self.preprocessor.prepare(request)
        self._encode_images([prepared])
        return self._prompt(prepared)

    def tokenise(self, text: str) -> list[int]:
        """Return the token ids of a text, without any special tokens added."""
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    # One batch ----------------------------------------------------------------------------------------

    def _answer_chunk(
        self, requests: list[Request], results: list[Answer | RequestError | None], offset: int
    ) -> None:
        clock = _Clock()
        ready: list[tuple[int, Prepared]] = []
        for i, request in enumerate(requests):
            outcome = _guard(lambda r=request: self.preprocessor.prepare(r))  # type: ignore[misc]
            if isinstance(outcome, RequestError):
                results[offset + i] = outcome
            else:
                ready.append((i, outcome))
        clock.lap("preprocess")
        self._encode_images([p for _, p in ready])
        prompts: list[tuple[int, Array]] = []
        for i, prepared in ready:
            prompt = _guard(lambda p=prepared: self._fitting_prompt(p))  # type: ignore[misc]
            if isinstance(prompt, RequestError):
                results[offset + i] = prompt
            else:
                prompts.append((i, prompt))
        clock.lap("vision")
        if not prompts:
            return
        outputs = self.decoder.generate([p for _, p in prompts], self.max_new_tokens)
        clock.lap("decode")
        for (i, _), ids in zip(prompts, outputs, strict=True):
            text = self._tokenizer.decode(ids, skip_special_tokens=True).strip()
            value, unit = read_answer(text)
            results[offset + i] = Answer(text, value, unit, self.version, clock.laps)

    def _encode_images(self, batch: Sequence[Prepared]) -> None:
        """Put the features of the batch's images into the cache, the new ones computed together."""
        self._features.pin({key for p in batch for key in (p.image_key, p.depth_key)})
        rgb = {p.image_key: p.picture.rgb for p in batch if p.image_key not in self._features}
        depth = {
            p.depth_key: p.picture.depth
            for p in batch
            if p.picture.depth is not None and p.depth_key not in self._features
        }
        if not rgb and not depth:
            return
        pixels = [self.preprocessor.normalise(image) for image in (*rgb.values(), *depth.values())]
        (features,) = self._tower.run(None, {"pixels": np.stack(pixels)})
        if rgb:
            tokens, maps = self._connector.run(None, {"features": features[: len(rgb)]})
            for key, token, map_ in zip(rgb, tokens, maps, strict=True):
                self._features.put(key, ImageFeatures(token, map_))
        for key, map_ in zip(depth, features[len(rgb) :], strict=True):
            self._features.put(key, ImageFeatures(np.zeros((0, 0), np.float32), map_))

    def _fitting_prompt(self, prepared: Prepared) -> Array:
        prompt = self._prompt(prepared)
        room = self.decoder.max_length - self.max_new_tokens
        if len(prompt) > room:
            raise RequestError(f"question: makes a prompt of {len(prompt)} tokens, the model takes {room}")
        return prompt

    def _prompt(self, prepared: Prepared) -> Array:
        template = self.preprocessor.template
        ids = np.array(
            [*self.tokenise(template.prefix(prepared.inputs)), *self.tokenise(prepared.turn)], dtype=np.int64
        )
        embeds_TD = self.decoder.embed(ids)
        image = self._features[prepared.image_key]
        _place(embeds_TD, ids == self._ids["image"], image.tokens)
        if prepared.mentions:
            order = list(prepared.mentions)
            masks = prepared.picture.masks.astype(np.float32) / np.float32(255)
            (regions,) = self._region.run(None, {"map": image.map, "masks": masks})
            _place(embeds_TD, ids == self._ids["mask"], regions[order])
            if prepared.inputs == "rgbd":
                _place(embeds_TD, ids == self._ids["depth"], self._depths(prepared, masks)[order])
        return embeds_TD

    def _depths(self, prepared: Prepared, masks: Array) -> Array:
        assert self._depth_region is not None
        if prepared.picture.points is not None:
            (depths,) = self._depth_region.run(None, {"points_RN3": prepared.picture.points})
        else:
            map_ = self._features[prepared.depth_key].map
            (depths,) = self._depth_region.run(None, {"map": map_, "masks": masks})
        found: Array = depths
        return found


class _Cache:
    """Features by the hash of the image they came from: least recently used go first, a batch's own stay."""

    def __init__(self, limit: int) -> None:
        self._items: OrderedDict[str, ImageFeatures] = OrderedDict()
        self._pinned: set[str] = set()
        self._limit = limit

    def __contains__(self, key: str) -> bool:
        return key in self._items

    def __getitem__(self, key: str) -> ImageFeatures:
        self._items.move_to_end(key)
        return self._items[key]

    def pin(self, keys: set[str]) -> None:
        """Keep these until the next call; let go of what is too much."""
        self._pinned = keys
        self._shrink()

    def put(self, key: str, features: ImageFeatures) -> None:
        # a view would keep the whole batch's array alive
        self._items[key] = ImageFeatures(features.tokens.copy(), features.map.copy())
        self._shrink()

    def _shrink(self) -> None:
        used = sum(f.tokens.nbytes + f.map.nbytes for f in self._items.values())
        for key in [k for k in self._items if k not in self._pinned]:
            if used <= self._limit:
                return
            gone = self._items.pop(key)
            used -= gone.tokens.nbytes + gone.map.nbytes


class _Clock:
    """Milliseconds since the last lap, by name."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.laps[name] = round(1000 * (now - self._last), 3)
        self._last = now


def _guard(function: Callable[[], Any]) -> Any:
    """Return what ``function`` returns, or its failure as an error that concerns one request only."""
    try:
        return function()
    except RequestError as error:
        return error
    except Exception as error:
        log.exception("a request failed in an unexpected way")
        return RequestError(f"this request could not be processed ({type(error).__name__}: {error})")


def _place(embeds_TD: Array, where_T: NDArray[np.bool_], features_ND: Array) -> None:
    if int(where_T.sum()) != len(features_ND):
        raise SrgptError(f"{int(where_T.sum())} placeholders in the prompt for {len(features_ND)} features")
    embeds_TD[where_T] = features_ND
