"""One ordinary picture: opened safely, turned upright, as plain RGB in a JPEG or PNG file without metadata.

A file that needs no change keeps its own bytes, less what tells about its owner (EXIF with GPS, XMP, comments,
thumbnails, whatever is appended); colour profiles stay. Others are encoded anew: JPEG where the file was lossy
(quality 95, full chroma), else PNG. Transparent pixels come to lie on white, 16-bit grey keeps its upper eight
bits, and of an animation or a file with several pages the first picture counts.
"""

from __future__ import annotations

import contextlib
import io
import math
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import ExifTags, Image

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP")
"""What is decoded, MPO (JPEG with several pictures) included; all else is unsupported: for some formats Pillow would
start other programs."""

MAX_BYTES = 256 * 2**20
"""Larger files are set aside unread."""

EXIF = "exif"
"""Source of intrinsics that were computed from the focal length in a picture's EXIF."""

Intrinsics = tuple[float, float, float, float]

_SIGNATURES = re.compile(rb"\xff\xd8\xff|\x89PNG|RIFF....WEBP|II\*\0|MM\0\*|II\+\0|MM\0\+|BM", re.DOTALL)
_LOSSY = ("JPEG", "MPO", "WEBP")
_QUALITY = 95
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation -> what makes it upright."""
_FILM_DIAGONAL = math.hypot(36, 24)
_FOCAL_SHARES = (0.2, 40.0)
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


class UnusableError(Exception):
    """Something that has to be set aside; ``reason`` is a slug that is counted, ``detail`` is for a person."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True)
class Picture:
    """An upright picture in RGB. ``data`` holds the file's own bytes where they can stay."""

    image: Image.Image
    form: str
    """``JPEG`` or ``PNG``: what it is stored as."""
    data: bytes | None
    intrinsics: Intrinsics | None
    """Guess from EXIF: (fx, fy, cx, cy) in pixels of ``image``; None where EXIF says nothing credible."""
    original: tuple[int, int]
    """Width and height of the upright picture before it was scaled."""
    turned: bool
    """Whether EXIF had the stored pixels turned or mirrored."""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self.image.size

    def encoded(self) -> bytes:
        """Return the file to store."""
        return self.data if self.data is not None else _encode(self.image, self.form)


def read_picture(data: bytes, name: str, *, max_pixels: int, max_side: int | None = None) -> Picture:
    """Read the file ``data``; ``name`` is for messages.

    With ``max_side`` a larger picture is scaled down, and its intrinsics with it. Raises
    :class:`UnusableError` (``empty-file``, ``file-too-large``, ``unsupported-format``, ``unsupported-pixels``,
    ``decompression-bomb``, ``truncated-image``, ``unreadable-image``).
    """
    with _reading(name, "image"), _open(data, name, max_pixels) as opened:
        form = opened.format or ""
        upright, exif, orientation = _upright(opened)
        image = _rgb(upright, name)
        keeps = opened.mode == "RGB" and orientation == 1 and not opened.has_transparency_data
        own = without_metadata(data, form) if keeps else None
    swapped = orientation >= 5
    focal = _focal(exif, image.size[::-1] if swapped else image.size)
    intrinsics = None
    if focal is not None:
        fx, fy = focal[::-1] if swapped else focal
        intrinsics = (fx, fy, (image.width - 1) / 2, (image.height - 1) / 2)
    original, size = image.size, smaller(image.size, max_side)
    if size != original:
        intrinsics = None if intrinsics is None else scaled(intrinsics, original, size)
        image, own = image.resize(size, Image.Resampling.LANCZOS), None
    return Picture(image, "JPEG" if form in _LOSSY else "PNG", own, intrinsics, original, orientation != 1)


def look_at(data: bytes, name: str, *, max_pixels: int, side: int = 512) -> Image.Image:
    """Decode a picture to judge its looks: upright, RGB, and, where JPEG makes that cheap, smaller.

    Fails on the same files as :func:`read_picture`, with the same errors.
    """
    with _reading(name, "image"), _open(data, name, max_pixels) as opened:
        if opened.format in ("JPEG", "MPO"):
            opened.draft(None, (side, side))
        return _rgb(_upright(opened)[0], name)


def decode(data: bytes, name: str, what: str, *, max_pixels: int) -> tuple[Image.Image, str]:
    """Decode a picture as it is, in its own mode; return it with its format.

    ``what`` (``image``, ``depth``, ``mask``) completes the reasons of :class:`UnusableError`.
    """
    with _reading(name, what), _open(data, name, max_pixels) as opened:
        opened.load()
        return opened.copy(), opened.format or ""


