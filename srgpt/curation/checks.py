"""What can be wrong with one stored value, said in a sentence: pictures, depth, masks, boxes, questions.

Each ``*_problem`` function returns None, or a sentence for a person. None of them raises, whatever it is
given: a broken value is a finding.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np
from PIL import Image

from srgpt.curation import facts, reasoning
from srgpt.geometry.language import read_value
from srgpt.geometry.units import METRES_PER
from srgpt.records import DEPTH_UNIT, GROUP_OF, UNIT_OF, Box, rle_length

Row = dict[str, Any]

_MENTION = re.compile(r"<region(\d+)>")
_NAMED = re.compile(r"Region \[(\d+)\]")
_UNITS = re.compile("|".join(METRES_PER))
_NO_DEPTH: Row = dict.fromkeys(
    ("depth_problem", "depth_min", "depth_max", "depth_not_finite", "depth_valid_share"), None
)

# Pixels -----------------------------------------------------------------------------------------------------


def image_problem(data: bytes | None, width: int, height: int) -> str | None:
    """Say what is wrong with an encoded picture: unreadable, cut off, or of another size than declared."""
    if not data:
        return "there is no picture"
    try:
        with Image.open(io.BytesIO(data)) as picture:
            size = picture.size
            if not data.endswith((b"\xff\xd9", b"IEND\xaeB`\x82")):
                picture.load()  # no end marker: only decoding tells whether something is missing
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        return f"the picture cannot be read ({type(error).__name__})"
    if size != (width, height):
        return f"declared {width} x {height} pixels, the picture has {size[0]} x {size[1]}"
    return None


def depth_columns(data: bytes | None, width: int, height: int) -> Row:
    """Decode depth whatever its encoding, so that values a uint16 cannot hold are seen and not wrapped.

    ``depth_min`` and ``depth_max`` are metres over finite values, ``depth_valid_share`` the share of pixels
    with a reading, ``depth_not_finite`` a count; all None where there is nothing to measure.
    """
    if data is None:
        return _NO_DEPTH
    try:
        with Image.open(io.BytesIO(data)) as picture:
            kind, mode, size = picture.format, picture.mode, picture.size
            values = np.asarray(picture)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return {**_NO_DEPTH, "depth_problem": "depth cannot be decoded"}
    if values.ndim != 2 or values.size == 0:
        return {**_NO_DEPTH, "depth_problem": f"depth has mode {mode}, not one channel"}
    problem = None
    if size != (width, height):
        problem = f"depth has {size[0]} x {size[1]} pixels, the scene {width} x {height}"
    elif (kind, values.dtype) != ("PNG", np.uint16):
        problem = f"depth is {kind} of {values.dtype}, not PNG of uint16"
    finite = values[np.isfinite(values)]
    metres = (
        (float(finite.min()) * DEPTH_UNIT, float(finite.max()) * DEPTH_UNIT) if finite.size else (None, None)
    )
    return {
        "depth_problem": problem,
        "depth_min": metres[0],
        "depth_max": metres[1],
        "depth_not_finite": int(values.size - finite.size),
        "depth_valid_share": float((finite > 0).sum() / values.size),
    }


def mask_columns(rle: Row, width: int, height: int) -> tuple[str | None, int]:
    """Return the problem and the pixel count (-1 where there is a problem) of a mask in an image."""
    from pycocotools import mask as coco

    if list(rle["size"] or ()) != [height, width]:
        return f"mask is {rle['size']}, the image [{height}, {width}]", -1
    total = rle_length(rle["counts"] or "")
    if total != width * height:  # pycocotools would read past the end of it
        found = f"{total} pixels counted" if total >= 0 else "not a run-length string"
        return f"broken RLE: {found}, {width * height} pixels expected", -1
    return None, int(coco.area({"size": [height, width], "counts": rle["counts"].encode("ascii")}))


# Geometry ---------------------------------------------------------------------------------------------------


def intrinsics_problem(values: list[float] | None) -> str | None:
    """Say what is wrong with intrinsics; nothing is where there is none."""
    if values is None:
        return None
    if len(values) != 4 or not all(map(math.isfinite, values)):
        return f"intrinsics {values} are not four finite numbers"
    return None if values[0] > 0 and values[1] > 0 else f"focal lengths {values[:2]} are not positive"


def gravity_problem(values: list[float] | None) -> str | None:
    """Say what is wrong with gravity; nothing is where there is none."""
    if values is None:
        return None
    if len(values) != 3 or not all(map(math.isfinite, values)):
        return f"gravity {values} is not three finite numbers"
    norm = math.hypot(*values)
    return None if abs(norm - 1) < 1e-3 else f"gravity has length {norm:.4g}, not 1"


def provenance_problem(row: Row) -> str | None:
    """Say where a scene has a value without a source, or a source without its value."""
    for name in ("depth", "intrinsics", "gravity"):
        if (row[name] is None) != (row[f"{name}_source"] is None):
            return f"{name} and {name}_source are not both there or both absent"
    return None


def rotation_problem(values: list[float] | None, gravity: list[float] | None) -> str | None:
    """Say what is wrong with a canonical rotation: a proper rotation, which turns gravity to +y."""
    if values is None or len(values) != 9 or not all(map(math.isfinite, values)):
        return "the rotation is not nine finite numbers"
    R = np.reshape(values, (3, 3))
    if np.abs(R @ R.T - np.eye(3)).max() > 1e-6 or np.linalg.det(R) < 0:
        return "the matrix is not a rotation"
    if gravity is not None and len(gravity) == 3 and np.abs(R @ gravity - (0, 1, 0)).max() > 1e-3:
        return "the rotation does not turn gravity to +y"
    return None


def bbox_problem(bbox: list[float] | None, width: int, height: int) -> str | None:
    """Say what is wrong with an ``xyxy`` box in an image; half a pixel over the border is rounding."""
    if bbox is None or len(bbox) != 4 or not all(map(math.isfinite, bbox)):
        return f"box {bbox} is not four finite numbers"
    x0, y0, x1, y1 = bbox
    if x1 <= x0 or y1 <= y0:
        return f"box {_short(bbox)} has no area"
    if x0 < -0.5 or y0 < -0.5 or x1 > width + 0.5 or y1 > height + 0.5:
        return f"box {_short(bbox)} leaves the {width} x {height} image"
    return None


def box_problem(box: Row | None) -> str | None:
    """Say what is wrong with a 3D box or cuboid: its center and its sizes are finite, its sizes positive."""
    if box is None:
        return None
    for name in ("center", "size"):
        values = box[name] or []
        if len(values) != 3 or not all(map(math.isfinite, values)):
            return f"{name} {values} is not three finite numbers"
    return None if min(box["size"]) > 0 else f"size {_short(box['size'])} is not positive"


def _short(values: Iterable[float]) -> str:
    return "[" + ", ".join(f"{v:.4g}" for v in values) + "]"


# Questions --------------------------------------------------------------------------------------------------


def is_text(turn: Row) -> bool:
    """Return whether nothing is known of a turn but its words: neither its value nor what it is about."""
    return bool(turn["unit"] == "text")


def expected_regions(category: str) -> int:
    """Return how many regions a question of one of the benchmark's categories is about."""
    return 1 if category in facts.SINGLE else 2


