"""Attention over a packed batch: all tokens of all samples in one row, every segment seeing its own sample only.

A batch of S samples is one row of N tokens without padding, so that all layers but attention compute what counts
only. A sample is a *prefix* (its picture) and *segments* (its turns); a segment sees the prefix and itself, causally.
Attention gathers the row into blocks and scatters its result back:

    tokens (N)   p p p a a b b b | p p p c c c c d d ...              p: prefix; a, b, c, d: segments
    prefixes     queries (S, P)           keys (S, P)                 causal
    blocks       queries (T, Q): a a b b  keys (T, P + Q): p p p a a b b      by a mask

A block has several short segments of one sample, up to about the prefix's length, so that neither padding nor copies
of the prefix outweigh what is computed; blocks with longer segments are computed apart. The cost is that of every
segment with its prefix, not of N by N.

Axes: N tokens, M places of all blocks, S samples, P longest prefix, T blocks, Q longest block, H heads, D width of a
head.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
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

SHORTEST_LIMIT = 64
"""Segments share a block up to the longest prefix's length, or up to this where that is shorter."""

_MULTIPLE = 8
"""Blocks' lengths are rounded up to it, as fast kernels want masks."""


@dataclass(frozen=True, eq=False)
class Blocks:
    """Blocks of about one length: ``owner`` (T,) is each one's sample, ``mask`` (T, 1, Q, P + Q) what places see."""

    owner: Tensor
    mask: Tensor


@dataclass(frozen=True, eq=False)
class PackedLayout:
    """Where the tokens of a packed row stand in prefixes and blocks; made by :func:`packed_layout`.

    ``index`` (M,) is the token at each place, 0 where there is none; ``places`` (N,) the place of each token;
    ``positions`` (M,) its position in its sequence. ``samples`` and ``prefix`` are S and P.
    """

    index: Tensor
    places: Tensor
    positions: Tensor
    blocks: tuple[Blocks, ...]
    samples: int
    prefix: int

    def to(self, device: torch.device | str, non_blocking: bool = False) -> PackedLayout:
        """Return the layout on a device."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> PackedLayout:
        """Return the layout in pinned memory."""
        return self._each(torch.Tensor.pin_memory)

    def _each(self, change: Callable[[Tensor], Tensor]) -> PackedLayout:
        return replace(
            self,
            index=change(self.index),
            places=change(self.places),
            positions=change(self.positions),
            blocks=tuple(Blocks(change(b.owner), change(b.mask)) for b in self.blocks),
        )

    def split(self, places: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the prefixes (S, P, ...) and the blocks (T, Q, ...) of a tensor (M, ...)."""
        shapes = [(self.samples, self.prefix), *((b.mask.shape[0], b.mask.shape[2]) for b in self.blocks)]
        parts = places.split([rows * columns for rows, columns in shapes])
        first, *rest = (
            part.view(*shape, *places.shape[1:]) for part, shape in zip(parts, shapes, strict=True)
        )
        return first, rest


