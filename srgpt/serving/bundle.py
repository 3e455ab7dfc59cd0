"""The exported folder: its manifest, its files verified by hash, and its ONNX Runtime sessions.

The folder that Triton loads (``1``) has a manifest of the same form, which lists this one and all of its files
beside the shell and the runtime: its hash is what identifies an export.

onnx/
  manifest.json          what each file is, its SHA-256, and the shapes of the graphs
  tower.onnx             pixels (N, 3, S, S) -> features (N, L, C); RGB and depth images alike
  connector.onnx         features -> image tokens (N, T, D), refined map (N, 16 L, C)
  region.onnx            refined map of one image (16 L, C), masks (R, h, w) -> (R, D)
  depth_region.onnx      depth features of one image (L, C), masks (R, h, w) -> (R, D); of a model of relative depth
  points.onnx            points of regions (R, N, 3) metres -> (R, D); of a model of metric depth
  embeddings.npy         token embeddings (V, D)
  decoder/model.onnx     embeddings and KV cache -> logits and KV cache
  tokenizer.json
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from tokenizers import Tokenizer

from srgpt.errors import InputError, SrgptError

MANIFEST = "manifest.json"
FORMAT = 2
"""Version of the folder's layout; a runtime reads its own only."""

_BLOCK = 2**20


@dataclass(frozen=True)
class Bundle:
    """The opened graphs of an export. ``hash`` is the SHA-256 over their files' hashes."""

    folder: Path
    manifest: dict[str, Any]
    hash: str
    providers: tuple[str, ...]
    threads: int

    @property
    def model(self) -> dict[str, Any]:
        """The model's settings: sizes, token ids, prompt and processor settings."""
        settings: dict[str, Any] = self.manifest["model"]
        return settings

    def session(self, name: str) -> ort.InferenceSession:
        """Open one graph."""
        options = ort.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.log_severity_level = 3
        # idle threads that spin take the cores from whoever else works here
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        return ort.InferenceSession(str(self.folder / name), options, providers=list(self.providers))

    def embeddings(self) -> NDArray[np.float32]:
        """Open the token embeddings, (V, D), without reading them all."""
        table: NDArray[np.float32] = np.load(
            self.folder / "embeddings.npy", mmap_mode="r", allow_pickle=False
        )
        return table

    def tokenizer(self) -> Tokenizer:
        """Open the tokenizer."""
        return Tokenizer.from_file(str(self.folder / "tokenizer.json"))


def open_bundle(folder: Path, *, device: str = "cpu", threads: int = 0) -> Bundle:
    """Verify an exported folder and open it; raise :class:`InputError` where a file is missing or differs."""
    manifest = read_manifest(folder)
    verify(folder, manifest)
    return Bundle(folder, manifest, bundle_hash(manifest), _providers(device), threads)


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read the manifest of an exported folder or of a model folder."""
    path = folder / MANIFEST
    try:
        manifest: dict[str, Any] = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise InputError(
            f"{folder}: no {MANIFEST} here; this is not an exported model (`srgpt export`)"
        ) from None
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({error}); export again") from None
    if not isinstance(manifest, dict) or not isinstance(manifest.get("files"), dict):
        raise InputError(f"{path}: not a manifest of an exported model; export again")
    if manifest.get("format") != FORMAT:
        raise InputError(
            f"{path}: layout {manifest.get('format')}, this runtime reads {FORMAT}; export again"
        )
    return manifest


def verify(folder: Path, manifest: dict[str, Any]) -> None:
    """Compare every file with its hash; raise :class:`InputError` that names the first that differs."""
    for name, expected in sorted(manifest["files"].items()):
        path = folder / name
        if not path.is_file():
            raise InputError(
                f"{path}: missing, though {MANIFEST} lists it; copy the folder whole or export again"
            )
        found = file_hash(path)
        if found != expected["sha256"]:
            raise InputError(
                f"{path}: content differs from {MANIFEST} (SHA-256 {found[:12]}, expected "
                f"{expected['sha256'][:12]}); it was changed or cut off. Copy it anew or export again."
            )


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file."""
    result = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            result.update(block)
    return result.hexdigest()


def bundle_hash(manifest: dict[str, Any]) -> str:
    """Return what identifies a folder: the SHA-256 over the names and hashes of its files."""
    lines = [f"{name} {entry['sha256']}\n" for name, entry in sorted(manifest["files"].items())]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _providers(device: str) -> tuple[str, ...]:
    if device == "cpu":
        return ("CPUExecutionProvider",)
    if device != "cuda":
        raise InputError(f"device {device!r}: allowed are cpu and cuda")
    # without this a missing CUDA library would quietly mean the CPU
    if "CUDAExecutionProvider" not in ort.get_available_providers():
        raise SrgptError(
            f"this ONNX Runtime has no CUDA (it offers {', '.join(ort.get_available_providers())}); install "
            "onnxruntime-gpu alone, without the package onnxruntime beside it, or use device cpu"
        )
    return ("CUDAExecutionProvider", "CPUExecutionProvider")
