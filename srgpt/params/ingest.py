"""From a source to scenes."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from srgpt.params.section import Count, Positive, Section, Share


class ProceduralParams(Section):
    """The generator of procedural scenes."""

    image_size: Annotated[int, Field(ge=32, le=2048)] = 112
    families: Annotated[list[Literal["room", "street", "tabletop"]], Field(min_length=1)] = [
        "room",
        "street",
        "tabletop",
    ]
    min_objects: Annotated[int, Field(ge=2, le=32)] = 3
    max_objects: Annotated[int, Field(ge=2, le=32)] = 8
    min_pixels: Count = 24
    """Objects with fewer visible pixels are not regions."""
    min_visibility: Share = 0.25
    """Objects less visible than this are not regions."""

    @model_validator(mode="after")
    def _ordered(self) -> ProceduralParams:
        if self.min_objects > self.max_objects:
            raise ValueError(
                f"min_objects ({self.min_objects}) must not exceed max_objects ({self.max_objects})"
            )
        return self


class Omni3dParams(Section):
    """Reading Omni3D JSON; truncation and visibility are filtered as in Omni3D's Base.yaml, height is not."""

    annotations: str = "annotations.json"
    """The JSON file, relative to the source folder."""
    max_truncation: Share = 0.75
    """Objects truncated more than this by the image border are dropped."""
    min_visibility: Share = 0.25
    """Objects known to be less visible than this are dropped."""
    min_height_share: Share = 0.0
    """Objects whose 2D box is lower than this share of the image height are dropped; Omni3D's own is 0.05."""
    gravity: Literal["cuboids", "given"] = "cuboids"
    """Where the source gives no gravity: ``cuboids`` takes the common vertical axis of the boxes."""


class FolderParams(Section):
    """Reading a folder or bucket of pictures; ``metadata.csv`` or ``metadata.jsonl`` there may describe them."""

    licence: str = ""
    """Licence of the pictures for which no metadata table names one."""


class HubParams(Section):
    """Reading a Hugging Face dataset: a hub id, or a folder that ``datasets`` can load."""

    config: str | None = None
    """Configuration of the dataset, where it has several."""
    split: str = "train"
    revision: str | None = None
    """Branch, tag or commit of the dataset's repository."""
    image_column: str = "image"
    id_column: str | None = None
    """Column with a name that is unique in the split; null numbers the rows."""
    licence_column: str | None = None
    """Null looks for ``licence`` and ``license`` in any case; empty reads none."""
    url_column: str | None = None
    """Null looks for ``source_url``, ``image_url`` and ``url`` in any case; empty reads none."""
    licence: str = ""
    """Licence of the pictures for which no column names one; empty takes the dataset card's."""
    streaming: bool = False
    """Read the files where they lie instead of making a local copy first."""


class RgbdParams(Section):
    """Reading pictures with aligned depth: ``rgb/ID.jpg``, ``depth/ID.png``, and what else there is."""

    images: str = "rgb"
    """Folder of the pictures."""
    depth: str = "depth"
    """Folder of the depth maps, 16-bit grey PNG of the picture's size."""
    masks: str = "masks"
    """Folder of the instance masks, PNG: 0 is background, every other value one object."""
    annotations: str | None = "annotations.json"
    """COCO annotations, instead of instance masks; null goes without."""
    intrinsics: str = "intrinsics"
    """Folder of ``ID.txt`` or ``ID.json``; beside it the same name with .txt or .json holds for all pictures."""
    depth_scale: Positive = 1000.0
    """Depth steps per metre: 1000 for millimetres, 5000 for TUM."""
    depth_encoding: Literal["linear", "sunrgbd"] = "linear"
    """``sunrgbd``: the bits are rotated by three, as SUN RGB-D stores them."""
    licence: str = ""
    """Licence of all pictures."""


class DuplicateParams(Section):
    """Pictures that look like an earlier one (sources folder, hub, rgbd)."""

    max_distance: Annotated[int, Field(ge=0, le=8)] | None = 4
    """Drop a picture whose perceptual hash differs from an earlier one's in at most so many of 64 bits; null: none."""


class IngestParams(Section):
    """From a source to scenes."""

    source: Literal["procedural", "omni3d", "folder", "hub", "rgbd"] = "procedural"
    url: str | None = None
    """Folder or URL (s3://...) that a reading source reads; ``--in`` wins, a generating source takes none."""
    scenes: Count = 2000
    """How many scenes a generating source makes."""
    shard_scenes: Count = 250
    """Scenes per shard."""
    max_side: Annotated[int, Field(ge=32)] | None = None
    """Pictures with a longer side are made smaller (sources folder, hub, rgbd); null keeps their size."""
    max_pixels: Annotated[int, Field(ge=1, le=178_956_970)] = 89_478_485
    """Pictures with more pixels are set aside before they are decoded: decompression bombs."""
    duplicates: DuplicateParams = DuplicateParams()
    procedural: ProceduralParams = ProceduralParams()
    omni3d: Omni3dParams = Omni3dParams()
    folder: FolderParams = FolderParams()
    hub: HubParams = HubParams()
    rgbd: RgbdParams = RgbdParams()
