"""Fixtures shared by all tests."""

from __future__ import annotations

import os
import secrets
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

# a shell's background job ignores Ctrl-C, and so would all processes that tests start and interrupt
signal.signal(signal.SIGINT, signal.default_int_handler)

# machines differ in speed, and a failure must come back when the test is run again
settings.register_profile("srgpt", deadline=None, derandomize=True)
settings.load_profile("srgpt")

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository's root."""
    return ROOT


@pytest.fixture(scope="session")
def omni3d_mini() -> Path:
    """Real photographs with ground truth, kept beside the repository; skips, by name, where they are absent."""
    folder = Path(os.environ.get("SRGPT_OMNI3D_MINI", ROOT.parent / "shared" / "data" / "omni3d_mini"))
    if not (folder / "annotations.json").exists():
        pytest.skip("omni3d_mini is not here (set SRGPT_OMNI3D_MINI to its folder)")
    return folder


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A bucket of a local S3 server."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for key, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(key, value)
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    bucket = f"srgpt-test-{secrets.token_hex(4)}"  # the server's buckets outlive it within the process
    s3fs.S3FileSystem().mkdir(bucket)
    yield f"s3://{bucket}"
    s3fs.S3FileSystem.clear_instance_cache()
    server.stop()
