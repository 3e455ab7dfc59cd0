"""A gallery of scenes: pictures with masks and projected boxes, top views, and the questions that were asked.

Scenes are chosen by a hash of their ids, so the choice is even, the same every time, and not by how well a scene
came out. Everything is inline (JPEG as ``data:`` URIs, boxes as SVG), so that the page needs no other file.
"""

from __future__ import annotations

import base64
import heapq
import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from markupsafe import Markup, escape
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy.ndimage import binary_erosion

from srgpt.curation import top_view
from srgpt.curation.checks import (
    bbox_problem,
    box_problem,
    intrinsics_problem,
    mask_columns,
    rotation_problem,
)
from srgpt.curation.frames import Part
from srgpt.geometry.camera import project
from srgpt.records import GROUP_OF, REASONING, Box, decode_rle
from srgpt.storage import digest

Row = dict[str, Any]

COLOURS = ("#56b4e9", "#e69f00", "#2dbb8c", "#e58ec0", "#f0e442", "#f2703a", "#8f9bff", "#b5bcc7")
"""Of regions, repeated from the eighth on; told apart by people with colour blindness (after Okabe and Ito)."""

WIDTH = 400
"""Of a picture on the page, pixels."""

MAX_BYTES = 3_600_000
"""Of all pictures and drawings together; scenes beyond it are left out."""

NEAR = 0.05
"""Metres; box edges nearer to the camera plane are cut off there."""

_QUALITY = 78
_TINT = 0.22
_MENTION = re.compile(r"&lt;region(\d{1,3})&gt;|[Rr]egion \[(\d{1,3})\]")


@dataclass(frozen=True)
class Chosen:
    """A scene with all that the chain made of it."""

    scene: Row
    graph: Row | None
    conversations: tuple[Row, ...]


@dataclass
class Sample:
    """Keeps the ``size`` scenes whose ids have the lowest hashes, of those that ``accepts``."""

    size: int
    purpose: str
    accepts: Callable[[Row], bool] = lambda scene: True
    _heap: list[tuple[int, str, Chosen]] = field(default_factory=list)

    def add(self, part: Part) -> None:
        """Offer the scenes of a group of shards."""
        if self.size < 1:
            return
        graphs = {graph["scene_id"]: graph for graph in part.graphs}
        for scene in part.scenes:
            name = scene["scene_id"]
            rank = -int(digest([self.purpose, scene["dataset"], name])[:15], 16)
            full = len(self._heap) >= self.size
            if (full and rank <= self._heap[0][0]) or not self.accepts(scene):
                continue
            talks = tuple(c for c in part.conversations if c["scene_id"] == name)
            item = (rank, name, Chosen(scene, graphs.get(name), talks))
            if any(held[:2] == item[:2] for held in self._heap):
                continue  # the same id again breaks a rule elsewhere
            (heapq.heapreplace if full else heapq.heappush)(self._heap, item)

    def chosen(self) -> list[Chosen]:
        """Return the scenes kept, in the order of their hashes."""
        return [item[2] for item in sorted(self._heap, key=lambda item: item[:2], reverse=True)]


# Cards ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Asked:
    """One question as the page shows it."""

    question: Markup
    answer: Markup
    category: str
    note: str


@dataclass(frozen=True)
class Card:
    """One scene as the page shows it."""

    scene_id: str
    picture: Markup
    """The picture with its overlay."""
    top: Markup
    """The top view; empty where there is no graph."""
    objects: tuple[tuple[int, str, str, str], ...]
    """Id, colour, label, and what came of it."""
    questions: tuple[Asked, ...]
    names: tuple[str, ...]
    """Object categories, to filter by."""
    groups: tuple[str, ...]
    """Families of the questions, to filter by."""

    @property
    def size(self) -> int:
        """Return about how many bytes the page grows by."""
        return (
            len(self.picture)
            + len(self.top)
            + sum(len(q.question) + len(q.answer) + 200 for q in self.questions)
        )


def cards(chosen: Sequence[Chosen]) -> list[Card]:
    """Draw the scenes; those with unreadable pictures are left out, and what goes beyond :data:`MAX_BYTES`."""
    made: list[Card] = []
    room = MAX_BYTES
    for scene in chosen:
        card = _card(scene)
        if card is not None:
            room -= card.size
            if room < 0:
                break
            made.append(card)
    return made


