"""``srgpt import``: a file of rows becomes a table of scenes and a table of conversations.

One pass, in order: rows are read, their pictures are fetched some at a time, and a pair of shards of the same name is
written whenever enough has come together. After each pair a small file beside the shards says at which byte the
next row begins, so that a killed import goes on there, and ends with the same bytes as one that was not.
"""

from __future__ import annotations

import gc
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from typing import Any

from srgpt import __version__
from srgpt.errors import InputError, SrgptError
from srgpt.exchange import captions, llava, osd
from srgpt.exchange.drafts import Draft
from srgpt.exchange.masks import Pixels, pixels_of
from srgpt.exchange.pixels import fetch, read_depth, read_image
from srgpt.exchange.reading import Row, read_rows
from srgpt.params import check_dataset
from srgpt.progress import progress_bar
from srgpt.records import AskedRegion, Conversation, Region, Rejected, Scene
from srgpt.sources.pictures import UnusableError
from srgpt.storage import (
    Manifest,
    TableWriter,
    digest,
    exists,
    filesystem,
    io_errors,
    join,
    read_json,
    read_manifest,
    remove,
    shard_name,
    write_json,
    write_shard,
)

FORMATS: dict[str, Callable[[Any, Pixels], Draft]] = {
    "osd": osd.read,
    "llava": llava.read,
    "captions": captions.read,
}

_PICTURE = {"osd": "filename", "llava": "image", "captions": "caption"}
"""Format -> a column by which its rows are told from others', for the most part what names the picture."""

_WRAPPER = re.compile(
    rb'\s*\{(?:\s*"[^"\\]{1,64}"\s*:\s*(?:"[^"\\]*"|[^\s"\[\]{},]+)\s*,)*'
    rb'\s*"([^"\\]{1,64})"\s*:\s*\[\s*\{\s*"(?:filename|id|image|conversations)"'
)
"""An object that begins with plain values, perhaps, and then has rows."""

STAGE = "import"
BATCH = 64
"""Rows whose pictures are fetched together."""

SHARD_ROWS = 1024
SHARD_BYTES = 128 * 2**20
"""A shard is written when it has so many rows, or so many bytes of pictures."""

_MB = 2**20
_HEAD = 2**16
_MARK = 2**20
"""Bytes at either end of the file that tell it from another one of its size."""

_PROGRESS = "progress.json"
_COLLECT = 32
"""Shards after which garbage is collected."""


@dataclass(frozen=True)
class Source:
    """What to import. ``images`` and ``depth`` are folders or URLs; without ``images`` there are no pixels."""

    url: str
    format: str
    dataset: str
    images: str | None = None
    depth: str | None = None
    licence: str = ""

    def identity(self) -> dict[str, Any]:
        """Return what the tables depend on: the file's size and both its ends, and the settings."""
        fs, path = filesystem(self.url)
        with io_errors(self.url):
            size = int(fs.size(path))
            ends = [
                fs.cat_file(path, start=start, end=min(start + _MARK, size))
                for start in (0, max(size - _MARK, 0))
            ]
        return {
            "format": self.format,
            "bytes": size,
            "ends_sha256": digest(b"".join(ends)),
            "images": self.images,
            "depth": self.depth,
            "licence": self.licence,
            "shard": [SHARD_ROWS, SHARD_BYTES, BATCH],
        }


@dataclass
class Progress:
    """How far an import has come: after ``shards`` shards, row ``row`` is next, at byte ``byte``; what they hold."""

    shards: int = 0
    row: int = 0
    byte: int = 0
    conversations: int = 0
    turns: int = 0
    regions: int = 0
    set_aside: int = 0
    categories: dict[str, int] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """The shards' file names."""
        return [shard_name(i) for i in range(self.shards)]

    def after(self, shard: _Shard) -> Progress:
        """Return the progress with one more shard."""
        talks = shard.talks
        found = Counter(self.categories) + Counter(t.category for c in talks for t in c.turns)
        return Progress(
            self.shards + 1,
            shard.row,
            shard.byte,
            self.conversations + len(talks),
            self.turns + sum(len(c.turns) for c in talks),
            self.regions + sum(len(c.regions) for c in talks),
            self.set_aside + len(shard.rejected),
            dict(sorted(found.items())),
        )

    def statistics(self, limit: int | None) -> dict[str, Any]:
        """Return what the manifests say about the data."""
        own = {name: getattr(self, name) for name in ("conversations", "turns", "regions", "categories")}
        return {"rows_read": self.row, "rows_limit": limit, **own}