def category_problem(turn: Row) -> str | None:
    """Say where a category is none that questions can be checked by; free text may have any."""
    if is_text(turn) or turn["category"] is None or turn["category"] in UNIT_OF:
        return None
    return f"category {turn['category']!r} is unknown, and the unit is {turn['unit']}, not text"


def unit_problem(turn: Row) -> str | None:
    """Say where a turn's unit is not its category's."""
    unit = UNIT_OF.get(turn["category"])
    if unit is None or is_text(turn):
        return None  # another rule speaks of the category
    return None if unit == turn["unit"] else f"unit {turn['unit']}, {turn['category']} has {unit}"


def value_problem(turn: Row) -> str | None:
    """Say where a value is none of its unit.

    Lengths and ratios are finite and not negative, hours 1 to 12, truths 0 or 1, counts, regions and orders whole
    numbers, regions those of the turn; free text has no value.
    """
    value, unit = turn["value"], turn["unit"]
    if is_text(turn):
        return None if value is None else f"value {value:g}, free text has none"
    if value is None or not math.isfinite(value):
        return f"value {value} is not a finite number"
    whole = value >= 0 and value == int(value)
    fits = {
        "metres": 0 <= value <= 1000,
        "clock_hours": 1 <= value <= 12 and whole,
        "truth": value in (0.0, 1.0),
        "ratio": value > 0,
        "count": whole,
        "region": whole and value < len(turn["regions"] or []),
        "order": whole,
    }
    return None if fits.get(unit, True) else f"value {value:g} is out of range for {unit}"


