"""The Triton model repository of an export, and the router's.

triton/
  srgpt/                  any name will do: the configuration does not repeat it
    config.pbtxt
    1/
      manifest.json       every file's hash: the identity of the export
      model.py            the shell
      onnx/               the graphs (hard links to the export's own)
      srgpt/              the runtime
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import srgpt
from srgpt.params import ServeParams
from srgpt.serving.bundle import FORMAT, MANIFEST, file_hash, read_manifest
from srgpt.serving.protocol import FIELDS, OPTIONAL
from srgpt.storage import write_bytes, write_json

RUNTIME = (
    "__init__.py",
    "errors.py",
    "records.py",
    "geometry/__init__.py",
    "geometry/camera.py",
    "geometry/language.py",
    "geometry/units.py",
    "model/__init__.py",
    "model/pixels.py",
    "model/prompts.py",
    "serving/__init__.py",
    "serving/bundle.py",
    "serving/decoder.py",
    "serving/engine.py",
    "serving/preprocess.py",
    "serving/protocol.py",
)
"""The modules that travel with a model."""

_PACKAGE = Path(srgpt.__file__).parent
_SHELLS = _PACKAGE / "serving" / "triton"
_ROUTER_INSTANCES = 2
"""While one passes a batch on, the other takes in the next."""


def write_model(onnx: Path, target: Path, params: ServeParams, *, max_new_tokens: int) -> dict[str, Any]:
    """Write the model folder ``target`` around the exported folder ``onnx``; return its manifest.

    The manifest lists all but ``config.pbtxt``, which is a setting of the server and written anew there.
    """
    version = target / "1"
    version.mkdir(parents=True)
    shutil.copyfile(_SHELLS / "model.py", version / "model.py")
    for name in RUNTIME:
        (version / "srgpt" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(_PACKAGE / name, version / "srgpt" / name)
    link_tree(onnx, version / "onnx")
    graphs = read_manifest(onnx)
    write_config(target, params, device=graphs["device"], max_new_tokens=max_new_tokens)
    own = ("model.py", f"onnx/{MANIFEST}", *(f"srgpt/{name}" for name in RUNTIME))
    files = {
        **{name: {"sha256": file_hash(version / name)} for name in own},
        **{f"onnx/{name}": {"sha256": entry["sha256"]} for name, entry in graphs["files"].items()},
    }
    manifest = {"format": FORMAT, "device": graphs["device"], "files": files}
    write_json(str(version / MANIFEST), manifest)
    return manifest


def write_config(target: Path, params: ServeParams, *, device: str, max_new_tokens: int) -> None:
    """Write a model folder's ``config.pbtxt``: batching as ``params`` have it."""
    settings = {"device": device, "threads": str(params.threads), "max_new_tokens": str(max_new_tokens)}
    lines = [
        *_interface(params.max_batch_size),
        f"dynamic_batching {{ max_queue_delay_microseconds: {round(params.max_queue_delay_ms * 1000)} }}",
        # one engine has one cache of images and decodes one batch at a time, wherever it computes
        "instance_group [ { count: 1, kind: KIND_CPU } ]",
        *(f'parameters {{ key: "{k}" value {{ string_value: "{v}" }} }}' for k, v in settings.items()),
    ]
    write_bytes(str(target / "config.pbtxt"), ("\n".join(lines) + "\n").encode())


def write_router(target: Path, params: ServeParams) -> None:
    """Write the router's model folder, without a route."""
    (target / "1").mkdir(parents=True, exist_ok=True)
    write_bytes(str(target / "1" / "model.py"), (_SHELLS / "router.py").read_bytes())
    lines = [
        *_interface(params.max_batch_size),
        "dynamic_batching { }",
        f"instance_group [ {{ count: {_ROUTER_INSTANCES}, kind: KIND_CPU }} ]",
    ]
    write_bytes(str(target / "config.pbtxt"), ("\n".join(lines) + "\n").encode())


def write_route(target: Path, model: str) -> None:
    """Point the router at a model: one file, replaced atomically."""
    write_json(str(target / "route.json"), {"target": model})


def link_tree(source: Path, target: Path) -> None:
    """Make ``target`` the same tree as ``source``, by hard links where the file system allows them."""
    for path in sorted(p for p in source.rglob("*") if p.is_file()):
        copy = target / path.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(path, copy)
        except OSError:  # another file system, or one without links
            shutil.copyfile(path, copy)


def _interface(max_batch: int) -> list[str]:
    inputs = [
        f'  {{ name: "{n}", data_type: TYPE_STRING, dims: [ 1 ]{", optional: true" if n in OPTIONAL else ""} }}'
        for n in FIELDS
    ]
    return [
        'backend: "python"',
        f"max_batch_size: {max_batch}",
        "input [",
        ",\n".join(inputs),
        "]",
        'output [ { name: "answer", data_type: TYPE_STRING, dims: [ 1 ] } ]',
    ]
