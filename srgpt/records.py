"""What travels between stages: the records, and the Arrow schemas they are stored in.

Three tables make the chain. ``scenes`` (written by *ingest* and, completed, by *perceive*) holds pixels and
whatever is known about them; ``graphs`` (by *lift*) holds one 3D scene graph per image; ``conversations`` (by
*ask*) holds questions with the numbers their answers came from. A record converts to and from the plain dict
that Arrow stores (``to_row`` / ``from_row``), and every field is checked on the way in.

Frames: *camera* is OpenCV (x right, y down, z forward); *canonical* is the camera frame turned so that gravity
is +y, with its origin at the camera. Metres everywhere.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from srgpt.errors import InputError

SCHEMA_VERSION = 2

Source = str | None
"""Where a value came from: ``"given"`` by the source, the id of the model or rule that supplied it, or None."""

Floats = NDArray[np.float64]

DEPTH_UNIT = 0.001
"""Metres per step of the stored uint16 depth; 0 means "no reading"; the largest depth is 65.535 m."""

QUALITATIVE = {
    "left_right": ("left_predicate", "right_predicate", "left_choice", "right_choice"),
    "below_above": ("below_predicate", "above_predicate", "below_choice", "above_choice"),
    "big_small": ("big_predicate", "small_predicate"),
    "tall_short": ("tall_predicate", "short_predicate", "tall_choice", "short_choice"),
    "wide_thin": ("wide_predicate", "thin_predicate"),
    "behind_front": ("behind_predicate", "front_predicate"),
}
"""Qualitative groups of the benchmark and the question categories that each is graded from."""

QUANTITATIVE = {
    "distance": ("distance_data",),
    "horizontal_distance": ("horizontal_distance_data",),
    "vertical_distance": ("vertical_distance_data",),
    "width": ("width_data",),
    "height": ("height_data",),
    "direction": ("direction",),
}
"""Quantitative groups and their (single) categories."""

GROUP_OF = {c: g for groups in (QUALITATIVE, QUANTITATIVE) for g, cs in groups.items() for c in cs}
"""Question category -> group."""

CATEGORIES = tuple(GROUP_OF)
"""The 24 question categories, names as in the reference."""

Unit = Literal["metres", "clock_hours", "truth", "ratio", "count", "region", "order", "text"]

REASONING: dict[str, dict[str, Unit]] = {
    "camera": {"camera_distance_data": "metres"},
    "ratio": {"width_ratio": "ratio", "height_ratio": "ratio"},
    "ranking": {
        **dict.fromkeys(("tallest", "shortest", "widest", "thinnest"), "region"),
        **dict.fromkeys(("leftmost", "rightmost", "highest", "lowest", "nearest", "farthest"), "region"),
    },
    "counting": dict.fromkeys(
        ("count_left", "count_right", "count_above", "count_below", "count_front", "count_behind"), "count"
    ),
    "multi_hop": {
        "reach": "truth",
        "fit_through": "truth",
        "path_choice": "region",
        "closest_to": "region",
        "filtered_tallest": "region",
        "ordering": "order",
    },
    "facts": {
        **dict.fromkeys(
            ("left_fact", "below_fact", "front_fact", "thin_fact", "short_fact", "small_fact"), "region"
        ),
        **dict.fromkeys(("width_fact", "height_fact", "distance_fact"), "metres"),
        **dict.fromkeys(("horizontal_distance_fact", "vertical_distance_fact"), "metres"),
    },
}
"""Questions beyond the benchmark's: family -> category -> unit of its answer."""

UNIT_OF: dict[str, Unit] = {
    **{c: "metres" for g, cs in QUANTITATIVE.items() if g != "direction" for c in cs},
    "direction": "clock_hours",
    **{c: "truth" for cs in QUALITATIVE.values() for c in cs},
    **{c: unit for units in REASONING.values() for c, unit in units.items()},
}
"""Every question category that *ask* knows -> the unit of its answer."""


