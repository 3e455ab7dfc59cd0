"""The service definitions: they parse, refer to files that exist, and hold no secrets."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

SCRIPTS = ("worker.sh", "slurm-train.sh")


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
