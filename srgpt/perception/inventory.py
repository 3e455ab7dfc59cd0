"""Which models perception uses, whether their weights are here, how large they are, and under which licence."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from srgpt.cards import card_licence
from srgpt.errors import InputError
from srgpt.params import PerceiveParams, WeightsParams
from srgpt.perception.weights import fetch_command, is_folder, source_name

LICENCES = {
    "apple/DepthPro-hf": "apple-amlr",
    "depth-anything/Depth-Anything-V2-Base-hf": "cc-by-nc-4.0",
    "depth-anything/Depth-Anything-V2-Large-hf": "cc-by-nc-4.0",
    "depth-anything/Depth-Anything-V2-Small-hf": "apache-2.0",
    "depth-anything/Depth-Anything-V2-Metric-Indoor-Base-hf": "cc-by-nc-4.0",
    "depth-anything/Depth-Anything-V2-Metric-Indoor-Large-hf": "cc-by-nc-4.0",
    "depth-anything/Depth-Anything-V2-Metric-Indoor-Small-hf": "apache-2.0",
    "depth-anything/Depth-Anything-V2-Metric-Outdoor-Base-hf": "cc-by-nc-4.0",
    "depth-anything/Depth-Anything-V2-Metric-Outdoor-Large-hf": "cc-by-nc-4.0",
    "depth-anything/Depth-Anything-V2-Metric-Outdoor-Small-hf": "apache-2.0",
    "facebook/sam2.1-hiera-base-plus": "apache-2.0",
    "facebook/sam2.1-hiera-large": "apache-2.0",
    "facebook/sam2.1-hiera-small": "apache-2.0",
    "facebook/sam2.1-hiera-tiny": "apache-2.0",
    "florence-community/Florence-2-base": "mit",
    "florence-community/Florence-2-base-ft": "mit",
    "florence-community/Florence-2-large": "mit",
    "florence-community/Florence-2-large-ft": "mit",
    "google/owlv2-base-patch16-ensemble": "apache-2.0",
    "google/owlv2-large-patch14-ensemble": "apache-2.0",
    "google/siglip2-base-patch16-224": "apache-2.0",
    "google/siglip2-so400m-patch14-384": "apache-2.0",
    "IDEA-Research/grounding-dino-base": "apache-2.0",
    "IDEA-Research/grounding-dino-tiny": "apache-2.0",
    "Intel/zoedepth-kitti": "mit",
    "Intel/zoedepth-nyu": "mit",
    "Intel/zoedepth-nyu-kitti": "mit",
    "LiheYoung/depth-anything-base-hf": "apache-2.0",
    "LiheYoung/depth-anything-large-hf": "apache-2.0",
    "LiheYoung/depth-anything-small-hf": "apache-2.0",
    "openai/clip-vit-base-patch32": "mit",
    "openai/clip-vit-large-patch14": "mit",
    "syscv-community/sam-hq-vit-base": "apache-2.0",
    "syscv-community/sam-hq-vit-huge": "apache-2.0",
    "syscv-community/sam-hq-vit-large": "apache-2.0",
}
"""Licences of well-known weights; the model card that came with them wins."""

_RESTRICTED = {"apple-amlr": "research only", "cc-by-nc-4.0": "not for commercial use"}

UNKNOWN_LICENCE = "unknown licence: read its model card"


@dataclass(frozen=True)
class ModelStatus:
    """One role's model on this machine."""

    role: str
    model: str
    """Id or folder, with ``@revision`` where one is pinned."""
    setting: str
    """The setting that switches the role on, as it stands: ``perceive.depth=given``."""
    used: bool
    present: bool
    licence: str
    bytes: int
    """Size on disk, 0 where the weights are not here."""
    fetch: str
    """The command that fetches the weights, or what is wrong with the folder."""


@dataclass(frozen=True)
class _Role:
    name: str
    weights: Callable[[PerceiveParams], WeightsParams]
    switch: str
    used: Callable[[PerceiveParams], bool]
    reads_text: bool = False