def run(source: Source, out: str, *, limit: int | None = None) -> Manifest:
    """Import ``source``, or its first ``limit`` rows, into ``OUT/scenes`` and ``OUT/conversations``.

    Returns the manifest of the conversations, which counts all that was set aside. Raises :class:`InputError` where
    the file is not JSON (whole shards before that place are kept for the next run), has no rows or is of another
    format, or where pictures are not; :class:`SrgptError` where no row could be used.
    """
    check_dataset(source.dataset)
    if source.depth is not None and source.images is None:
        raise InputError("--depth needs --images: depth without a picture is of no use")
    if source.depth is not None and source.format == "captions":
        raise InputError("--depth is of no use to captions: they mention no regions, which alone have depth")
    if source.format not in FORMATS:
        raise InputError(f"{source.format!r} is not a format that is read; allowed: {', '.join(FORMATS)}")
    given: dict[str, Any] = {
        "stage": STAGE,
        "dataset": source.dataset,
        "params": source.identity(),
        "reads": [url for url in (source.url, source.images, source.depth) if url is not None],
    }
    scenes_url = join(out, "scenes")
    talks = TableWriter(join(out, "conversations"), "conversations", beside={"scenes": scenes_url}, **given)
    scenes_before = _published(scenes_url, talks, limit)
    if scenes_before is not None:  # killed between the publication of the one table and the other
        names = [s.name for s in scenes_before.shards]
        return talks.commit(names, scenes_before.statistics)
    scenes = TableWriter(scenes_url, "scenes", **given)
    progress = _write_shards(source, scenes, talks, limit)
    if not progress.conversations:
        _refuse(source, scenes, talks, progress)
    scenes.commit(progress.names, progress.statistics(limit))
    return talks.commit(progress.names, progress.statistics(limit))


def _published(url: str, talks: TableWriter, limit: int | None) -> Manifest | None:
    """Return the published scenes of this very import, if all its conversations are written and unpublished."""
    try:
        manifest = read_manifest(url, "scenes")
    except InputError:
        return None
    own = (manifest.stage, manifest.dataset, manifest.params, manifest.code_version)
    same = own == (talks.stage, talks.dataset, talks.params, __version__)
    names = [s.name for s in manifest.shards]
    if not same or manifest.statistics.get("rows_limit") != limit or talks.missing(names):
        return None
    return manifest


def _refuse(source: Source, scenes: TableWriter, talks: TableWriter, progress: Progress) -> None:
    """Raise, for no row could be used; whatever was written goes, so that a repaired source is read afresh."""
    markers = [read_json(join(talks.work, f"{name}.done")) for name in progress.names]
    rejected = [item for marker in markers for item in marker["rejected"]]
    counts = Counter(item["reason"] for item in rejected)
    shown = "".join(f"\n  {item['id']}: {item['reason']}: {item['detail']}" for item in rejected[:5])
    remove(scenes.work)
    remove(talks.work)
    if not progress.row:
        raise InputError(f"{source.url}: has no rows; nothing can be imported from it")
    said = ", ".join(f"{count} {reason}" for reason, count in sorted(counts.items()))
    raise SrgptError(f"import {talks.dataset}: not one of {progress.row} rows could be used ({said}).{shown}")


