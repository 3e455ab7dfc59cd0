"""A Hugging Face dataset: a folder of Parquet files and a card, for ``datasets.load_dataset(FOLDER)``.

Each row is one conversation with its picture. The features, pictures among them, stand in every Parquet file's own
metadata, which is where ``datasets`` looks for them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from srgpt.exchange.card import card
from srgpt.exchange.publishing import Pair, Publication
from srgpt.progress import progress_bar
from srgpt.records import Conversation, Scene

if TYPE_CHECKING:
    from datasets import Features

SPLIT = "train"
_ROWS_PER_GROUP = 64
"""So that the hub's viewer, which reads whole groups, need not read many pictures."""


def write(publication: Publication) -> None:
    """Write ``data/train-*.parquet`` and ``README.md``."""
    manifest, data = publication.manifest, publication.folder / "data"
    data.mkdir()
    schema = features(pictures=publication.scenes is not None).arrow_schema
    count = len(manifest.shards)
    with progress_bar(f"publish {manifest.dataset}", total=manifest.rows, unit="conversations") as advance:
        for number, pairs in enumerate(publication.shards()):
            table = pa.Table.from_pylist([_row(pair) for pair in pairs], schema=schema)
            path = data / f"{SPLIT}-{number:05d}-of-{count:05d}.parquet"
            pq.write_table(table, path, compression="zstd", row_group_size=_ROWS_PER_GROUP)
            for talk, scene in pairs:
                publication.count(talk, scene)
            advance(len(pairs))
    size = sum(path.stat().st_size for path in data.iterdir())
    (publication.folder / "README.md").write_text(
        card(publication, size, list(schema.names)), encoding="utf-8"
    )


def features(*, pictures: bool) -> Features:
    """Return the features of a row; the card's table says what each means."""
    from datasets import Features, Image, List, Value

    text, integer, number = Value("string"), Value("int32"), Value("float64")
    region = {
        "id": integer,
        "category": text,
        "bbox": List(number),
        "rle": {"size": List(integer), "counts": text},
    }
    fact = {
        "category": text,
        "regions": List(integer),
        "value": number,
        "unit": text,
        "sigma": number,
    }
    images = {"image": Image(), "depth": Image(), "relative_depth": Image()} if pictures else {}
    return Features(
        {
            "id": text, "scene_id": text, "width": integer, "height": integer, **images, "regions": List(region),
            "messages": List({"role": text, "content": text}), "facts": List(fact), "truth": text, "uri": text,
            "licence": text,
        }
    )  # fmt: skip


def _row(pair: Pair) -> dict[str, Any]:
    talk, scene = pair
    return {
        "id": talk.conversation_id,
        "scene_id": talk.scene_id,
        "width": talk.width,
        "height": talk.height,
        **_pictures(scene),
        "regions": [region.to_row() for region in talk.regions],
        "messages": messages(talk),
        "facts": [turn.to_row() for turn in talk.turns],
        "truth": talk.truth,
        "uri": "" if scene is None else scene.uri,
        "licence": "" if scene is None else scene.licence,
    }


def messages(talk: Conversation) -> list[dict[str, str]]:
    """Return a conversation as chat messages; ``<regionK>`` and ``Region [k]`` are entry K of the turn's regions."""
    said = []
    for turn in talk.turns:
        said.append({"role": "user", "content": turn.question})
        said.append({"role": "assistant", "content": turn.answer})
    return said


def _pictures(scene: Scene | None) -> dict[str, Any]:
    if scene is None:
        return {}
    files = {"image": scene.image, "depth": scene.depth, "relative_depth": scene.relative_depth}
    return {name: None if data is None else {"bytes": data, "path": None} for name, data in files.items()}