@dataclass(frozen=True)
class Cuboid:
    """An oriented 3D box in the camera frame: the whole object, not only what is seen.

    ``center`` (3,) metres; ``size`` (3,) extents along the box's own axes, metres; ``rotation`` (3, 3) maps box
    axes to camera axes. The box's own y axis is its vertical one.
    """

    center: Floats
    size: Floats
    rotation: Floats

    def corners(self) -> Floats:
        """Return the eight corners in the camera frame, (8, 3) metres."""
        signs = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], dtype=np.float64)
        return (signs * self.size / 2) @ self.rotation.T + self.center

    def to_row(self) -> dict[str, list[float]]:
        """Convert to plain lists."""
        return {
            "center": [float(v) for v in self.center],
            "size": [float(v) for v in self.size],
            "rotation": [float(v) for v in np.asarray(self.rotation).reshape(-1)],
        }

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> Cuboid:
        """Read plain lists."""
        return cls(
            np.asarray(row["center"], dtype=np.float64),
            np.asarray(row["size"], dtype=np.float64),
            np.asarray(row["rotation"], dtype=np.float64).reshape(3, 3),
        )


@dataclass(frozen=True)
class Region:
    """One object of a scene, as a region of its image.

    ``id`` is unique within the scene. ``bbox`` is ``xyxy`` in pixels; ``rle`` a COCO run-length mask
    ``{"size": [height, width], "counts": str}`` at the image's own size. ``visibility`` is the visible share of
    the object's own pixels (0 to 1), ``truncation`` the share outside the image; -1 where unknown.
    """

    id: int
    category: str
    label: str
    """What a person would call it, with attributes: ``"red office chair"``. Falls back to the category."""
    bbox: tuple[float, float, float, float]
    rle: dict[str, Any] | None = None
    mask_source: Source = None
    cuboid: Cuboid | None = None
    visibility: float = -1.0
    truncation: float = -1.0
    score: float = 1.0

    def mask(self) -> NDArray[np.bool_]:
        """Decode the mask, (height, width) bool."""
        if self.rle is None:
            raise InputError(f"region {self.id} ({self.category}) has no mask")
        return decode_rle(self.rle)

    def pixels(self) -> NDArray[np.int64]:
        """Return the mask's pixels as ``row + height * column``, (N,), in order; faster than the mask itself.

        Raises :class:`InputError` as :meth:`mask` does.
        """
        if self.rle is None:
            raise InputError(f"region {self.id} ({self.category}) has no mask")
        return rle_pixels(self.rle)

    def to_row(self) -> dict[str, Any]:
        """Convert to a plain dict."""
        return {
            "id": self.id,
            "category": self.category,
            "label": self.label,
            "bbox": [float(v) for v in self.bbox],
            "rle": self.rle,
            "mask_source": self.mask_source,
            "cuboid": None if self.cuboid is None else self.cuboid.to_row(),
            "visibility": self.visibility,
            "truncation": self.truncation,
            "score": self.score,
        }

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> Region:
        """Read a plain dict."""
        box = tuple(row["bbox"])
        return cls(
            **{k: row[k] for k in ("id", "category", "label", "rle", "mask_source")},
            bbox=box,  # type: ignore[arg-type]
            cuboid=None if row["cuboid"] is None else Cuboid.from_row(row["cuboid"]),
            visibility=row["visibility"],
            truncation=row["truncation"],
            score=row["score"],
        )


