"""What a request and an answer are, and how they travel as byte tensors.

A request is five byte strings: ``image`` (a JPEG or PNG file), ``depth`` (a PNG of uint16 millimetres at the
image's size, or empty), ``camera`` (JSON: ``{"intrinsics": [fx, fy, cx, cy], "gravity": [x, y, z]}``, either or both,
or empty: what is not known is assumed), ``regions`` (JSON: a list of ``{"box": [x1, y1, x2, y2]}``,
``{"rle": {"size": [height, width], "counts": "..."}}``, ``{"point": [x, y]}`` or ``{"scribble": [[x, y], ...]}``, in
pixels of the image), and ``question`` (UTF-8 text that names them ``<region0>``, ``<region1>``, ...). The answer is
one JSON document.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from srgpt.errors import InputError
from srgpt.geometry.camera import Intrinsics, canonical_rotation, intrinsics_matrix
from srgpt.geometry.language import parse_region, parse_yes_no, verdict
from srgpt.geometry.units import parse_clock, parse_length
from srgpt.model.prompts import region_mentions

FIELDS = ("image", "depth", "camera", "regions", "question")
"""Names of the request's byte tensors."""

OPTIONAL = ("depth", "camera")
"""Those that a request may leave away."""

MAX_IMAGE_BYTES = 32 * 2**20
MAX_REGIONS = 64
MAX_POINTS = 1000
"""Of a scribble."""
MAX_QUESTION = 4000
"""Characters."""


class RequestError(InputError):
    """A request that cannot be answered as it is; the message says which field and what was expected."""


@dataclass(frozen=True)
class AskedArea:
    """A region: a COCO RLE mask of the image's size, a box (``xyxy``), a point or a scribble (``xy``), all in pixels.

    Of several forms the first one counts.
    """

    box: tuple[float, float, float, float] | None = None
    rle: Mapping[str, Any] | None = None
    point: tuple[float, float] | None = None
    scribble: tuple[tuple[float, float], ...] | None = None

    def to_json(self) -> dict[str, Any]:
        """Convert to what ``regions`` holds."""
        row: dict[str, Any] = {}
        if self.box is not None:
            row["box"] = [float(v) for v in self.box]
        if self.rle is not None:
            row["rle"] = {"size": [int(v) for v in self.rle["size"]], "counts": self.rle["counts"]}
        if self.point is not None:
            row["point"] = [float(v) for v in self.point]
        if self.scribble is not None:
            row["scribble"] = [[float(v) for v in p] for p in self.scribble]
        return row


@dataclass(frozen=True)
class AskedCamera:
    """What is known of the camera: (fx, fy, cx, cy) in pixels, and the direction of gravity in the camera's frame."""

    intrinsics: Intrinsics | None = None
    gravity: tuple[float, float, float] | None = None

    def to_json(self) -> dict[str, Any]:
        """Convert to what ``camera`` holds."""
        known = {"intrinsics": self.intrinsics, "gravity": self.gravity}
        return {name: [float(v) for v in value] for name, value in known.items() if value is not None}


@dataclass(frozen=True)
class Request:
    """One question about one image."""

    image: bytes
    question: str
    regions: tuple[AskedArea, ...] = ()
    depth: bytes | None = None
    camera: AskedCamera = AskedCamera()


@dataclass(frozen=True)
class Answer:
    """The model's answer; ``value`` and ``unit`` are read from its text (None where it states neither)."""

    text: str
    value: float | None
    unit: str | None
    """``metres``, ``clock_hours`` or ``truth`` (for a choice, 1.0 means the first region was chosen)."""
    model: str
    """Which model answered: its name, and the first characters of its export's hash."""
    timings_ms: dict[str, float] = field(default_factory=dict)


def encode_request(request: Request) -> dict[str, bytes]:
    """Convert a request to its byte strings."""
    return {
        "image": request.image,
        "depth": request.depth or b"",
        "camera": json.dumps(request.camera.to_json()).encode(),
        "regions": json.dumps([r.to_json() for r in request.regions]).encode(),
        "question": request.question.encode(),
    }


def decode_request(fields: Mapping[str, bytes]) -> Request:
    """Read and check a request's byte strings; raise :class:`RequestError`. Pixels are not looked at yet."""
    for name in FIELDS:
        if not isinstance(fields.get(name), bytes):
            raise RequestError(f"{name}: missing")
    question = _text(fields["question"])
    regions = _regions(fields["regions"])
    for mention in region_mentions(question):
        if mention >= len(regions):
            raise RequestError(
                f"question: names <region{mention}>, but {len(regions)} region(s) were given "
                "(they count from <region0>)"
            )
    for name in ("image", "depth"):
        if len(fields[name]) > MAX_IMAGE_BYTES:
            raise RequestError(f"{name}: {len(fields[name])} bytes, at most {MAX_IMAGE_BYTES} are taken")
    if not fields["image"]:
        raise RequestError("image: empty; a JPEG or PNG file was expected")
    camera = _camera(fields["camera"])
    return Request(fields["image"], question, regions, fields["depth"] or None, camera)


def encode_answer(answer: Answer) -> bytes:
    """Convert an answer to JSON."""
    return json.dumps({n: getattr(answer, n) for n in Answer.__dataclass_fields__}).encode()


