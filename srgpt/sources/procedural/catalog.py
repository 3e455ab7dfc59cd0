# ruff: noqa: E501  (tables read better whole)
"""What there is to place: categories with real-world size priors and parts, colours, materials. Data only.

Sizes are uniform ranges in metres for width (x), height (y), depth (z). Parts fill the object's unit cube
(x to the right, y up, z from front to back) as ``(shape, x0, y0, z0, x1, y1, z1, role)``; the role ``main``
takes the object's colour, every other role is a material of :data:`MATERIALS`. A surface is where other
objects may rest: ``(x0, z0, x1, z1, y, clearance)`` in the same unit cube, with the free height above it as
a share of the height (0: free to the sky).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Part = tuple[str, float, float, float, float, float, float, str]
Surface = tuple[float, float, float, float, float, float]
Place = Literal["ground", "top", "wall", "ceiling"]
Range = tuple[float, float]

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (196, 38, 34),
    "orange": (235, 125, 28),
    "yellow": (236, 202, 46),
    "green": (52, 142, 58),
    "teal": (24, 138, 142),
    "blue": (42, 82, 196),
    "purple": (118, 54, 158),
    "pink": (234, 128, 168),
    "brown": (112, 70, 40),
    "white": (236, 236, 232),
    "gray": (126, 128, 132),
    "black": (38, 38, 42),
}
"""Colour names and their sRGB values."""

MATERIALS: dict[str, tuple[int, int, int]] = {
    "wood": (158, 112, 68),
    "darkwood": (92, 62, 40),
    "metal": (168, 172, 178),
    "dark": (56, 56, 60),
    "rubber": (30, 30, 32),
    "glass": (150, 186, 204),
    "screen": (26, 32, 46),
    "light": (248, 240, 206),
    "paper": (240, 236, 224),
    "leaf": (46, 116, 48),
    "soil": (86, 62, 44),
    "skin": (214, 164, 132),
    "denim": (58, 72, 112),
    "concrete": (172, 168, 160),
}
"""Materials of parts that are not painted in the object's colour."""


@dataclass(frozen=True, eq=False)
class Category:
    """One kind of object, compared by identity."""

    name: str
    width: Range
    height: Range
    depth: Range
    parts: tuple[Part, ...]
    places: tuple[Place, ...] = ("ground",)
    surfaces: tuple[Surface, ...] = ()
    colours: tuple[str, ...] = tuple(COLOURS)
    hang: Range = (0.0, 0.0)
    """Height of the bottom above the ground, metres, where it hangs on a wall (or of the gap to the ceiling)."""


def _legs(width: float, depth: float, top: float, role: str, shape: str = "box") -> tuple[Part, ...]:
    """Four legs in the corners of the unit footprint, from the ground to ``top``."""
    return tuple(
        (shape, x, 0.0, z, x + width, top, z + depth, role)
        for x in (0.0, 1.0 - width)
        for z in (0.0, 1.0 - depth)
    )


_TOP: Surface = (0.0, 0.0, 1.0, 1.0, 1.0, 0.0)
_VIVID = ("red", "orange", "yellow", "green", "teal", "blue", "purple", "pink")

_BOX = Category(
    "box", (0.25, 0.6), (0.2, 0.55), (0.25, 0.6),
    (("box", 0, 0, 0, 1, 1, 1, "main"),), ("ground", "top"), (_TOP,),
)  # fmt: skip