def _card(chosen: Chosen) -> Card | None:
    scene, graph = chosen.scene, chosen.graph
    try:
        with Image.open(io.BytesIO(scene["image"])) as file:
            picture = file.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    nodes = (graph["nodes"] or []) if graph else []
    things = nodes or scene["regions"] or []
    colours = {thing["id"]: COLOURS[i % len(COLOURS)] for i, thing in enumerate(things)}
    turns = [turn for talk in chosen.conversations for turn in talk["turns"] or []]
    return Card(
        scene["scene_id"],
        _picture(picture, scene, things, colours, graph),
        top_view.draw(graph, scene, colours) if graph else Markup(""),
        tuple((t["id"], colours[t["id"]], t["label"] or t["category"] or "", _fate(t)) for t in things),
        tuple(_asked(turn, colours) for turn in turns),
        tuple(sorted({t["category"] for t in things if t["category"]})),
        tuple(sorted({group_of(turn["category"]) for turn in turns})),
    )


def _fate(thing: Row) -> str:
    """Say what lifting made of an object; nothing where there is a box, or where it was not lifted."""
    return str(thing.get("dropped") or "")


def group_of(category: str | None) -> str:
    """Return the benchmark's group or the family of a question category, or the category itself."""
    family = next((name for name, units in REASONING.items() if category in units), None)
    return GROUP_OF.get(category or "") or family or category or "other"


def _asked(turn: Row, colours: dict[int, str]) -> Asked:
    regions = list(turn["regions"] or [])
    note = _doubt(turn["sigma"], turn["unit"])
    question, answer = turn["question"] or "", turn["answer"] or ""
    return Asked(
        with_chips(question, regions, colours),
        with_chips(answer, regions, colours),
        turn["category"] or "",
        note,
    )


def _doubt(sigma: float | None, unit: str) -> str:
    """Write how uncertain an answer is; nothing where that is next to nothing."""
    if sigma is None or not np.isfinite(sigma) or sigma < 0.005:
        return ""
    if unit == "metres":
        return f"± {sigma * 100:.0f} cm" if sigma < 1 else f"± {sigma:.1f} m"
    if unit == "clock_hours":
        return f"± {sigma * 30:.0f}°" if sigma * 30 >= 1 else ""
    return f"{sigma:.0%} doubt" if unit in ("truth", "region") else f"± {sigma:.2g}"


def with_chips(text: str, regions: Sequence[int], colours: dict[int, str]) -> Markup:
    """Escape a text and show every region that it mentions as a chip with the region's id in the scene."""

    def chip(match: re.Match[str]) -> str:
        number = int(match[1] or match[2])
        if number >= len(regions):
            return match[0]
        region = regions[number]
        return (
            f'<b class="chip" data-r="{region}" style="--c:{colours.get(region, COLOURS[-1])}">{region}</b>'
        )

    return Markup(_MENTION.sub(chip, str(escape(text))))  # noqa: S704 (escaped just before)


# Pictures -------------------------------------------------------------------------------------------------


def _picture(
    picture: Image.Image, scene: Row, things: Sequence[Row], colours: dict[int, str], graph: Row | None
) -> Markup:
    width, height = picture.size
    size = (WIDTH, max(1, round(WIDTH * height / width)))
    masks = {thing["id"]: _mask(thing, picture.size, size) for thing in things}
    drawn = _tinted(picture.resize(size, Image.Resampling.BICUBIC), masks, colours)
    buffer = io.BytesIO()
    drawn.save(buffer, "JPEG", quality=_QUALITY, optimize=True)
    uri = "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
    parts = _boxes(graph, scene, colours) if graph else []
    unit = width / WIDTH
    parts += [_tag(thing, masks[thing["id"]], colours, unit) for thing in things]
    # pixel centres are at integers, so a picture begins half a pixel before them
    return Markup(  # noqa: S704 (numbers, our own colours and base64)
        f'<img src="{uri}" width="{size[0]}" height="{size[1]}" alt="">'
        f'<svg viewBox="-0.5 -0.5 {width} {height}" aria-hidden="true">{"".join(parts)}</svg>'
    )


