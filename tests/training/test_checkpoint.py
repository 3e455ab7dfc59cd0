"""Which checkpoints are kept; what cannot be written is told as a fact about the disk, whatever library met it."""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from srgpt.dataset.sampler import SamplerState
from srgpt.errors import SrgptError
from srgpt.training.checkpoint import Progress, latest, save, write_errors

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


class Engine:
    """Saves as DeepSpeed's does: a folder by its tag."""

    zero_optimization_stage = staticmethod(lambda: 0)

    def save_checkpoint(self, folder: str, tag: str, save_latest: bool) -> None:
        path = Path(folder) / tag
        path.mkdir(exist_ok=True)
        (path / "rank0").write_text(tag)


def test_what_kills_left_is_removed_and_never_what_is_pointed_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.distributed.barrier", lambda: None)
    monkeypatch.setattr("torch.distributed.get_world_size", lambda: 1)
    step = lambda n: Progress(n, SamplerState("data", n))  # noqa: E731
    save(Engine(), tmp_path, step(100), main=True)
    for left in (150, 180, 190):  # saves that were cut short, one by more ranks
        (tmp_path / f"step-{left:07d}").mkdir()
        (tmp_path / f"step-{left:07d}" / "rank1").touch()
    save(Engine(), tmp_path, step(150), main=True)
    assert {p.name for p in tmp_path.glob("step-*")} == {"step-0000100", "step-0000150"}
    assert [p.name for p in (tmp_path / "step-0000150").iterdir()] == ["rank0"]
    found = latest(tmp_path)
    assert found is not None
    assert (found.tag, found.progress.step) == ("step-0000150", 150)
    save(Engine(), tmp_path, step(200), main=True)
    assert {p.name for p in tmp_path.glob("step-*")} == {"step-0000150", "step-0000200"}


def test_other_errors_pass(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="shape"), write_errors(tmp_path):
        raise RuntimeError("shape mismatch")
