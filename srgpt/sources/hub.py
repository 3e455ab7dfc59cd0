"""Pictures of a Hugging Face dataset: an id on the hub, or a folder that ``datasets`` can load.

A folder was written by ``save_to_disk``, or holds Parquet files, an ``imagefolder``, or anything else that
``load_dataset`` knows. Every row becomes a scene without regions: *perceive* finds what is in it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from PIL import Image

from srgpt.cards import card_licence
from srgpt.errors import InputError, SrgptError
from srgpt.params import HubParams, IngestParams
from srgpt.records import Rejected, Scene
from srgpt.sources.base import Loaded, Work
from srgpt.sources.folder import picture_scene, picture_settings
from srgpt.sources.listing import scene_id
from srgpt.sources.metadata import LICENCE_COLUMNS, URL_COLUMNS, Provenance, columns, provenance
from srgpt.sources.pictures import UnusableError, look_at, read_picture
from srgpt.sources.survey import Look, item_id, survey
from srgpt.storage import digest, io_errors, is_local, read_bytes

_OPTIONAL = ("url_column", "licence_column")


@dataclass(frozen=True, slots=True)
class HubItem:
    """One row of the split."""

    row: int
    scene_id: str
    uri: str
    licence: str


@dataclass(frozen=True)
class _Rows:
    """A shard's worth of rows, and which of them are set aside already."""

    name: str
    dataset: str
    params: IngestParams
    items: tuple[HubItem | Rejected, ...]

    def load(self) -> Loaded:
        """Read the pictures.

        Raises :class:`SrgptError` where the dataset has fewer rows by now.
        """
        loaded = Loaded()
        with io_errors(self.name):
            rows = self.rows()
            for item in self.items:
                row = next(rows, None)
                if row is None:
                    raise SrgptError(f"{self.name}: it changed while it was read; run the same command again")
                loaded.add(item if isinstance(item, Rejected) else self._scene(item, row))
        return loaded

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield the rows, pictures encoded."""
        raise NotImplementedError

    def _scene(self, item: HubItem, row: dict[str, Any]) -> Scene | Rejected:
        try:
            picture = read_picture(
                _encoded(row[self.params.hub.image_column], item.row),
                f"row {item.row}",
                max_pixels=self.params.max_pixels,
                max_side=self.params.max_side,
            )
        except UnusableError as error:
            return Rejected(item.scene_id, error.reason, error.detail)
        return picture_scene(picture, self.dataset, item.scene_id, item.uri, item.licence)


@dataclass(frozen=True)
class HubWork(_Rows):
    """Rows from row ``start`` on, of a dataset that lies here."""

    start: int

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield the rows, pictures encoded."""
        data = _open_once(self.name, self.params.hub)
        yield from data.select(range(self.start, min(self.start + len(self.items), len(data))))

    def pieces(self) -> Sequence[tuple[str, HubWork]]:
        """Return the work row by row."""
        rows = enumerate(self.items, self.start)
        return [(item_id(item), replace(self, start=index, items=(item,))) for index, item in rows]


