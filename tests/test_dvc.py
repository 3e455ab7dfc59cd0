"""The DVC pipeline: one vocabulary, exact parameters, and no code that decides a result left out."""

from __future__ import annotations

import ast
import shlex
import sys
import tomllib
from pathlib import Path
from typing import Any

import grimp
import pytest
import yaml

from srgpt.params import Params
from srgpt.process import capture

TABLES = ("ingest", "perceive", "lift", "ask", "validate")
STAGES = (*TABLES, "train", "evaluate", "export")

PLUMBING = {
    "srgpt",
    "srgpt.engine",
    "srgpt.errors",
    "srgpt.params",
    "srgpt.process",
    "srgpt.progress",
    "srgpt.stages",
    "srgpt.tracking",
}
"""Decides how and where work is done, not what comes out."""

READERS = {"srgpt.records", "srgpt.schemas", "srgpt.storage"}
"""Decides what tables hold; what only reads them is protected by schema versions and hashes."""

HOW = {"engine", "profile", "tracking"}
"""What never changes the data that a stage writes."""


@pytest.fixture(scope="module")
def pipeline(root: Path) -> dict[str, Any]:
    return yaml.safe_load((root / "dvc.yaml").read_text())


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph("srgpt", cache_dir=None)


def test_stages_are_the_chain(pipeline: dict[str, Any]) -> None:
    assert tuple(pipeline["stages"]) == STAGES
    assert set(STAGES) <= {f.alias or n for n, f in Params.model_fields.items()}


def test_dvc_reads_it(root: Path) -> None:
    listed = capture([sys.executable, "-m", "dvc", "stage", "list", "--name-only"], cwd=root)
    assert listed is not None
    expected = [f"{s}@{d}" for s in TABLES for d in ("train", "bench")] + list(STAGES[5:])
    assert listed.split() == expected


@pytest.mark.parametrize("name", STAGES)
def test_command_is_the_verb(pipeline: dict[str, Any], name: str) -> None:
    import typer

    from srgpt.cli import app

    words = shlex.split(pipeline["stages"][name]["cmd"])
    assert words[:2] == ["srgpt", name]
    options = {o for p in typer.main.get_command(app).commands[name].params for o in p.opts}  # type: ignore[attr-defined]
    assert {w for w in words[2:] if w.startswith("--")} <= options
    matrix = pipeline["stages"][name].get("matrix")
    assert (matrix is not None) == (name in TABLES)
    assert ("--dataset ${item.dataset}" in pipeline["stages"][name]["cmd"]) == (matrix is not None)


def test_matrix_is_the_datasets(pipeline: dict[str, Any], root: Path) -> None:
    datasets = list(yaml.safe_load((root / "params.yaml").read_text())["datasets"])
    for name in TABLES:
        assert pipeline["stages"][name]["matrix"]["dataset"] == datasets


@pytest.mark.parametrize("name", STAGES)
def test_parameters_exist_and_include_the_own_section(
    pipeline: dict[str, Any], root: Path, name: str
) -> None:
    params = yaml.safe_load((root / "params.yaml").read_text())
    keys = pipeline["stages"][name]["params"]
    assert name in keys
    for key in keys:
        for dataset in ("train", "bench"):
            value = params
            for part in key.replace("${item.dataset}", dataset).split("."):
                assert part in value, key
                value = value[part]
    if name in ("ingest", "perceive", "lift", "ask"):
        assert f"datasets.${{item.dataset}}.{name}" in keys


@pytest.mark.parametrize("name", STAGES)
def test_every_section_that_a_stage_reads_is_declared(
    pipeline: dict[str, Any], root: Path, name: str
) -> None:
    tree = ast.parse((root / "srgpt" / "stages" / f"{name}.py").read_text())
    sections = {n: f.alias or n for n, f in Params.model_fields.items()}
    read = {
        sections[node.attr]
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "params"
        and node.attr in sections
    }
    declared = {key.split(".")[0] for key in pipeline["stages"][name]["params"]}
    assert read - HOW - declared == set(), "read by the stage, but no reason for DVC to run it again"


