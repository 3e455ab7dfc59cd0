"""What a conversion will write, known and checked in full before the first byte is written."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast

from srgpt.errors import InputError
from srgpt.model.vila.settings import PARTS
from srgpt.model.vila.weights import INDEX, StoredTensor

KEPT = "reference"
"""Folder within an imported model: the files of the reference's folder beside its weights, byte for byte."""

RECORD = "conversion.json"
_TEXTS = {".json", ".md", ".txt", ".model", ".jinja"}
_LEGAL = ("LICENSE", "LICENCE", "NOTICE", "USE_POLICY")


@dataclass(frozen=True)
class Plan:
    """``weights``: per folder below the output, its tensors by their new names. ``write_rest`` adds all else."""

    layout: str
    weights: Mapping[str, Mapping[str, StoredTensor]]
    write_rest: Callable[[Path], None]
    left_out: tuple[str, ...] = ()

    @property
    def nbytes(self) -> int:
        """Size of the weights."""
        return sum(tensor.nbytes for part in self.weights.values() for tensor in part.values())

    @property
    def tensors(self) -> int:
        """How many tensors are written."""
        return sum(map(len, self.weights.values()))


def side_files(folder: Path) -> tuple[list[Path], list[Path]]:
    """Return the files beside the weights that are kept, and those that are not, of the folder and its parts."""
    kept, others = [], []
    for part in ("", *PARTS):
        for path in sorted((folder / part).glob("*")):
            if path.name.startswith(".") or path.name in (INDEX, RECORD) or path.suffix == ".safetensors":
                continue
            if path.is_file() and (path.suffix in _TEXTS or path.name.startswith(_LEGAL)):
                kept.append(path.relative_to(folder))
            elif part or path.name not in PARTS:
                others.append(path.relative_to(folder))
    return kept, others


def copy_files(source: Path, files: list[Path], target: Path) -> None:
    """Copy files, given by their paths below ``source``, to the same places below ``target``."""
    for file in files:
        (target / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / file, target / file)


def read_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """Read a tokenizer from ``tokenizer.json``, which alone says exactly what its tokens are."""
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise InputError(
            f"{path}: not found. Save the tokenizer in this form (AutoTokenizer.from_pretrained(folder).save_pretrained"
            "(folder) with transformers and sentencepiece), then convert again."
        )
    try:
        tokenizer: Any = PreTrainedTokenizerFast.from_pretrained(str(folder))
    # tokenizers raises bare exceptions
    except Exception as error:
        raise InputError(f"{folder}: the tokenizer cannot be read ({error}). Copy its files anew.") from error
    return tokenizer
