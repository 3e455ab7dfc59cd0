"""The README's commands work: make targets exist, the chain's example runs as printed, the rest parses."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

BIN = Path(sys.executable).parent


def commands(root: Path) -> list[str]:
    text = (root / "README.md").read_text()
    lines = [line for block in re.findall(r"```console\n(.*?)```", text, re.S) for line in block.splitlines()]
    return [line.split("#")[0].strip() for line in lines if line.split("#")[0].strip()]


def run(command: list[str], cwd: Path) -> subprocess.CompletedProcess[str]:
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, check=False, env={**os.environ, "PATH": path}
    )


def test_every_command_is_of_a_known_kind(root: Path) -> None:
    kinds = {shlex.split(c)[0] for c in commands(root)}
    assert kinds == {"make", "srgpt", "dvc", "python", "export"}


def test_make_targets_exist(root: Path) -> None:
    targets = {shlex.split(c)[1] for c in commands(root) if c.startswith("make ")}
    assert {"demo", "test", "mlflow", "prefect", "schedule"} <= targets
    for target in targets:
        done = run(["make", "--dry-run", target], root)
        assert done.returncode == 0, done.stderr


def test_the_chain_by_hand_runs_as_printed(root: Path, tmp_path: Path) -> None:
    chain = [c for c in commands(root) if "/tmp/srgpt-example" in c]
    assert [shlex.split(c)[1] for c in chain] == ["ingest", "perceive", "lift", "ask", "validate"]
    for command in chain:
        done = run(shlex.split(command.replace("/tmp/srgpt-example", str(tmp_path / "example"))), tmp_path)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "example" / "validation" / "index.html").exists()


def test_parameters_are_changed_as_printed(root: Path, tmp_path: Path) -> None:
    (command,) = (c for c in commands(root) if c.startswith("srgpt params"))
    (tmp_path / "params.yaml").write_text((root / "params.yaml").read_text())
    assert run(shlex.split(command), tmp_path).returncode == 0
    shown = run(["srgpt", "params"], tmp_path).stdout
    assert "learning_rate: 0.001\n" in shown


@pytest.mark.parametrize("verb", ["promote", "status", "rollback", "serve"])
def test_the_verbs_of_serving_exist(root: Path, tmp_path: Path, verb: str) -> None:
    assert f"srgpt {verb}" in commands(root)
    assert run(["srgpt", verb, "--help"], tmp_path).returncode == 0


def test_the_flow_takes_the_printed_options(root: Path) -> None:
    printed = {o for c in commands(root) if "flows.retrain" in c for o in re.findall(r"--[a-z-]+", c)}
    text = run(["python", "-m", "flows.retrain", "--help"], root).stdout
    assert printed
    assert printed <= set(re.findall(r"--[a-z-]+", text))


def test_dvc_knows_the_printed_targets(root: Path) -> None:
    stages = run(["dvc", "stage", "list", "--name-only"], root).stdout.split()
    targets = {shlex.split(c)[2] for c in commands(root) if c.startswith("dvc repro ")}
    assert targets
    assert targets <= set(stages)