ROOM = (
    Category(
        "table", (0.9, 1.7), (0.62, 0.82), (0.6, 1.0),
        (("box", 0, 0.93, 0, 1, 1, 1, "main"), *_legs(0.07, 0.1, 0.93, "darkwood")), surfaces=(_TOP,),
    ),
    Category(
        "desk", (1.0, 1.6), (0.66, 0.82), (0.55, 0.8),
        (("box", 0, 0.94, 0, 1, 1, 1, "main"), ("box", 0, 0, 0.02, 0.05, 0.94, 1, "wood"),
         ("box", 0.66, 0, 0.02, 1, 0.94, 1, "wood"), ("box", 0.7, 0.66, 0, 0.96, 0.88, 0.02, "main"),
         ("box", 0.7, 0.36, 0, 0.96, 0.6, 0.02, "main"), ("box", 0.7, 0.06, 0, 0.96, 0.3, 0.02, "main")),
        surfaces=(_TOP,),
    ),
    Category(
        "coffee table", (0.7, 1.2), (0.32, 0.5), (0.5, 0.75),
        (("box", 0, 0.86, 0, 1, 1, 1, "main"), ("box", 0.06, 0.24, 0.06, 0.94, 0.32, 0.94, "wood"),
         *_legs(0.08, 0.1, 0.86, "wood")), surfaces=(_TOP,),
    ),
    Category(
        "chair", (0.4, 0.52), (0.75, 1.05), (0.42, 0.55),
        (("box", 0, 0.44, 0, 1, 0.52, 1, "main"), ("box", 0, 0.52, 0.88, 1, 1, 1, "main"),
         *_legs(0.12, 0.12, 0.44, "darkwood")),
    ),
    Category(
        "office chair", (0.52, 0.7), (0.85, 1.2), (0.52, 0.7),
        (("box", 0.04, 0.4, 0.04, 0.96, 0.5, 0.92, "main"), ("box", 0.1, 0.54, 0.84, 0.9, 1, 0.96, "main"),
         ("box", 0.44, 0.44, 0.9, 0.56, 0.7, 0.98, "dark"), ("cylinder", 0.44, 0.06, 0.44, 0.56, 0.4, 0.56, "metal"),
         ("box", 0, 0, 0.44, 1, 0.07, 0.56, "dark"), ("box", 0.44, 0, 0, 0.56, 0.07, 1, "dark")),
    ),
    Category(
        "armchair", (0.7, 1.0), (0.7, 1.0), (0.7, 0.95),
        (("box", 0.16, 0.08, 0, 0.84, 0.46, 0.8, "main"), ("box", 0, 0, 0, 0.16, 0.64, 1, "main"),
         ("box", 0.84, 0, 0, 1, 0.64, 1, "main"), ("box", 0.16, 0, 0.78, 0.84, 1, 1, "main")),
    ),
    Category(
        "sofa", (1.5, 2.2), (0.68, 0.95), (0.75, 1.0),
        (("box", 0.1, 0.06, 0.02, 0.49, 0.46, 0.8, "main"), ("box", 0.51, 0.06, 0.02, 0.9, 0.46, 0.8, "main"),
         ("box", 0, 0, 0, 0.1, 0.68, 1, "main"), ("box", 0.9, 0, 0, 1, 0.68, 1, "main"),
         ("box", 0.1, 0, 0.78, 0.9, 1, 1, "main")),
    ),
    Category(
        "bed", (1.0, 1.8), (0.75, 1.1), (1.8, 2.1),
        (("box", 0, 0, 0, 1, 0.28, 0.96, "wood"), ("box", 0.02, 0.28, 0.01, 0.98, 0.52, 0.96, "main"),
         ("box", 0, 0, 0.96, 1, 1, 1, "darkwood"), ("box", 0.12, 0.52, 0.72, 0.46, 0.64, 0.94, "paper"),
         ("box", 0.54, 0.52, 0.72, 0.88, 0.64, 0.94, "paper")),
    ),
    Category(
        "cabinet", (0.6, 1.3), (0.6, 1.15), (0.35, 0.55),
        (("box", 0, 0, 0.03, 1, 1, 1, "main"), ("box", 0.46, 0.5, 0, 0.48, 0.66, 0.03, "metal"),
         ("box", 0.52, 0.5, 0, 0.54, 0.66, 0.03, "metal"), ("box", 0.495, 0.06, 0.02, 0.505, 0.94, 0.03, "dark")),
        surfaces=(_TOP,),
    ),
    Category(
        "nightstand", (0.38, 0.55), (0.42, 0.65), (0.35, 0.48),
        (("box", 0, 0.12, 0.04, 1, 1, 1, "main"), *_legs(0.12, 0.12, 0.12, "dark"),
         ("box", 0.42, 0.74, 0, 0.58, 0.8, 0.04, "metal"), ("box", 0.42, 0.36, 0, 0.58, 0.42, 0.04, "metal")),
        surfaces=(_TOP,),
    ),
    Category(
        "shelf", (0.7, 1.2), (1.0, 1.9), (0.3, 0.45),
        (("box", 0, 0, 0, 0.05, 1, 1, "main"), ("box", 0.95, 0, 0, 1, 1, 1, "main"),
         ("box", 0.05, 0, 0.94, 0.95, 1, 1, "main"), ("box", 0.05, 0.02, 0, 0.95, 0.05, 0.94, "main"),
         ("box", 0.05, 0.32, 0, 0.95, 0.35, 0.94, "main"), ("box", 0.05, 0.65, 0, 0.95, 0.68, 0.94, "main"),
         ("box", 0.05, 0.97, 0, 0.95, 1, 0.94, "main")),
        surfaces=((0.06, 0, 0.94, 0.93, 0.05, 0.26), (0.06, 0, 0.94, 0.93, 0.35, 0.29),
                  (0.06, 0, 0.94, 0.93, 0.68, 0.28), (0.05, 0.0, 0.95, 0.95, 1.0, 0.0)),
    ),
    Category(
        "wardrobe", (0.8, 1.5), (1.6, 2.1), (0.5, 0.65),
        (("box", 0, 0, 0.03, 1, 1, 1, "main"), ("box", 0.495, 0.04, 0.02, 0.505, 0.96, 0.03, "dark"),
         ("box", 0.44, 0.42, 0, 0.46, 0.56, 0.03, "metal"), ("box", 0.54, 0.42, 0, 0.56, 0.56, 0.03, "metal")),
    ),
    Category(
        "refrigerator", (0.55, 0.8), (1.35, 1.9), (0.55, 0.75),
        (("box", 0, 0, 0.04, 1, 1, 1, "main"), ("box", 0, 0.66, 0.03, 1, 0.675, 0.04, "dark"),
         ("box", 0.08, 0.7, 0, 0.12, 0.92, 0.04, "metal"), ("box", 0.08, 0.3, 0, 0.12, 0.62, 0.04, "metal")),
    ),
    Category(
        "stool", (0.32, 0.45), (0.42, 0.75), (0.32, 0.45),
        (("cylinder", 0, 0.9, 0, 1, 1, 1, "main"), *_legs(0.12, 0.12, 0.9, "metal")), surfaces=((0.15, 0.15, 0.85, 0.85, 1.0, 0.0),),
    ),
    Category(
        "floor lamp", (0.3, 0.5), (1.3, 1.8), (0.3, 0.5),
        (("cylinder", 0.15, 0, 0.15, 0.85, 0.02, 0.85, "dark"), ("cylinder", 0.46, 0.02, 0.46, 0.54, 0.8, 0.54, "metal"),
         ("frustum", 0, 0.78, 0, 1, 1, 1, "main")),
    ),
    Category(
        "plant", (0.4, 0.8), (0.6, 1.4), (0.4, 0.8),
        (("cup", 0.2, 0, 0.2, 0.8, 0.32, 0.8, "main"), ("sphere", 0, 0.36, 0.05, 0.8, 0.86, 0.95, "leaf"),
         ("sphere", 0.25, 0.5, 0, 1, 1, 1, "leaf"), ("cylinder", 0.46, 0.3, 0.46, 0.54, 0.6, 0.54, "darkwood")),
    ),
    Category(
        "trash bin", (0.25, 0.42), (0.32, 0.65), (0.25, 0.42),
        (("cup", 0.02, 0, 0.02, 0.98, 0.94, 0.98, "main"), ("cylinder", 0, 0.94, 0, 1, 1, 1, "dark")),
    ),
    _BOX,
    Category(
        "ottoman", (0.45, 0.8), (0.35, 0.5), (0.45, 0.8),
        (("box", 0, 0.12, 0, 1, 1, 1, "main"), *_legs(0.1, 0.1, 0.12, "darkwood")), surfaces=(_TOP,),
    ),
    Category(
        "suitcase", (0.35, 0.55), (0.5, 0.75), (0.2, 0.32),
        (("box", 0, 0.05, 0, 1, 0.86, 1, "main"), ("box", 0.3, 0.86, 0.4, 0.36, 1, 0.6, "dark"),
         ("box", 0.64, 0.86, 0.4, 0.7, 1, 0.6, "dark"), ("box", 0.3, 0.96, 0.4, 0.7, 1, 0.6, "dark"),
         ("cylinder_x", 0.05, 0, 0.1, 0.2, 0.07, 0.3, "rubber"), ("cylinder_x", 0.8, 0, 0.1, 0.95, 0.07, 0.3, "rubber")),
    ),
    Category(
        "vase", (0.14, 0.26), (0.25, 0.5), (0.14, 0.26),
        (("cup", 0.1, 0, 0.1, 0.9, 0.3, 0.9, "main"), ("sphere", 0, 0.1, 0, 1, 0.78, 1, "main"),
         ("cylinder", 0.28, 0.7, 0.28, 0.72, 1, 0.72, "main")), ("top",),
    ),
    Category(
        "table lamp", (0.22, 0.38), (0.35, 0.6), (0.22, 0.38),
        (("cylinder", 0.22, 0, 0.22, 0.78, 0.06, 0.78, "dark"), ("cylinder", 0.44, 0.06, 0.44, 0.56, 0.55, 0.56, "metal"),
         ("frustum", 0, 0.5, 0, 1, 1, 1, "main")), ("top",),
    ),
    Category(
        "monitor", (0.45, 0.75), (0.38, 0.55), (0.16, 0.22),
        (("box", 0, 0.28, 0.3, 1, 1, 0.55, "main"), ("box", 0.04, 0.33, 0.29, 0.96, 0.96, 0.3, "screen"),
         ("box", 0.45, 0.04, 0.5, 0.55, 0.4, 0.7, "dark"), ("box", 0.28, 0, 0, 0.72, 0.05, 1, "dark")), ("top",),
    ),
    Category(
        "stack of books", (0.2, 0.32), (0.12, 0.3), (0.16, 0.26),
        (("box", 0, 0, 0, 1, 0.3, 1, "main"), ("box", 0.06, 0.3, 0.05, 0.98, 0.36, 0.95, "paper"),
         ("box", 0.02, 0.36, 0.04, 0.98, 0.66, 0.98, "main"), ("box", 0.08, 0.66, 0.08, 0.94, 0.72, 0.92, "paper"),
         ("box", 0.05, 0.72, 0.05, 0.95, 1, 0.95, "main")), ("top",), (_TOP,),
    ),
    Category("ball", (0.2, 0.4), (0.2, 0.4), (0.2, 0.4), (("sphere", 0, 0, 0, 1, 1, 1, "main"),), ("ground", "top"), colours=_VIVID),
    Category(
        "basket", (0.25, 0.45), (0.18, 0.35), (0.25, 0.45),
        (("cup", 0, 0, 0, 1, 0.86, 1, "main"), ("cylinder", 0.05, 0.86, 0.05, 0.95, 1, 0.95, "paper")), ("ground", "top"),
    ),
    Category(
        "microwave", (0.42, 0.6), (0.25, 0.36), (0.32, 0.45),
        (("box", 0, 0, 0.04, 1, 1, 1, "main"), ("box", 0.06, 0.16, 0.03, 0.68, 0.86, 0.04, "screen"),
         ("box", 0.72, 0.1, 0, 0.76, 0.9, 0.04, "metal")), ("top",), (_TOP,),
    ),
    Category(
        "picture", (0.35, 1.0), (0.3, 0.8), (0.04, 0.07),
        (("box", 0, 0, 0.1, 1, 1, 1, "main"), ("box", 0.1, 0.1, 0.05, 0.9, 0.9, 0.1, "paper"),
         ("box", 0.22, 0.22, 0, 0.78, 0.6, 0.06, "leaf")), ("wall",), hang=(0.9, 1.7),
    ),
    Category(
        "wall clock", (0.28, 0.5), (0.28, 0.5), (0.05, 0.08),
        (("cylinder_z", 0, 0, 0.1, 1, 1, 1, "main"), ("cylinder_z", 0.1, 0.1, 0.05, 0.9, 0.9, 0.1, "paper"),
         ("box", 0.48, 0.48, 0, 0.52, 0.84, 0.05, "dark"), ("box", 0.48, 0.47, 0, 0.75, 0.52, 0.05, "dark")),
        ("wall",), hang=(1.3, 2.0),
    ),
    Category(
        "wall shelf", (0.6, 1.2), (0.14, 0.22), (0.22, 0.32),
        (("box", 0, 0.75, 0, 1, 1, 1, "main"), ("wedge", 0.1, 0, 0.2, 0.16, 0.75, 1, "dark"),
         ("wedge", 0.84, 0, 0.2, 0.9, 0.75, 1, "dark")), ("wall",), (_TOP,), hang=(0.8, 1.5),
    ),
    Category(
        "television", (0.8, 1.5), (0.45, 0.85), (0.06, 0.1),
        (("box", 0, 0, 0.15, 1, 1, 1, "main"), ("box", 0.04, 0.06, 0, 0.96, 0.95, 0.15, "screen")),
        ("wall",), hang=(0.8, 1.4), colours=("black", "gray", "white", "red", "blue"),
    ),
    Category(
        "pendant lamp", (0.3, 0.55), (0.5, 1.0), (0.3, 0.55),
        (("frustum", 0, 0, 0, 1, 0.4, 1, "main"), ("cylinder", 0.47, 0.4, 0.47, 0.53, 1, 0.53, "dark")), ("ceiling",),
    ),
)  # fmt: skip
"""Things of a furnished room."""

