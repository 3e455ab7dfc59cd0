"""A training worker that the tracking server never answers: ``python -m tests.training.outage JOB.json``."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from srgpt.errors import SrgptError
from srgpt.tracking import Run
from srgpt.training.worker import main


def refuse(self: Run, values: Mapping[str, float], step: int | None = None) -> None:
    raise SrgptError("MLflow at http://somewhere: no answer")


def refuse_file(self: Run, file: Path, to: str | None = None) -> None:
    raise SrgptError("MLflow at http://somewhere: no answer")


if __name__ == "__main__":
    Run.log_metrics = refuse  # type: ignore[method-assign]
    Run.log_artifact = refuse_file  # type: ignore[method-assign]
    main(sys.argv[1])
