"""A folder in the Open Spatial Dataset's form: ``NAME.json``, ``images/*.jpg`` and ``depth/*.png``."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from srgpt.exchange import osd
from srgpt.exchange.drafts import file_path
from srgpt.exchange.publishing import Publication
from srgpt.progress import progress_bar
from srgpt.records import Scene, encode_png
from srgpt.sources.pictures import UnusableError

_QUALITY = 95


def write(publication: Publication) -> None:
    """Write the folder; the JSON is one array with a row on each line."""
    manifest, folder = publication.manifest, publication.folder
    path = folder / f"{manifest.dataset}.json"
    with (
        path.open("w", encoding="utf-8") as file,
        progress_bar(f"publish {manifest.dataset}", total=manifest.rows, unit="conversations") as advance,
    ):
        file.write("[")
        for pairs in publication.shards():
            for talk, scene in pairs:
                try:
                    row = osd.write(talk)
                    if scene is not None:
                        _write_pictures(folder, scene)
                except UnusableError as error:
                    publication.set_aside(talk, error)
                    continue
                file.write(("," if publication.rows else "") + "\n" + json.dumps(row))
                publication.count(talk, scene)
            advance(len(pairs))
        file.write("\n]\n")


def _write_pictures(folder: Path, scene: Scene) -> None:
    """Write a scene's picture, encoded anew only where it is not a JPEG, and its depth where it has any."""
    name = file_path(scene.scene_id)
    _write(folder / "images" / f"{name}.jpg", scene.image if scene.image[:2] == b"\xff\xd8" else _jpeg(scene))
    grey = grey_depth(scene)
    if grey is not None:
        _write(folder / "depth" / f"{name}.png", encode_png(np.repeat(grey[..., None], 3, axis=2)))


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def _jpeg(scene: Scene) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(scene.rgb()).save(buffer, "JPEG", quality=_QUALITY, subsampling=0)
    return buffer.getvalue()


def grey_depth(scene: Scene) -> NDArray[np.uint8] | None:
    """Return a scene's depth as the format has it, (height, width) uint8: inverse, 255 the nearest, 0 the farthest.

    Taken from relative depth, else from metric depth as the reference does: minimum to maximum over the picture.
    """
    if scene.relative_depth is not None:
        with Image.open(io.BytesIO(scene.relative_depth)) as picture:
            known = np.asarray(picture).astype(np.float64)
        return np.rint((known - 1).clip(0) * (255 / 65534)).astype(np.uint8)
    if scene.depth is None:
        return None
    metres = scene.depth_metres().astype(np.float64)
    inverse = np.divide(1.0, metres, out=np.zeros_like(metres), where=metres > 0)
    known = inverse[metres > 0]
    if not known.size:
        return None
    low, span = known.min(), float(np.ptp(known)) or 1.0
    return np.rint(((inverse - low) / span).clip(0, 1) * 255).astype(np.uint8)
