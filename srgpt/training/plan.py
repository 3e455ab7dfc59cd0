"""The stages of one training: their parameters, the tables they read, and the folders they work in."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from srgpt.dataset.source import MixtureSource
from srgpt.errors import InputError
from srgpt.params import MixtureParams, Params, TrainParams
from srgpt.storage import Manifest, digest, exists, is_local, join, plain_path, read_manifest, scenes_of

log = logging.getLogger(__name__)

SUMMARY = "training.json"
"""Written last into a stage's folder, and into the model's: with it, that is whole."""

_END = 2**20
"""Bytes at either end of a file that tell it from another one of its size."""


@dataclass(frozen=True)
class Stage:
    """One stage: ``number`` counts from 0; ``params`` are the ``train`` section as it holds for the stage."""

    number: int
    name: str
    params: TrainParams
    sources: tuple[MixtureSource, ...]

    def folder(self, work: Path) -> Path:
        """Return where the stage works, in the work folder of the whole training."""
        return work / f"{self.number + 1}-{self.name}"


def plan(params: Params, source: str) -> list[Stage]:
    """Return the stages of a training; one without a mixture reads the table ``source``.

    Raises :class:`InputError` where a table is not there, or empty.
    """
    stages = []
    for number in range(len(params.train.stages)):
        recipe = params.train.at(number)
        mixture = recipe.mixture or [MixtureParams(dataset=source)]
        sources = tuple(_source(item, source) for item in mixture)
        stages.append(Stage(number, recipe.stages[0].name, recipe, sources))
    return stages


def table_of(dataset: str) -> str:
    """Return the conversations of a dataset by its name, or the folder or URL that was given instead of one."""
    if "/" in dataset:
        return dataset
    tables = [f"data/conversations/{dataset}", f"data/imported/{dataset}/conversations"]
    for url in tables:
        if exists(join(url, "manifest.json")):
            return url
    raise InputError(
        f"train.mixture: there is no dataset {dataset!r}: neither {tables[0]} nor {tables[1]} is a table. "
        "Make it with `srgpt ask` or `srgpt import --dataset`, or give the folder or URL of a table."
    )


def _source(item: MixtureParams, given: str) -> MixtureSource:
    url = given if item.dataset == given else table_of(item.dataset)
    if read_manifest(url, "conversations").rows == 0:
        raise InputError(f"{url}: has no conversations to train on")
    return MixtureSource(url, scenes_of(url), item.weight, item.history)


def epoch_rows(sources: Sequence[MixtureSource]) -> int:
    """Return the conversations in one epoch of a mixture."""
    return round(sum(s.weight * read_manifest(s.url, "conversations").rows for s in sources))


def data_of(stages: Sequence[Stage]) -> dict[str, str]:
    """Return the fingerprint of every table that the stages read, by its dataset's name."""
    found: dict[str, str] = {}
    for url in dict.fromkeys(s.url for stage in stages for s in stage.sources):
        manifest: Manifest = read_manifest(url, "conversations")
        taken = found.get(manifest.dataset, manifest.fingerprint) != manifest.fingerprint
        found[url if taken else manifest.dataset] = manifest.fingerprint
    return found


def model_identity(folder: str | None) -> str | None:
    """Return a digest of a model folder by its files' sizes and ends; None for no folder."""
    if folder is None:
        return None
    path = Path(plain_path(folder))
    if not (path / "config.json").is_file():
        raise InputError(f"train.init = {folder!r}: not a model folder (config.json missing)")
    files = sorted(p for p in path.iterdir() if p.suffix in (".json", ".safetensors"))
    return digest([[p.name, p.stat().st_size, _ends(p)] for p in files])


def _ends(path: Path) -> str:
    with path.open("rb") as file:
        start = file.read(_END)
        file.seek(max(0, path.stat().st_size - _END), os.SEEK_SET)
        return digest(start + file.read(_END))


# Beside DVC -----------------------------------------------------------------------------------------------


def warn_of_undeclared(params: Params, stages: Sequence[Stage], dvc_yaml: Path, source: str) -> list[str]:
    """Warn of what mixtures name that is no dependency of the train stage in ``dvc_yaml``; return its paths.

    DVC cannot follow a list in ``params.yaml``: unless told, it would not train again when such a table changes. The
    table ``source``, which the command itself was given, is left out.
    """
    if not dvc_yaml.exists():
        return []
    deps = _deps(dvc_yaml, params.dump())
    tables = [table for stage in stages for table in stage.sources if table.url != source]
    read = [url for table in tables for url in (table.url, table.scenes)]
    read += [] if params.train.init is None else [params.train.init]
    paths = [os.path.relpath(plain_path(url)) for url in dict.fromkeys(read) if is_local(url)]
    found = [p for p in paths if not any(p == d or p.startswith(f"{d}/") for d in deps)]
    if found:
        log.warning(
            "%s: the train stage reads %s, which DVC does not know of: it will not train again when they change. "
            "List them among the stage's deps.",
            dvc_yaml,
            ", ".join(found),
        )
    return found


def _deps(dvc_yaml: Path, params: Mapping[str, Any]) -> list[str]:
    try:
        stage = yaml.safe_load(dvc_yaml.read_text())["stages"]["train"]
        deps = [d if isinstance(d, str) else str(next(iter(d))) for d in stage["deps"]]
    except (OSError, yaml.YAMLError, KeyError, TypeError, StopIteration):
        return []
    return [d.replace("${train.dataset}", str(params["train"]["dataset"])).rstrip("/") for d in deps]