@dataclass(frozen=True)
class StreamedWork(_Rows):
    """Rows of a streamed dataset, from where it is in ``state`` (``IterableDataset.state_dict``; None: its start).

    There are no pieces: to start in the middle, a file is read from its beginning.
    """

    state: dict[str, Any] | None

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield the rows, pictures encoded."""
        data = open_dataset(self.name, self.params.hub)
        if self.state is not None:
            data.load_state_dict(self.state)
        yield from data


class HubSource:
    """Reads ``ingest.hub.split`` of the dataset ``url``: a local folder, or OWNER/NAME on the Hugging Face hub.

    Raises :class:`InputError` where there is no such dataset, split or column, or where licences are no text.
    """

    def __init__(self, params: IngestParams, dataset: str, url: str) -> None:
        self.params = params
        self.dataset = dataset
        self.name = url.removeprefix("hf://datasets/")
        data = open_dataset(self.name, params.hub)
        self._licence = (
            params.hub.licence or licence_of_card(self.name, params.hub) or data.info.license or ""
        )
        self._states: list[dict[str, Any] | None] = [None]
        with io_errors(self.name):
            self._survey = survey(
                self._candidates(data),
                max_distance=params.duplicates.max_distance,
                total=_count(data, params.hub),
                description=f"look at {dataset}",
            )
        if not self._survey.items:
            raise InputError(f"{url}: split {params.hub.split!r} has no rows")

    def shards(self) -> Sequence[Work]:
        """Return the rows, ``ingest.shard_scenes`` at a time."""
        step = self.params.shard_scenes
        parts = enumerate(self._survey.shards(step))
        fixed = (self.name, self.dataset, self.params)
        if self.params.hub.streaming:
            return [StreamedWork(*fixed, part, self._states[index]) for index, part in parts]
        return [HubWork(*fixed, part, index * step) for index, part in parts]

    def identity(self) -> dict[str, Any]:
        """Return the hash of all content, with what the columns say, and the settings."""
        return {
            "source": "hub",
            "content_sha256": self._survey.sha256,
            **picture_settings(self.params),
        }

    def statistics(self, set_aside: Collection[str]) -> dict[str, Any]:
        """Return how many rows there are."""
        return {"pictures": len(self._survey.items)}

    def _candidates(self, data: Any) -> Iterator[tuple[HubItem, Look] | Rejected]:
        """Yield the rows, and note where each shard of a streamed dataset begins."""
        hub = self.params.hub
        seen: set[str] = set()
        for index, row in enumerate(data):
            identifier, known = self._identifier(index, row), self._provenance(index, row)
            if not identifier:
                yield Rejected(f"row[{index}]", "missing-id", f"{hub.id_column!r} of this row is empty")
            elif identifier in seen:
                yield Rejected(
                    f"row[{index}]", "duplicate-id", f"{hub.id_column!r} of an earlier row is the same"
                )
            else:
                seen.add(identifier)
                item = HubItem(
                    index, identifier, known.url or f"{hub.split}/{index}", known.licence or self._licence
                )
                yield item, partial(_look, row[hub.image_column], index, self.params.max_pixels)
            if hub.streaming and (index + 1) % self.params.shard_scenes == 0:
                self._states.append(data.state_dict())

    def _identifier(self, index: int, row: dict[str, Any]) -> str:
        """Return the id of a row's scene; empty where the column of ids is."""
        hub = self.params.hub
        if hub.id_column is None:
            return scene_id(f"{hub.split}-{index:08d}")
        value = row[hub.id_column]
        return "" if value is None or not str(value).strip() else scene_id(str(value))

    def _provenance(self, index: int, row: dict[str, Any]) -> Provenance:
        urls, licences = (_described_by(row, self.params.hub, key) for key in _OPTIONAL)
        return provenance(row, urls, licences, f"{self.name}, row {index}")


def _look(value: Any, row: int, max_pixels: int) -> tuple[str, Callable[[], Image.Image]]:
    data = _encoded(value, row)
    return digest(data), partial(look_at, data, f"row {row}", max_pixels=max_pixels)


def _encoded(value: Any, row: int) -> bytes:
    """Return the file of a picture that is not decoded: its bytes, or a path to them."""
    if isinstance(value, dict):
        data, path = value.get("bytes"), value.get("path")
        if data is None and isinstance(path, str):
            return _read(path, row)
        value = data
    if not isinstance(value, bytes):
        raise UnusableError("missing-image", f"row {row}: it has no picture")
    return value


def _read(path: str, row: int) -> bytes:
    name = Path(path).name
    try:
        return read_bytes(path)
    except InputError:
        raise UnusableError("missing-image", f"row {row}: {name}: no such file") from None
    except SrgptError:
        if not is_local(path):
            raise
        raise UnusableError("unreadable-image", f"row {row}: {name}: cannot be read") from None


# Opening --------------------------------------------------------------------------------------------------