@dataclass(frozen=True)
class Scene:
    """One picture and all that is known about it.

    ``image`` is an encoded JPEG or PNG file; ``depth`` a PNG of uint16 z-depth in millimetres (0 = no reading);
    ``intrinsics`` (fx, fy, cx, cy) in pixels with pixel centres at integer coordinates; ``gravity`` a unit
    vector in the camera frame. Each ``*_source`` says who supplied the value.
    """

    dataset: str
    scene_id: str
    width: int
    height: int
    image: bytes
    regions: tuple[Region, ...] = ()
    depth: bytes | None = None
    depth_source: Source = None
    intrinsics: tuple[float, float, float, float] | None = None
    intrinsics_source: Source = None
    gravity: tuple[float, float, float] | None = None
    gravity_source: Source = None
    uri: str = ""
    """Where the picture came from: a path, a URL, or a recipe such as ``procedural://street/17?seed=7``."""
    licence: str = ""
    relative_depth: bytes | None = None
    """A PNG of uint16 inverse depth without scale, 65535 = nearest, 0 = no reading: for models, never for facts."""
    relative_depth_source: Source = None
    tags: tuple[str, ...] = ()
    """Words for what the picture shows, from which a detector starts."""

    def rgb(self) -> NDArray[np.uint8]:
        """Decode the picture, (height, width, 3) uint8."""
        from PIL import Image

        if not self.image:
            raise InputError(f"scene {self.scene_id} of {self.dataset} was imported without its picture")
        with Image.open(io.BytesIO(self.image)) as picture:
            return np.array(picture.convert("RGB"))

    def depth_metres(self) -> NDArray[np.float32]:
        """Decode the depth, (height, width) float32 metres, 0 where there is no reading."""
        if self.depth is None:
            raise InputError(f"scene {self.scene_id} of {self.dataset} has no depth")
        return decode_depth(self.depth)

    def replace(self, **changes: Any) -> Scene:
        """Return a copy with some fields changed."""
        return replace(self, **changes)

    def to_row(self) -> dict[str, Any]:
        """Convert to a plain dict."""
        row = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "regions"}
        row["regions"] = [r.to_row() for r in self.regions]
        for name in ("intrinsics", "gravity"):
            row[name] = None if row[name] is None else [float(v) for v in row[name]]
        return {**row, "tags": list(self.tags)}

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> Scene:
        """Read a plain dict."""
        fields = {name: row[name] for name in cls.__dataclass_fields__ if name != "regions"}
        fields["tags"] = tuple(fields["tags"])
        for name in ("intrinsics", "gravity"):
            fields[name] = None if fields[name] is None else tuple(fields[name])
        return cls(**fields, regions=tuple(Region.from_row(r) for r in row["regions"]))


@dataclass(frozen=True)
class Box:
    """An axis-aligned box in the canonical frame (x right, y down = gravity, z forward), metres.

    Every fact is computed from boxes like this one, be they fitted to points or made from cuboids.
    """

    center: Floats
    size: Floats

    @property
    def near(self) -> float:
        """Nearest depth of the box, metres along canonical z."""
        return float(self.center[2] - self.size[2] / 2)

    def to_row(self) -> dict[str, list[float]]:
        """Convert to plain lists."""
        return {"center": [float(v) for v in self.center], "size": [float(v) for v in self.size]}

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> Box:
        """Read plain lists."""
        return cls(np.asarray(row["center"], dtype=np.float64), np.asarray(row["size"], dtype=np.float64))


@dataclass(frozen=True)
class OrientedBox:
    """A box turned about gravity only: ``center`` and ``size`` (3,) metres, ``yaw`` radians about +y (canonical)."""

    center: Floats
    size: Floats
    yaw: float

    def to_row(self) -> dict[str, Any]:
        """Convert to plain lists."""
        return {**Box(self.center, self.size).to_row(), "yaw": float(self.yaw)}

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> OrientedBox:
        """Read plain lists."""
        box = Box.from_row(row)
        return cls(box.center, box.size, row["yaw"])


