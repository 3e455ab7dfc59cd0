"""Attention over a packed batch: all tokens of all samples in one row, every segment seeing its own sample only.

A batch of S samples is one row of N tokens without padding, so that all layers but attention compute what counts
only. A sample is a *prefix* (its picture) and *segments* (its turns); a segment sees the prefix and itself, causally.
Attention gathers the row into blocks and scatters its result back:

    tokens (N)   p p p a a b b b | p p p c c c c d d ...              p: prefix; a, b, c, d: segments
    prefixes     queries (S, P)           keys (S, P)                 causal
    blocks       queries (T, Q): a a b b  keys (T, P + Q): p p p a a b b      by a mask

A block has several short segments of one sample, up to about the prefix's length, so that neither padding nor copies
of the prefix outweigh what is computed. The cost is that of every segment with its prefix, not of N by N.

Axes: N tokens, M places of all blocks (S * P + T * Q), S samples, P longest prefix, T blocks, Q longest block, H heads,
D width of a head.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from srgpt.errors import InputError

PACKED = "srgpt_packed"
"""Name of this attention among transformers': ``llm.set_attn_implementation(PACKED)``."""

SHORTEST_BLOCK = 64
"""A block is filled up to the longest prefix, or to so many tokens where that is longer."""

_MULTIPLE = 8
"""Blocks' lengths are rounded up to it, as fast kernels want masks."""


