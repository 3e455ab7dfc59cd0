"""What cannot be written is told as a fact about the disk, whatever library met it."""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from srgpt.errors import SrgptError
from srgpt.training.checkpoint import write_errors

WEIGHTS = {"weight": torch.ones(300_000)}


@contextlib.contextmanager
def small_files() -> Iterator[None]:
    """Let this process write files of a thousand bytes at most: for as short as can be, for pytest writes, too."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize(
    "write",
    [
        lambda path: torch.save(WEIGHTS, path),
        lambda path: save_file(WEIGHTS, path),
        lambda path: path.write_bytes(bytes(1_000_000)),
    ],
    ids=["torch", "safetensors", "plain"],
)
def test_a_full_disk_is_told_with_what_to_do(tmp_path: Path, write: Callable[[Path], None]) -> None:
    told = r"cannot be written there \(\d+ MB are free; .*Make room"
    with pytest.raises(SrgptError, match=told), write_errors(tmp_path), small_files():
        write(tmp_path / "weights")


def test_other_errors_pass(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="shape"), write_errors(tmp_path):
        raise RuntimeError("shape mismatch")
