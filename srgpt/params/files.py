"""Parameters from files, profiles and the command line; writing them back with their comments."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from srgpt.errors import InputError
from srgpt.params.root import Params, build, merge
from srgpt.params.section import NAME

_EXPONENT = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+")
"""Numbers such as 1e-3, which YAML 1.1 reads as text."""

PROFILES = ("demo", "cpu-long", "gpu", "full")


def load(
    path: str | Path | None = None,
    profile: str | None = None,
    overrides: Sequence[str] = (),
    *,
    cwd: Path | None = None,
) -> Params:
    """Load and check parameters.

    ``path`` None means ``params.yaml`` in ``cwd`` (default: the current folder) where it exists, else
    defaults. ``overrides`` are ``section.key=value`` strings with YAML values. Raises :class:`InputError`.
    """
    if path is None:
        default = (cwd or Path.cwd()) / "params.yaml"
        path = default if default.exists() else None
    data = Params().dump()
    if path is not None:
        data = merge(data, _read_yaml(Path(path)))
    if profile is not None:
        data = merge(data, read_profile(profile))
    explicit: dict[str, Any] = {}
    for override in overrides:
        explicit = merge(explicit, _parse_override(override))
    params = build(merge(data, explicit), str(path or "parameters"))
    params._explicit = explicit
    return params


def check_dataset(name: str) -> str:
    """Return the name of a dataset; it becomes part of paths, so :class:`InputError` where it is not plain."""
    if not re.fullmatch(NAME.strip("^$"), name):
        raise InputError(
            f"{name!r} cannot name a dataset: letters, digits, '_', '.' and '-' are allowed, the first a letter "
            "or a digit. Give --dataset NAME."
        )
    return name


def read_profile(name: str) -> dict[str, Any]:
    """Return the overlay of a named profile."""
    if name not in PROFILES:
        raise InputError(f"--profile {name}: no such profile; allowed: {', '.join(PROFILES)}")
    text = (resources.files("srgpt") / "profiles" / f"{name}.yaml").read_text()
    return {"profile": name, **(yaml.safe_load(text) or {})}


def write(path: Path, profile: str | None = None, overrides: Sequence[str] = ()) -> Params:
    """Apply a profile and overrides to the parameter file itself, keeping its comments; return the result.

    Checked first: a wrong value leaves the file as it was. An override of a section wins over what datasets
    say, as on the command line: it replaces their own values for that key.
    """
    params = load(path, profile, overrides)
    editor = _editor()
    document = editor.load(path.read_text()) or {}
    if profile:
        _update(document, read_profile(profile))
    explicit: dict[str, Any] = {}
    for override in overrides:
        explicit = merge(explicit, _parse_override(override))
    own = {name: _shared(dataset.model_dump(), explicit) for name, dataset in params.datasets.items()}
    _update(document, merge({"datasets": {name: values for name, values in own.items() if values}}, explicit))
    partial = path.with_suffix(".yaml.tmp")
    with partial.open("w") as file:
        editor.dump(document, file)
    partial.replace(path)
    return params


def _editor() -> Any:
    from ruamel.yaml import YAML
    from ruamel.yaml.representer import RoundTripRepresenter

    class Representer(RoundTripRepresenter):
        """Says ``null`` where the default leaves nothing."""

    Representer.add_representer(type(None), lambda r, _: r.represent_scalar("tag:yaml.org,2002:null", "null"))
    editor = YAML()
    editor.Representer = Representer
    editor.preserve_quotes = True
    editor.width = 110
    return editor


def _update(document: Any, changes: Mapping[str, Any]) -> None:
    for key, value in changes.items():
        if isinstance(value, Mapping) and isinstance(document.get(key), Mapping):
            _update(document[key], value)
        elif key not in document or document[key] != value:
            document[key] = value


def _shared(own: Mapping[str, Any], explicit: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of the explicit values whose keys a dataset has values of its own for."""
    result: dict[str, Any] = {}
    for key in own.keys() & explicit.keys():
        nested = isinstance(own[key], Mapping) and isinstance(explicit[key], Mapping)
        result[key] = _shared(own[key], explicit[key]) if nested else explicit[key]
    return result


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        data = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise InputError(f"--params {path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--params {path}: cannot be read ({error})") from None
    except yaml.YAMLError as error:
        raise InputError(f"--params {path}: not YAML ({error})") from None
    if data is not None and not isinstance(data, dict):
        raise InputError(f"--params {path}: expected sections (a mapping), found {type(data).__name__}")
    return data or {}


def _parse_override(text: str) -> dict[str, Any]:
    key, separator, value = text.partition("=")
    if not separator or not all(key.split(".")):
        raise InputError(f"--set {text}: expected section.key=value, for example train.steps=200")
    try:
        parsed: Any = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise InputError(f"--set {text}: the value is not YAML ({error})") from None
    if isinstance(parsed, str) and _EXPONENT.fullmatch(value.strip()):
        parsed = float(parsed)
    for part in reversed(key.strip().split(".")):
        parsed = {part: parsed}
    return parsed
