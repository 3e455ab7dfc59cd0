"""Omni3D: photographs with 3D boxes, from a folder or bucket with Omni3D's JSON format.

Beyond Omni3D's own fields an image may have ``depth_path`` (uint16 PNG, millimetres, 0 = no reading) and
``gravity_cam`` (direction of gravity in the camera frame), an annotation ``segmentation`` (COCO RLE or
polygons). A problem of the file as a whole is an error; a picture that cannot be used is set aside with its
reason, and so is an annotation that cannot be used, or that Omni3D's own filter ignores
(:mod:`srgpt.sources.omni3d_boxes`).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from srgpt.errors import InputError
from srgpt.params import IngestParams, Omni3dParams
from srgpt.records import Region, Rejected, Scene, encode_png
from srgpt.sources.base import Loaded
from srgpt.sources.listing import Tree
from srgpt.sources.omni3d_boxes import DroppedError, common_gravity, finite_array, is_text, read_region
from srgpt.sources.pictures import UnusableError, decode, without_metadata
from srgpt.storage import digest, exists, join, read_bytes

_IMAGE_KEYS = ("id", "width", "height", "file_path", "K")


@dataclass(frozen=True)
class Picture:
    """One row of ``images`` with the regions kept for it and the annotations dropped; plain, checked values."""

    scene_id: str
    width: int
    height: int
    file_path: str
    intrinsics: tuple[float, float, float, float]
    gravity: tuple[float, float, float] | None
    gravity_source: str | None
    depth_path: str | None
    regions: tuple[Region, ...]
    dropped: tuple[Rejected, ...]


@dataclass(frozen=True)
class Omni3dWork:
    """A shard's worth of pictures, and the rows that are set aside already."""

    url: str
    dataset: str
    licence: str
    max_pixels: int
    items: tuple[Picture | Rejected, ...]

    def load(self) -> Loaded:
        """Read and check the image and depth files."""
        loaded = Loaded()
        for item in self.items:
            found = item if isinstance(item, Rejected) else self._scene(item)
            loaded.add(found)
            if isinstance(item, Picture) and isinstance(found, Scene):
                loaded.rejected += item.dropped
        return loaded

    def pieces(self) -> Sequence[tuple[str, Omni3dWork]]:
        """Return the work picture by picture."""
        return [
            (item.scene_id if isinstance(item, Picture) else item.id, replace(self, items=(item,)))
            for item in self.items
        ]

    def _scene(self, picture: Picture) -> Scene | Rejected:
        tree = Tree(self.url)
        try:
            image = _check_image(tree.read(picture.file_path), picture, self.max_pixels)
            depth = None
            if picture.depth_path is not None:
                depth = _check_depth(tree.read(picture.depth_path, "depth"), picture, self.max_pixels)
        except UnusableError as error:
            return Rejected(picture.scene_id, error.reason, error.detail)
        return Scene(
            dataset=self.dataset,
            scene_id=picture.scene_id,
            width=picture.width,
            height=picture.height,
            image=image,
            regions=picture.regions,
            depth=depth,
            depth_source=None if depth is None else "given",
            intrinsics=picture.intrinsics,
            intrinsics_source="given",
            gravity=picture.gravity,
            gravity_source=picture.gravity_source,
            uri=picture.file_path,
            licence=self.licence,
        )


