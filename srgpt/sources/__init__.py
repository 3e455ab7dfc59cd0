"""Sources of scenes: where pictures and what is known about them come from, one module per source."""

from __future__ import annotations

from collections.abc import Callable

from srgpt.errors import InputError
from srgpt.params import EngineParams, IngestParams
from srgpt.sources.base import Loaded, Source


def _procedural(
    params: IngestParams, seed: int, dataset: str, url: str | None, engine: EngineParams | None
) -> Source:
    from srgpt.sources.procedural import ProceduralSource

    if url is not None:
        raise InputError(
            f"{url}: ingest.source is 'procedural', which makes its scenes itself. "
            "Leave --in away and ingest.url null, or set ingest.source (for example to omni3d)."
        )
    return ProceduralSource(params, seed, dataset)


def _omni3d(
    params: IngestParams, seed: int, dataset: str, url: str | None, engine: EngineParams | None
) -> Source:
    from srgpt.sources.omni3d import Omni3dSource

    return Omni3dSource(params, dataset, _given(url, params, dataset))


def _folder(
    params: IngestParams, seed: int, dataset: str, url: str | None, engine: EngineParams | None
) -> Source:
    from srgpt.sources.folder import FolderSource

    return FolderSource(params, dataset, _given(url, params, dataset), engine)


def _hub(
    params: IngestParams, seed: int, dataset: str, url: str | None, engine: EngineParams | None
) -> Source:
    from srgpt.sources.hub import HubSource

    return HubSource(params, dataset, _given(url, params, dataset))


def _rgbd(
    params: IngestParams, seed: int, dataset: str, url: str | None, engine: EngineParams | None
) -> Source:
    from srgpt.sources.rgbd import RgbdSource

    return RgbdSource(params, dataset, _given(url, params, dataset), engine)


def _given(url: str | None, params: IngestParams, dataset: str) -> str:
    if url is None:
        more = " or --in OWNER/NAME" if params.source == "hub" else " or --in s3://..."
        raise InputError(
            f"ingest.source is {params.source!r}, which reads a folder: give it with --in FOLDER{more}, "
            f"or set datasets.{dataset}.ingest.url"
        )
    return url


_OPENERS: dict[str, Callable[[IngestParams, int, str, str | None, EngineParams | None], Source]] = {
    "procedural": _procedural,
    "omni3d": _omni3d,
    "folder": _folder,
    "hub": _hub,
    "rgbd": _rgbd,
}


def open_source(
    params: IngestParams, seed: int, dataset: str, url: str | None, engine: EngineParams | None = None
) -> Source:
    """Open the source that ``ingest.source`` names; ``url`` is where it lies (None for one that generates).

    Files are looked at in the worker processes of ``engine``, of this one where there is none.

    Raises :class:`InputError` where the source cannot be read or does not fit ``url``.
    """
    return _OPENERS[params.source](params, seed, dataset, url, engine)


__all__ = ["Loaded", "Source", "open_source"]
