"""A scene graph from above: x to the right, z away from the camera, footprints of boxes, the camera's view."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup, escape

from srgpt.curation.checks import box_problem, intrinsics_problem, rotation_problem

Row = dict[str, Any]

SIZE = (400, 300)
"""Width and height, pixels."""

_MARGIN = 16
_STEPS = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0)
_FONT = 10.5
_CROWD = 14
"""With more objects there is no room for their names."""


def draw(graph: Row, scene: Row, colours: Mapping[int, str]) -> Markup:
    """Return the top view of a graph's row as inline SVG; perceived footprints are filled, true ones dashed.

    ``scene`` gives the intrinsics for the field of view, ``colours`` a colour for each node's id.
    """
    boxes = [
        (node, kind, node[kind])
        for node in graph["nodes"] or []
        for kind in ("truth", "perceived")
        if node[kind] is not None and box_problem(node[kind]) is None
    ]
    if not boxes:
        return Markup("")
    view = _View(np.array([_corners(box) for _, _, box in boxes]).reshape(-1, 2))
    parts = [*_grid(view), *_frustum(view, graph, scene)]
    parts += [_footprint(view, node, kind, box, colours[node["id"]]) for node, kind, box in boxes]
    parts += _labels(view, graph["nodes"])
    x, y = view(0.0, 0.0)
    parts.append(
        f'<path class="camera" d="M{x - 6:.1f} {y + 5:.1f}L{x:.1f} {y - 6:.1f}L{x + 6:.1f} {y + 5:.1f}Z"/>'
    )
    return Markup(  # noqa: S704 (numbers and escaped names)
        f'<svg class="top" viewBox="0 0 {SIZE[0]} {SIZE[1]}" role="img" '
        f'aria-label="Scene from above">{"".join(parts)}</svg>'
    )


def _corners(box: Row) -> list[list[float]]:
    """Return the two opposite corners (x, z) of a footprint."""
    (x, _, z), (w, _, d) = box["center"], box["size"]
    return [[x - w / 2, z - d / 2], [x + w / 2, z + d / 2]]


class _View:
    """Maps metres on the ground to pixels, one scale for both directions, the camera included."""

    def __init__(self, points: np.ndarray) -> None:
        points = np.vstack([points, [[0.0, 0.0]]])
        low, high = points.min(axis=0), points.max(axis=0)
        span = np.maximum(high - low, 0.5)
        room = (SIZE[0] - 2 * _MARGIN, SIZE[1] - 2 * _MARGIN)
        self.scale = float(min(room[0] / span[0], room[1] / span[1]))
        self._center = (low + high) / 2
        self.far = float(np.hypot(points[:, 0], points[:, 1]).max())

    def __call__(self, x: float, z: float) -> tuple[float, float]:
        return (
            SIZE[0] / 2 + (x - float(self._center[0])) * self.scale,
            SIZE[1] / 2 - (z - float(self._center[1])) * self.scale,
        )


def _grid(view: _View) -> list[str]:
    """Draw circles of equal distance around the camera, labelled in metres."""
    step = next((s for s in _STEPS if view.far / s <= 5), _STEPS[-1])
    x, y = view(0.0, 0.0)
    parts = []
    for ring in range(1, math.floor(view.far / step) + 1):
        radius = ring * step * view.scale
        parts.append(f'<circle class="ring" cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}"/>')
        if y - radius > 12:
            parts.append(
                f'<text class="metres" x="{x + 3:.1f}" y="{y - radius - 2:.1f}">{ring * step:g} m</text>'
            )
    return parts


def _frustum(view: _View, graph: Row, scene: Row) -> list[str]:
    """Draw what the camera sees: a wedge between the rays of the picture's left and right border."""
    intrinsics = scene["intrinsics"]
    if intrinsics is None or intrinsics_problem(intrinsics) or rotation_problem(graph["rotation"], None):
        return []
    fx, _, cx, _ = intrinsics
    rotation = np.reshape(graph["rotation"], (3, 3))
    points = []
    for u in (-0.5, scene["width"] - 0.5):
        ray = rotation @ np.array([(u - cx) / fx, 0.0, 1.0])
        reach = view.far * 1.5 / max(math.hypot(ray[0], ray[2]), 1e-9)
        points.append(view(float(ray[0]) * reach, float(ray[2]) * reach))
    x, y = view(0.0, 0.0)
    (ax, ay), (bx, by) = points
    return [f'<path class="wedge" d="M{ax:.1f} {ay:.1f}L{x:.1f} {y:.1f}L{bx:.1f} {by:.1f}"/>']


def _footprint(view: _View, node: Row, kind: str, box: Row, colour: str) -> str:
    (x0, z0), (x1, z1) = _corners(box)
    (left, bottom), (right, top) = view(x0, z0), view(x1, z1)
    fill = colour if kind == "perceived" else "none"
    return (
        f'<rect class="{kind}" data-r="{node["id"]}" x="{left:.1f}" y="{top:.1f}" width="{max(right - left, 1):.1f}" '
        f'height="{max(bottom - top, 1):.1f}" stroke="{colour}" fill="{fill}"/>'
    )


def _labels(view: _View, nodes: Sequence[Row]) -> list[str]:
    """Write id and category (in a crowd the id alone) at each object, moved down where two would overlap."""
    crowded = len(nodes) > _CROWD
    wanted = []
    for node in nodes:
        box = node["perceived"] or node["truth"]
        if box is not None and box_problem(box) is None:
            x, y = view(box["center"][0], box["center"][2])
            text = str(node["id"]) if crowded else f"{node['id']} {node['category'] or ''}".strip()
            wanted.append((y, x, text, node["id"]))
    placed: list[tuple[float, float, float]] = []
    parts = []
    for y, x, text, number in sorted(wanted):
        half = len(text) * _FONT * 0.29
        x = min(max(x, half + 2), SIZE[0] - half - 2)
        y = min(max(y + 4, 11.0), SIZE[1] - 4.0)
        while any(abs(y - py) < _FONT and abs(x - px) < half + ph for px, py, ph in placed):
            y += 3
        placed.append((x, y, half))
        parts.append(f'<text class="name" data-r="{number}" x="{x:.1f}" y="{y:.1f}">{escape(text)}</text>')
    return parts