# Opening --------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _reading(name: str, what: str) -> Iterator[None]:
    """Turn whatever a decoder raises over broken data into :class:`UnusableError`.

    Decoders of broken files fail in every way there is (struct.error, IndexError, MemoryError...), and one file
    must not end the work on all others. Messages of Pillow may hold memory addresses, and tables must be
    reproducible.
    """
    warnings.filterwarnings("ignore", module=r"PIL\.")
    try:
        yield
    except UnusableError:
        raise
    except Image.DecompressionBombError as error:
        raise UnusableError("decompression-bomb", f"{name}: {error}") from None
    except Image.UnidentifiedImageError:
        raise UnusableError(f"unreadable-{what}", f"{name}: its header is broken or cut off") from None
    except Exception as error:
        words = _ADDRESS.sub("", str(error)) or type(error).__name__
        reason = "truncated" if isinstance(error, OSError) and "truncated" in words else "unreadable"
        raise UnusableError(f"{reason}-{what}", f"{name}: {words}") from None


def _open(data: bytes, name: str, max_pixels: int) -> Image.Image:
    """Read the header only."""
    if not data:
        raise UnusableError("empty-file", f"{name}: it has no bytes")
    if len(data) > MAX_BYTES:
        raise UnusableError("file-too-large", f"{name}: {len(data)} bytes, at most {MAX_BYTES} are read")
    if not _SIGNATURES.match(data):
        raise UnusableError(
            "unsupported-format", f"{name}: not a picture of a format that is read ({', '.join(FORMATS)})"
        )
    image = Image.open(io.BytesIO(data), formats=FORMATS)
    width, height = image.size
    if width * height > max_pixels:
        raise UnusableError(
            "decompression-bomb", f"{name}: {width} x {height} pixels, ingest.max_pixels allows {max_pixels}"
        )
    return image


def _upright(opened: Image.Image) -> tuple[Image.Image, dict[int, Any], int]:
    """Decode; return the picture turned as EXIF says, EXIF, and its orientation (1 to 8, 1 is upright)."""
    tiff = opened.format == "TIFF"  # Pillow turns it by itself while decoding, and forgets the tag
    exif = _exif(opened) if tiff else {}
    opened.load()
    exif = exif or _exif(opened)
    orientation = exif.get(ExifTags.Base.Orientation, 1)
    if orientation not in _TURNS:
        return opened, exif, 1
    return opened if tiff else opened.transpose(_TURNS[orientation]), exif, orientation


def _exif(image: Image.Image) -> dict[int, Any]:
    """Return EXIF's tags, those about the exposure with them; nothing where EXIF is broken."""
    try:
        exif = image.getexif()
        return {**exif, **exif.get_ifd(ExifTags.IFD.Exif)}
    except Exception:
        return {}


# Pixels ---------------------------------------------------------------------------------------------------


def _rgb(image: Image.Image, name: str) -> Image.Image:
    """Convert to RGB."""
    if image.mode.startswith("I"):
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise UnusableError("unsupported-pixels", f"{name}: 32-bit grey has no fixed white")
        image = Image.fromarray((values >> 8).astype(np.uint8))
    elif image.mode == "F":
        raise UnusableError("unsupported-pixels", f"{name}: pixels of floating point have no fixed white")
    elif image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    if image.mode == "RGB":
        return image
    image = image.convert("RGB")
    image.info.pop("icc_profile", None)  # it described other channels
    return image


def smaller(size: tuple[int, int], max_side: int | None) -> tuple[int, int]:
    """Return the size (width, height) with its longer side at most ``max_side``, in proportion."""
    longest = max(size)
    if max_side is None or longest <= max_side:
        return size
    width, height = (max(1, round(side * max_side / longest)) for side in size)
    return width, height


def scaled(intrinsics: Intrinsics, size: tuple[int, int], to: tuple[int, int]) -> Intrinsics:
    """Return the intrinsics of a picture of ``size`` after it was scaled ``to`` another (width, height).

    Pixel centres lie at integers, so the picture's edge is at -1/2 and coordinates scale about it.
    """
    fx, fy, cx, cy = intrinsics
    x, y = to[0] / size[0], to[1] / size[1]
    return (fx * x, fy * y, (cx + 0.5) * x - 0.5, (cy + 0.5) * y - 0.5)


def _encode(image: Image.Image, form: str) -> bytes:
    buffer = io.BytesIO()
    profile = image.info.get("icc_profile")
    plain = Image.fromarray(np.asarray(image))  # without what the file said about itself
    if form == "JPEG":
        plain.save(buffer, "JPEG", quality=_QUALITY, subsampling=0, icc_profile=profile)
    else:
        plain.save(buffer, "PNG", compress_level=1, icc_profile=profile)
    return buffer.getvalue()


# Intrinsics from EXIF -------------------------------------------------------------------------------------


