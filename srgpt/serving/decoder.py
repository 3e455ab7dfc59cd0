"""Greedy decoding in batches over an ONNX decoder with a KV cache.

Sequences of different lengths share one buffer per layer: row b is a slot, its tokens stand from position 0
on, and what is right of its length is never looked at, because the attention mask gives each row's length.
The same buffer is bound as past and as present, so nothing is copied between steps.

    slot 0  | p p p p a a a . . |      p prompt, a answer so far, . free
    slot 1  | p p a a a . . . . |
    slot 2  | p p p p p a a a . |

Axes: B slots, T tokens, D the model's width, V its vocabulary, N capacity of a slot.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from srgpt.errors import SrgptError
from srgpt.serving.bundle import Bundle

_DTYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
_BLOCK = 64
"""Slots grow in steps of this many tokens."""

Array = NDArray[np.float32]


class Decoder:
    """The language model of an export."""

    def __init__(self, bundle: Bundle) -> None:
        settings = bundle.model["decoder"]
        self.session = bundle.session("decoder/model.onnx")
        self.embeddings = bundle.embeddings()
        self.eos = frozenset(int(i) for i in settings["eos_token_ids"])
        self.max_length = int(settings["max_length"])
        self._cache_shape = (int(settings["kv_heads"]), int(settings["head_dim"]))
        inputs = {i.name: i for i in self.session.get_inputs()}
        self._past = [name for name in inputs if name.startswith("past_key_values.")]
        self._dtype = _DTYPES[inputs["inputs_embeds"].type]
        self._device = "cuda" if "CUDAExecutionProvider" in bundle.providers else "cpu"

    def embed(self, ids: NDArray[np.int64]) -> Array:
        """Return the embeddings (T, D) of token ids (T,)."""
        # <image>, which features replace, may lie beyond the language model's vocabulary
        return np.asarray(self.embeddings[np.where(ids < len(self.embeddings), ids, 0)], dtype=np.float32)

    def logits(self, prompt_TD: Array) -> Array:
        """Return the logits (T, V) of one whole sequence of embeddings."""
        return self._run(prompt_TD[None], [len(prompt_TD)], self._buffers(1, len(prompt_TD)))[0]

    def generate(self, prompts: Sequence[Array], max_new_tokens: int) -> list[list[int]]:
        """Return the greedy continuation of each prompt (T, D), up to and without its end token."""
        longest = max(len(p) for p in prompts)
        if longest + max_new_tokens > self.max_length:
            raise SrgptError(
                f"a prompt of {longest} tokens and {max_new_tokens} new ones exceed the model's limit of "
                f"{self.max_length}"
            )
        lengths = [len(p) for p in prompts]
        buffers = self._buffers(len(prompts), longest + max_new_tokens)
        embeds_BTD = np.zeros((len(prompts), longest, prompts[0].shape[1]), dtype=np.float32)
        for row, prompt in enumerate(prompts):
            embeds_BTD[row, : len(prompt)] = prompt
        logits_BTV = self._run(embeds_BTD, lengths, buffers)
        tokens = logits_BTV[np.arange(len(prompts)), np.array(lengths) - 1].argmax(axis=-1)
        return self._decode(tokens, lengths, buffers, max_new_tokens)

    def _decode(
        self, tokens: NDArray[np.int64], lengths: list[int], buffers: list[ort.OrtValue], steps: int
    ) -> list[list[int]]:
        answers: list[list[int]] = [[] for _ in lengths]
        ended = [False] * len(lengths)
        for step in range(steps):
            for row, token in enumerate(tokens):
                ended[row] = ended[row] or int(token) in self.eos
                if not ended[row]:
                    answers[row].append(int(token))
            if all(ended) or step == steps - 1:
                break
            # an ended row idles: it decodes into its own slot, and nobody reads it
            lengths = [length + 1 for length in lengths]
            embeds_BTD = self.embed(tokens)[:, None]
            tokens = self._run(embeds_BTD, lengths, buffers)[:, -1].argmax(axis=-1)
        return answers

    def _buffers(self, slots: int, capacity: int) -> list[ort.OrtValue]:
        """Make one empty KV buffer (B, heads, N, head size) per past input."""
        heads, size = self._cache_shape
        rounded = -(-capacity // _BLOCK) * _BLOCK
        empty = np.zeros((slots, heads, rounded, size), dtype=self._dtype)
        return [ort.OrtValue.ortvalue_from_numpy(empty.copy(), self._device) for _ in self._past]

    def _run(self, embeds_BTD: Array, lengths: Sequence[int], buffers: list[ort.OrtValue]) -> Array:
        """Run one step to logits (B, T, V); ``lengths`` are the rows' lengths with the new tokens."""
        mask = (np.arange(max(lengths))[None] < np.array(lengths)[:, None]).astype(np.int64)
        binding = self.session.io_binding()
        binding.bind_cpu_input("inputs_embeds", np.ascontiguousarray(embeds_BTD, dtype=self._dtype))
        binding.bind_cpu_input("attention_mask", mask)
        for name, buffer in zip(self._past, buffers, strict=True):
            binding.bind_ortvalue_input(name, buffer)
            binding.bind_ortvalue_output(name.replace("past_key_values", "present"), buffer)
        binding.bind_output("logits", "cpu")
        self.session.run_with_iobinding(binding)
        # outputs come in the order in which they were bound: logits were last
        return np.asarray(binding.get_outputs()[-1].numpy(), dtype=np.float32)