_ROLES = (
    _Role("filtering", lambda p: p.filtering, "pictures", lambda p: p.pictures == "model", reads_text=True),
    _Role("tagging", lambda p: p.tagging, "tags", lambda p: p.tags == p.regions == "model", reads_text=True),
    _Role("detection", lambda p: p.detection, "regions", lambda p: p.regions == "model", reads_text=True),
    _Role("segmentation", lambda p: p.segmentation, "masks", lambda p: p.masks == "model"),
    _Role("metric depth", lambda p: p.depth_estimation.metric, "depth", lambda p: p.depth == "model"),
    _Role(
        "relative depth",
        lambda p: p.depth_estimation.relative,
        "relative_depth",
        lambda p: p.relative_depth == "model",
    ),
    _Role("calibration", lambda p: p.calibration, "intrinsics", lambda p: p.intrinsics == "model"),
)


def inventory(params: PerceiveParams) -> list[ModelStatus]:
    """Look for every role's model; nothing is loaded and nothing is fetched."""
    return [_status(role, params) for role in _ROLES]


def _status(role: _Role, params: PerceiveParams) -> ModelStatus:
    weights = role.weights(params)
    fetch = f"`{fetch_command(weights)}`"
    try:
        folder, lack = find_weights(weights, reads_text=role.reads_text)
        if lack and is_folder(weights):
            fetch = f"{weights.model} holds no {lack}"
    except InputError as error:
        folder, fetch = None, str(error)
    return ModelStatus(
        role=role.name,
        model=source_name(weights),
        setting=f"perceive.{role.switch}={getattr(params, role.switch)}",
        used=role.used(params),
        present=folder is not None,
        licence=licence(weights, folder),
        bytes=0 if folder is None else sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()),
        fetch=fetch,
    )


def find_weights(params: WeightsParams, *, reads_text: bool = False) -> tuple[Path | None, str]:
    """Return a whole model's folder, in the hub's cache or its own, and ""; else None and what is not here.

    A model that ``reads_text`` needs a tokenizer as well.
    """
    if is_folder(params):
        folder = Path(params.model).expanduser()
    else:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

        try:
            folder = Path(snapshot_download(params.model, revision=params.revision, local_files_only=True))
        except LocalEntryNotFoundError:
            return None, "snapshot of it"
        except HFValidationError as error:
            raise InputError(f"{params.model}: not a hub id ({error})") from error
    lack = _lack(folder, reads_text=reads_text)
    return (None if lack else folder), lack


_PROCESSORS = (("preprocessor_config.json",), ("processor_config.json",))

_TOKENIZERS = (
    ("tokenizer.json",),
    ("vocab.json", "merges.txt"),
    ("vocab.txt",),
    ("tokenizer.model",),
    ("spiece.model",),
)


def _lack(folder: Path, *, reads_text: bool) -> str:
    """Name the first thing that a folder needs and has not; "" where it is whole."""

    def holds(choices: tuple[tuple[str, ...], ...]) -> bool:
        return any(all((folder / name).is_file() for name in names) for names in choices)

    if not holds((("config.json",),)):
        return "config.json"
    if not holds((("model.safetensors",), _shards(folder))):
        return "whole weights (model.safetensors, or every file that model.safetensors.index.json names)"
    if not holds(_PROCESSORS):
        return "preprocessor_config.json or processor_config.json"
    if reads_text and not holds(_TOKENIZERS):
        return "tokenizer (tokenizer.json, or a vocabulary of an older form)"
    return ""


def _shards(folder: Path) -> tuple[str, ...]:
    """Return the weights' index and all files that it names; one that names none is no better than none."""
    index = "model.safetensors.index.json"
    try:
        named = set(json.loads((folder / index).read_text(encoding="utf-8"))["weight_map"].values())
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        named = set()
    return (index, *map(str, named or {"model.safetensors"}))


def licence(params: WeightsParams, folder: Path | None) -> str:
    """Return the licence of the model card in ``folder``, else of :data:`LICENCES`, with what it restricts."""
    name = (None if folder is None else card_licence(folder / "README.md")) or LICENCES.get(params.model)
    if name is None:
        return UNKNOWN_LICENCE
    return f"{name} ({_RESTRICTED[name]})" if name in _RESTRICTED else name