def _mask(thing: Row, original: tuple[int, int], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Return a region's mask (its box where it has none) at the drawn size, (height, width)."""
    canvas = Image.new("L", original)
    rle = thing["rle"]
    if rle is not None and mask_columns(rle, *original)[0] is None:
        canvas = Image.fromarray(decode_rle(rle).astype(np.uint8) * np.uint8(255))
    elif bbox_problem(thing["bbox"], *original) is None:
        ImageDraw.Draw(canvas).rectangle(thing["bbox"], fill=255)
    return np.asarray(canvas.resize(size, Image.Resampling.BILINEAR)) > 127


def _tinted(
    picture: Image.Image, masks: dict[int, NDArray[np.bool_]], colours: dict[int, str]
) -> Image.Image:
    pixels = np.asarray(picture).astype(np.float32)
    for number, mask in masks.items():
        colour = np.array(list(bytes.fromhex(colours[number][1:])), dtype=np.float32)
        edge = mask & ~binary_erosion(mask, border_value=0)
        pixels[mask] = (1 - _TINT) * pixels[mask] + _TINT * colour
        pixels[edge] = colour
    return Image.fromarray(np.rint(pixels).clip(0, 255).astype(np.uint8))


def _tag(thing: Row, mask: NDArray[np.bool_], colours: dict[int, str], unit: float) -> str:
    """Write an object's id above its mask."""
    rows, columns = np.nonzero(mask)
    if not len(rows):
        return ""
    x = float(columns.min() + columns.max()) / 2 * unit
    y = max(float(rows.min()), 16.0) * unit
    text = str(thing["id"])
    wide = (7 + 7.5 * len(text)) * unit
    return (
        f'<g data-r="{thing["id"]}"><rect x="{x - wide / 2:.1f}" y="{y - 15 * unit:.1f}" width="{wide:.1f}" '
        f'height="{15 * unit:.1f}" rx="{3 * unit:.1f}" fill="{colours[thing["id"]]}"/>'
        f'<text x="{x:.1f}" y="{y - 3.4 * unit:.1f}" style="font-size:{12 * unit:.2f}px">{text}</text></g>'
    )


def _boxes(graph: Row, scene: Row, colours: dict[int, str]) -> list[str]:
    """Draw each object's perceived and true boxes as SVG paths."""
    intrinsics = scene["intrinsics"]
    if intrinsics is None or intrinsics_problem(intrinsics) or rotation_problem(graph["rotation"], None):
        return []
    rotation = np.reshape(graph["rotation"], (3, 3))
    parts = []
    for node in graph["nodes"] or []:
        for kind in ("truth", "perceived"):
            if node[kind] is None or box_problem(node[kind]) is not None:
                continue
            edges = box_edges(Box.from_row(node[kind]), rotation, intrinsics)
            path = "".join(f"M{a[0]:.1f} {a[1]:.1f}L{b[0]:.1f} {b[1]:.1f}" for a, b in edges)
            if path:
                parts.append(
                    f'<path class="{kind} under" d="{path}"/><path class="{kind}" data-r="{node["id"]}" '
                    f'stroke="{colours[node["id"]]}" d="{path}"/>'
                )
    return parts


def box_edges(
    box: Box, rotation: NDArray[np.float64], intrinsics: Sequence[float], near: float = NEAR
) -> NDArray[np.float64]:
    """Return the edges of a canonical box in the picture, (N, 2, 2): from pixel to pixel, N at most 12.

    ``rotation`` (3, 3) maps camera to canonical coordinates. Edges are cut at the plane z = ``near`` metres before
    the camera; those behind it are left out.
    """
    signs = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], dtype=np.float64)
    corners = (
        box.center + signs * box.size / 2
    ) @ rotation  # canonical to camera: the transpose, from the right
    pairs = [(i, j) for i in range(8) for j in range(i + 1, 8) if (signs[i] != signs[j]).sum() == 1]
    edges = []
    for i, j in pairs:
        a, b = corners[i], corners[j]
        if a[2] < near and b[2] < near:
            continue
        if a[2] < near:
            a = b + (a - b) * (b[2] - near) / (b[2] - a[2])
        elif b[2] < near:
            b = a + (b - a) * (a[2] - near) / (a[2] - b[2])
        edges.append(project(np.stack([a, b]), intrinsics))
    return np.array(edges, dtype=np.float64).reshape(-1, 2, 2)