def open_dataset(name: str, params: HubParams) -> Any:
    """Open one split as a ``Dataset``, or as an ``IterableDataset`` where it is streamed, with pictures encoded.

    Raises :class:`InputError` where there is none, or where its columns are not those of ``params``, and
    :class:`SrgptError` where the hub cannot be reached.
    """
    import datasets

    datasets.disable_progress_bars()
    try:
        data = _load(name, params)
    except (SrgptError, KeyboardInterrupt):
        raise
    except ConnectionError as error:
        raise SrgptError(
            f"{name}: no such folder here, and the Hugging Face hub cannot be reached ({error}). "
            f"Fetch it where there is a network: hf download --repo-type dataset {name} --local-dir FOLDER"
        ) from error
    except Exception as error:  # datasets raises what its many readers raise
        raise InputError(
            f"{name}: cannot be opened as a Hugging Face dataset: {error}. Check --in, ingest.hub.config, "
            "ingest.hub.split and ingest.hub.revision."
        ) from error
    _check_columns(data, name, params)
    return data.cast_column(params.image_column, datasets.Image(decode=False))


@lru_cache(maxsize=2)
def _open_once(name: str, params: HubParams) -> Any:
    """Open a dataset that is not streamed once per process: it is only read."""
    return open_dataset(name, params)


def _load(name: str, params: HubParams) -> Any:
    import datasets

    folder = Path(name)
    if folder.is_absolute() and not folder.is_dir():
        raise InputError(f"{name}: no such folder")
    if "://" in name:
        raise InputError(
            f"{name}: ingest.source hub reads a local folder, or OWNER/NAME on the Hugging Face hub"
        )
    if (folder / "dataset_dict.json").exists():
        splits = datasets.load_from_disk(name)
        if params.split not in splits:
            raise InputError(f"{name}: no split {params.split!r}; it has {', '.join(splits)}")
        data = splits[params.split]
    elif (folder / "state.json").exists():
        data = datasets.load_from_disk(name)
    else:
        return datasets.load_dataset(
            name, params.config, split=params.split, revision=params.revision, streaming=params.streaming
        )
    return data.to_iterable_dataset() if params.streaming else data


def _check_columns(data: Any, name: str, params: HubParams) -> None:
    import datasets

    if data.features is None:
        raise InputError(f"{name}: its columns are not known while streaming; set ingest.hub.streaming=false")
    for key in ("image_column", "id_column", "licence_column", "url_column"):
        column = getattr(params, key)
        goes_without = column is None or (column == "" and key in _OPTIONAL)
        if not goes_without and column not in data.features:
            raise InputError(
                f"{name}: no column {column!r}; it has {', '.join(data.features)}. Set ingest.hub.{key}."
            )
    kind = data.features[params.image_column]
    if not isinstance(kind, datasets.Image) and kind not in (
        datasets.Value("binary"),
        datasets.Value("large_binary"),
    ):
        raise InputError(
            f"{name}: column {params.image_column!r} holds {kind}, no pictures; its columns are "
            f"{', '.join(data.features)}. Set ingest.hub.image_column."
        )
    for key in _OPTIONAL:
        for column in _described_by(data.features, params, key):
            if getattr(data.features[column], "dtype", None) not in ("string", "large_string", "null"):
                raise InputError(
                    f"{name}: column {column!r} holds {data.features[column]}, and text was expected. Set "
                    f"ingest.hub.{key} to a column of text, or to '' to go without."
                )


def _described_by(names: Iterable[str], params: HubParams, key: str) -> list[str]:
    """Return the columns to look in for the URL or the licence of a picture, the best first."""
    column = getattr(params, key)
    if column is None:
        return columns(names, URL_COLUMNS if key == "url_column" else LICENCE_COLUMNS)
    return [column] if column else []


def licence_of_card(name: str, params: HubParams) -> str | None:
    """Return the licence of the dataset's card, in its folder or on the hub; None where no card can be had."""
    folder = Path(name)
    if folder.is_dir():
        return card_licence(folder / "README.md")
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    try:  # without a network it is the cache's, where it is there
        card = hf_hub_download(name, "README.md", repo_type="dataset", revision=params.revision)
    except (EntryNotFoundError, OSError, ValueError):
        return None
    return card_licence(Path(card))


def _count(data: Any, params: HubParams) -> int:
    if not params.streaming:
        return len(data)
    known = (data.info.splits or {}).get(params.split)
    return known.num_examples or 0 if known is not None else 0