def _write_shards(source: Source, scenes: TableWriter, talks: TableWriter, limit: int | None) -> Progress:
    """Write the shards that are missing and, after each, how far that has come; return what there is now."""
    saved = join(talks.work, _PROGRESS)
    progress = Progress(**read_json(saved)) if exists(saved) else Progress()
    too_far = limit is not None and progress.row > limit
    if too_far or scenes.missing(progress.names) or talks.missing(progress.names):
        progress = Progress()
    rows = read_rows(source.url, start=progress.byte, number=progress.row)
    left = islice(rows, None if limit is None else limit - progress.row)
    total = max(1, talks.params["bytes"] // _MB)
    with (
        closing(rows),
        _rare_collection(),
        progress_bar(f"import {source.dataset}", total=total, unit="MB") as advance,
    ):
        advance(progress.byte // _MB)
        for shard in _shards(source, left):
            _require_pictures(source, shard)
            before, progress = progress, progress.after(shard)
            name = progress.names[-1]
            write_shard(scenes.work, name, "scenes", shard.scene_rows())
            write_shard(talks.work, name, "conversations", [c.to_row() for c in shard.talks], shard.rejected)
            if shard.full:  # one that is not becomes another one when the next run reads more rows
                write_json(saved, asdict(progress))
            note = f"{progress.row} rows, {progress.set_aside} set aside"
            advance(progress.byte // _MB - before.byte // _MB, note=note)
            if progress.shards % _COLLECT == 0:
                gc.collect()
    return progress


@contextmanager
def _rare_collection() -> Iterator[None]:
    """Leave it to the caller to collect garbage: looking for cycles among rows takes Python a fifth of the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _require_pictures(source: Source, shard: _Shard) -> None:
    """Raise where a whole shard's pictures are missing: then the folder is the wrong one."""
    if shard.full and all(r.reason == "missing-picture" for r in shard.rejected) and not shard.talks:
        raise InputError(
            f"{source.images}: has none of the pictures of {len(shard.rejected)} rows in a row, such as "
            f"{shard.rejected[0].id}. Give their folder with --images, or --without-images to do without."
        )


def _require_rows(source: Source, row: Row) -> None:
    """Raise where one of the first rows, none of any use, shows that the whole file is another one than was said."""
    value = row.value if isinstance(row.value, dict) else {}
    found = [name for name, column in _PICTURE.items() if column in value]
    if found and source.format not in found:
        raise InputError(
            f"{source.url}: row {row.number} has {_PICTURE[found[0]]!r} and no {_PICTURE[source.format]!r}, so that it "
            f"looks like {found[0]}, not {source.format}. Import it with --format {found[0]}."
        )
    if row.number or "conversations" in value:
        return
    fs, path = filesystem(source.url)
    with io_errors(source.url):
        wrapper = _WRAPPER.match(fs.cat_file(path, start=0, end=_HEAD).removeprefix(b"\xef\xbb\xbf"))
    if wrapper:
        key = wrapper[1].decode(errors="replace")
        raise InputError(
            f"{source.url}: the rows are inside of an object, as its {key!a}; the array alone, or JSON lines, was "
            f"expected. Take it out, as jq '.[\"{key}\"]' does, and import that."
        )


# From rows to shards --------------------------------------------------------------------------------------

_Key = tuple[str | None, tuple[float, ...]]


@dataclass
class _Shard:
    """What comes into one pair of shards."""

    scenes: dict[str, Scene] = field(default_factory=dict)
    regions: dict[str, dict[_Key, Region]] = field(default_factory=dict)
    """Of each scene, all that are asked about, numbered as they come."""
    talks: list[Conversation] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    rows: int = 0
    bytes: int = 0
    row: int = 0
    """Number of the row after the last one."""
    byte: int = 0
    """Byte of the file after the last row."""

    @property
    def full(self) -> bool:
        """Whether it is to be written."""
        return self.rows >= SHARD_ROWS or self.bytes >= SHARD_BYTES

    def set_aside(self, row: Row, name: str, reason: str, detail: str) -> None:
        """Keep a row, or a part of it, out; the detail says where in the file it is."""
        place = f"row {row.number}, bytes {row.start} to {row.end}"
        self.rejected.append(Rejected(name, reason, f"{place}: {detail}"))

    def scene_rows(self) -> list[dict[str, Any]]:
        """Return the rows of the scenes' shard."""
        return [
            s.replace(regions=tuple(self.regions[name].values())).to_row() for name, s in self.scenes.items()
        ]


def _shards(source: Source, rows: Iterator[Row]) -> Iterator[_Shard]:
    """Group rows into shards; only the last may not be full."""
    shard = _Shard()
    while batch := list(islice(rows, BATCH)):
        _add(source, shard, batch)
        if shard.full:
            yield shard
            shard = _Shard()
    if shard.rows:
        yield shard


def _add(source: Source, shard: _Shard, batch: Sequence[Row]) -> None:
    """Add rows to a shard; what cannot be used is set aside."""
    counted = pixels_of(row.value.get("rle") for row in batch if isinstance(row.value, dict))
    drafts = [_draft(source, row, counted) for row in batch]
    pixels = _Pixels.of(source, [draft for draft in drafts if isinstance(draft, Draft)])
    for row, draft in zip(batch, drafts, strict=True):
        if isinstance(draft, Draft):
            _add_draft(source, shard, row, draft, pixels)
        else:
            if row.number < BATCH and not shard.talks:
                _require_rows(source, row)
            shard.set_aside(row, f"row-{row.number}", *draft)
    shard.rows += len(batch)
    shard.row, shard.byte = batch[-1].number + 1, batch[-1].end


def _draft(source: Source, row: Row, counted: Pixels) -> Draft | tuple[str, str]:
    """Read a row; return reason and detail where it cannot be used.

    Not the exception, which would keep what was read alive in a cycle.
    """
    if row.problem is not None:
        return "not-json", row.problem
    try:
        return FORMATS[source.format](row.value, counted)
    except UnusableError as error:
        return error.reason, error.detail


def _add_draft(source: Source, shard: _Shard, row: Row, draft: Draft, pixels: _Pixels) -> None:
    name = f"{draft.scene_id}-{row.number}"
    try:
        scene = _scene(source, shard, draft, pixels)
    except UnusableError as error:
        shard.set_aside(row, name, error.reason, error.detail)
        return
    shard.talks.append(_conversation(shard, scene, draft, name))
    for turn, reason, detail in draft.talk.dropped:
        shard.set_aside(row, f"{name}/{turn}", reason, detail)


@dataclass(frozen=True)
class _Pixels:
    """The files of a batch by path; None where no folder was given."""

    images: dict[str, bytes | None] | None
    depth: dict[str, bytes | None] | None

    @classmethod
    def of(cls, source: Source, drafts: Sequence[Draft]) -> _Pixels:
        """Fetch the files of some rows."""
        return cls(
            None if source.images is None else fetch(source.images, [d.picture for d in drafts]),
            None if source.depth is None else fetch(source.depth, [d.depth for d in drafts]),
        )


def _scene(source: Source, shard: _Shard, draft: Draft, pixels: _Pixels) -> Scene:
    """Return the scene of a row, which may be in the shard already."""
    size = draft.talk.size
    scene = shard.scenes.get(draft.scene_id)
    if scene is None:
        scene = _new_scene(source, draft, pixels)
    elif size is not None and size != (scene.width, scene.height):
        if scene.width:
            raise _sizes_differ(size, (scene.width, scene.height))
        scene = scene.replace(width=size[0], height=size[1])
    if draft.scene_id not in shard.scenes:
        shard.bytes += len(scene.image) + len(scene.relative_depth or b"")
    shard.scenes[draft.scene_id] = scene
    return scene


def _new_scene(source: Source, draft: Draft, pixels: _Pixels) -> Scene:
    size, image, depth = draft.talk.size, b"", None
    if pixels.images is not None:
        image, found = read_image(_file(pixels.images, draft.picture, "picture"), draft.picture)
        if size not in (None, found):
            raise _sizes_differ(size, found)
        size = found
        if pixels.depth is not None:
            depth = read_depth(_file(pixels.depth, draft.depth, "depth"), draft.depth, size)
    width, height = size or (0, 0)
    uri = draft.picture if source.images is None else join(source.images, draft.picture)
    return Scene(
        source.dataset, draft.scene_id, width, height, image, uri=uri, licence=source.licence,
        relative_depth=depth, relative_depth_source=None if depth is None else "given",
    )  # fmt: skip


def _file(files: dict[str, bytes | None], path: str, what: str) -> bytes:
    data = files[path]
    if data is None:
        raise UnusableError(f"missing-{what}", path)
    return data


def _sizes_differ(masks: tuple[int, int] | None, picture: tuple[int, int]) -> UnusableError:
    return UnusableError("sizes-differ", f"masks {masks}, picture {picture} (width, height)")


def _conversation(shard: _Shard, scene: Scene, draft: Draft, name: str) -> Conversation:
    """Return the conversation of a row, with its regions numbered as in the scene."""
    known = shard.regions.setdefault(scene.scene_id, {})
    numbers = {region.id: _number(known, region) for region in draft.talk.regions}
    regions, turns = draft.talk.regions, draft.talk.turns
    if any(own != number for own, number in numbers.items()):
        regions = tuple(replace(region, id=numbers[region.id]) for region in regions)
        turns = tuple(replace(turn, regions=tuple(numbers[r] for r in turn.regions)) for turn in turns)
    return Conversation(
        scene.dataset, scene.scene_id, name, "imported", scene.width, scene.height,
        regions, turns,
    )  # fmt: skip


def _number(known: dict[_Key, Region], region: AskedRegion) -> int:
    key = (None if region.rle is None else region.rle["counts"], region.bbox)
    if key not in known:
        source = None if region.rle is None else "given"
        known[key] = Region(
            len(known), region.category, region.category, region.bbox, region.rle, mask_source=source
        )
    return known[key].id