@dataclass(frozen=True)
class Node:
    """One object of a scene graph.

    ``perceived`` comes from masked depth (None where lifting dropped the object, ``dropped`` then says why);
    ``truth`` from the ground-truth cuboid (None where the source has none).
    """

    id: int
    category: str
    label: str
    bbox: tuple[float, float, float, float]
    rle: dict[str, Any] | None
    perceived: Box | None = None
    oriented: OrientedBox | None = None
    truth: Box | None = None
    dropped: str | None = None
    mask_points: int = 0
    """Masked pixels with a depth reading."""
    kept_points: int = 0
    """Points left after cleaning."""
    depth_coverage: float = 0.0
    """Share of the mask's pixels that have a depth reading, 0 to 1."""
    cluster_share: float = 0.0
    """Share of the outlier-free voxels that are in the largest cluster, 0 to 1."""
    center_sigma: tuple[float, float, float] | None = None
    """Standard deviation of the perceived box's centre, metres along the canonical axes."""
    size_sigma: tuple[float, float, float] | None = None
    """Standard deviation of the perceived box's extents, metres."""
    points: tuple[float, ...] | None = None
    """The cleaned cloud (x, y, z, x, ...), kept only where SpatialRGPT's own definitions are asked for."""
    visibility: float = -1.0
    truncation: float = -1.0

    def to_row(self) -> dict[str, Any]:
        """Convert to a plain dict."""
        row = {name: getattr(self, name) for name in self.__dataclass_fields__}
        row["bbox"] = [float(v) for v in self.bbox]
        for name in ("center_sigma", "size_sigma", "points"):
            row[name] = None if row[name] is None else [float(v) for v in row[name]]
        for name in ("perceived", "oriented", "truth"):
            row[name] = None if row[name] is None else row[name].to_row()
        return row

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> Node:
        """Read a plain dict."""
        fields = {name: row[name] for name in cls.__dataclass_fields__}
        fields["bbox"] = tuple(fields["bbox"])
        for name in ("center_sigma", "size_sigma", "points"):
            fields[name] = None if fields[name] is None else tuple(fields[name])
        for name, kind in (("perceived", Box), ("oriented", OrientedBox), ("truth", Box)):
            fields[name] = None if fields[name] is None else kind.from_row(fields[name])  # type: ignore[attr-defined]
        return cls(**fields)


@dataclass(frozen=True)
class SceneGraph:
    """The objects of one picture in its canonical frame; relations are computed from them when asked for.

    ``rotation`` (3, 3) maps camera to canonical coordinates.
    """

    dataset: str
    scene_id: str
    width: int
    height: int
    rotation: Floats
    nodes: tuple[Node, ...]
    scale_sigma: float = 0.0
    """Relative standard deviation of the scale that all of the picture's depths share."""

    def to_row(self) -> dict[str, Any]:
        """Convert to a plain dict."""
        return {
            "dataset": self.dataset,
            "scene_id": self.scene_id,
            "width": self.width,
            "height": self.height,
            "rotation": [float(v) for v in np.asarray(self.rotation).reshape(-1)],
            "nodes": [n.to_row() for n in self.nodes],
            "scale_sigma": self.scale_sigma,
        }

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> SceneGraph:
        """Read a plain dict."""
        return cls(
            **{k: row[k] for k in ("dataset", "scene_id", "width", "height")},
            rotation=np.asarray(row["rotation"], dtype=np.float64).reshape(3, 3),
            nodes=tuple(Node.from_row(n) for n in row["nodes"]),
            scale_sigma=row["scale_sigma"],
        )


@dataclass(frozen=True)
class Turn:
    """One question and its answer.

    ``regions`` lists region ids in the order of mention: ``<region0>`` in the question and ``Region [0]`` in the
    answer are ``regions[0]``. ``value`` is what the answer says, in ``unit``: metres, clock hours (1 to 12), or a
    truth value (1.0 or 0.0). For a predicate the truth value is its answer; for a choice it is 1.0 when
    ``regions[0]`` is the one chosen. A ``ratio`` has no dimension, a ``count`` is a whole number, and a ``region``
    is the number k of ``Region [k]``; an ``order`` writes such numbers as digits, the first one first (Region [2],
    [0], [1]: 201). Where ``unit`` is ``text`` nothing is known but the words, and ``value`` is
    None. ``sigma`` is the standard deviation of ``value`` in the same unit, or, for a truth value, the chance that
    it is wrong; None where it was not estimated.
    """

    question: str
    answer: str
    category: str
    regions: tuple[int, ...]
    value: float | None
    unit: Unit
    sigma: float | None = None

    def to_row(self) -> dict[str, Any]:
        """Convert to a plain dict."""
        return {**{n: getattr(self, n) for n in self.__dataclass_fields__}, "regions": list(self.regions)}

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> Turn:
        """Read a plain dict."""
        fields = {n: row[n] for n in cls.__dataclass_fields__}
        return cls(**{**fields, "regions": tuple(fields["regions"])})


