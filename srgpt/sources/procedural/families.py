"""The families of scenes: which things, seen from where, and how they are arranged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np

from srgpt.sources.procedural import backdrop, catalog
from srgpt.sources.procedural.backdrop import Backdrop, Wall
from srgpt.sources.procedural.camera import Camera, sample_camera
from srgpt.sources.procedural.catalog import Category, Place
from srgpt.sources.procedural.placement import CEILING, CONTACT, GROUND, WALL, Body, Layout

_TRIES = 24


@dataclass(frozen=True)
class Family:
    """A kind of scene. Ranges are metres; ``mix`` says how often a thing is put on each kind of place."""

    categories: tuple[Category, ...]
    surroundings: Callable[[np.random.Generator], Backdrop]
    height: tuple[float, float]
    """Camera above the ground."""
    aim: tuple[float, float]
    """Distance ahead of the point looked at."""
    aim_height: tuple[float, float]
    """Height of the point looked at."""
    reach: tuple[float, float]
    """Depth at which things stand."""
    gap: float
    mix: dict[Place, float]
    hosts: float
    """How often an anchor, placed first, is one that others can rest on."""


FAMILIES: dict[str, Family] = {
    "room": Family(
        catalog.ROOM, backdrop.room, (1.0, 2.1), (2.4, 4.2), (0.2, 1.3), (1.5, 6.4), 0.04,
        {"ground": 0.34, "top": 0.4, "wall": 0.18, "ceiling": 0.08}, 0.8,
    ),
    "street": Family(
        catalog.STREET, backdrop.street, (1.3, 5.0), (8.0, 18.0), (0.0, 2.6), (4.0, 28.0), 0.25,
        {"ground": 0.5, "top": 0.22, "wall": 0.28}, 0.45,
    ),
    "tabletop": Family(
        catalog.TABLETOP, backdrop.tabletop, (0.14, 0.62), (0.55, 0.95), (0.0, 0.22), (0.32, 1.3), 0.012,
        {"ground": 0.4, "top": 0.6}, 0.8,
    ),
}  # fmt: skip


def arrange(
    name: str, rng: np.random.Generator, size: int, count: int
) -> tuple[Camera, Backdrop, list[Body]]:
    """Draw a camera, surroundings and up to ``count`` bodies of a family; fewer where there is no room."""
    family = FAMILIES[name]
    scenery = family.surroundings(rng)
    camera = sample_camera(rng, size, height=family.height, aim=family.aim, aim_height=family.aim_height)
    near, far = family.reach
    layout = Layout(camera, scenery.inside, 0.6 * near, far * 1.5, family.gap, scenery.ceiling)
    colours = [str(c) for c in rng.permutation(list(catalog.COLOURS))]
    for index in range(count):
        _place_one(
            family, layout, scenery, rng, colours, anchor=index == 0 or (index == 1 and rng.random() < 0.4)
        )
    return camera, scenery, layout.bodies


def _place_one(
    family: Family,
    layout: Layout,
    scenery: Backdrop,
    rng: np.random.Generator,
    colours: list[str],
    *,
    anchor: bool,
) -> None:
    """Try to add one body; its colour is the next unused one that its category comes in.

    An ``anchor`` stands on the ground and, often, can carry others.
    """
    places = list(family.mix)
    shares = np.cumsum([family.mix[p] for p in places])
    for _ in range(_TRIES):
        hosting = anchor and rng.random() < family.hosts
        drawn = int(np.searchsorted(shares, rng.random() * shares[-1], side="right"))
        place: Place = "ground" if anchor else places[drawn]
        kinds = _kinds(family.categories, place, hosting)
        category = kinds[rng.integers(len(kinds))]
        colour = next((c for c in colours if c in category.colours), category.colours[0])
        body = _draw(place, category, colour, family, layout, scenery, rng)
        if body is not None and layout.add(body):
            if colour in colours:
                colours.remove(colour)
            return


@cache
def _kinds(categories: tuple[Category, ...], place: Place, hosting: bool) -> list[Category]:
    """Return the categories that come on a kind of place, with ``hosting`` only those that carry others."""
    return [c for c in categories if place in c.places and (c.surfaces or not hosting)]


def _draw(
    place: Place, category: Category, colour: str, family: Family, layout: Layout, scenery: Backdrop,
    rng: np.random.Generator,
) -> Body | None:  # fmt: skip
    """Draw a size and a pose for one body on a kind of place; None where there is none of that kind."""
    size = _sizes(category, rng)
    if place == "top":
        hosts = [
            (i, s) for i, b in enumerate(layout.bodies) if b.category.surfaces and _open(layout, b)
            for s in range(len(b.category.surfaces))
        ]  # fmt: skip
        if not hosts:
            return None
        index, surface = hosts[rng.integers(len(hosts))]
        spot = (rng.random(), rng.random())
        return layout.resting(category, colour, size, rng.uniform(-0.5, 0.5), index, surface, spot)
    if place == "wall" or (place == "ground" and scenery.ceiling < np.inf and rng.random() < 0.3):
        if not scenery.walls:
            return None
        wall = scenery.walls[rng.integers(len(scenery.walls))]
        base = rng.uniform(*category.hang) if place == "wall" else 0.0
        return _against(wall, category, colour, size, base, WALL if place == "wall" else GROUND, rng)
    near, far = family.reach
    z = np.exp(rng.uniform(np.log(near), np.log(far)))
    x = z * np.tan(layout.camera.field_of_view / 2) * rng.uniform(-1, 1)
    yaw = rng.uniform(-np.pi, np.pi) if rng.random() < 0.5 else rng.uniform(-0.6, 0.6)
    if category.surfaces and len(category.surfaces) > 1:  # open shelves show their front
        yaw = rng.uniform(-0.6, 0.6)
    if place == "ceiling":
        return Body(category, colour, size, x, z, scenery.ceiling - CONTACT - size[1], yaw, CEILING)
    return Body(category, colour, size, float(x), float(z), CONTACT, float(yaw), GROUND)


def _open(layout: Layout, body: Body) -> bool:
    """Whether things may rest on a body: not where it stands inside a shelf, and towers end at three."""
    depth = 0
    while body.support >= 0:
        host = layout.bodies[body.support]
        if any(s[5] for s in host.category.surfaces):
            return False
        body, depth = host, depth + 1
    return depth < 2


def _sizes(category: Category, rng: np.random.Generator) -> tuple[float, float, float]:
    """Draw width, height and depth; round things (equal ranges) keep a round footprint."""
    width, height, depth = (float(rng.uniform(*r)) for r in (category.width, category.height, category.depth))
    if category.width == category.depth and not any(p[0] == "box" for p in category.parts):
        depth = width
        if category.height == category.width:
            height = width
    return (width, height, depth)


def _against(
    wall: Wall, category: Category, colour: str, size: tuple[float, float, float], base: float, support: int,
    rng: np.random.Generator,
) -> Body:  # fmt: skip
    """Put a body with its back to a wall, anywhere along it."""
    length = float(np.linalg.norm(wall.end - wall.start))
    half = min(size[0] / length / 2, 0.5)
    spot = wall.start + (wall.end - wall.start) * rng.uniform(half, 1 - half)
    gap = CONTACT if support == WALL else 0.03
    x, z = spot + wall.inward * (size[2] / 2 + gap)
    yaw = float(np.arctan2(-wall.inward[0], -wall.inward[1]))
    return Body(category, colour, size, float(x), float(z), max(base, CONTACT), yaw, support)
