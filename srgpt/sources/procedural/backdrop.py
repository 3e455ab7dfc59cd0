"""What surrounds the objects: ground, walls, a table; where things may stand; where the light is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Wall:
    """A wall from ``start`` to ``end``, (x, z) each, that things may hang on; ``inward`` is its normal."""

    start: Floats
    end: Floats
    inward: Floats


@dataclass(frozen=True)
class Quad:
    """A flat piece of the surroundings: ``corners`` (4, 3) in the ground frame and how it is painted."""

    corners: Floats
    colour: Colour
    accent: Colour
    texture: str
    scale: float


@dataclass(frozen=True)
class Backdrop:
    """The surroundings of a layout.

    ``inside`` says whether a footprint (4, 2) lies where things may stand; ``light`` (3,) is the lamp's
    place in the ground frame, ``ambient`` the light that is everywhere, ``ceiling`` its height.
    """

    quads: tuple[Quad, ...]
    walls: tuple[Wall, ...]
    inside: Callable[[Floats], bool]
    light: Floats
    ambient: float
    ceiling: float = np.inf
    sky: Colour = (150, 190, 230)


_FLOORS: tuple[tuple[str, Colour, Colour], ...] = (
    ("planks", (178, 134, 92), (140, 100, 66)),
    ("planks", (120, 86, 60), (96, 66, 46)),
    ("checks", (206, 202, 192), (172, 168, 160)),
    ("checks", (150, 150, 154), (122, 122, 128)),
    ("noise", (176, 164, 146), (150, 138, 122)),
    ("noise", (128, 134, 142), (108, 114, 122)),
)
_PAINTS: tuple[Colour, ...] = (
    (222, 216, 204),
    (204, 212, 216),
    (214, 206, 188),
    (196, 206, 194),
    (226, 222, 216),
    (190, 186, 180),
)
_FACADES: tuple[Colour, ...] = (
    (176, 120, 98),
    (196, 184, 164),
    (160, 164, 168),
    (206, 196, 178),
    (150, 132, 118),
)
_ROADS: tuple[Colour, ...] = ((92, 92, 96), (112, 110, 108), (136, 132, 126))


def _turned(points: list[tuple[float, float]], yaw: float) -> Floats:
    """Turn (x, z) points about the origin."""
    sin, cos = np.sin(yaw), np.cos(yaw)
    return np.array([(cos * x + sin * z, -sin * x + cos * z) for x, z in points])


def _flat(outline: Floats, height: float, colour: Colour, accent: Colour, texture: str, scale: float) -> Quad:
    return Quad(np.insert(outline, 1, -height, axis=1), colour, accent, texture, scale)


def _upright(
    start: Floats, end: Floats, bottom: float, top: float, paint: tuple[Colour, Colour, str, float]
) -> Quad:
    corners = [(p[0], -h, p[1]) for p, h in ((start, bottom), (start, top), (end, top), (end, bottom))]
    return Quad(np.array(corners), *paint)


def _within(outline: Floats, margin: float) -> Callable[[Floats], bool]:
    """Whether footprints lie inside a convex outline (N, 2), ``margin`` metres from its edges."""
    edges = np.roll(outline, -1, axis=0) - outline
    inward = np.stack([-edges[:, 1], edges[:, 0]], 1) / np.linalg.norm(edges, axis=1, keepdims=True)
    if np.sum(inward[0] * (outline.mean(0) - outline[0])) < 0:
        inward = -inward
    offset = np.sum(inward * outline, axis=1) + margin
    return lambda footprint: bool((footprint @ inward.T >= offset - 1e-9).all())


def room(rng: np.random.Generator) -> Backdrop:
    """A room with three visible walls and a ceiling, turned a little, lit by a lamp below its ceiling."""
    depth, left, right = rng.uniform(4.2, 7.0), rng.uniform(1.8, 3.6), rng.uniform(1.8, 3.6)
    height, yaw = rng.uniform(2.4, 3.1), rng.uniform(-0.4, 0.4)
    outline = _turned([(-left, -2.5), (-left, depth), (right, depth), (right, -2.5)], yaw)
    texture, colour, accent = _FLOORS[rng.integers(len(_FLOORS))]
    paint = _PAINTS[rng.integers(len(_PAINTS))]
    pattern = ("plain", "stripes", "noise")[rng.integers(3)]
    tint: Colour = tuple(int(v * 0.93) for v in paint)  # type: ignore[assignment]
    quads = [
        _flat(outline, 0.0, colour, accent, texture, 0.5),
        _flat(outline, height, (238, 236, 230), (238, 236, 230), "plain", 1.0),
    ]
    walls = []
    for index in range(3):
        start, end = outline[index], outline[index + 1]
        along = (end - start) / np.linalg.norm(end - start)
        walls.append(Wall(start, end, np.array([along[1], -along[0]])))
        quads.append(_upright(start, end, 0.0, height, (paint, tint, pattern, 0.3)))
    quads.append(_upright(outline[3], outline[0], 0.0, height, (paint, tint, pattern, 0.3)))
    spot = _turned([(rng.uniform(-left, right) * 0.6, rng.uniform(0.2, 0.6) * depth)], yaw)[0]
    light = np.array([spot[0], -(height - 0.15), spot[1]])
    return Backdrop(tuple(quads), tuple(walls), _within(outline, 0.02), light, 0.42, height)


def street(rng: np.random.Generator) -> Backdrop:
    """A road between house fronts, closed by a house ahead or open to the sky, under the sun."""
    yaw, left, right = rng.uniform(-0.5, 0.5), rng.uniform(5, 13), rng.uniform(5, 13)
    end, height = rng.uniform(18, 46), rng.uniform(7.5, 14)
    road = _ROADS[rng.integers(len(_ROADS))]
    outline = _turned([(-left, -8.0), (-left, end), (right, end), (right, -8.0)], yaw)
    around = _turned([(-150, -150), (-150, 150), (150, 150), (150, -150)], yaw)
    kerb = _turned(
        [(-left * 0.45, -8.0), (-left * 0.45, end), (right * 0.45, end), (right * 0.45, -8.0)], yaw
    )
    quads = [
        _flat(around, -0.002, (168, 164, 156), (146, 142, 136), "checks", 0.8),
        _flat(kerb, -0.001, road, tuple(int(v * 0.86) for v in road), "noise", 0.3),  # type: ignore[arg-type]
        _flat(
            _turned([(-0.1, -8.0), (-0.1, end), (0.1, end), (0.1, -8.0)], yaw),
            0.0,
            (226, 224, 216),
            road,
            "dashes",
            2.0,
        ),
    ]
    walls = []
    for index in range(3):
        if rng.random() < 0.25:
            continue
        start, stop = outline[index], outline[index + 1]
        along = (stop - start) / np.linalg.norm(stop - start)
        walls.append(Wall(start, stop, np.array([along[1], -along[0]])))
        front = _FACADES[rng.integers(len(_FACADES))]
        texture = ("windows", "windows", "bricks")[rng.integers(3)]
        accent: Colour = (92, 106, 122) if texture == "windows" else tuple(int(v * 0.8) for v in front)  # type: ignore[assignment]
        scale = 3.0 if texture == "windows" else 0.5
        quads.append(
            _upright(start, stop, -0.002, height * rng.uniform(0.8, 1.2), (front, accent, texture, scale))
        )
    azimuth, elevation = rng.uniform(-2.2, 2.2) + np.pi, np.radians(rng.uniform(35, 70))
    sun = 400 * np.array(
        [np.sin(azimuth) * np.cos(elevation), -np.sin(elevation), np.cos(azimuth) * np.cos(elevation)]
    )
    sky: Colour = ((150, 190, 230), (178, 200, 220), (196, 204, 210))[rng.integers(3)]
    return Backdrop(tuple(quads), tuple(walls), _within(outline, 0.05), sun, 0.45, np.inf, sky)


def tabletop(rng: np.random.Generator) -> Backdrop:
    """A table (its top is the ground) before a wall, lit by a lamp above."""
    yaw, near, far = rng.uniform(-0.5, 0.5), -0.35, rng.uniform(1.0, 1.5)
    left, right, wall = rng.uniform(0.55, 0.95), rng.uniform(0.55, 0.95), far + rng.uniform(0.15, 1.4)
    top = _turned([(-left, near), (-left, far), (right, far), (right, near)], yaw)
    woods: tuple[tuple[str, Colour, Colour], ...] = (
        ("planks", (186, 144, 100), (162, 122, 82)), ("planks", (126, 90, 62), (106, 74, 50)),
        ("plain", (216, 212, 204), (216, 212, 204)), ("noise", (150, 152, 156), (134, 136, 140)),
        ("checks", (214, 208, 196), (188, 196, 200)),
    )  # fmt: skip
    texture, colour, accent = woods[rng.integers(len(woods))]
    paint = _PAINTS[rng.integers(len(_PAINTS))]
    tint: Colour = tuple(int(v * 0.92) for v in paint)  # type: ignore[assignment]
    style = ("plain", "stripes", "bricks")[rng.integers(3)]
    back = _turned([(-8.0, wall), (8.0, wall)], yaw)
    floor = _turned([(-8, -6), (-8, wall), (8, wall), (8, -6)], yaw)
    dark: Colour = tuple(int(v * 0.6) for v in colour)  # type: ignore[assignment]
    quads = [
        _flat(top, 0.0, colour, accent, texture, 0.12),
        *(_upright(top[i], top[(i + 1) % 4], -0.04, 0.0, (dark, dark, "plain", 1.0)) for i in range(4)),
        _flat(floor, -0.74, (128, 110, 92), (110, 94, 78), "planks", 0.5),
        _upright(back[0], back[1], -0.74, 2.2, (paint, tint, style, 0.25)),
    ]
    light = np.array([rng.uniform(-1.2, 1.2), -rng.uniform(1.2, 2.0), rng.uniform(-0.6, 0.7)])
    return Backdrop(tuple(quads), (), _within(top, 0.01), light, 0.42)
