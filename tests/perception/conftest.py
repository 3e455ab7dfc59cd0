"""Tiny checkpoints, built once when a test first asks for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers.utils import logging

from tests.perception import tiny

Checkpoint = Callable[[str], str]


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """Tiny models spend their time waiting for each other's threads."""
    count = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(count)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Checkpoint]:
    """Return the folder of a tiny checkpoint by its name in ``tiny.BUILDERS``."""
    folder = tmp_path_factory.mktemp("checkpoints")
    level = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()

    def get(name: str) -> str:
        if not (folder / name).exists():
            tiny.build(name, folder / name)
        return str(folder / name)

    yield get
    logging.set_verbosity(level)


@pytest.fixture(scope="session")
def pictures() -> list[Image.Image]:
    """Three pictures of noise, the first and last of the same size."""
    rng = np.random.default_rng(0)
    return [
        Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
        for height, width in ((60, 80), (70, 50), (60, 80))
    ]


def folder_copy(source: str, target: Path) -> Path:
    """Copy a checkpoint, to be damaged."""
    target.mkdir()
    for file in Path(source).iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    return target


@pytest.fixture
def torchvision() -> None:
    """Skips, by name, where torchvision is absent or built for another torch: nothing here needs it but a check."""
    try:
        import torchvision  # noqa: F401
    except (ImportError, RuntimeError, OSError) as error:
        pytest.skip(f"torchvision is not usable here ({error})")
