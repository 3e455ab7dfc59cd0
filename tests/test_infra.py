"""The service definitions: they parse, refer to files that exist, and hold no secrets."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from srgpt.params import load

SCRIPTS = ("worker.sh", "slurm-train.sh", "slurm-train-nodes.sh", "ssh-train.sh")


@pytest.fixture(scope="module")
def compose(root: Path) -> dict[str, Any]:
    return yaml.safe_load((root / "infra" / "compose.yaml").read_text())


def test_services(compose: dict[str, Any]) -> None:
    services = {"postgres", "minio", "buckets", "mlflow", "prefect", "worker"}
    assert set(compose["services"]) == services
    for service in compose["services"].values():
        assert set(service.get("depends_on", {})) <= services
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), (
            "open to this host only"
        )
    assert "--allowed-hosts" in compose["services"]["mlflow"]["command"]


def test_files_that_are_named_exist(compose: dict[str, Any], root: Path) -> None:
    infra = root / "infra"
    for service in compose["services"].values():
        build = service.get("build", {})
        if "dockerfile" in build:
            assert (infra / build["context"] / build["dockerfile"]).is_file()
    copied = re.findall(r"^COPY (.+) \S+$", (infra / "Dockerfile").read_text(), re.MULTILINE)
    assert all((root / name).exists() for line in copied for name in line.split())
    assert (infra / "postgres" / "prefect.sql").is_file()


def test_the_readme_speaks_of_services_that_there_are(compose: dict[str, Any], root: Path) -> None:
    text = (root / "infra" / "README.md").read_text()
    assert set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)) == set(compose["services"]) - {
        "postgres",
        "buckets",
    }
    assert "--profile serve" not in text
    # what the container is started with, as both READMEs say it
    entry = (root / "infra" / "triton" / "Dockerfile").read_text()
    assert "--model-repository=/models" in entry
    assert "--model-control-mode=explicit" in entry


def test_no_secret_is_written_down(root: Path) -> None:
    text = (root / "infra" / "compose.yaml").read_text()
    for key, value in re.findall(r"^ +(\w*(?:PASSWORD|SECRET\w*)): (\S+)$", text, re.MULTILINE):
        assert value.startswith("${"), key


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_parse(root: Path, name: str) -> None:
    assert subprocess.run(["bash", "-n", str(root / "infra" / name)], check=False).returncode == 0


SRUN = """#!/usr/bin/env bash
while [[ "$1" == --* ]]; do shift; done
for node in 0 1; do SLURM_NODEID=$node "$@" & pids+=($!); done
code=0; for pid in "${pids[@]}"; do wait "$pid" || code=$?; done; exit $code
"""
SCONTROL = '#!/usr/bin/env bash\n[ "$*" = "show hostnames node[1-2]" ] && printf "node1\\nnode2\\n"\n'
SSH = '#!/usr/bin/env bash\necho "on $1" >&2; shift; exec bash -c "$*"\n'


@pytest.fixture
def stand_ins(root: Path, tmp_path: Path) -> dict[str, str]:
    """An environment where srun, scontrol and ssh start their commands here; srgpt itself is the real one."""
    for name, text in {"srun": SRUN, "scontrol": SCONTROL, "ssh": SSH}.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    path = f"{tmp_path}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "SRGPT_WORKSPACE": str(tmp_path), "PYTHONPATH": str(root)}


def test_slurm_starts_a_stage_on_every_node(root: Path, stand_ins: dict[str, str], tmp_path: Path) -> None:
    env = {
        **stand_ins,
        "SLURM_JOB_NODELIST": "node[1-2]",
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_SUBMIT_DIR": "/",
    }
    wrong = ["--set", "train.ranks=1", "--node-rank", "7"]  # so that it ends where nodes are numbered
    command = ["bash", str(root / "infra" / "slurm-train-nodes.sh"), *wrong]
    done = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.count("node rank 7: expected 0 to 1, as train.nodes says") == 2


def test_ssh_starts_a_stage_on_every_host(root: Path, stand_ins: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "hosts").write_text("# mine\nfirst slots=8\n\nsecond\n")
    command = ["bash", str(root / "infra" / "ssh-train.sh"), "hosts", "--set", "train.steps=no steps"]
    done = subprocess.run(command, env=stand_ins, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.count("train.steps = 'no steps': input should be a valid integer") == 2
    assert {"on first", "on second"} <= set(done.stderr.splitlines())
    empty = subprocess.run(
        [*command[:2], "/dev/null"], env=stand_ins, capture_output=True, text=True, check=False
    )
    assert (empty.returncode, empty.stderr) == (2, "/dev/null: names no machine\n")


def test_the_kubernetes_job_names_what_there_is(root: Path) -> None:
    text = (root / "infra" / "kubernetes" / "train.yaml").read_text()
    service, job = yaml.safe_load_all(text)
    spec, pod = job["spec"], job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    program, verb, *arguments = container["args"]
    assert (program, verb, spec["completionMode"]) == ("srgpt", "train", "Indexed")
    profile, overrides = arguments[1], [a for a in arguments[2:] if a != "--set"]
    params = load(None, profile, overrides, cwd=Path("/nonexistent"))
    assert params.train.nodes == spec["completions"] == spec["parallelism"]
    assert params.train.ranks == container["resources"]["limits"]["nvidia.com/gpu"]
    values = {e["name"]: e.get("value") for e in container["env"]}
    assert set(values) == {"NODE_RANK", "MASTER_ADDR", "MASTER_PORT"}
    # the name of the first pod: JOB-INDEX.SUBDOMAIN
    assert values["MASTER_ADDR"] == f"{job['metadata']['name']}-0.{pod['subdomain']}"
    assert service["metadata"]["name"] == pod["subdomain"]
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["selector"].items() <= spec["template"]["metadata"]["labels"].items()
    assert str(service["spec"]["ports"][0]["port"]) == values["MASTER_PORT"]
    assert {m["name"] for m in container["volumeMounts"]} == {v["name"] for v in pod["volumes"]}


def test_deployments_are_those_that_one_machine_serves(root: Path) -> None:
    import flows
    from flows.serve import CRON, deployments

    checked_in = yaml.safe_load((flows.ROOT / "flows" / "prefect.yaml").read_text())["deployments"]
    served = {(d.flow_name, d.name): d for d in deployments()}
    assert {(d["entrypoint"].rpartition(":")[2], d["name"]) for d in checked_in} == set(served)
    for deployment in checked_in:
        file, _, function = deployment["entrypoint"].partition(":")
        assert f"def {function}(" in (root / file).read_text()
        twin = served[function, deployment["name"]]
        assert deployment["concurrency_limit"]["limit"] == 1
        assert deployment["concurrency_limit"]["collision_strategy"] == str(
            twin.concurrency_options.collision_strategy.value
        )
        assert deployment.get("parameters", {}) == twin.parameters
        assert [s["cron"] for s in deployment.get("schedules", [])] == [
            s.schedule.cron for s in twin.schedules or []
        ]
    assert served["retrain", "nightly"].schedules[0].schedule.cron == CRON
