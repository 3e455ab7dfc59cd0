"""Write the exported folder that :mod:`srgpt.serving.bundle` opens: graphs, tokenizer, settings, hashes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnx

from srgpt import __version__
from srgpt.export.decoder import PROVIDER, Precision, decoder_settings, export_decoder
from srgpt.export.towers import export_towers
from srgpt.model.modeling import SrgptForConditionalGeneration
from srgpt.model.processing import FILE as PROCESSOR_FILE
from srgpt.model.processing import SrgptProcessor
from srgpt.progress import console
from srgpt.serving.bundle import FORMAT, MANIFEST, file_hash
from srgpt.storage import write_json


def write_bundle(
    model: SrgptForConditionalGeneration, processor: SrgptProcessor, folder: Path, precision: Precision
) -> dict[str, Any]:
    """Export ``model`` into ``folder``; return the manifest."""
    console.print("export: towers and region graphs")
    export_towers(model, folder)
    console.print(f"export: decoder ({precision})")
    export_decoder(model, processor.tokenizer, folder, precision)
    processor.save_pretrained(folder / "processor")
    settings = json.loads((folder / "processor" / PROCESSOR_FILE).read_text())
    for file in (folder / "processor").iterdir():
        file.unlink()
    (folder / "processor").rmdir()
    manifest = {
        "format": FORMAT,
        "code_version": __version__,
        "precision": precision,
        "device": PROVIDER[precision],
        "model": {"processor": settings, "decoder": decoder_settings(model)},
        "files": {name: _describe(folder / name) for name in _files(folder)},
    }
    write_json(str(folder / MANIFEST), manifest)
    return manifest


def _files(folder: Path) -> list[str]:
    found = (p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    return sorted(name for name in found if name != MANIFEST)


def _describe(path: Path) -> dict[str, Any]:
    entry: dict[str, Any] = {"sha256": file_hash(path), "bytes": path.stat().st_size}
    if path.suffix == ".onnx":
        graph = onnx.load(str(path), load_external_data=False).graph
        weights = {w.name for w in graph.initializer}
        entry["inputs"] = {v.name: _shape(v) for v in graph.input if v.name not in weights}
        entry["outputs"] = {v.name: _shape(v) for v in graph.output}
    return entry


def _shape(value: onnx.ValueInfoProto) -> list[int | str]:
    return [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
