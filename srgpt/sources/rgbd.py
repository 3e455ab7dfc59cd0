"""Pictures with aligned depth, and with intrinsics and masks where there are any.

The layout, below the source's folder (names by ``ingest.rgbd``; an ID may hold folders, ``room1/0007``):

- ``rgb/ID.jpg`` (or another picture format): the picture;
- ``depth/ID.png``: z-depth of the same size, 16-bit grey, ``depth_scale`` steps per metre, 0 = no reading;
- ``intrinsics/ID.txt`` or ``.json``, or the same for a folder above (``intrinsics/room1.txt``) or for the whole set
  (``intrinsics.txt``): see :mod:`srgpt.sources.rgbd_files`;
- ``masks/ID.png``: an instance image, 0 = background, every other value one object; names of the values in
  ``masks/ID.json``, ``masks/room1.json`` or ``masks.json``, ``{"1": "chair", ...}``;
- or, instead of masks, ``annotations.json`` with COCO's images, annotations and categories.

What the set has but one picture lacks, sets that picture aside. Depth in other files, at another size or of another
camera has to be aligned first; so have TUM's time stamps.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from PIL import Image

from srgpt.errors import InputError
from srgpt.params import EngineParams, IngestParams
from srgpt.records import Region, Rejected, Scene, encode_png
from srgpt.sources.base import Loaded
from srgpt.sources.coco import CocoImage, read_coco, regions_of
from srgpt.sources.folder import picture_scene, picture_settings
from srgpt.sources.listing import Tree, is_picture, is_storable, is_unread, scene_id, shown, unread
from srgpt.sources.pictures import UnusableError, look_at, read_picture, scaled
from srgpt.sources.rgbd_files import (
    GIVEN,
    nearest,
    read_depth,
    read_instances,
    read_intrinsics,
    read_names,
    scale_regions,
)
from srgpt.sources.survey import Look, item_id, survey
from srgpt.storage import digest, read_bytes

_STRUCTURED = (".json", ".txt")


@dataclass(frozen=True, slots=True)
class RgbdItem:
    """The files of one picture; None where there is none."""

    scene_id: str
    image: str
    depth: str
    intrinsics: str | None
    mask: str | None
    names: str | None
    coco: CocoImage | None


@dataclass(frozen=True)
class RgbdWork:
    """A shard's worth of pictures, and those that are set aside already."""

    tree: Tree
    dataset: str
    params: IngestParams
    items: tuple[RgbdItem | Rejected, ...]

    def load(self) -> Loaded:
        """Read the pictures with what belongs to them."""
        loaded = Loaded()
        for item in self.items:
            if isinstance(item, Rejected):
                loaded.add(item)
                continue
            try:
                scene, dropped = build_scene(Files.read(self.tree, item), item, self.dataset, self.params)
            except UnusableError as error:
                loaded.add(Rejected(item.scene_id, error.reason, error.detail))
            else:
                loaded.add(scene)
                loaded.rejected += dropped
        return loaded

    def pieces(self) -> Sequence[tuple[str, RgbdWork]]:
        """Return the work picture by picture."""
        return [(item_id(item), replace(self, items=(item,))) for item in self.items]


