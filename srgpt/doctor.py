"""What this machine has and lacks, for a person who wonders why something does not run."""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Group
from rich.markup import escape
from rich.table import Column, Table
from rich.text import Text

from srgpt.errors import SrgptError
from srgpt.params import Params

if TYPE_CHECKING:
    from srgpt.perception.inventory import ModelStatus

_PACKAGES = (
    "torch", "transformers", "deepspeed", "prefect", "mlflow", "dvc", "s3fs",
    "great-expectations", "onnxruntime-gpu", "onnxruntime-genai", "tritonclient",
)  # fmt: skip


@dataclass(frozen=True)
class Finding:
    """One thing looked at: what was found, and what to do where it is not good."""

    what: str
    found: str
    good: bool
    advice: str = ""


def examine(params: Params) -> list[Finding]:
    """Look at Python, packages, devices, perception's models, the Triton environment, tracking and disk."""
    return [
        _python(),
        *map(_package, _PACKAGES),
        _device(),
        *_models(params),
        _triton(params),
        _tracking(params),
        _disk(),
    ]


def table(findings: list[Finding]) -> Group:
    """Lay findings out for a terminal; what to do follows the table, a line each, so that commands stay whole."""
    result = Table("", Column("what", overflow="fold"), Column("found", overflow="fold"))
    for finding in findings:
        mark = "[green]ok[/]" if finding.good else "[red]no[/]"
        result.add_row(mark, escape(finding.what), escape(finding.found))
    todo = [f"{finding.what}: {finding.advice}" for finding in findings if not finding.good]
    return Group(result, *map(Text, todo))


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    return Finding("python", version, sys.version_info >= (3, 11), "install Python 3.11 or newer")


def _package(name: str) -> Finding:
    try:
        return Finding(name, metadata.version(name), True)
    except metadata.PackageNotFoundError:
        return Finding(name, "absent", False, "make setup")


def _device() -> Finding:
    try:
        import torch
    except ImportError:
        return Finding("device", "unknown without torch", False, "make setup")
    if torch.cuda.is_available():
        memory = torch.cuda.get_device_properties(0).total_memory / 2**30
        return Finding(
            "device", f"{torch.cuda.device_count()} x {torch.cuda.get_device_name(0)}, {memory:.0f} GiB", True
        )
    return Finding("device", f"CPU, {len(os.sched_getaffinity(0))} cores", True)


def _models(params: Params) -> list[Finding]:
    """Show each role's model once, however many datasets use it; only what some dataset uses must be here."""
    try:
        from srgpt.perception.inventory import inventory
        from srgpt.perception.weights import pick_device
    except ImportError:
        return [Finding("perceive", "unknown without its packages", False, "make setup")]
    settings = [params, *(params.for_dataset(name) for name in sorted(params.datasets))]
    found: dict[tuple[str, str], ModelStatus] = {}
    for setting in settings:
        for status in inventory(setting.perceive):
            key = (status.role, status.model)
            if key not in found or (status.used and not found[key].used):
                found[key] = status
    try:
        device = pick_device(params.perceive.device).type
    except (ImportError, SrgptError) as error:
        device = f"no device ({error})"
    return [_model(status, device) for status in found.values()]


def _model(status: ModelStatus, device: str) -> Finding:
    here = f"here, {status.bytes / 2**20:,.0f} MiB" if status.present else "not here"
    use = f"used on {device}" if status.used else f"not used ({status.setting})"
    text = f"{status.model}: {here}; {status.licence}; {use}"
    return Finding(f"perceive: {status.role}", text, status.present or not status.used, status.fetch)


def _triton(params: Params) -> Finding:
    from srgpt.promotion import environment

    try:
        return Finding("triton", str(environment.find(Path(params.serve.venv)).venv), True)
    except SrgptError as error:
        return Finding("triton", str(error), False, "make triton")


def _tracking(params: Params) -> Finding:
    from srgpt import tracking

    try:
        tracking.connect(params.tracking)
    except SrgptError as error:
        return Finding("mlflow store", str(error), False, "start it, or set MLFLOW_TRACKING_URI")
    return Finding("mlflow store", tracking.shown_uri(params.tracking), True)


def _disk() -> Finding:
    free = shutil.disk_usage(Path.cwd()).free / 2**30
    return Finding("disk", f"{free:.0f} GiB free here", free > 5, "free at least 5 GiB")
