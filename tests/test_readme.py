"""The README's commands work: make targets exist, the chain's example runs as printed, the rest parses."""

import ast
import dataclasses
import inspect
import os
import re
import shlex
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from srgpt.params import load
from srgpt.serving.client import Client
from srgpt.serving.protocol import Answer

BIN = Path(sys.executable).parent


def commands(root: Path) -> list[str]:
    text = (root / "README.md").read_text()
    lines = [line for block in re.findall(r"```console\n(.*?)```", text, re.S) for line in block.splitlines()]
    return [line.split("#")[0].strip() for line in lines if line.split("#")[0].strip()]


def inline_commands(root: Path) -> list[str]:
    return re.findall(r"`(srgpt [a-z]+ --[^`]+)`", (root / "README.md").read_text())


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
    assert [shlex.split(c)[1] for c in chain] == [
        *("ingest", "perceive", "lift", "ask", "validate"),
        *("publish", "publish", "import"),
    ]
    for command in chain:
        done = run(shlex.split(command.replace("/tmp/srgpt-example", str(tmp_path / "example"))), tmp_path)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "example" / "validation" / "index.html").exists()


def test_parameters_are_changed_as_printed(root: Path, tmp_path: Path) -> None:
    printed = [c for c in (*commands(root), *inline_commands(root)) if c.startswith("srgpt params")]
    results = []
    for command in printed:
        (tmp_path / "params.yaml").write_text((root / "params.yaml").read_text())
        done = run(shlex.split(command), tmp_path)
        assert done.returncode == 0, done.stderr
        results.append(load(tmp_path / "params.yaml"))
    bench, train, rate, gpu = results
    assert rate.train.learning_rate == 0.002
    assert gpu.dump() == load(None, "gpu", cwd=tmp_path / "nowhere").dump()
    for result, name in ((bench, "bench"), (train, "train")):
        own = result.for_dataset(name).ingest
        assert (own.source, own.url) == ("omni3d", f"/data/omni3d/{name}")


def test_the_python_block_calls_what_there_is(root: Path) -> None:
    (block,) = re.findall(r"```python\n(.*?)```", (root / "README.md").read_text(), re.S)
    tree = ast.parse(block)
    compile(tree, "README.md", "exec")
    signatures = {"Client": inspect.signature(Client), "client.ask": inspect.signature(Client.ask)}
    bound = set()
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        name = ast.unparse(call.func)
        if name in signatures:
            arguments = [None, *call.args] if name == "client.ask" else call.args
            signatures[name].bind(*arguments, **{k.arg: k.value for k in call.keywords if k.arg})
            bound.add(name)
    assert bound == set(signatures)
    shown = {
        n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute) and ast.unparse(n.value) == "answer"
    }
    assert shown
    assert shown <= {field.name for field in dataclasses.fields(Answer)}


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


def test_the_training_commands_would_start(root: Path) -> None:
    page = (root / "docs/training.md").read_text()
    lines = [line for block in re.findall(r"```console\n(.*?)```", page, re.S) for line in block.splitlines()]
    shown = [shlex.split(line, comments=True) for line in lines if "--set" in line or "--profile" in line]
    assert len(shown) >= 2
    for command in shown:
        pairs = list(pairwise(command))
        profile = next((value for option, value in pairs if option == "--profile"), None)
        load(root / "params.yaml", profile, [value for option, value in pairs if option == "--set"])