STREET = (
    Category(
        "car", (1.65, 1.95), (1.35, 1.7), (3.6, 4.9),
        (("box", 0.01, 0.18, 0.005, 0.99, 0.6, 1, "main"), ("taper", 0.05, 0.6, 0.22, 0.95, 0.985, 0.9, "glass"),
         ("taper", 0.1, 0.92, 0.36, 0.9, 1, 0.78, "main"),
         *((("cylinder_x", x, 0, z, x + 0.14, 0.42, z + 0.16, "rubber")) for x in (0.0, 0.86) for z in (0.1, 0.74)),
         ("box", 0.06, 0.4, 0, 0.24, 0.5, 0.01, "light"), ("box", 0.76, 0.4, 0, 0.94, 0.5, 0.01, "light")),
    ),
    Category(
        "van", (1.85, 2.1), (1.9, 2.6), (4.4, 5.8),
        (("box", 0.01, 0.14, 0.18, 0.99, 1, 1, "main"), ("box", 0.01, 0.14, 0, 0.99, 0.5, 0.18, "main"),
         ("wedge", 0.04, 0.5, 0.02, 0.96, 0.92, 0.3, "glass"),
         *((("cylinder_x", x, 0, z, x + 0.14, 0.3, z + 0.14, "rubber")) for x in (0.0, 0.86) for z in (0.1, 0.76)),
         ("box", 0, 0.56, 0.26, 1.0, 0.84, 0.42, "glass")),
    ),
    Category(
        "truck", (2.1, 2.5), (2.5, 3.4), (5.5, 7.5),
        (("box", 0.02, 0.16, 0.01, 0.98, 0.78, 0.26, "main"), ("box", 0.01, 0.24, 0.28, 0.99, 1, 1, "paper"),
         ("box", 0.08, 0.14, 0.2, 0.92, 0.26, 0.98, "dark"), ("box", 0.08, 0.5, 0, 0.92, 0.74, 0.01, "glass"),
         *((("cylinder_x", x, 0, z, x + 0.16, 0.28, z + 0.13, "rubber")) for x in (0.0, 0.84) for z in (0.06, 0.6, 0.8)),
         ("box", 0, 0.5, 0.3, 1, 0.62, 0.99, "main")),
    ),
    Category(
        "bus", (2.3, 2.6), (2.7, 3.3), (7.0, 10.0),
        (("box", 0.01, 0.12, 0.01, 0.99, 1, 1, "main"), ("box", 0, 0.5, 0.03, 1, 0.82, 0.97, "glass"),
         ("box", 0.06, 0.46, 0, 0.94, 0.86, 0.01, "glass"),
         *((("cylinder_x", x, 0, z, x + 0.14, 0.28, z + 0.1, "rubber")) for x in (0.0, 0.86) for z in (0.14, 0.74))),
    ),
    Category(
        "person", (0.45, 0.65), (1.5, 1.95), (0.28, 0.4),
        (("cylinder", 0.2, 0, 0.2, 0.48, 0.48, 0.9, "denim"), ("cylinder", 0.52, 0, 0.2, 0.8, 0.48, 0.9, "denim"),
         ("cylinder", 0.14, 0.46, 0, 0.86, 0.84, 1, "main"), ("cylinder", 0, 0.44, 0.25, 0.17, 0.82, 0.8, "main"),
         ("cylinder", 0.83, 0.44, 0.25, 1, 0.82, 0.8, "main"), ("sphere", 0.34, 0.86, 0.2, 0.66, 1, 0.85, "skin"),
         ("cylinder", 0.42, 0.82, 0.35, 0.58, 0.88, 0.65, "skin")),
    ),
    Category(
        "bicycle", (0.45, 0.6), (0.95, 1.15), (1.5, 1.8),
        (("cylinder_x", 0.46, 0, 0, 0.54, 0.62, 0.39, "rubber"), ("cylinder_x", 0.46, 0, 0.61, 0.54, 0.62, 1, "rubber"),
         ("box", 0.47, 0.3, 0.2, 0.53, 0.36, 0.8, "main"), ("box", 0.45, 0.3, 0.2, 0.55, 0.94, 0.26, "main"),
         ("box", 0.45, 0.3, 0.64, 0.55, 0.86, 0.7, "main"), ("box", 0.45, 0.68, 0.2, 0.55, 0.76, 0.7, "main"),
         ("box", 0, 0.94, 0.2, 1, 1, 0.26, "dark"), ("box", 0.3, 0.86, 0.58, 0.7, 0.93, 0.76, "dark")),
    ),
    Category(
        "traffic cone", (0.35, 0.6), (0.5, 0.95), (0.35, 0.6),
        (("box", 0, 0, 0, 1, 0.07, 1, "dark"), ("cone", 0.12, 0.07, 0.12, 0.88, 1, 0.88, "main"),
         ("frustum", 0.26, 0.38, 0.26, 0.74, 0.6, 0.74, "paper")), ("ground", "top"), colours=("orange", "red", "yellow", "blue", "green"),
    ),
    Category(
        "barrier", (1.2, 2.2), (0.8, 1.1), (0.3, 0.5),
        (("box", 0, 0.55, 0.35, 1, 1, 0.65, "main"), ("box", 0.28, 0.54, 0.34, 0.42, 0.99, 0.66, "paper"),
         ("box", 0.58, 0.54, 0.34, 0.72, 0.99, 0.66, "paper"), ("taper", 0.06, 0, 0, 0.14, 0.6, 1, "dark"),
         ("taper", 0.86, 0, 0, 0.94, 0.6, 1, "dark")),
    ),
    Category(
        "bench", (1.3, 2.0), (0.75, 0.95), (0.5, 0.7),
        (("box", 0, 0.46, 0, 1, 0.54, 0.8, "main"), ("box", 0, 0.6, 0.84, 1, 1, 1, "main"),
         ("box", 0.06, 0, 0.05, 0.12, 0.46, 0.9, "metal"), ("box", 0.88, 0, 0.05, 0.94, 0.46, 0.9, "metal"),
         ("box", 0.06, 0.4, 0.86, 0.12, 0.7, 0.96, "metal"), ("box", 0.88, 0.4, 0.86, 0.94, 0.7, 0.96, "metal")),
    ),
    Category(
        "tree", (1.6, 3.2), (2.8, 5.5), (1.6, 3.2),
        (("cylinder", 0.43, 0, 0.43, 0.57, 0.5, 0.57, "darkwood"), ("sphere", 0, 0.34, 0.05, 0.85, 0.84, 0.95, "main"),
         ("sphere", 0.2, 0.5, 0, 1, 1, 1, "main")), colours=("green", "yellow", "orange", "red"),
    ),
    Category(
        "street lamp", (0.5, 1.0), (3.2, 5.0), (0.25, 0.4),
        (("cylinder", 0, 0, 0.1, 0.26, 0.05, 0.9, "dark"), ("cylinder", 0.08, 0.05, 0.3, 0.18, 0.97, 0.7, "main"),
         ("box", 0.08, 0.95, 0.35, 1, 1, 0.65, "main"), ("box", 0.6, 0.91, 0, 1, 0.96, 1, "light")),
    ),
    Category(
        "traffic light", (0.3, 0.45), (2.4, 3.6), (0.3, 0.45),
        (("cylinder", 0.38, 0, 0.38, 0.62, 0.74, 0.62, "metal"), ("box", 0, 0.72, 0.08, 1, 1, 1, "main"),
         ("cylinder_z", 0.25, 0.91, 0, 0.75, 0.98, 0.08, "dark"), ("cylinder_z", 0.25, 0.825, 0, 0.75, 0.895, 0.08, "light"),
         ("cylinder_z", 0.25, 0.74, 0, 0.75, 0.81, 0.08, "dark")), colours=("yellow", "black", "green", "gray", "red"),
    ),
    Category(
        "road sign", (0.55, 0.95), (1.9, 2.8), (0.08, 0.12),
        (("cylinder", 0.46, 0, 0.4, 0.54, 0.95, 1, "metal"), ("cylinder_z", 0, 0.7, 0.1, 1, 1, 0.4, "main"),
         ("box", 0.2, 0.82, 0, 0.8, 0.88, 0.1, "paper")), colours=("red", "blue", "yellow", "green", "orange"),
    ),
    Category(
        "fire hydrant", (0.35, 0.5), (0.6, 0.95), (0.35, 0.5),
        (("cylinder", 0.1, 0, 0.1, 0.9, 0.1, 0.9, "main"), ("cylinder", 0.2, 0.1, 0.2, 0.8, 0.76, 0.8, "main"),
         ("sphere", 0.2, 0.62, 0.2, 0.8, 1, 0.8, "main"), ("cylinder_x", 0, 0.48, 0.38, 1, 0.66, 0.62, "metal"),
         ("cylinder_z", 0.38, 0.48, 0, 0.62, 0.66, 1, "metal")),
    ),
    Category(
        "mailbox", (0.45, 0.65), (1.0, 1.4), (0.4, 0.6),
        (("box", 0, 0.2, 0.03, 1, 0.86, 1, "main"), ("taper", 0, 0.86, 0.03, 1, 1, 1, "main"), *_legs(0.14, 0.14, 0.2, "dark"),
         ("box", 0.15, 0.7, 0, 0.85, 0.76, 0.03, "dark")),
    ),
    Category(
        "dumpster", (1.4, 2.2), (1.1, 1.5), (0.9, 1.3),
        (("box", 0, 0.08, 0, 1, 0.9, 1, "main"), ("taper", 0, 0.9, 0, 1, 1, 1, "dark"),
         *((("cylinder_x", x, 0, z, x + 0.08, 0.12, z + 0.12, "rubber")) for x in (0.04, 0.88) for z in (0.06, 0.82))),
    ),
    Category(
        "crate", (0.7, 1.4), (0.6, 1.2), (0.7, 1.4),
        (("box", 0.02, 0.02, 0.02, 0.98, 0.98, 0.98, "main"), ("box", 0, 0, 0, 1, 0.1, 1, "darkwood"),
         ("box", 0, 0.9, 0, 1, 1, 1, "darkwood"), *_legs(0.08, 0.08, 1.0, "darkwood")),
        ("ground", "top"), (_TOP,),
    ),
    Category(
        "barrel", (0.55, 0.8), (0.8, 1.15), (0.55, 0.8),
        (("cylinder", 0.03, 0, 0.03, 0.97, 1, 0.97, "main"), ("cylinder", 0, 0.28, 0, 1, 0.34, 1, "dark"),
         ("cylinder", 0, 0.66, 0, 1, 0.72, 1, "dark")), ("ground", "top"), ((0.18, 0.18, 0.82, 0.82, 1.0, 0.0),),
    ),
    Category(
        "kiosk", (1.6, 2.4), (2.1, 2.8), (1.4, 2.0),
        (("box", 0.06, 0, 0.08, 0.94, 0.9, 1, "main"), ("box", 0, 0.9, 0, 1, 1, 1, "paper"),
         ("box", 0.14, 0.42, 0.06, 0.86, 0.8, 0.08, "screen"), ("box", 0.1, 0.36, 0.0, 0.9, 0.4, 0.08, "wood")), surfaces=(_TOP,),
    ),
    Category(
        "flower tub", (0.6, 1.3), (0.6, 1.0), (0.5, 0.8),
        (("box", 0, 0, 0, 1, 0.6, 1, "main"), ("sphere", 0.05, 0.45, 0.05, 0.55, 0.95, 0.95, "leaf"),
         ("sphere", 0.45, 0.45, 0.05, 0.95, 1, 0.95, "leaf")),
    ),
    Category(
        "shop sign", (1.2, 3.0), (0.5, 1.0), (0.15, 0.3),
        (("box", 0, 0, 0.3, 1, 1, 1, "main"), ("box", 0.1, 0.3, 0, 0.9, 0.7, 0.3, "paper")), ("wall",), hang=(2.3, 4.5),
    ),
    Category(
        "awning", (1.6, 3.2), (0.5, 0.9), (0.8, 1.4),
        (("wedge", 0, 0.25, 0, 1, 1, 1, "main"), ("box", 0, 0, 0, 1, 0.25, 0.08, "paper"), ("box", 0, 0, 0.92, 1, 0.25, 1, "main")),
        ("wall",), hang=(2.2, 3.6),
    ),
    Category(
        "air conditioner", (0.8, 1.2), (0.6, 0.9), (0.35, 0.5),
        (("box", 0, 0, 0.08, 1, 1, 1, "main"), ("cylinder_z", 0.25, 0.14, 0, 0.75, 0.86, 0.08, "dark")), ("wall",), hang=(2.0, 4.8),
    ),
    Category(
        "balcony", (2.0, 3.4), (1.0, 1.4), (0.9, 1.3),
        (("box", 0, 0, 0, 1, 0.2, 1, "concrete"), ("box", 0, 0.2, 0, 1, 1, 0.08, "main"), ("box", 0, 0.2, 0, 0.04, 1, 1, "main"),
         ("box", 0.96, 0.2, 0, 1, 1, 1, "main")), ("wall",), hang=(2.6, 4.4),
    ),
)  # fmt: skip
"""Things of a street."""