@dataclass(frozen=True)
class AskedRegion:
    """A region as a conversation carries it: enough to draw it and to pool features under it."""

    id: int
    category: str
    rle: dict[str, Any] | None
    bbox: tuple[float, float, float, float]

    def to_row(self) -> dict[str, Any]:
        """Convert to a plain dict."""
        return {
            "id": self.id,
            "category": self.category,
            "rle": self.rle,
            "bbox": [float(v) for v in self.bbox],
        }

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> AskedRegion:
        """Read a plain dict."""
        return cls(row["id"], row["category"], row["rle"], tuple(row["bbox"]))


@dataclass(frozen=True)
class Conversation:
    """Questions about one picture.

    ``truth`` says where the facts came from: ``cuboids``, ``perceived``, or ``imported`` with the words. ``width`` and
    ``height`` are 0 where a row without regions was imported without its picture.
    """

    dataset: str
    scene_id: str
    conversation_id: str
    truth: Literal["cuboids", "perceived", "imported"]
    width: int
    height: int
    regions: tuple[AskedRegion, ...]
    turns: tuple[Turn, ...]

    def to_row(self) -> dict[str, Any]:
        """Convert to a plain dict."""
        row = {n: getattr(self, n) for n in self.__dataclass_fields__}
        return {
            **row,
            "regions": [r.to_row() for r in self.regions],
            "turns": [t.to_row() for t in self.turns],
        }

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> Conversation:
        """Read a plain dict."""
        fields = {n: row[n] for n in cls.__dataclass_fields__}
        return cls(
            **{
                **fields,
                "regions": tuple(AskedRegion.from_row(r) for r in row["regions"]),
                "turns": tuple(Turn.from_row(t) for t in row["turns"]),
            }
        )


@dataclass(frozen=True)
class Prediction:
    """One graded answer of a model (or of a control) to one benchmark question."""

    dataset: str
    scene_id: str
    conversation_id: str
    turn: int
    category: str
    question: str
    answer: str
    prediction: str
    value: float
    unit: Unit
    predicted_value: float | None
    """The prediction read as a number in ``unit``; None where it could not be read."""
    success: bool
    error: float | None
    """Relative error for metres, hours for clock directions, None for truth values and unreadable answers."""
    inputs: Literal["rgbd", "rgb", "boxes", "blind"]
    regions: tuple[int, ...] = field(default=())

    def to_row(self) -> dict[str, Any]:
        """Convert to a plain dict."""
        return {**{n: getattr(self, n) for n in self.__dataclass_fields__}, "regions": list(self.regions)}

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> Prediction:
        """Read a plain dict."""
        fields = {n: row[n] for n in cls.__dataclass_fields__}
        return cls(**{**fields, "regions": tuple(fields["regions"])})


@dataclass(frozen=True)
class Rejected:
    """Input that was set aside: which, why (a short slug that is counted), and the details for a person.

    ``id`` is a scene's, or SCENE/PART for one object of a scene that was kept without it.
    """

    id: str
    reason: str
    detail: str = ""


# Pixels at rest ---------------------------------------------------------------------------------------------


