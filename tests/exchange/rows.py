"""Rows of released data, made up: in OSD's manner, with the pictures that they are about."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from srgpt.records import encode_rle

WIDTH, HEIGHT = 48, 32
MENTION = "<mask> <depth>"


def mask(left: int, top: int = 4, width: int = 9, height: int = 12) -> dict[str, Any]:
    """A COCO RLE of a block."""
    pixels = np.zeros((HEIGHT, WIDTH), bool)
    pixels[top : top + height, left : left + width] = True
    return encode_rle(pixels)


def osd_row(number: int, turns: int = 3) -> dict[str, Any]:
    """A row: two blocks, which swap their places in every other row, asked about in turn."""
    rng = np.random.default_rng(number)
    lefts = (2, 30) if number % 2 else (30, 2)
    regions = [(mask(left), [left, 4.0, left + 9, 16.0]) for left in lefts]
    said: list[dict[str, str]] = []
    rle, bbox = [], []
    for turn in range(turns):
        first = int(rng.integers(2))
        asked = [first] if turn % 3 == 2 else [first, 1 - first]
        if len(asked) == 1:
            question = f"What is the width of {MENTION}?"
            answer = f"Region [0] is {rng.integers(10, 90) / 10} feet wide."
        else:
            question = f"Is {MENTION} to the left of {MENTION}?"
            answer = "Yes, Region [0] is." if lefts[first] == 2 else "No, Region [1] is further left."
        said.append({"from": "human", "value": question if turn else f"<image>\n{question}"})
        said.append({"from": "gpt", "value": answer})
        rle += [dict(regions[k][0]) for k in asked]
        bbox += [regions[k][1] for k in asked]
    return {"filename": f"{number:016x}", "conversations": said, "rle": rle, "bbox": bbox}


def llava_row(number: int) -> dict[str, Any]:
    """A row about a picture as a whole."""
    return {
        "id": f"id-{number}",
        "image": f"coco/{number:04d}.jpg",
        "conversations": [
            {"from": "human", "value": "What is in the picture?\n<image>"},
            {"from": "gpt", "value": f"Noise, number {number}."},
            {"from": "human", "value": "Anything else?"},
            {"from": "gpt", "value": "No."},
        ],
    }


def write_rows(path: Path, rows: list[Any], *, lines: bool = False) -> str:
    """Write rows as one array, or on lines of their own."""
    text = "".join(json.dumps(row) + "\n" for row in rows) if lines else json.dumps(rows)
    path.write_text(text)
    return str(path)


def write_pictures(folder: Path, names: list[str], *, depth: bool = True) -> tuple[str, str]:
    """Write a JPEG and a grey depth picture for each name (without suffix); return both folders."""
    for name in names:
        rng = np.random.default_rng(len(name) + sum(map(ord, name)))
        rgb = rng.integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        grey = np.repeat(rng.integers(0, 255, (HEIGHT, WIDTH, 1), dtype=np.uint8), 3, axis=2)
        files = {
            folder / "images" / f"{name}.jpg": (rgb, "JPEG"),
            folder / "depth" / f"{name}.png": (grey, "PNG"),
        }
        for path, (pixels, form) in files.items():
            buffer = io.BytesIO()
            Image.fromarray(pixels).save(buffer, form)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(buffer.getvalue())
    return str(folder / "images"), str(folder / "depth")


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, by its path."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