class Omni3dSource:
    """Reads ``<url>/<ingest.omni3d.annotations>``.

    Raises :class:`InputError` where there is no such file, or where it is not Omni3D's JSON.
    """

    def __init__(self, params: IngestParams, dataset: str, url: str) -> None:
        self.params = params
        self.dataset = dataset
        self.url = url
        self._path = join(url, params.omni3d.annotations)
        if not exists(self._path):
            raise InputError(
                f"{self._path}: not found. ingest.source omni3d reads Omni3D's JSON there; "
                "check --in and ingest.omni3d.annotations."
            )
        data = read_bytes(self._path)
        self._digest = digest(data)
        self._read(_parse(data, self._path))

    def shards(self) -> Sequence[Omni3dWork]:
        """Return the pictures in the file's order, ``ingest.shard_scenes`` at a time."""
        step = self.params.shard_scenes
        parts = [self._items[start : start + step] for start in range(0, len(self._items), step)]
        parts[0] = [*parts[0], *self._strays]
        return [
            Omni3dWork(self.url, self.dataset, self._licence, self.params.max_pixels, tuple(part))
            for part in parts
        ]

    def identity(self) -> dict[str, Any]:
        """Return the annotation file's hash and the settings."""
        return {
            "source": "omni3d",
            "annotations_sha256": self._digest,
            "shard_scenes": self.params.shard_scenes,
            "omni3d": self.params.omni3d.model_dump(mode="json"),
        }

    def statistics(self, set_aside: Collection[str]) -> dict[str, Any]:
        """Return how many images and annotations the file has, and how many objects were kept and dropped.

        ``objects`` are the annotations of the pictures that were kept, ``dropped`` those of them that are not
        used, and those of no picture, by reason.
        """
        kept = [i for i in self._items if isinstance(i, Picture) and i.scene_id not in set_aside]
        dropped = [*self._strays, *(rejected for picture in kept for rejected in picture.dropped)]
        return {
            "images": len(self._items),
            "annotations": self._annotations,
            "objects": sum(len(picture.regions) for picture in kept) + len(dropped),
            "dropped": dict(sorted(Counter(rejected.reason for rejected in dropped).items())),
        }

    def _read(self, data: dict[str, Any]) -> None:
        images = _list(data, "images", self._path)
        annotations = _list(data, "annotations", self._path)
        if not images:
            raise InputError(f"{self._path}: 'images' is empty, so there is nothing to ingest")
        names = _category_names(_list(data, "categories", self._path), self._path)
        info = data.get("info")
        licence = info.get("licence", info.get("license")) if isinstance(info, dict) else None
        self._licence = str(licence) if is_text(licence) else ""
        self._annotations = len(annotations)
        self._strays: list[Rejected] = []
        by_image = self._by_image(images, annotations)
        seen: set[str] = set()
        self._items: list[Picture | Rejected] = []
        for position, row in enumerate(images):
            try:
                key = _key(row)
                if key is not None and _scene_id(key) in seen:
                    raise UnusableError("duplicate-image", f"images[{position}]: id {key} was used before")
                item = _picture(row, by_image.get(key, []), names, self.params.omni3d)
                seen.add(item.scene_id)
            except UnusableError as error:
                self._items.append(Rejected(f"images[{position}]", error.reason, error.detail))
            else:
                self._items.append(item)

    def _by_image(self, images: list[Any], annotations: list[Any]) -> dict[Any, list[dict[str, Any]]]:
        """Group annotations by image; those of no image are set aside."""
        known = {_key(row) for row in images}
        groups: dict[Any, list[dict[str, Any]]] = {}
        for position, row in enumerate(annotations):
            image = row.get("image_id") if isinstance(row, dict) else None
            if not isinstance(row, dict):
                detail = f"expected an object, found {_kind(row)}"
                self._strays.append(Rejected(f"annotations/{position}", "not-an-object", detail))
            elif not isinstance(image, int | str) or image not in known:
                detail = f"image_id {image!r} is not among the images"
                self._strays.append(Rejected(f"annotations/{position}", "unknown-image", detail))
            else:
                groups.setdefault(image, []).append(row)
        return groups


# The file as a whole --------------------------------------------------------------------------------------


def _parse(data: bytes, path: str) -> dict[str, Any]:
    import json

    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON ({error})") from error
    if not isinstance(value, dict):
        raise InputError(
            f"{path}: expected an object with images, categories and annotations, found {_kind(value)}"
        )
    return value


def _list(data: dict[str, Any], key: str, path: str) -> list[Any]:
    if key not in data:
        raise InputError(
            f"{path}: missing key {key!r}; Omni3D's format has info, images, categories, annotations"
        )
    if not isinstance(data[key], list):
        raise InputError(f"{path}: {key!r} must be a list, found {_kind(data[key])}")
    return data[key]


def _category_names(categories: list[Any], path: str) -> dict[int, str]:
    names: dict[int, str] = {}
    for position, row in enumerate(categories):
        if not isinstance(row, dict):
            raise InputError(f"{path}: categories[{position}] must be an object, found {_kind(row)}")
        for key, expected in (("id", int), ("name", str)):
            if not isinstance(row.get(key), expected):
                raise InputError(
                    f"{path}: categories[{position}]: {key!r} is missing or not of type {expected.__name__}"
                )
        names[row["id"]] = row["name"]
    return names


def _kind(value: Any) -> str:
    return "null" if value is None else type(value).__name__


def _key(row: Any) -> int | str | None:
    value = row.get("id") if isinstance(row, dict) else None
    return value if isinstance(value, int | str) else None


# One picture ----------------------------------------------------------------------------------------------


def _picture(
    row: Any,
    annotations: list[dict[str, Any]],
    names: dict[int, str],
    params: Omni3dParams,
) -> Picture:
    """Check one row of ``images`` and its annotations; raises UnusableError."""
    if not isinstance(row, dict):
        raise UnusableError("bad-image-row", f"expected an object, found {_kind(row)}")
    missing = [key for key in _IMAGE_KEYS if key not in row]
    if missing:
        raise UnusableError("bad-image-row", f"missing key {missing[0]!r}")
    identifier, width, height = _key(row), row["width"], row["height"]
    if identifier is None:
        raise UnusableError("bad-image-row", f"'id' must be a number or text, found {_kind(row['id'])}")
    if not all(isinstance(v, int) and not isinstance(v, bool) and 0 < v < 2**16 for v in (width, height)):
        raise UnusableError(
            "bad-image-row", f"'width' and 'height' must be whole pixels, found {width!r} x {height!r}"
        )
    intrinsics = _intrinsics(row["K"])
    regions, dropped = _regions(_scene_id(identifier), annotations, names, (width, height), params)
    gravity, source = _gravity(row, regions, params)
    depth = row.get("depth_path")
    return Picture(
        _scene_id(identifier), width, height, _relative_path(row["file_path"], "file_path"), intrinsics,
        gravity, source, None if depth is None else _relative_path(depth, "depth_path"),
        tuple(regions), tuple(dropped),
    )  # fmt: skip


