"""The DVC remote by environment: ``SRGPT_DVC_REMOTE`` names a folder or ``s3://bucket/prefix``.

``python -m flows.remote`` writes it into ``.dvc/config.local``, which git ignores; every flow does the same.
The object store's address and keys are read from the usual AWS variables at run time and never written down.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from flows import ROOT
from srgpt.errors import InputError
from srgpt.process import run

_NAME = "environment"


def configure(workspace: Path) -> str | None:
    """Make ``SRGPT_DVC_REMOTE`` the workspace's default remote; return it, or None where it is not set."""
    remote = os.environ.get("SRGPT_DVC_REMOTE")
    if not remote:
        return None
    if "://" not in remote and not Path(remote).expanduser().is_absolute():
        raise InputError(
            f"SRGPT_DVC_REMOTE={remote}: expected an absolute folder or a URL like s3://bucket/prefix"
        )
    dvc = [sys.executable, "-m", "dvc", "remote"]
    run(
        [*dvc, "add", "--quiet", "--local", "--force", "--default", _NAME, remote],
        cwd=workspace,
        on_line=lambda _: None,
    )
    endpoint = os.environ.get("AWS_ENDPOINT_URL")
    if endpoint and remote.startswith("s3://"):
        run(
            [*dvc, "modify", "--quiet", "--local", _NAME, "endpointurl", endpoint],
            cwd=workspace,
            on_line=lambda _: None,
        )
    return remote


def main() -> None:
    """Configure this checkout."""
    remote = configure(ROOT)
    said = f"DVC remote: {remote}" if remote else "SRGPT_DVC_REMOTE is not set; DVC keeps the remote it has"
    sys.stdout.write(said + "\n")


if __name__ == "__main__":
    main()