def _focal(exif: dict[int, Any], size: tuple[int, int]) -> tuple[float, float] | None:
    """Return (fx, fy) in pixels of the stored picture; None where EXIF says nothing credible.

    The 35 mm equivalent is that of the diagonal angle of view (CIPA DCG-001; so does Depth Pro's
    ``fpx_from_f35``): f = f35 * diagonal in pixels / 43.27 mm. Else the focal length on the sensor, times the
    sensor's pixels per millimetre (Exif 2.32, FocalPlaneXResolution), scaled where the picture was since.
    A picture whose sides do not fit the size that EXIF recorded was cropped: then neither holds.
    """
    width, height = size
    recorded = _number(exif, ExifTags.Base.ExifImageWidth), _number(exif, ExifTags.Base.ExifImageHeight)
    scale = None
    if recorded[0] and recorded[1]:
        if (recorded[0] > recorded[1]) != (width > height):
            recorded = recorded[1], recorded[0]
        scale = width / recorded[0], height / recorded[1]
        if abs(scale[0] * recorded[1] / height - 1) > 0.01:
            return None
    film = _number(exif, ExifTags.Base.FocalLengthIn35mmFilm)
    if film:
        focal = film * math.hypot(width, height) / _FILM_DIAGONAL
        pair = (focal, focal)
    elif scale is not None and (found := _sensor_focal(exif)) is not None:
        pair = (found[0] * scale[0], found[1] * scale[1])
    else:
        return None
    low, high = (share * max(width, height) for share in _FOCAL_SHARES)
    return pair if all(low <= value <= high for value in pair) else None


def _sensor_focal(exif: dict[int, Any]) -> tuple[float, float] | None:
    focal = _number(exif, ExifTags.Base.FocalLength)
    x, y = (
        _number(exif, tag)
        for tag in (ExifTags.Base.FocalPlaneXResolution, ExifTags.Base.FocalPlaneYResolution)
    )
    unit = exif.get(ExifTags.Base.FocalPlaneResolutionUnit, 2)
    millimetres = {2: 25.4, 3: 10.0}.get(unit) if isinstance(unit, int) else None
    if not focal or not x or millimetres is None:
        return None
    return (focal * x / millimetres, focal * (y or x) / millimetres)


def _number(exif: dict[int, Any], tag: int) -> float:
    """Return a positive number; 0 where there is none."""
    try:
        value = float(exif[tag])
    except (KeyError, TypeError, ValueError, ZeroDivisionError, OverflowError):
        return 0.0
    return value if math.isfinite(value) and value > 0 else 0.0


# Metadata -------------------------------------------------------------------------------------------------

_NEXT_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]", re.DOTALL)
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_COLOUR = (b"gAMA", b"cHRM", b"sRGB", b"iCCP", b"sBIT", b"cICP")


def without_metadata(data: bytes, form: str) -> bytes | None:
    """Return a JPEG or 8-bit PNG file without its metadata and with the same pixels; ``data`` where it has none.

    None where that cannot be done without encoding the pixels anew, or for another format.
    """
    if form in ("JPEG", "MPO"):
        parts = list(_jpeg_parts(data))
    elif form == "PNG" and data[24:25] == b"\x08":
        parts = list(_png_parts(data))
    else:
        return None
    if not parts or parts[-1] is None:
        return None
    kept = b"".join(part for part in parts if part is not None)
    return data if kept == data else kept


def _jpeg_parts(data: bytes) -> Iterator[bytes | None]:
    """Yield what stays of a JPEG file, up to the end of its (first) picture; None last where it is malformed.

    Segments are marker, length, content (ITU-T T.81, annex B); after SOS come entropy-coded bytes in which a
    marker is 0xff followed by neither 0 (a stuffed byte) nor a restart marker.
    """
    yield data[:2]
    at = 2
    while True:
        start = at
        while data[at : at + 1] == b"\xff":
            at += 1
        if at == start or at >= len(data):
            yield None
            return
        marker = data[at]
        at += 1
        if marker == 0xD9:
            yield b"\xff\xd9"
            return
        length = int.from_bytes(data[at : at + 2], "big")
        segment = data[at : at + length]
        if length < 2 or len(segment) < length:
            yield None
            return
        if _stays(marker, segment[2:]):
            yield b"\xff" + bytes([marker]) + segment
        at += length
        if marker == 0xDA:
            found = _NEXT_MARKER.search(data, at)
            if found is None:
                yield None
                return
            yield data[at : found.start()]
            at = found.start()


def _stays(marker: int, content: bytes) -> bool:
    """Whether a segment tells how to decode the picture: of the application segments JFIF, ICC and Adobe do."""
    if marker == 0xFE:
        return False
    if 0xE0 <= marker <= 0xEF:
        return content.startswith((b"JFIF\0", b"ICC_PROFILE\0", b"Adobe"))
    return True


def _png_parts(data: bytes) -> Iterator[bytes | None]:
    """Yield the critical chunks of a PNG file and those about colour; None last where it is malformed."""
    yield _PNG_SIGNATURE
    at = len(_PNG_SIGNATURE)
    while True:
        length = int.from_bytes(data[at : at + 4], "big")
        kind = data[at + 4 : at + 8]
        chunk = data[at : at + 12 + length]
        if len(chunk) < 12 + length:
            yield None
            return
        if not kind[0] & 0x20 or kind in _PNG_COLOUR:
            yield chunk
        at += len(chunk)
        if kind == b"IEND":
            return