@pytest.mark.parametrize("name", STAGES)
def test_every_module_that_decides_the_result_is_a_dependency(
    pipeline: dict[str, Any], root: Path, graph: grimp.ImportGraph, name: str
) -> None:
    module = f"srgpt.stages.{name}"
    used = {module} | graph.find_upstream_modules(module)
    allowed = PLUMBING | (READERS if name not in TABLES[:4] else set())
    decisive = {
        m
        for m in used
        if not any(m == a or m.startswith(f"{a}.") for a in allowed - {"srgpt", "srgpt.stages"})
    }
    decisive -= {"srgpt", "srgpt.stages"}
    code = [d for d in pipeline["stages"][name]["deps"] if d.startswith("srgpt/")]
    assert all((root / d).exists() for d in code)
    covered = [d.removesuffix(".py").replace("/", ".") for d in code]
    missing = {m for m in decisive if not any(m == c or m.startswith(f"{c}.") for c in covered)}
    assert missing == set()


def test_outputs_feed_each_other(pipeline: dict[str, Any]) -> None:
    """Every data dependency is some stage's output, and data flows one way."""
    made: set[str] = set()
    for name in STAGES:
        stage = pipeline["stages"][name]
        data = [d for d in stage["deps"] if not d.startswith("srgpt/")]
        for dependency in data:
            normal = dependency.replace("${train.dataset}", "${item.dataset}").replace(
                "${evaluate.", "${item."
            )
            assert any(normal == m or normal.startswith(f"{m}/") for m in made), dependency
        made |= set(stage["outs"])


def test_every_output_is_cached(pipeline: dict[str, Any]) -> None:
    # a single output without cache would switch off the run cache of its stage
    assert all(isinstance(o, str) for stage in pipeline["stages"].values() for o in stage["outs"])
    assert pipeline["metrics"] == ["reports/evaluation/metrics.json"]


def test_git_and_dvc_ignore_what_they_should(root: Path) -> None:
    outs = ["data/scenes/train/x", "models/srgpt/x", "reports/evaluation/x", "exports/srgpt/x", ".srgpt/x"]
    assert capture(["git", "check-ignore", *outs], cwd=root) == "\n".join(outs)
    assert capture(["git", "check-ignore", "dvc.lock", ".dvc/config"], cwd=root) is None
    work = ["data/scenes/.train.work/part-00000.parquet", "models/.srgpt.work/x", "srgpt/__pycache__/a.pyc"]
    ignored = capture([sys.executable, "-m", "dvc", "check-ignore", *work], cwd=root)
    assert ignored == "\n".join(work)


def test_dvc_phones_nobody_and_stages_nothing(root: Path) -> None:
    listed = capture([sys.executable, "-m", "dvc", "config", "--list", "--project"], cwd=root)
    assert listed is not None
    assert {"core.analytics=false", "core.autostage=false", "core.check_update=false"} <= set(listed.split())


def test_import_contracts_name_every_module(root: Path) -> None:
    contracts = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    packages = [p for p in (root / "srgpt").iterdir() if (p / "__init__.py").exists()]
    modules = [p for p in (root / "srgpt").glob("*.py") if p.stem != "__init__"]
    every = {f"srgpt.{p.stem}" for p in (*packages, *modules)} | {"flows"}
    (layers,) = (c["layers"] for c in contracts if c["type"] == "layers")
    assert {module for layer in layers for module in layer.split(" | ")} == every
    free = {"mlflow": {"tracking"}, "deepspeed": {"training"}, "onnxruntime": {"export", "serving"},
            "ray": {"engine"}, "subprocess": {"process"}}  # fmt: skip
    for contract in contracts:
        names = contract.get("forbidden_modules", [])
        if len(names) == 1 and names[0] in free:
            assert every - set(contract["source_modules"]) == {f"srgpt.{m}" for m in free[names[0]]}, names
