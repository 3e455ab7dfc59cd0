"""COCO's instance annotations as regions: category, box, and mask where there is one."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np

from srgpt.errors import InputError
from srgpt.records import Region, Rejected, decode_rle
from srgpt.sources.omni3d_boxes import DroppedError, finite_array, is_text, read_mask
from srgpt.sources.pictures import UnusableError


@dataclass(frozen=True, slots=True)
class CocoImage:
    """One row of ``images`` with its annotations; ``names`` maps category ids to names."""

    size: tuple[Any, Any]
    annotations: tuple[Any, ...]
    names: dict[int, str]


def read_coco(data: bytes, where: str) -> dict[str, CocoImage]:
    """Read an annotation file: its images by ``file_name``.

    Raises :class:`InputError` where the file as a whole is not COCO's.
    """
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: not JSON ({error})") from error
    images, annotations, categories = (
        _rows(document, key, where) for key in ("images", "annotations", "categories")
    )
    names = {
        c["id"]: c["name"] for c in categories if isinstance(c.get("id"), int) and is_text(c.get("name"))
    }
    by_image: dict[Any, list[Any]] = {}
    for position, row in enumerate(annotations):
        if not isinstance(row.get("image_id"), int | str):
            raise InputError(f"{where}: annotations[{position}] has no 'image_id'")
        by_image.setdefault(row["image_id"], []).append(row)
    found: dict[str, CocoImage] = {}
    for position, row in enumerate(images):
        if not is_text(row.get("file_name")) or not isinstance(row.get("id"), int | str):
            raise InputError(
                f"{where}: images[{position}] needs an 'id' and a 'file_name', as in COCO's instance annotations "
                "(ingest.rgbd.annotations=null goes without)"
            )
        if row["file_name"] in found:
            raise InputError(f"{where}: images[{position}]: {row['file_name']!r} was described before")
        size = (row.get("width"), row.get("height"))
        found[row["file_name"]] = CocoImage(size, tuple(by_image.pop(row["id"], ())), names)
    if by_image:
        raise InputError(f"{where}: {len(by_image)} image ids of its annotations are not among its images")
    return found


def regions_of(image: CocoImage, scene_id: str, size: tuple[int, int]) -> tuple[list[Region], list[Rejected]]:
    """Return the regions of an image of ``size`` (width, height), and the annotations that are not used.

    Raises :class:`UnusableError` where the annotations are for another size.
    """
    if image.size not in (size, (None, None)):
        raise UnusableError(
            "wrong-annotation-size",
            f"{size[0]} x {size[1]} pixels, the annotations are for {image.size[0]} x {image.size[1]}",
        )
    regions: list[Region] = []
    dropped: list[Rejected] = []
    for position, row in enumerate(image.annotations):
        try:
            regions.append(_region(row, len(regions), image.names, size))
        except DroppedError as error:
            detail = f"an annotation of {image.names.get(_category(row))!r}, not used as an object"
            dropped.append(Rejected(f"{scene_id}/annotations[{position}]", error.reason, detail))
    return regions, dropped


def _region(row: dict[str, Any], index: int, names: dict[int, str], size: tuple[int, int]) -> Region:
    category = names.get(_category(row))
    if not category:
        raise DroppedError("unknown-category")
    if row.get("iscrowd"):
        raise DroppedError("crowd")
    rle = read_mask(row.get("segmentation"), size)
    if rle is None:
        return Region(index, category, category, _bbox(row.get("bbox"), size))
    mask = decode_rle(rle)
    if not mask.any():
        raise DroppedError("empty-segmentation")
    return Region(index, category, category, mask_bbox(mask), rle, "given")


def _category(row: dict[str, Any]) -> int:
    value = row.get("category_id")
    return value if isinstance(value, int) else -1


def _bbox(value: Any, size: tuple[int, int]) -> tuple[float, float, float, float]:
    """Read COCO's [x, y, width, height], clipped to the image."""
    box = finite_array(value, (4,))
    if box is None:
        raise DroppedError("no-2d-box")
    x0, x1 = np.clip([box[0], box[0] + box[2]], 0, size[0])
    y0, y1 = np.clip([box[1], box[1] + box[3]], 0, size[1])
    if x1 <= x0 or y1 <= y0:
        raise DroppedError("outside-image")
    return (float(x0), float(y0), float(x1), float(y1))


def mask_bbox(mask: np.ndarray) -> tuple[float, float, float, float]:
    """Return the box (xyxy, outer edges of its pixels) of a (height, width) mask that is not empty."""
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    return (float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1))


def _rows(document: Any, key: str, where: str) -> list[dict[str, Any]]:
    rows = document.get(key) if isinstance(document, dict) else None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise InputError(
            f"{where}: {key!r} must be a list of objects, as in COCO's instance annotations "
            "(ingest.rgbd.annotations=null goes without)"
        )
    return rows
