"""A Prefect server for the session, and a DVC project of tiny stages with the names of the real ones."""

from __future__ import annotations

import atexit
import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

import flows  # gives Prefect its settings, before anything imports Prefect
from srgpt.process import capture

STAGES = ("ingest", "perceive", "lift", "ask", "validate", "train", "evaluate", "export")
METRICS = {
    "rgbd": {"qualitative_micro": 0.831, "quantitative_micro": 0.664, "left_right_accuracy": 0.9},
    "rgb": {"qualitative_micro": 0.762, "quantitative_micro": 0.51},
    "blind": {"qualitative_micro": 0.55, "quantitative_micro": 0.22},
}


@pytest.fixture(scope="session", autouse=True)
def prefect_server() -> Iterator[None]:
    from prefect.testing.utilities import prefect_test_harness

    assert flows.ROOT.is_dir()
    with prefect_test_harness(server_startup_timeout=120):
        yield


@cache
def template() -> Path:
    """Return an empty DVC project to copy from."""
    folder = Path(tempfile.mkdtemp(prefix="srgpt-dvc-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    assert capture(["git", "init", "-q", "."], cwd=folder) is not None
    assert capture([sys.executable, "-m", "dvc", "init", "-q"], cwd=folder) is not None
    return folder


class Workspace:
    """A tiny project: each stage appends its name to ``ran.log`` and copies its input to its output."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.commands: dict[str, str] = {}
        (root / "srgpt").mkdir(parents=True)
        (root / "params.yaml").write_text(
            "profile: demo\nseed: 7  # stays\ntrain:\n  steps: 4\n"
            "datasets:\n  train:\n    ingest: {scenes: 3}\n"
        )
        (root / ".gitignore").write_text("/data\n")
        self.files = {
            "evaluate": {"reports/evaluation/metrics.json": json.dumps(METRICS)},
            "train": {
                "models/srgpt/lineage.json": json.dumps(
                    {"commit": "abc", "data": {"train": "f00"}, "run_id": "r1"}
                )
            },
            "validate": {"reports/validation/train/index.html": "<html>"},
        }
        shutil.copytree(template(), root, dirs_exist_ok=True)
        self.write()

    def write(self) -> None:
        """Write ``dvc.yaml`` and a script per stage, which starts with what ``commands`` says."""
        stages: dict[str, Any] = {}
        before = None
        for name in STAGES:
            files = self.files.get(name, {f"data/{name}/out": name})
            folder = str(Path(next(iter(files))).parent)
            script = self.root / "srgpt" / f"{name}.py"
            script.write_text(
                f"import sys, pathlib\n{self.commands.get(name, '')}\n"
                f"open('ran.log', 'a').write('{name}\\n')\nprint('hello from {name}')\n"
                f"for path, text in {files!r}.items():\n"
                "    pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)\n"
                "    pathlib.Path(path).write_text(text)\n"
            )
            stages[name] = {"cmd": f"{sys.executable} srgpt/{name}.py", "outs": [folder]}
            stages[name]["deps"] = [before, f"srgpt/{name}.py"] if before else [f"srgpt/{name}.py"]
            before = folder
        stages["train"]["params"] = ["train"]
        (self.root / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))

    def ran(self) -> list[str]:
        """Return the stages that ran since the last call."""
        log = self.root / "ran.log"
        names = log.read_text().split() if log.exists() else []
        log.unlink(missing_ok=True)
        return names


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "project")


@pytest.fixture
def artifacts_of() -> Callable[[str], list[Any]]:
    """Return the artifacts of a key, newest first."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey
    from prefect.client.schemas.sorting import ArtifactSort

    def read(key: str) -> list[Any]:
        with get_client(sync_client=True) as client:
            return client.read_artifacts(
                artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=[key])),
                sort=ArtifactSort.CREATED_DESC,
            )

    return read