class RgbdSource:
    """Reads the pictures of ``<url>/<ingest.rgbd.images>`` in the order of their paths, with depth.

    Raises :class:`InputError` where there are none, or where the annotations are not COCO's JSON.
    """

    def __init__(
        self, params: IngestParams, dataset: str, url: str, engine: EngineParams | None = None
    ) -> None:
        self.params = params
        self.dataset = dataset
        self.tree = Tree(url)
        self._files = self.tree.files()
        self._images = _under(self._files, params.rgbd.images, is_picture)
        if not self._images:
            raise InputError(
                f"{url}: no pictures in {params.rgbd.images}/. ingest.source rgbd reads pictures there and "
                f"aligned depth in {params.rgbd.depth}/; check --in, ingest.rgbd.images and ingest.rgbd.depth."
            )
        self._depths = _under(self._files, params.rgbd.depth, _is_png)
        self._masks = _under(self._files, params.rgbd.masks, _is_png)
        self._annotated = self._read_annotations()
        candidates = self._candidates()
        self._survey = survey(
            candidates,
            max_distance=params.duplicates.max_distance,
            total=len(candidates),
            description=f"look at {dataset}",
            engine=engine,
        )

    def shards(self) -> Sequence[RgbdWork]:
        """Return the pictures, ``ingest.shard_scenes`` at a time."""
        return [
            RgbdWork(self.tree, self.dataset, self.params, part)
            for part in self._survey.shards(self.params.shard_scenes)
        ]

    def identity(self) -> dict[str, Any]:
        """Return the hash of all content, and the settings."""
        return {
            "source": "rgbd",
            "content_sha256": self._survey.sha256,
            "rgbd": self.params.rgbd.model_dump(mode="json"),
            **picture_settings(self.params),
        }

    def statistics(self, set_aside: Collection[str]) -> dict[str, Any]:
        """Return how many pictures and depth maps there are."""
        return {"pictures": sum(map(len, self._images.values())), "depth_maps": len(self._depths)}

    def _read_annotations(self) -> dict[str, CocoImage] | None:
        """Return COCO's images by ID; None where the set has no annotations."""
        name = self.params.rgbd.annotations
        if name is None or name not in self._files:
            return None
        if self._masks:
            raise InputError(
                f"{self.tree.url}: has both {name} and masks in {self.params.rgbd.masks}/; take one away, or set "
                "ingest.rgbd.annotations=null to go without them"
            )
        where = f"{self.tree.url.rstrip('/')}/{name}"
        images = read_coco(read_bytes(where), where)
        return {_stem(path.removeprefix(f"{self.params.rgbd.images}/")): i for path, i in images.items()}

    def _candidates(self) -> list[tuple[RgbdItem, Look] | Rejected]:
        found: list[tuple[RgbdItem, Look] | Rejected] = []
        for name, paths in self._images.items():
            try:
                item = self._item(name, paths)
                found.append((item, partial(_look, self.tree, self.dataset, self.params, item)))
            except UnusableError as error:
                found.append(Rejected(scene_id(name), error.reason, error.detail))
        others = _under(self._files, self.params.rgbd.images, is_unread)
        found += [unread(path) for paths in others.values() for path in paths]
        strays = set(self._depths) | set(self._annotated or ()) | set(self._masks)
        for name in sorted(strays - set(self._images) - set(others)):
            detail = f"{shown(name)}: it has depth, a mask or annotations, but there is no picture"
            found.append(Rejected(scene_id(name), "missing-image", detail))
        return found

    def _item(self, name: str, paths: list[str]) -> RgbdItem:
        rgbd = self.params.rgbd
        if not is_storable(name):
            raise UnusableError("bad-file-name", f"{shown(name)}: its name is not UTF-8; rename it")
        if len(paths) > 1:
            raise UnusableError("ambiguous-image", f"{' and '.join(paths)} are one picture's; keep one")
        if name not in self._depths:
            raise UnusableError("missing-depth", f"{rgbd.depth}/{name}.png: no such file")
        mask = self._masks[name][0] if name in self._masks else None
        if self._masks and mask is None:
            raise UnusableError("missing-mask", f"{rgbd.masks}/{name}.png: no such file, and others have one")
        coco = None if self._annotated is None else self._annotated.get(name)
        if self._annotated is not None and coco is None:
            raise UnusableError("missing-annotations", f"{name}: not among the images of {rgbd.annotations}")
        intrinsics = self._applying(rgbd.intrinsics, name, _STRUCTURED)
        if intrinsics is None and any(p.startswith(f"{rgbd.intrinsics}/") for p in self._files):
            raise UnusableError(
                "missing-intrinsics",
                f"{rgbd.intrinsics}/{name}.txt or .json: no such file, and others have one",
            )
        names = None if mask is None else self._applying(rgbd.masks, name, (".json",))
        return RgbdItem(scene_id(name), paths[0], self._depths[name][0], intrinsics, mask, names, coco)

    def _applying(self, folder: str, name: str, endings: Sequence[str]) -> str | None:
        """Return the file that holds for a picture: its own, that of the nearest folder above, or the set's."""
        path = posixpath.join(folder, name)
        while path:
            for ending in endings:
                if path + ending in self._files:
                    return path + ending
            if path == folder:
                return None
            path = posixpath.dirname(path)
        return None


