"""A tiny model with random weights, made once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.model.tiny import make_tiny_checkpoint


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_checkpoint(tmp_path_factory.mktemp("models") / "tiny")