@dataclass(frozen=True, eq=False)
class PackedLayout:
    """Where the tokens of a packed row stand in the blocks; made by :func:`packed_layout`.

    ``index`` (M,) is the token at each place, 0 where there is none; ``places`` (N,) the place of each token;
    ``positions`` (M,) its position in its sequence; ``owner`` (T,) the sample of each block; ``mask`` (T, 1, Q, P + Q)
    what each place of a block sees.
    """

    index: Tensor
    places: Tensor
    positions: Tensor
    owner: Tensor
    mask: Tensor
    samples: int
    prefix: int

    def to(self, device: torch.device | str, non_blocking: bool = False) -> PackedLayout:
        """Return the layout on a device."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> PackedLayout:
        """Return the layout in pinned memory."""
        return self._each(torch.Tensor.pin_memory)

    def _each(self, change: Any) -> PackedLayout:
        found = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(self, **{k: change(v) for k, v in found.items() if isinstance(v, Tensor)})

    def split(self, places_MHD: Tensor) -> tuple[Tensor, Tensor]:
        """Return the prefixes (S, P, H, D) and the blocks (T, Q, H, D)."""
        size = self.samples * self.prefix
        tail = places_MHD.shape[1:]
        return (
            places_MHD[:size].view(self.samples, self.prefix, *tail),
            places_MHD[size:].view(len(self.owner), -1, *tail),
        )


def packed_layout(
    prefixes: Sequence[int], segments: Sequence[Sequence[int]], *, block: int | None = None
) -> PackedLayout:
    """Lay out a row of samples, each a prefix of ``prefixes[s]`` tokens followed by segments of ``segments[s]`` each.

    ``block`` is the length up to which segments share a block. Raises :class:`InputError` where there is no segment.
    """
    if not any(n for lengths in segments for n in lengths):
        raise InputError("a packed batch needs at least one segment with tokens")
    prefix = max(prefixes)
    limit = max(prefix, SHORTEST_BLOCK) if block is None else block
    blocks = [(s, found) for s, lengths in enumerate(segments) for found in _fill(lengths, limit)]
    size = -(-max(sum(found) for _, found in blocks) // _MULTIPLE) * _MULTIPLE
    samples, count = len(prefixes), len(blocks)
    index_SP, index_TQ = np.zeros((samples, prefix), np.int64), np.zeros((count, size), np.int64)
    positions_SP, positions_TQ = np.zeros_like(index_SP), np.zeros_like(index_TQ)
    number_TQ = np.full((count, size), -1, np.int64)
    places: list[np.ndarray[Any, Any]] = []
    start, done = 0, 0
    for s, length in enumerate(prefixes):
        index_SP[s, :length] = np.arange(start, start + length)
        positions_SP[s, :length] = np.arange(length)
        places.append(s * prefix + np.arange(length))
        start += length
        while done < count and blocks[done][0] == s:
            lengths = blocks[done][1]
            total = sum(lengths)
            index_TQ[done, :total] = np.arange(start, start + total)
            positions_TQ[done, :total] = length + np.concatenate([np.arange(n) for n in lengths])
            number_TQ[done, :total] = np.repeat(np.arange(len(lengths)), lengths)
            places.append(samples * prefix + done * size + np.arange(total))
            start, done = start + total, done + 1
    owner = np.array([s for s, _ in blocks])
    own_TQQ = (number_TQ[:, :, None] == number_TQ[:, None, :]) & np.tri(size, dtype=bool)
    first_TQP = np.broadcast_to(
        (np.arange(prefix) < np.array(prefixes)[owner, None])[:, None], (count, size, prefix)
    )
    return PackedLayout(
        torch.from_numpy(np.concatenate([index_SP.ravel(), index_TQ.ravel()])),
        torch.from_numpy(np.concatenate(places)),
        torch.from_numpy(np.concatenate([positions_SP.ravel(), positions_TQ.ravel()])),
        torch.from_numpy(owner),
        torch.from_numpy(np.concatenate([first_TQP, own_TQQ], axis=2)[:, None]),
        samples,
        prefix,
    )


def _fill(lengths: Sequence[int], limit: int) -> Iterator[list[int]]:
    """Yield runs of segments of at most ``limit`` tokens together; a longer segment is a run by itself."""
    run: list[int] = []
    for length in lengths:
        if run and sum(run) + length > limit:
            yield run
            run = []
        run.append(length)
    if run:
        yield run


# The attention function -----------------------------------------------------------------------------------


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    packing: PackedLayout | None = None,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attend by the layout ``packing``; without one, as ``sdpa`` does by ``attention_mask``.

    ``query`` (1, H, N, D), ``key`` and ``value`` (1, H', N, D), with H a multiple of H'. Returns (1, N, H, D). Raises
    :class:`InputError` where a model asks for what is not computed here (attention sinks, two-way attention).
    """
    if packing is None:
        if softcap is None:
            return sdpa_attention_forward(
                module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
            )
        key, value = _per_query_head(module, key), _per_query_head(module, value)
        out = _attend(query, key, value, attention_mask, dropout, scaling, softcap)
        return out.transpose(1, 2).contiguous(), None
    _refuse(module, kwargs)
    spread = [_Spread.apply(x[0].transpose(0, 1), packing.index, packing.places) for x in (query, key, value)]
    (q_SPHD, q_TQHD), (k_SPHD, k_TQHD), (v_SPHD, v_TQHD) = (packing.split(x) for x in spread)
    prefix_mask, mask = _masks(packing, sliding_window)
    keys, values = (
        _per_query_head(module, torch.cat([_Repeat.apply(first, packing.owner), own], 1).transpose(1, 2))
        for first, own in ((k_SPHD, k_TQHD), (v_SPHD, v_TQHD))
    )
    turns = _attend(q_TQHD.transpose(1, 2), keys, values, mask, dropout, scaling, softcap)
    results = [turns.transpose(1, 2).flatten(0, 1)]
    if packing.prefix:
        heads = [x.transpose(1, 2) for x in (q_SPHD, k_SPHD, v_SPHD)]
        heads[1:] = [_per_query_head(module, x) for x in heads[1:]]
        first = _attend(*heads, prefix_mask, dropout, scaling, softcap)
        results.insert(0, first.transpose(1, 2).flatten(0, 1))
    return _Collect.apply(torch.cat(results), packing.places)[None], None