def _look(
    tree: Tree, dataset: str, params: IngestParams, item: RgbdItem
) -> tuple[str, Callable[[], Image.Image]]:
    files = Files.read(tree, item)
    return files.sha256(), partial(_check, files, item, dataset, params)


def _check(files: Files, item: RgbdItem, dataset: str, params: IngestParams) -> Image.Image:
    """Fail as loading will, so that a scene that is set aside displaces none that looks the same."""
    build_scene(files, item, dataset, params.model_copy(update={"max_side": None}))
    return look_at(files.image, item.image, max_pixels=params.max_pixels)


@dataclass(frozen=True)
class Files:
    """The content of one picture's files."""

    image: bytes
    depth: bytes
    intrinsics: bytes | None
    mask: bytes | None
    names: bytes | None

    @classmethod
    def read(cls, tree: Tree, item: RgbdItem) -> Files:
        """Read them; raises :class:`UnusableError`."""
        return cls(
            tree.read(item.image),
            tree.read(item.depth, "depth"),
            None if item.intrinsics is None else tree.read(item.intrinsics, "intrinsics"),
            None if item.mask is None else tree.read(item.mask, "mask"),
            None if item.names is None else tree.read(item.names, "names"),
        )

    def sha256(self) -> str:
        """Return a hash of all of them."""
        parts = (self.image, self.depth, self.intrinsics, self.mask, self.names)
        return digest([None if part is None else digest(part) for part in parts])


def build_scene(
    files: Files, item: RgbdItem, dataset: str, params: IngestParams
) -> tuple[Scene, list[Rejected]]:
    """Make the scene, and say which of its objects were dropped; raises :class:`UnusableError`."""
    picture = read_picture(files.image, item.image, max_pixels=params.max_pixels, max_side=params.max_side)
    if picture.turned:
        raise UnusableError(
            "turned-image",
            f"{item.image}: its EXIF turns it, and nothing says whether the depth is turned; turn the pixels",
        )
    size = picture.original
    depth = read_depth(files.depth, item.depth, size, params.rgbd, params.max_pixels)
    regions, dropped = _regions(files, item, size, params.max_pixels)
    if picture.size != size:
        depth = nearest(depth, picture.size)
        regions, lost = scale_regions(regions, size, picture.size, item.scene_id)
        dropped += lost
    scene = picture_scene(picture, dataset, item.scene_id, item.image, params.rgbd.licence)
    scene = scene.replace(depth=encode_png(depth), depth_source=GIVEN, regions=tuple(regions))
    if files.intrinsics is not None:
        intrinsics = scaled(
            read_intrinsics(files.intrinsics, item.intrinsics or "", size), size, picture.size
        )
        scene = scene.replace(intrinsics=intrinsics, intrinsics_source=GIVEN)
    return scene, dropped


def _regions(
    files: Files, item: RgbdItem, size: tuple[int, int], max_pixels: int
) -> tuple[list[Region], list[Rejected]]:
    if files.mask is not None:
        names = None if files.names is None else read_names(files.names, item.names or "")
        return read_instances(files.mask, item.mask or "", size, max_pixels, names, item.scene_id)
    return ([], []) if item.coco is None else regions_of(item.coco, item.scene_id, size)


# Names ----------------------------------------------------------------------------------------------------


def _under(files: Collection[str], folder: str, wanted: Callable[[str], bool]) -> dict[str, list[str]]:
    """Return the wanted files in a folder, by what is between the folder's name and the ending."""
    found: dict[str, list[str]] = {}
    start = f"{folder}/"
    for path in files:
        if path.startswith(start) and wanted(path):
            found.setdefault(_stem(path.removeprefix(start)), []).append(path)
    return found


def _stem(path: str) -> str:
    return posixpath.splitext(path)[0]


def _is_png(path: str) -> bool:
    return path.lower().endswith(".png")