TABLETOP = (
    Category(
        "mug", (0.09, 0.14), (0.08, 0.14), (0.07, 0.11),
        (("cylinder", 0, 0, 0, 0.78, 1, 1, "main"), ("box", 0.74, 0.72, 0.4, 1, 0.86, 0.6, "main"),
         ("box", 0.9, 0.2, 0.4, 1, 0.86, 0.6, "main"), ("box", 0.74, 0.2, 0.4, 1, 0.34, 0.6, "main")), ("ground", "top"),
    ),
    Category(
        "bottle", (0.06, 0.11), (0.2, 0.36), (0.06, 0.11),
        (("cylinder", 0, 0, 0, 1, 0.62, 1, "main"), ("frustum", 0, 0.62, 0, 1, 0.78, 1, "main"),
         ("cylinder", 0.32, 0.74, 0.32, 0.68, 0.93, 0.68, "main"), ("cylinder", 0.28, 0.92, 0.28, 0.72, 1, 0.72, "dark")),
        ("ground", "top"),
    ),
    Category(
        "bowl", (0.13, 0.26), (0.06, 0.12), (0.13, 0.26),
        (("cup", 0, 0, 0, 1, 1, 1, "main"),), ("ground", "top"),
    ),
    Category(
        "can", (0.06, 0.1), (0.1, 0.17), (0.06, 0.1),
        (("cylinder", 0, 0, 0, 1, 0.94, 1, "main"), ("cylinder", 0.06, 0.94, 0.06, 0.94, 1, 0.94, "metal")),
        ("ground", "top"), ((0.18, 0.18, 0.82, 0.82, 1.0, 0.0),),
    ),
    Category(
        "jar", (0.08, 0.14), (0.1, 0.2), (0.08, 0.14),
        (("cylinder", 0, 0, 0, 1, 0.82, 1, "main"), ("cylinder", 0.06, 0.82, 0.06, 0.94, 1, 0.94, "metal")), ("ground", "top"),
    ),
    Category(
        "book", (0.14, 0.24), (0.025, 0.06), (0.2, 0.3),
        (("box", 0, 0.8, 0, 1, 1, 1, "main"), ("box", 0, 0, 0, 1, 0.2, 1, "main"), ("box", 0.03, 0.2, 0.03, 0.97, 0.8, 0.97, "paper"),
         ("box", 0, 0.2, 0, 0.03, 0.8, 1, "main")), ("ground", "top"), (_TOP,),
    ),
    Category(
        "cereal box", (0.15, 0.22), (0.22, 0.34), (0.05, 0.09),
        (("box", 0, 0, 0, 1, 1, 1, "main"), ("box", 0.15, 0.3, 0.0, 0.85, 0.7, 1, "main")), ("ground", "top"),
    ),
    Category(
        "toy block", (0.06, 0.14), (0.06, 0.14), (0.06, 0.14),
        (("box", 0, 0, 0, 1, 1, 1, "main"),), ("ground", "top"), (_TOP,), colours=_VIVID,
    ),
    Category(
        "storage box", (0.15, 0.32), (0.1, 0.22), (0.14, 0.26),
        (("box", 0.02, 0, 0.02, 0.98, 0.8, 0.98, "main"), ("box", 0, 0.8, 0, 1, 1, 1, "main")), ("ground", "top"), (_TOP,),
    ),
    Category("ball", (0.06, 0.14), (0.06, 0.14), (0.06, 0.14), (("sphere", 0, 0, 0, 1, 1, 1, "main"),), ("ground", "top"), colours=_VIVID),
    Category(
        "kettle", (0.18, 0.27), (0.2, 0.3), (0.14, 0.2),
        (("frustum", 0.12, 0, 0, 0.86, 0.74, 1, "main"), ("sphere", 0.42, 0.7, 0.4, 0.58, 0.84, 0.6, "dark"),
         ("box", 0, 0.5, 0.42, 0.24, 0.62, 0.58, "main"), ("box", 0.24, 0.86, 0.42, 0.8, 1, 0.58, "dark"),
         ("box", 0.72, 0.5, 0.42, 0.8, 1, 0.58, "dark"), ("box", 0.24, 0.7, 0.42, 0.3, 0.9, 0.58, "dark"),
         ("sphere", 0.8, 0.1, 0.4, 1, 0.4, 0.6, "main")),
    ),
    Category(
        "desk lamp", (0.16, 0.26), (0.32, 0.5), (0.16, 0.26),
        (("cylinder", 0.1, 0, 0.1, 0.9, 0.05, 0.9, "dark"), ("cylinder", 0.44, 0.05, 0.44, 0.56, 0.68, 0.56, "metal"),
         ("frustum", 0, 0.62, 0, 1, 1, 1, "main")), ("ground", "top"),
    ),
    Category(
        "vase", (0.1, 0.18), (0.18, 0.34), (0.1, 0.18),
        (("cup", 0.15, 0, 0.15, 0.85, 0.3, 0.85, "main"), ("sphere", 0, 0.1, 0, 1, 0.78, 1, "main"),
         ("cylinder", 0.3, 0.7, 0.3, 0.7, 1, 0.7, "main")), ("ground", "top"),
    ),
    Category(
        "candle", (0.05, 0.1), (0.08, 0.2), (0.05, 0.1),
        (("cylinder", 0, 0, 0, 1, 0.9, 1, "main"), ("cylinder", 0.45, 0.88, 0.45, 0.55, 1, 0.55, "dark")), ("ground", "top"),
    ),
    Category(
        "laptop", (0.3, 0.4), (0.2, 0.27), (0.22, 0.32),
        (("box", 0, 0, 0, 1, 0.08, 0.94, "main"), ("box", 0, 0.06, 0.94, 1, 1, 1, "main"), ("box", 0.05, 0.14, 0.93, 0.95, 0.94, 0.94, "screen"),
         ("box", 0.08, 0.08, 0.4, 0.92, 0.1, 0.88, "dark")),
    ),
    Category(
        "alarm clock", (0.09, 0.15), (0.1, 0.17), (0.05, 0.08),
        (("cylinder_z", 0, 0.08, 0.12, 1, 1, 1, "main"), ("cylinder_z", 0.12, 0.18, 0, 0.88, 0.9, 0.12, "paper"),
         ("box", 0.15, 0, 0.2, 0.3, 0.24, 0.9, "dark"), ("box", 0.7, 0, 0.2, 0.85, 0.24, 0.9, "dark")), ("ground", "top"),
    ),
    Category(
        "toaster", (0.24, 0.34), (0.16, 0.22), (0.14, 0.2),
        (("box", 0.04, 0.08, 0, 1, 0.98, 1, "main"), ("box", 0.14, 0.98, 0.24, 0.9, 1, 0.38, "dark"), ("box", 0.14, 0.98, 0.62, 0.9, 1, 0.76, "dark"),
         ("box", 0, 0.5, 0.4, 0.05, 0.62, 0.6, "dark"), ("box", 0.08, 0, 0.06, 0.96, 0.1, 0.94, "dark")), ("ground",), (_TOP,),
    ),
    Category(
        "flower pot", (0.12, 0.22), (0.18, 0.36), (0.12, 0.22),
        (("cup", 0.12, 0, 0.12, 0.88, 0.45, 0.88, "main"), ("sphere", 0, 0.42, 0, 0.85, 0.9, 1, "leaf"),
         ("sphere", 0.25, 0.5, 0.1, 1, 1, 0.9, "leaf")), ("ground", "top"),
    ),
    Category(
        "rack", (0.32, 0.55), (0.3, 0.5), (0.18, 0.28),
        (("box", 0, 0, 0, 0.04, 1, 1, "main"), ("box", 0.96, 0, 0, 1, 1, 1, "main"), ("box", 0.04, 0.46, 0, 0.96, 0.5, 1, "main"),
         ("box", 0.04, 0.96, 0, 0.96, 1, 1, "main")),
        surfaces=((0.05, 0, 0.95, 1, 0.5, 0.44), (0, 0, 1, 1, 1.0, 0.0)),
    ),
    Category(
        "tray stand", (0.24, 0.38), (0.12, 0.26), (0.24, 0.38),
        (("cylinder", 0.25, 0, 0.25, 0.75, 0.1, 0.75, "metal"), ("cylinder", 0.42, 0.1, 0.42, 0.58, 0.88, 0.58, "metal"),
         ("cylinder", 0, 0.86, 0, 1, 1, 1, "main")), surfaces=((0.16, 0.16, 0.84, 0.84, 1.0, 0.0),),
    ),
    Category(
        "speaker", (0.11, 0.2), (0.18, 0.34), (0.12, 0.2),
        (("box", 0, 0, 0.04, 1, 1, 1, "main"), ("cylinder_z", 0.16, 0.1, 0, 0.84, 0.55, 0.04, "dark"),
         ("cylinder_z", 0.3, 0.65, 0, 0.7, 0.9, 0.04, "dark")), ("ground", "top"), (_TOP,),
    ),
)  # fmt: skip
"""Things on a table."""
