"""The command line: verbs in chain order, exit codes, errors for people."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

CHAIN = ["ingest", "perceive", "lift", "ask", "validate", "train", "evaluate", "export"]


def srgpt(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "srgpt.cli", *arguments], capture_output=True, text=True, cwd=cwd, check=False
    )


def test_help_lists_the_verbs_in_chain_order() -> None:
    done = srgpt("--help")
    assert done.returncode == 0
    listed = re.findall(r"^│ ([a-z]+) ", done.stdout, re.M)
    assert listed[: len(CHAIN)] == CHAIN
    assert {"promote", "rollback", "serve", "status", "params", "doctor", "demo"} <= set(listed)


@pytest.mark.parametrize("verb", CHAIN)
def test_every_stage_takes_the_common_options(verb: str) -> None:
    text = srgpt(verb, "--help").stdout
    assert all(option in text for option in ("--in", "--out", "--params", "--profile", "--set"))


def test_help_imports_nothing_heavy() -> None:
    heavy = ("torch", "pyarrow", "numpy", "mlflow", "prefect")
    code = f"import sys, srgpt.cli; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["ingest", "--set", "ingest.sauce=omni3d"], "Did you mean 'source'?"),
        (["ingest", "--set", "ingest.source=camera"], "'procedural', 'omni3d'"),
        (["ingest", "--set", "nonsense"], "expected section.key=value"),
        (["ingest", "--params", "absent.yaml"], "absent.yaml: no such file"),
        (["ingest", "--profile", "huge"], "allowed: demo, gpu, full"),
        (["perceive", "--in", "nowhere"], "nowhere"),
        (["lift", "--in", "nowhere"], "nowhere"),
        (["ask", "--in", "nowhere"], "nowhere"),
        (["validate", "--in", "nowhere"], "nowhere"),
        (["bake"], "No such command 'bake'"),
    ],
)
def test_wrong_input_is_explained_and_exits_with_2(tmp_path: Path, arguments: list[str], says: str) -> None:
    done = srgpt(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert says in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


def test_params_shows_what_would_be_used(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("train: {steps: 5}\n")
    done = srgpt("params", "--set", "train.learning_rate=1e-4", cwd=tmp_path)
    assert "steps: 5\n" in done.stdout
    assert "learning_rate: 0.0001\n" in done.stdout