def _refuse(module: nn.Module, kwargs: dict[str, Any]) -> None:
    """Raise where the model's attention has something that a packed one would leave out."""
    found = [name for name in ("s_aux", "position_bias", "cache") if kwargs.get(name) is not None]
    if not getattr(module, "is_causal", True):
        found.append("two-way attention")
    if found:
        raise InputError(
            f"{type(module).__name__} uses {', '.join(found)}, which packed training does not compute; "
            "train another language model (Llama, Qwen3 and Gemma are tested)"
        )


def _masks(packing: PackedLayout, window: int | None) -> tuple[Tensor | None, Tensor]:
    """Return the masks of prefixes (None: causal) and of blocks; a window hides what is farther back than it."""
    if window is None:
        return None, packing.mask
    first, own = packing.split(packing.positions)
    mask = packing.mask
    reach = torch.cat([torch.arange(packing.prefix, device=own.device).expand(len(own), -1), own], 1)
    mask = mask & (own[:, None, :, None] - reach[:, None, None, :] < window)
    steps = torch.arange(packing.prefix, device=first.device)
    apart = steps[:, None] - steps
    return ((apart >= 0) & (apart < window))[None, None], mask


def _per_query_head(module: nn.Module, heads: Tensor) -> Tensor:
    return repeat_kv(heads, int(getattr(module, "num_key_value_groups", 1)))


def _attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    dropout: float,
    scaling: float | None,
    softcap: float | None,
) -> Tensor:
    """Attend in (B, H, L, D); without a ``mask``, causally. ``softcap`` bounds scores as Gemma 2 does."""
    if softcap is None:
        return nn.functional.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, dropout_p=dropout, scale=scaling, is_causal=mask is None
        )
    scores = query @ key.transpose(2, 3) * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    scores = softcap * torch.tanh(scores / softcap)
    if mask is None:
        length = query.shape[2]
        mask = torch.ones((length, length), dtype=torch.bool, device=query.device).tril()
    hidden = torch.finfo(scores.dtype).min
    scores = scores.masked_fill(~mask, hidden) if mask.dtype == torch.bool else scores + mask
    weights = nn.functional.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)
    return nn.functional.dropout(weights, p=dropout) @ value


# Gathering and scattering ---------------------------------------------------------------------------------
#
# Every token has one place, so both ways are plain reads: no sums in an order that differs from run to run, as the
# gradient of general indexing has them on a GPU.


class _Spread(torch.autograd.Function):
    """From tokens (N, ...) to places (M, ...); what stands at places without a token is never used."""

    @staticmethod
    def forward(ctx: Any, tokens: Tensor, index: Tensor, places: Tensor) -> Tensor:
        ctx.save_for_backward(places)
        return tokens[index]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (places,) = ctx.saved_tensors
        return grad[places], None, None


class _Collect(torch.autograd.Function):
    """From places (M, ...) to tokens (N, ...)."""

    @staticmethod
    def forward(ctx: Any, spread: Tensor, places: Tensor) -> Tensor:
        ctx.save_for_backward(places)
        ctx.size = len(spread)
        return spread[places]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (places,) = ctx.saved_tensors
        result = grad.new_zeros(ctx.size, *grad.shape[1:])
        result[places] = grad
        return result, None


class _Repeat(torch.autograd.Function):
    """From samples (S, ...) to their blocks (T, ...)."""

    @staticmethod
    def forward(ctx: Any, samples: Tensor, owner: Tensor) -> Tensor:
        ctx.save_for_backward(owner)
        ctx.count = len(samples)
        return samples[owner]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (owner,) = ctx.saved_tensors
        sums = nn.functional.one_hot(owner, ctx.count).T.to(grad.dtype) @ grad.flatten(1)
        return sums.view(ctx.count, *grad.shape[1:]), None


ALL_ATTENTION_FUNCTIONS.register(PACKED, packed_attention)
# asked for only where there is no layout: a packed call hands in a mask that is taken as it is
ALL_MASK_ATTENTION_FUNCTIONS.register(PACKED, sdpa_mask)