def _regions(
    scene_id: str,
    annotations: list[dict[str, Any]],
    names: dict[int, str],
    size: tuple[int, int],
    params: Omni3dParams,
) -> tuple[list[Region], list[Rejected]]:
    """Read a picture's annotations; one that is dropped is named SCENE/ANNOTATION."""
    regions: list[Region] = []
    dropped: list[Rejected] = []
    for position, annotation in enumerate(annotations):
        try:
            regions.append(read_region(annotation, len(regions), names, size, params))
        except DroppedError as error:
            name = annotation.get("id")
            known = is_text(name) or (isinstance(name, int) and not isinstance(name, bool))
            identifier = f"{scene_id}/{name if known else f'annotations[{position}]'}"
            dropped.append(Rejected(identifier, error.reason, _about(annotation, names)))
    return regions, dropped


def _about(annotation: dict[str, Any], names: dict[int, str]) -> str:
    """Say what a dropped annotation shows, for a person who looks it up."""
    number, name = annotation.get("category_id"), annotation.get("category_name")
    found = name if is_text(name) else names.get(number) if isinstance(number, int) else None
    return f"an annotation of {found!r}, not used as an object"


def _scene_id(identifier: int | str) -> str:
    if isinstance(identifier, int):
        return f"omni3d-{identifier:06d}"
    plain = re.sub(r"[^A-Za-z0-9_.-]+", "_", identifier)
    return f"omni3d-{plain}" if plain == identifier else f"omni3d-{plain}-{digest(identifier)[:8]}"


def _intrinsics(value: Any) -> tuple[float, float, float, float]:
    matrix = finite_array(value, (3, 3))
    if matrix is None or matrix[0, 0] <= 0 or matrix[1, 1] <= 0:
        raise UnusableError(
            "bad-intrinsics", "'K' must be a 3x3 matrix of finite numbers with positive focal lengths"
        )
    return (float(matrix[0, 0]), float(matrix[1, 1]), float(matrix[0, 2]), float(matrix[1, 2]))


def _gravity(
    row: dict[str, Any], regions: list[Region], params: Omni3dParams
) -> tuple[tuple[float, float, float] | None, str | None]:
    if row.get("gravity_cam") is not None:
        vector = finite_array(row["gravity_cam"], (3,))
        length = 0.0 if vector is None else float(np.linalg.norm(vector))
        if vector is None or not 1e-6 < length < 1e6:
            raise UnusableError("bad-gravity", "'gravity_cam' must be three finite numbers, not all zero")
        x, y, z = vector / length
        return (float(x), float(y), float(z)), "given"
    axis = common_gravity(regions) if params.gravity == "cuboids" else None
    return (axis, "cuboids") if axis is not None else (None, None)


def _relative_path(value: Any, key: str) -> str:
    """Check that a path stays within the source."""
    if not is_text(value) or not value:
        raise UnusableError("bad-path", f"{key!r} must be a relative path, found {value!r}")
    if value.startswith(("/", "\\")) or "://" in value or "\0" in value or ".." in re.split(r"[/\\]", value):
        raise UnusableError("bad-path", f"{key!r} must stay within the source folder, found {value!r}")
    return value


# Its files ------------------------------------------------------------------------------------------------


def _check_image(data: bytes, picture: Picture, max_pixels: int) -> bytes:
    """Decode fully; return the file as it is, less its metadata, where it is JPEG or PNG, else as PNG."""
    image, form = decode(data, picture.file_path, "image", max_pixels=max_pixels)
    if image.size != (picture.width, picture.height):
        raise UnusableError("wrong-image-size", _sizes(picture.file_path, image.size, picture))
    return without_metadata(data, form) or encode_png(np.array(image.convert("RGB")))


def _check_depth(data: bytes, picture: Picture, max_pixels: int) -> bytes:
    assert picture.depth_path is not None
    image, form = decode(data, picture.depth_path, "depth", max_pixels=max_pixels)
    if image.size != (picture.width, picture.height):
        raise UnusableError("wrong-depth-size", _sizes(picture.depth_path, image.size, picture))
    if form != "PNG" or not image.mode.startswith("I"):
        raise UnusableError(
            "bad-depth",
            f"{picture.depth_path}: expected a 16-bit grey PNG, found {form} of mode {image.mode}",
        )
    return data


def _sizes(path: str, size: tuple[int, int], picture: Picture) -> str:
    return f"{path}: {size[0]} x {size[1]} pixels, the JSON says {picture.width} x {picture.height}"