def decode_answer(data: bytes) -> Answer:
    """Read :func:`encode_answer`."""
    return Answer(**json.loads(data))


def read_answer(text: str) -> tuple[float | None, str | None]:
    """Read the value an answer states and its unit; (None, None) where it states none.

    A truth is read from what the answer concludes: "... is to the right, so Region [1]." chose Region [1], and
    "The gap is 80 centimeters, so yes." says yes.
    """
    concluded = verdict(text)
    if concluded != text and (truth := parse_yes_no(concluded)) is not None:
        return truth, "truth"
    if (hour := parse_clock(text)) is not None:
        return float(hour), "clock_hours"
    if (metres := parse_length(text)) is not None:
        return metres, "metres"
    truth = parse_yes_no(concluded)
    if truth is None and (chosen := parse_region(concluded)) is not None:
        truth = {0: 1.0, 1: 0.0}.get(chosen)
    return (None, None) if truth is None else (truth, "truth")


def _text(data: bytes) -> str:
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise RequestError(f"question: not UTF-8 text ({error.reason} at byte {error.start})") from None
    if not text.strip():
        raise RequestError("question: empty")
    if len(text) > MAX_QUESTION:
        raise RequestError(f"question: {len(text)} characters, at most {MAX_QUESTION} are taken")
    return text


def _regions(data: bytes) -> tuple[AskedArea, ...]:
    rows = _json(data or b"[]", "regions")
    if not isinstance(rows, list):
        raise RequestError("regions: a JSON list was expected")
    if len(rows) > MAX_REGIONS:
        raise RequestError(f"regions: {len(rows)} given, at most {MAX_REGIONS} are taken")
    return tuple(_region(row, f"regions[{i}]") for i, row in enumerate(rows))


def _json(data: bytes, name: str) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise RequestError(f"{name}: not JSON ({error})") from None


def _region(row: Any, where: str) -> AskedArea:
    if not isinstance(row, dict) or not set(row) <= set(_FORMS) or not row:
        raise RequestError(f"{where}: an object with one of {', '.join(_FORMS)} was expected")
    return AskedArea(**{n: read(row[n], where) for n, read in _FORMS.items() if row.get(n) is not None})


def _box(value: Any, where: str) -> tuple[float, float, float, float]:
    if not isinstance(value, list) or len(value) != 4 or not all(_is_number(v) for v in value):
        raise RequestError(f"{where}.box: four finite numbers x1, y1, x2, y2 were expected")
    x1, y1, x2, y2 = (float(v) for v in value)
    if not (x1 < x2 and y1 < y2):
        raise RequestError(f"{where}.box: {value} is empty; x1 < x2 and y1 < y2 were expected")
    return x1, y1, x2, y2


def _rle(value: Any, where: str) -> Mapping[str, Any]:
    fits = isinstance(value, dict) and set(value) == {"size", "counts"} and isinstance(value["counts"], str)
    size = value["size"] if fits else None
    if not (isinstance(size, list) and len(size) == 2 and all(isinstance(v, int) and v > 0 for v in size)):
        raise RequestError(f'{where}.rle: {{"size": [height, width], "counts": "..."}} was expected')
    return {"size": size, "counts": value["counts"]}


def _point(value: Any, where: str) -> tuple[float, float]:
    if not isinstance(value, list) or len(value) != 2 or not all(_is_number(v) for v in value):
        raise RequestError(f"{where}: a point is two finite numbers x, y")
    return float(value[0]), float(value[1])


def _scribble(value: Any, where: str) -> tuple[tuple[float, float], ...]:
    if not isinstance(value, list) or not 0 < len(value) <= MAX_POINTS:
        raise RequestError(f"{where}.scribble: a list of 1 to {MAX_POINTS} points [x, y] was expected")
    return tuple(_point(v, where) for v in value)


_FORMS: dict[str, Callable[[Any, str], Any]] = {
    "rle": _rle, "box": _box, "point": _point, "scribble": _scribble,
}  # fmt: skip
"""The forms of a region, the one that counts first, and what reads each."""


def _camera(data: bytes) -> AskedCamera:
    row = _json(data or b"{}", "camera")
    if not isinstance(row, dict) or not set(row) <= {"intrinsics", "gravity"}:
        raise RequestError('camera: an object with "intrinsics" and/or "gravity" was expected')
    camera = AskedCamera(
        _numbers(row.get("intrinsics"), 4, "camera.intrinsics: fx, fy, cx, cy"),
        _numbers(row.get("gravity"), 3, "camera.gravity: x, y, z"),
    )
    try:
        if camera.intrinsics is not None:
            intrinsics_matrix(camera.intrinsics)
        if camera.gravity is not None:
            canonical_rotation(camera.gravity)
    except InputError as error:
        raise RequestError(f"camera: {error}") from None
    return camera


def _numbers(value: Any, count: int, what: str) -> Any:
    if value is None:
        return None
    if not isinstance(value, list) or len(value) != count or not all(_is_number(v) for v in value):
        raise RequestError(f"{what}, {count} finite numbers, were expected")
    return tuple(float(v) for v in value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