def encode_png(array: NDArray[Any], level: int = 1) -> bytes:
    """Encode a uint8 (grey or RGB) or uint16 (grey) array as PNG."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG", compress_level=level)
    return buffer.getvalue()


def encode_depth(metres: NDArray[np.floating[Any]]) -> bytes:
    """Encode z-depth (height, width) metres as a uint16 millimetre PNG; not finite, <= 0 or > 65.535 m become 0."""
    steps = np.rint(np.nan_to_num(metres, nan=0.0, posinf=0.0, neginf=0.0) / DEPTH_UNIT)
    return encode_png(np.where((steps > 0) & (steps <= 65535), steps, 0).astype(np.uint16))


def decode_depth(png: bytes) -> NDArray[np.float32]:
    """Decode :func:`encode_depth`, (height, width) float32 metres, 0 where there is no reading."""
    from PIL import Image

    with Image.open(io.BytesIO(png)) as picture:
        return np.array(picture).astype(np.float32) * np.float32(DEPTH_UNIT)


def encode_rle(mask: NDArray[Any]) -> dict[str, Any]:
    """Encode a (height, width) mask as compressed COCO RLE with string counts."""
    from pycocotools import mask as coco

    rle = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": [int(v) for v in rle["size"]], "counts": rle["counts"].decode("ascii")}


def decode_rle(rle: dict[str, Any]) -> NDArray[np.bool_]:
    """Decode a compressed COCO RLE to (height, width) bool.

    Raises :class:`InputError` where the string is broken: pycocotools itself reads past the end of it.
    """
    from pycocotools import mask as coco

    height, width = (int(v) for v in rle["size"])
    total = rle_length(rle["counts"])
    if height <= 0 or width <= 0 or total != height * width:
        raise InputError(f"broken RLE: {total} pixels counted, {height} x {width} expected")
    return coco.decode({"size": [height, width], "counts": rle["counts"].encode("ascii")}).astype(bool)


_RLE_DIGITS = 8
"""Longer numbers than 40 bits are no run lengths of a picture."""


def rle_pixels(rle: dict[str, Any]) -> NDArray[np.int64]:
    """Return the set pixels of a compressed COCO RLE as ``row + height * column``, (N,), in order.

    Raises :class:`InputError` where the string is broken.
    """
    height, width = (int(v) for v in rle["size"])
    runs = rle_runs(rle["counts"])
    total = -1 if runs is None else int(runs.sum())
    if runs is None or height <= 0 or width <= 0 or total != height * width:
        raise InputError(f"broken RLE: {total} pixels counted, {height} x {width} expected")
    lengths = runs[1::2]
    starts = np.cumsum(runs)[0::2][: len(lengths)]
    # every run counts up from its start: one long count, shifted at each run's beginning
    return np.arange(lengths.sum()) + np.repeat(starts - (np.cumsum(lengths) - lengths), lengths)


def rle_length(counts: str) -> int:
    """Sum the run lengths of a compressed COCO RLE string; -1 where it is not one."""
    runs = rle_runs(counts)
    return -1 if runs is None else int(runs.sum())


def rle_runs(counts: str) -> NDArray[np.int64] | None:
    """Return the run lengths (R,) of a compressed COCO RLE string, background first; None where it is not one.

    The format packs each run in base 32, least significant digit first, offset by 48, with bit 5 as "more" and
    bit 4 of the last digit as the sign; from the fourth run on, runs are differences to the run two before.
    """
    if not counts.isascii():
        return None
    digits = np.frombuffer(counts.encode(), dtype=np.uint8).astype(np.int64) - 48
    if len(digits) == 0:
        return np.zeros(0, dtype=np.int64)
    last = (digits & 0x20) == 0
    if ((digits < 0) | (digits > 63)).any() or not last[-1]:
        return None
    ends = np.flatnonzero(last)
    starts = np.concatenate([[0], ends[:-1] + 1])
    if (ends - starts).max() > _RLE_DIGITS - 1:
        return None
    shifts = 5 * (np.arange(len(digits)) - np.repeat(starts, ends - starts + 1))
    runs = np.add.reduceat((digits & 0x1F) << shifts, starts)
    runs -= np.where(digits[ends] & 0x10, 1, 0) << (shifts[ends] + 5)
    runs[1::2] = np.cumsum(runs[1::2])
    runs[2::2] = np.cumsum(runs[2::2])
    return None if (runs < 0).any() else runs
