"""Steps of a promotion that need a registry, and no server."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from srgpt import promotion, tracking
from srgpt.errors import InputError, SrgptError
from srgpt.params import Params
from srgpt.promotion import journal, lifecycle, registry
from srgpt.promotion.journal import Serving
from srgpt.tracking import Version
from tests.export import tiny
from tests.promotion.conftest import write_evaluation


class Recorder:
    """A deployment that notes what it is told, and cannot install some versions."""

    def __init__(self, *broken: int) -> None:
        self.broken = broken
        self.done: list[str] = []

    def name_of(self, version: int) -> str:
        return f"srgpt_v{version}"

    def install(self, version: Version) -> str:
        if version.version in self.broken:
            raise SrgptError(f"version {version.version} is broken")
        return self.name_of(version.version)

    def load(self, name: str) -> None:
        self.done.append(f"load {name}")

    def route(self, name: str) -> None:
        self.done.append(f"route {name}")

    def revive(self) -> None:
        self.done.append("revive")

    def tidy(self, keep: set[str]) -> None:
        self.done.append(f"keep {' '.join(sorted(keep))}")


def register(params: Params, export: registry.Export) -> Version:
    with tracking.start_run(params.tracking, "t", stage="promote", lineage=export.lineage) as run:
        return lifecycle._register(params, export, run)


@pytest.fixture
def two(params: Params, tmp_path: Path) -> Params:
    """Version 2 is champion, version 1 previous."""
    evaluation = write_evaluation(tmp_path / "evaluation")
    for folder in (tiny.export(), tiny.another_export()):
        register(params, registry.open_export(str(folder), evaluation, "srgpt"))
    for alias, version in (("candidate", None), ("champion", 2), ("previous", 1)):
        tracking.set_alias(params.tracking, "srgpt", alias, version)
    return params


def follow(params: Params, deployment: Any) -> Serving:
    return lifecycle._follow_registry(params, deployment)


def test_champion_and_route_come_first(two: Params) -> None:
    deployment = Recorder()
    assert follow(two, deployment) == Serving(2, 1)
    assert deployment.done == ["load srgpt_v2", "route srgpt_v2", "load srgpt_v1", "keep srgpt_v1 srgpt_v2"]


def test_a_broken_previous_stops_nothing(two: Params, caplog: pytest.LogCaptureFixture) -> None:
    deployment = Recorder(1)
    journal.write(two, Serving(2, 1))
    with caplog.at_level(logging.WARNING):
        assert follow(two, deployment) == Serving(2, 1)
    assert deployment.done[:3] == ["load srgpt_v2", "route srgpt_v2", "revive"]
    assert "previous version 1 cannot be loaded" in caplog.text
    assert journal.read(two) is None
    with pytest.raises(SrgptError, match="version 2 is broken"):
        follow(two, Recorder(2))


def test_a_candidate_that_is_taken_up_again_gets_the_new_figures(params: Params, tmp_path: Path) -> None:
    def opened(share: float) -> registry.Export:
        evaluation = write_evaluation(tmp_path / str(share), qualitative=share)
        return registry.open_export(str(tiny.export()), evaluation, "srgpt")

    first, again = register(params, opened(0.5)), register(params, opened(0.75))
    assert (first.version, again.version) == (1, 1)
    known = registry.alias(params, "candidate")
    assert known is not None
    for version in (again, known):
        assert registry.scores_of(version)["qualitative_micro"].share == 0.75


def test_a_switch_to_nothing_is_no_champion(two: Params, monkeypatch: pytest.MonkeyPatch) -> None:
    @contextlib.contextmanager
    def deployment(_: Params) -> Iterator[Recorder]:
        yield Recorder()

    monkeypatch.setattr(lifecycle, "_deployment", deployment)
    journal.write(two, Serving(None, None))
    with pytest.raises(InputError, match="no champion of srgpt yet"):
        promotion.serve(two)