def packed_layout(
    prefixes: Sequence[int], segments: Sequence[Sequence[int]], *, limit: int | None = None
) -> PackedLayout:
    """Lay out a row of samples, each a prefix of ``prefixes[s]`` tokens followed by segments of ``segments[s]`` each.

    ``limit`` is the length up to which segments share a block. Raises :class:`InputError` where there is no segment.
    """
    if not any(n for lengths in segments for n in lengths):
        raise InputError("a packed batch needs at least one segment with tokens")
    prefix = max(prefixes)
    limit = limit or max(prefix, SHORTEST_LIMIT)
    groups: dict[int, list[_Block]] = {}
    table = _Table(len(prefixes), prefix)
    start = 0
    for sample, first in enumerate(prefixes):
        table.put(sample, [first], start, 0)
        start += first
        for lengths in _fill(segments[sample], limit):
            block = _Block(sample, start, first, lengths)
            # blocks of at most the limit, of at most twice it, four times, ...
            groups.setdefault(max(0, (block.size - 1) // limit).bit_length(), []).append(block)
            start += block.size
    tables = [table]
    blocks = []
    for found in (groups[k] for k in sorted(groups)):
        size = -(-max(b.size for b in found) // _MULTIPLE) * _MULTIPLE
        tables.append(table := _Table(len(found), size))
        for row, block in enumerate(found):
            table.put(row, block.lengths, block.start, block.first)
        blocks.append(_blocks(found, table, prefixes))
    index = np.concatenate([t.index.ravel() for t in tables])
    places = np.empty(start, np.int64)
    used = np.concatenate([t.number.ravel() for t in tables]) >= 0
    places[index[used]] = np.flatnonzero(used)
    positions = np.concatenate([t.positions.ravel() for t in tables])
    return PackedLayout(
        torch.from_numpy(index),
        torch.from_numpy(places),
        torch.from_numpy(positions),
        tuple(blocks),
        len(prefixes),
        prefix,
    )


@dataclass(frozen=True)
class _Block:
    """Segments of ``lengths`` of one sample, from token ``start`` on, after a prefix of ``first`` tokens."""

    sample: int
    start: int
    first: int
    lengths: list[int]

    @property
    def size(self) -> int:
        return sum(self.lengths)


class _Table:
    """Rows of places: the token at each, its position, and the number of its segment in the row (-1: no token)."""

    def __init__(self, rows: int, columns: int) -> None:
        self.index = np.zeros((rows, columns), np.int64)
        self.positions = np.zeros((rows, columns), np.int64)
        self.number = np.full((rows, columns), -1, np.int64)

    def put(self, row: int, lengths: Sequence[int], start: int, position: int) -> None:
        total = sum(lengths)
        self.index[row, :total] = np.arange(start, start + total)
        self.positions[row, :total] = position + np.concatenate([np.arange(n) for n in lengths])
        self.number[row, :total] = np.repeat(np.arange(len(lengths)), lengths)


def _blocks(found: Sequence[_Block], table: _Table, prefixes: Sequence[int]) -> Blocks:
    """Return the owners and the mask: a place sees its sample's prefix, and its segment up to itself.

    A place without a token sees its like, so that no row of the mask is empty.
    """
    rows, size = table.number.shape
    prefix = max(prefixes)
    lengths = np.array([b.first for b in found])
    first = np.broadcast_to((np.arange(prefix) < lengths[:, None])[:, None], (rows, size, prefix))
    own = (table.number[:, :, None] == table.number[:, None, :]) & np.tri(size, dtype=bool)
    return Blocks(
        torch.tensor([b.sample for b in found]), torch.from_numpy(np.concatenate([first, own], 2)[:, None])
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
        q, k, v = (x.transpose(1, 2) for x in (query, key, value))
        out = _attend(module, q, k, v, attention_mask, dropout=dropout, scaling=scaling, softcap=softcap)
        return out.contiguous(), None
    _refuse(module, kwargs)
    parts = [
        packing.split(_Spread.apply(x[0].transpose(0, 1), packing.index, packing.places))
        for x in (query, key, value)
    ]
    (q_SPHD, queries), (k_SPHD, keys), (v_SPHD, values) = parts
    attend = partial(_attend, module, dropout=dropout, scaling=scaling, softcap=softcap)
    results = []
    if packing.prefix:
        results.append(attend(q_SPHD, k_SPHD, v_SPHD, _prefix_mask(packing, sliding_window)))
    for blocks, mask, q_TQHD, k_TQHD, v_TQHD in zip(
        packing.blocks, _block_masks(packing, sliding_window), queries, keys, values, strict=True
    ):
        k, v = (
            torch.cat([_Repeat.apply(first, blocks.owner), own], 1)
            for first, own in ((k_SPHD, k_TQHD), (v_SPHD, v_TQHD))
        )
        results.append(attend(q_TQHD, k, v, mask))
    return _Collect.apply(torch.cat([r.flatten(0, 1) for r in results]), packing.places)[None], None


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


def _prefix_mask(packing: PackedLayout, window: int | None) -> Tensor | None:
    """Return the mask of the prefixes (None: causal); a window hides what is as far back as its width."""
    if window is None:
        return None
    steps = torch.arange(packing.prefix, device=packing.index.device)
    apart = steps[:, None] - steps
    return ((apart >= 0) & (apart < window))[None, None]


def _block_masks(packing: PackedLayout, window: int | None) -> list[Tensor]:
    if window is None:
        return [b.mask for b in packing.blocks]
    steps = torch.arange(packing.prefix, device=packing.index.device)
    masks = []
    for blocks, own in zip(packing.blocks, packing.split(packing.positions)[1], strict=True):
        seen = torch.cat([steps.expand(len(own), -1), own], 1)
        masks.append(blocks.mask & (own[:, None, :, None] - seen[:, None, None, :] < window))
    return masks


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    *,
    dropout: float,
    scaling: float | None,
    softcap: float | None,
) -> Tensor:
    """Attend in (B, L, H, D) with fewer heads of keys and values; without a ``mask``, causally.

    ``softcap`` bounds the scores as Gemma 2 does.
    """
    groups = int(getattr(module, "num_key_value_groups", 1))
    query, key, value = query.transpose(1, 2), *(repeat_kv(x.transpose(1, 2), groups) for x in (key, value))
    if softcap is None:
        out = nn.functional.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, dropout_p=dropout, scale=scaling, is_causal=mask is None
        )
        return out.transpose(1, 2)
    scores = query @ key.transpose(2, 3) * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    scores = softcap * torch.tanh(scores / softcap)
    if mask is None:
        length = query.shape[2]
        mask = torch.ones((length, length), dtype=torch.bool, device=query.device).tril()
    scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    weights = nn.functional.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)
    return (nn.functional.dropout(weights, p=dropout) @ value).transpose(1, 2)


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