def sigma_problem(*values: float | None) -> str | None:
    """Say where a standard deviation (or a chance) is not a finite number of at least 0; None is not estimated."""
    wrong = [v for v in values if v is not None and not (math.isfinite(v) and v >= 0)]
    return f"{wrong[0]} is no standard deviation" if wrong else None


def regions_problem(turn: Row, known: Collection[int]) -> str | None:
    """Say where a turn asks about regions that its conversation does not have."""
    unknown = [r for r in turn["regions"] or [] if r not in known]
    return f"region {unknown[0]} is unknown; the conversation has {sorted(known)}" if unknown else None


def region_count_problem(turn: Row) -> str | None:
    """Say where a turn has another number of (distinct) regions than its category is about.

    Categories beyond the benchmark's are about any number, at least one; free text may be about none.
    """
    regions = list(turn["regions"] or [])
    if len(regions) != len(set(regions)):
        return f"regions {regions}, different ones were expected"
    if is_text(turn) or (turn["category"] not in GROUP_OF and regions):
        return None
    wanted = expected_regions(turn["category"])
    if len(regions) == wanted:
        return None
    return f"regions {regions}, {turn['category']} is about {wanted} different ones"


def mentions_problem(turn: Row) -> str | None:
    """Say where a question does not name each of the turn's regions, or an answer names another."""
    count = len(turn["regions"] or [])
    asked = {int(k) for k in _MENTION.findall(turn["question"] or "")}
    # free text may leave one to its answer
    if asked != set(range(count)) and not (is_text(turn) and asked <= set(range(count))):
        return f"the question names regions {sorted(asked)}, the turn has 0 to {count - 1}"
    beyond = [k for k in map(int, _NAMED.findall(turn["answer"] or "")) if k >= count]
    return f"the answer names Region [{beyond[0]}], the turn has 0 to {count - 1}" if beyond else None


def answer_problem(turn: Row) -> str | None:
    """Say where an answer, read back from its text, is not its value, within the rounding of the text."""
    answer, value, category = turn["answer"], turn["value"], turn["category"]
    if category not in UNIT_OF or value is None or is_text(turn):
        return None  # other rules speak of these
    said = read_value(answer or "", category)
    if said is None:
        return f"no value can be read from {answer!r}"
    if not abs(said - value) <= answer_tolerance(answer, category):
        return f"{answer!r} says {said:.6g}, the value is {value:.6g}"
    return None


def answer_tolerance(answer: str, category: str) -> float:
    """Return how far a text may be from its value: half a step of two decimals in the text's unit."""
    if UNIT_OF[category] == "ratio":
        return 0.005 + 1e-9
    if UNIT_OF[category] != "metres":
        return 1e-9
    unit = _UNITS.search(answer)
    step = 0.01 * (METRES_PER[unit[0]] if unit else 1.0)
    return step / 2 + 1e-9


def fact_problem(turn: Row, nodes: Mapping[int, Row], truth: str) -> str | None:
    """Say where a value is not the fact that the graph's boxes give; ``truth`` says which boxes count."""
    category, regions, value = turn["category"], list(turn["regions"] or []), turn["value"]
    benchmark = category in GROUP_OF
    if category not in UNIT_OF or value is None or (benchmark and len(regions) != expected_regions(category)):
        return None  # other rules speak of these
    boxes = []
    for region in regions:
        row = nodes.get(region, {}).get("truth" if truth == "cuboids" else "perceived")
        if row is None:
            return f"region {region} has no {truth} box in the scene graph"
        if box_problem(row) is not None:
            return None
        boxes.append(Box.from_row(row))
    try:
        fact = facts.fact(category, *boxes) if benchmark else reasoning.value_of(category, boxes)
    except (ValueError, IndexError, StopIteration):
        return f"{category} cannot be asked of regions {regions}"
    if fact is None or abs(fact - value) <= 1e-6 * max(1.0, abs(fact)):
        return None
    return f"the value is {value:.6g}, the scene graph gives {fact:.6g}"
