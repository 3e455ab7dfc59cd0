"""The card of a published dataset: what it is, what is in it, where it comes from, under which licence."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from importlib import resources
from typing import TYPE_CHECKING, Any

import yaml
from jinja2 import Environment, StrictUndefined

from srgpt import __version__
from srgpt.storage import Manifest, input_url, read_manifest

if TYPE_CHECKING:
    from srgpt.exchange.publishing import Publication

_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
_IDENTIFIER = re.compile(r"[a-z0-9]+(?:[.-][a-z0-9]+)*")
_MEANINGS = {
    "id": "the conversation's id",
    "scene_id": "the picture's id; several conversations may ask about one picture",
    "width": "of the picture, pixels",
    "height": "of the picture, pixels",
    "image": "the picture, JPEG or PNG",
    "depth": "z-depth, PNG of 16 bits in millimetres, 0 = no reading; null where unknown",
    "relative_depth": "inverse depth without scale, PNG of 16 bits, 65535 = nearest, 0 = no reading; or null",
    "regions": "objects: `id`, `category`, `bbox` (x1, y1, x2, y2 in pixels), `rle` (COCO run-length mask or null)",
    "messages": "the conversation; `<regionK>` in a question and `Region [k]` in its answer mean entry K of the turn's "
    "`regions` in `facts`",
    "facts": "of each question: `category`, `regions` (ids in the order of mention), `value` and `unit` of the answer, "
    "`sigma` (its standard deviation, or the chance that a truth value is wrong); null where unknown",
    "truth": "where values come from: `cuboids` (ground truth), `perceived` (measured), `imported` (read from text)",
    "uri": "where the picture came from",
    "licence": "of the picture, where stated",
}


def card(publication: Publication, size: int, columns: list[str]) -> str:
    """Return ``README.md``, YAML front matter included; ``size`` is that of the data files, bytes."""
    record = publication.record("huggingface")
    front = yaml.safe_dump(_front(publication, size), sort_keys=False, allow_unicode=True)
    text = (resources.files("srgpt") / "exchange" / "card.md.j2").read_text(encoding="utf-8")
    # Markdown for people, not HTML: nothing is escaped
    environment = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)  # noqa: S701
    environment.filters["cell"] = cell
    return environment.from_string(text).render(
        front=front,
        record=record,
        licence=publication.licence,
        columns=[(name, _MEANINGS[name]) for name in columns],
        chain=list(chain(publication.source)),
        params=lambda manifest: json.dumps(manifest.params, indent=2, sort_keys=True),
        version=__version__,
    )


def cell(text: Any) -> str:
    """Return a text that fits into a cell of a Markdown table, and stays text."""
    return re.sub(r"([\\`*_{}\[\]<>|])", r"\\\1", " ".join(str(text).split()))


def chain(url: str) -> Iterator[Manifest]:
    """Yield the manifests of the table at ``url`` and of those that it was made from, one after the other."""
    manifest = read_manifest(url)
    yield manifest
    while manifest.inputs:
        url = input_url(url, next(iter(manifest.inputs)))
        manifest = read_manifest(url)
        yield manifest


def _front(publication: Publication, size: int) -> dict[str, Any]:
    stated = [publication.licence] if publication.licence else list(publication.licences)
    known = len(stated) == 1 and _IDENTIFIER.fullmatch(stated[0])
    rows = publication.rows
    return {
        "pretty_name": publication.manifest.dataset,
        "license": stated[0] if known else "other",
        **({} if known else {"license_name": "see-card"}),
        "language": ["en"],
        "task_categories": ["visual-question-answering", "image-text-to-text"],
        "tags": ["spatial-reasoning", "region-grounding", "scene-graph", "srgpt"],
        "size_categories": [next((name for bound, name in _SIZES if rows < bound), "1M<n<10M")],
        "configs": [{"config_name": "default", "data_files": [{"split": "train", "path": "data/train-*"}]}],
        "dataset_info": {"dataset_size": size, "splits": [{"name": "train", "num_examples": rows}]},
    }
