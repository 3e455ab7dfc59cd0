"""Pictures in a folder or bucket, with or without tables that say where they come from.

Every picture under the folder, and under folders that it links to, becomes a scene without regions: *perceive*
finds what is in it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from PIL import Image

from srgpt.errors import InputError
from srgpt.params import EngineParams, IngestParams
from srgpt.records import Rejected, Scene
from srgpt.sources.base import Loaded
from srgpt.sources.listing import PICTURES, Tree, is_picture, is_storable, is_unread, scene_id, shown, unread
from srgpt.sources.metadata import Provenance, read_metadata
from srgpt.sources.pictures import EXIF, Picture, UnusableError, look_at, read_picture
from srgpt.sources.survey import Look, item_id, survey
from srgpt.storage import digest


@dataclass(frozen=True, slots=True)
class FolderItem:
    """One picture file."""

    path: str
    size: int
    scene_id: str
    uri: str
    licence: str


@dataclass(frozen=True)
class FolderWork:
    """A shard's worth of files, and those that are set aside already."""

    tree: Tree
    dataset: str
    params: IngestParams
    items: tuple[FolderItem | Rejected, ...]

    def load(self) -> Loaded:
        """Read the pictures."""
        loaded = Loaded()
        for item in self.items:
            loaded.add(item if isinstance(item, Rejected) else self._scene(item))
        return loaded

    def pieces(self) -> Sequence[tuple[str, FolderWork]]:
        """Return the work picture by picture."""
        return [(item_id(item), replace(self, items=(item,))) for item in self.items]

    def _scene(self, item: FolderItem) -> Scene | Rejected:
        try:
            data = self.tree.read(item.path, size=item.size)
            picture = read_picture(
                data, item.path, max_pixels=self.params.max_pixels, max_side=self.params.max_side
            )
        except UnusableError as error:
            return Rejected(item.scene_id, error.reason, error.detail)
        return picture_scene(picture, self.dataset, item.scene_id, item.uri, item.licence)


class FolderSource:
    """Reads all pictures under ``url``, in the order of their paths.

    Raises :class:`InputError` where there is no such folder, where no picture is in it, or where a metadata
    table is broken.
    """

    def __init__(
        self, params: IngestParams, dataset: str, url: str, engine: EngineParams | None = None
    ) -> None:
        self.params = params
        self.dataset = dataset
        self.tree = Tree(url)
        files = self.tree.files()
        described = read_metadata(self.tree, files)
        pictures = {path: size for path, size in files.items() if is_picture(path)}
        others = [path for path in files if is_unread(path)]
        if not pictures and not others:
            raise InputError(
                f"{url}: no picture among its {len(files)} files. ingest.source folder reads "
                f"{', '.join(PICTURES)}; check --in."
            )
        candidates = [self._candidate(path, size, described.get(path)) for path, size in pictures.items()]
        candidates += [
            Rejected(scene_id(path), "missing-image", f"{path}: in the metadata table, but no such picture")
            for path in sorted(set(described) - set(pictures) - set(others))
        ]
        candidates += [unread(path) for path in others]
        self._survey = survey(
            candidates,
            max_distance=params.duplicates.max_distance,
            total=len(candidates),
            description=f"look at {dataset}",
            engine=engine,
        )
        self._statistics = {
            "pictures": len(pictures) + len(others),
            "other_files": len(files) - len(pictures) - len(others),
            "described": sum(known != Provenance() for path, known in described.items() if path in pictures),
        }

    def shards(self) -> Sequence[FolderWork]:
        """Return the files, ``ingest.shard_scenes`` at a time."""
        return [
            FolderWork(self.tree, self.dataset, self.params, part)
            for part in self._survey.shards(self.params.shard_scenes)
        ]

    def identity(self) -> dict[str, Any]:
        """Return the hash of all content, with what the table says, and the settings."""
        return {
            "source": "folder",
            "content_sha256": self._survey.sha256,
            **picture_settings(self.params),
        }

    def statistics(self, set_aside: Collection[str]) -> dict[str, Any]:
        """Return how many pictures and other files there are, and of how many a table says licence or URL."""
        return dict(self._statistics)

    def _candidate(
        self, path: str, size: int, known: Provenance | None
    ) -> tuple[FolderItem, Look] | Rejected:
        if not is_storable(path):
            return Rejected(
                scene_id(path), "bad-file-name", f"{shown(path)}: its name is not UTF-8; rename it"
            )
        known = known or Provenance()
        licence = known.licence or self.params.folder.licence
        item = FolderItem(path, size, scene_id(path), known.url or path, licence)
        return item, partial(_look, self.tree, item, self.params.max_pixels)


def _look(tree: Tree, item: FolderItem, max_pixels: int) -> tuple[str, Callable[[], Image.Image]]:
    data = tree.read(item.path, size=item.size)
    return digest(data), partial(look_at, data, item.path, max_pixels=max_pixels)


def picture_scene(picture: Picture, dataset: str, identifier: str, uri: str, licence: str) -> Scene:
    """Return the scene of a picture of which nothing else is known."""
    return Scene(
        dataset=dataset,
        scene_id=identifier,
        width=picture.size[0],
        height=picture.size[1],
        image=picture.encoded(),
        intrinsics=picture.intrinsics,
        intrinsics_source=None if picture.intrinsics is None else EXIF,
        uri=uri,
        licence=licence,
    )


def picture_settings(params: IngestParams) -> dict[str, Any]:
    """Return the settings that all sources of pictures depend on, for their identity."""
    return {
        "shard_scenes": params.shard_scenes,
        "max_side": params.max_side,
        "max_pixels": params.max_pixels,
        "duplicates": params.duplicates.model_dump(mode="json"),
    }
