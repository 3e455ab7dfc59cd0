"""Procedural textures: how far a surface point is painted in its accent colour.

Each takes surface coordinates ``u`` and ``v`` (N,), already divided by the texture's scale, and returns
(N,) from 0 (base colour) to 1 (accent colour).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


def _plain(u: Floats, v: Floats) -> Floats:
    return np.zeros_like(u)


def _stripes(u: Floats, v: Floats) -> Floats:
    return (np.floor(u * 2) % 2).astype(np.float32)


def _bands(u: Floats, v: Floats) -> Floats:
    return (np.floor(v * 2) % 2).astype(np.float32)


def _checks(u: Floats, v: Floats) -> Floats:
    return ((np.floor(u) + np.floor(v)) % 2).astype(np.float32)


def _noise(u: Floats, v: Floats) -> Floats:
    """Smooth value noise in two octaves."""
    return 0.65 * _lattice(u, v) + 0.35 * _lattice(u * 2.7 + 11.5, v * 2.7 + 4.5)


def _planks(u: Floats, v: Floats) -> Floats:
    """Boards along u, one unit wide, with dark joints and a tone of their own."""
    row = np.floor(v)
    tone = 0.7 * _hash(row, np.floor(u / 4 + _hash(row, np.zeros_like(row))))
    return np.where(v - row < 0.06, np.float32(1), tone).astype(np.float32)


def _bricks(u: Floats, v: Floats) -> Floats:
    row = np.floor(v * 2)
    across = u + 0.5 * (row % 2)
    joint = (across - np.floor(across) < 0.08) | (v * 2 - row < 0.14)
    return np.where(joint, np.float32(1), np.float32(0.35) * _hash(np.floor(across), row)).astype(np.float32)


def _windows(u: Floats, v: Floats) -> Floats:
    x, y = u - np.floor(u), v - np.floor(v)
    return ((x > 0.28) & (x < 0.72) & (y > 0.3) & (y < 0.78)).astype(np.float32)


def _dashes(u: Floats, v: Floats) -> Floats:
    """Gaps of half a unit along v: the broken line of a road."""
    return (v - np.floor(v) > 0.5).astype(np.float32)


def _hash(a: Floats, b: Floats) -> Floats:
    """Scatter whole-number cells over [0, 1)."""
    x = a.astype(np.int64).astype(np.uint32) * np.uint32(0x9E3779B1)
    x ^= b.astype(np.int64).astype(np.uint32) * np.uint32(0x85EBCA77)
    x ^= x >> np.uint32(15)
    x *= np.uint32(0xC2B2AE3D)
    x ^= x >> np.uint32(13)
    return (x >> np.uint32(8)).astype(np.float32) / np.float32(2**24)


def _lattice(u: Floats, v: Floats) -> Floats:
    """Bilinear interpolation of hashed lattice values."""
    column, row = np.floor(u), np.floor(v)
    s, t = u - column, v - row
    low = _hash(column, row) * (1 - s) + _hash(column + 1, row) * s
    high = _hash(column, row + 1) * (1 - s) + _hash(column + 1, row + 1) * s
    return np.asarray(low * (1 - t) + high * t, dtype=np.float32)


TEXTURES: dict[str, Callable[[Floats, Floats], Floats]] = {
    "plain": _plain,
    "stripes": _stripes,
    "bands": _bands,
    "checks": _checks,
    "noise": _noise,
    "planks": _planks,
    "bricks": _bricks,
    "windows": _windows,
    "dashes": _dashes,
}
"""Texture by name."""
