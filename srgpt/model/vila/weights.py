"""Tensors in safetensors files: listed from the headers, checked by name and shape, copied one by one.

Nothing else than safetensors is read: other formats of weights are pickles, and to load a pickle is to run it.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from srgpt.errors import InputError, SrgptError
from srgpt.storage import io_errors, read_json

INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"
PICKLES = {".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt"}
SIZES = {"F32": 4, "F16": 2, "BF16": 2}
"""Bytes of a number, by the types that weights may have."""

SHARD_BYTES = 2 * 10**9
"""A file of weights is no larger, unless it holds a single tensor; a conversion needs about as much memory."""

_SHOWN = 3
"""Tensors that an error names."""


@dataclass(frozen=True)
class StoredTensor:
    """One tensor of a file, as the file's header tells of it."""

    file: Path
    name: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def nbytes(self) -> int:
        """Size of the tensor's data."""
        count = SIZES[self.dtype]
        for length in self.shape:
            count *= length
        return count


def list_tensors(folder: Path) -> dict[str, StoredTensor]:
    """Return every tensor of the safetensors files in a folder, by name.

    Raises :class:`InputError` where there are none, where a file cannot be read to its end, and where the index and
    the files differ.
    """
    files, index = _files(folder)
    found: dict[str, StoredTensor] = {}
    for file in files:
        for tensor in _headers(file):
            if tensor.name in found:
                raise InputError(f"{file}: holds {tensor.name!r}, and so does {found[tensor.name].file.name}")
            found[tensor.name] = tensor
    if index is not None:
        actual = {name: tensor.file.name for name, tensor in found.items()}
        wrong = sorted(name for name in actual.keys() | index.keys() if actual.get(name) != index.get(name))
        if wrong:
            raise InputError(
                f"{folder / INDEX}: does not say where {_names(wrong)} lie(s). Download the folder anew."
            )
    return found


def check_tensors(
    where: str, found: Mapping[str, StoredTensor], expected: Mapping[str, tuple[int, ...]]
) -> None:
    """Raise :class:`InputError` unless ``found`` are exactly the ``expected`` names and shapes."""
    problems = []
    if missing := sorted(expected.keys() - found.keys()):
        problems.append(f"{len(missing)} missing ({_names(missing)})")
    if extra := sorted(found.keys() - expected.keys()):
        problems.append(f"{len(extra)} unexpected ({_names(extra)})")
    wrong = sorted(name for name in expected.keys() & found.keys() if found[name].shape != expected[name])
    if wrong:
        sizes = [f"{n} is {list(found[n].shape)}, not {list(expected[n])}" for n in wrong[:_SHOWN]]
        problems.append(f"{len(wrong)} of another shape ({'; '.join(sizes)}{_more(wrong)})")
    if problems:
        raise InputError(
            f"{where}: the tensors are not those that its config.json describes: {'; '.join(problems)}. "
            "Copy the folder anew, or correct config.json."
        )


def copy_tensors(
    tensors: Mapping[str, StoredTensor],
    folder: Path,
    advance: Callable[[int], None],
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Write tensors under new names (the keys) into ``folder``: one file, or shards with an index.

    One shard at a time is in memory. ``advance`` is told the bytes of each. Types stay what they are.
    """
    shards = list(_shards(tensors, shard_bytes))
    many = len(shards) > 1
    names = [
        f"model-{k:05d}-of-{len(shards):05d}.safetensors" if many else SINGLE
        for k in range(1, len(shards) + 1)
    ]
    with io_errors(str(folder), write=True):
        folder.mkdir(parents=True, exist_ok=True)
    for name, shard in zip(names, shards, strict=True):
        with read_tensors([tensors[key] for key in shard]) as values, _write_errors(folder / name):
            save_file(dict(zip(shard, values, strict=True)), folder / name, metadata={"format": "pt"})
        advance(sum(tensors[key].nbytes for key in shard))
    if many:
        total = sum(tensor.nbytes for tensor in tensors.values())
        where = {key: name for name, shard in zip(names, shards, strict=True) for key in shard}
        index = {"metadata": {"total_size": total}, "weight_map": where}
        (folder / INDEX).write_text(json.dumps(index, indent=2, sort_keys=True) + "\n")


@contextlib.contextmanager
def read_tensors(wanted: Sequence[StoredTensor]) -> Iterator[list[Tensor]]:
    """Yield the values of tensors, which are the files' own memory: good within the block only."""
    with contextlib.ExitStack() as stack:
        handles: dict[Path, Any] = {}
        values = []
        for tensor in wanted:
            with _read_errors(tensor.file):
                if tensor.file not in handles:
                    handles[tensor.file] = stack.enter_context(safe_open(tensor.file, framework="pt"))
                values.append(handles[tensor.file].get_tensor(tensor.name))
        yield values


def _files(folder: Path) -> tuple[list[Path], dict[str, str] | None]:
    """Return the folder's safetensors files, and which tensor lies in which where an index tells."""
    present = sorted(folder.glob("*.safetensors")) if folder.is_dir() else []
    if not present:
        pickles = sorted(f.name for f in folder.glob("*") if f.suffix in PICKLES)
        if pickles:
            raise InputError(
                f"{folder}: its weights are pickles ({_names(pickles)}), which are not read, because to load one is to "
                "run it. Save them as safetensors where you trust them (save_pretrained of transformers does)."
            )
        raise InputError(f"{folder}: no {SINGLE} and no {INDEX}. Copy the folder with all its parts.")
    if not (folder / INDEX).is_file():
        if [f.name for f in present] != [SINGLE]:
            raise InputError(f"{folder}: several files ({_names([f.name for f in present])}), but no {INDEX}")
        return present, None
    content = read_json(str(folder / INDEX))
    index = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(index, dict) or not all(isinstance(name, str) for name in index.values()):
        raise InputError(f"{folder / INDEX}: no weight_map of tensors to files. Download the folder anew.")
    differ = sorted({f.name for f in present} ^ set(index.values()))
    if differ:
        raise InputError(
            f"{folder}: {INDEX} and the files differ in {_names(differ)}. Download the folder anew."
        )
    return present, index


def _headers(file: Path) -> Iterator[StoredTensor]:
    with _read_errors(file), safe_open(file, framework="pt") as content:
        for name in content.keys():  # noqa: SIM118 (not a dict)
            piece = content.get_slice(name)
            dtype = str(piece.get_dtype())
            if dtype not in SIZES:
                raise InputError(f"{file}: {name!r} holds {dtype}; weights are {', '.join(SIZES)}")
            yield StoredTensor(file, name, tuple(piece.get_shape()), dtype)


def _shards(tensors: Mapping[str, StoredTensor], limit: int) -> Iterator[list[str]]:
    shard: list[str] = []
    size = 0
    for name, tensor in tensors.items():
        if shard and size + tensor.nbytes > limit:
            yield shard
            shard, size = [], 0
        shard.append(name)
        size += tensor.nbytes
    yield shard


@contextlib.contextmanager
def _read_errors(file: Path) -> Iterator[None]:
    try:
        yield
    except SafetensorError as error:
        raise InputError(f"{file}: damaged or cut off ({error}). Copy the file anew.") from error
    except (OSError, OverflowError, ValueError) as error:
        raise InputError(f"{file}: cannot be read ({error}). Copy the file anew.") from error


@contextlib.contextmanager
def _write_errors(file: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise SrgptError(
            f"{file}: cannot be written ({error}). Make room, or give another folder."
        ) from error


def _names(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + _more(names)


def _more(names: Sequence[str]) -> str:
    return ", ..." if len(names) > _SHOWN else ""
