"""The DVC remote by environment: a clean clone pulls, has nothing to do, and holds the same bytes."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.remote import configure
from srgpt.errors import InputError
from srgpt.process import capture, start
from tests.flows.conftest import Workspace

DVC = [sys.executable, "-m", "dvc"]


def do(command: list[str], folder: Path) -> str:
    said = capture(command, cwd=folder)
    assert said is not None, command
    return said


def commit(folder: Path) -> None:
    do(["git", "add", "-A"], folder)
    do(["git", "-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "all"], folder)


def round_trip(workspace: Workspace, tmp_path: Path) -> None:
    root, clone = workspace.root, tmp_path / "clone"
    configure(root)
    do([*DVC, "repro", "-q"], root)
    workspace.ran()
    do([*DVC, "push", "-q"], root)
    commit(root)
    do(["git", "clone", "-q", str(root), str(clone)], tmp_path)
    assert not (clone / ".dvc" / "config.local").exists(), "the environment's remote is not committed"
    assert not (clone / "models" / "srgpt").exists()
    configure(clone)
    do([*DVC, "pull", "-q"], clone)
    said = do([*DVC, "repro"], clone)
    assert not (clone / "ran.log").exists(), said
    assert "up to date" in said
    assert do(["git", "status", "--porcelain"], clone) == ""
    for file in (root / "data").rglob("*"):
        if file.is_file():
            assert (clone / file.relative_to(root)).read_bytes() == file.read_bytes()


def test_nothing_set_changes_nothing(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SRGPT_DVC_REMOTE", raising=False)
    assert configure(workspace.root) is None
    assert not (workspace.root / ".dvc" / "config.local").exists()


def test_a_relative_folder_is_refused(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SRGPT_DVC_REMOTE", "some/folder")
    with pytest.raises(
        InputError, match="SRGPT_DVC_REMOTE=some/folder: expected an absolute folder or a URL"
    ):
        configure(workspace.root)


def test_a_clean_clone_pulls_from_a_folder(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SRGPT_DVC_REMOTE", str(tmp_path / "remote"))
    round_trip(workspace, tmp_path)


@pytest.fixture
def object_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A local S3 with one bucket."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    endpoint = f"http://127.0.0.1:{port}"
    for key, value in {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(key, value)
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with start(command, log=tmp_path / "moto.log"):
        import time

        import s3fs

        for _ in range(600):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        s3fs.S3FileSystem(endpoint_url=endpoint).mkdir("bucket")
        yield "s3://bucket/prefix"


@pytest.mark.slow
def test_a_clean_clone_pulls_from_an_object_store(
    workspace: Workspace, tmp_path: Path, object_store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SRGPT_DVC_REMOTE", object_store)
    round_trip(workspace, tmp_path)
