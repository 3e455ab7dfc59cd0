"""Promotion and rollback against the real Triton server and a real registry."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from srgpt import promotion, tracking
from srgpt.errors import InputError, SrgptError
from srgpt.export.questions import read_smoke
from srgpt.params import Params
from srgpt.promotion import journal, lifecycle, server
from srgpt.promotion.journal import Serving
from srgpt.serving.client import Client
from tests.export import tiny
from tests.promotion.conftest import write_evaluation

pytestmark = [
    pytest.mark.triton,
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.usefixtures("triton"),
]


def aliases(params: Params) -> dict[str, int | None]:
    return promotion.status(params).aliases


def ask(params: Params) -> str:
    """Ask the router; return which model answered."""
    (question,) = read_smoke(tiny.export() / "smoke", 1)
    with Client(f"127.0.0.1:{params.serve.grpc_port}") as client:
        return client.send(question.request).model.split("@")[0]


def test_life_of_two_versions(params: Params, tmp_path: Path) -> None:
    evaluation = write_evaluation(tmp_path / "evaluation")
    first = promotion.promote(params, export=str(tiny.export()), evaluation=evaluation)
    assert (first.version, first.model, first.previous) == (1, "srgpt_v1", None)
    assert [g.name for g in first.gates] == ["parity", "benchmark", "smoke", "latency"]
    assert first.lineage["commit"] == "abc123"
    assert ask(params) == "srgpt_v1"

    again = promotion.promote(params, export=str(tiny.export()), evaluation=evaluation)
    assert (again.version, aliases(params)) == (1, {"champion": 1, "previous": None, "candidate": None})

    # requests go on while the second version takes over and is rolled back: none may fail
    stopped, answered, failures = threading.Event(), [], []

    def load() -> None:
        while not stopped.is_set():
            try:
                answered.append(ask(params))
            except Exception as error:
                failures.append(error)

    threads = [threading.Thread(target=load) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        second = promotion.promote(params, export=str(tiny.another_export()), evaluation=evaluation)
        assert (second.version, second.previous) == (2, 1)
        assert aliases(params) == {"champion": 2, "previous": 1, "candidate": None}
        assert ask(params) == "srgpt_v2"
        back = promotion.rollback(params)
        assert (back.version, back.previous) == (1, 2)
    finally:
        stopped.set()
        for thread in threads:
            thread.join()
    assert failures == []
    assert set(answered) == {"srgpt_v1", "srgpt_v2"}
    assert promotion.status(params).served == "srgpt_v1"

    # after a reboot: no server, no repository; the registry knows everything
    pid = server.running(params.serve).pid
    os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert promotion.status(params).server == "dead"
    with pytest.raises(SrgptError, match="no server answers"):
        ask(params)
    shutil.rmtree(server.repository(params.serve))
    served = promotion.serve(params)
    assert (served.version, ask(params)) == (1, "srgpt_v1")
    assert {p.name for p in server.repository(params.serve).iterdir()} == {"srgpt", "srgpt_v1", "srgpt_v2"}


def test_a_server_that_dies_while_loading_comes_back_with_the_champion(
    params: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluation = write_evaluation(tmp_path / "evaluation")
    promotion.promote(params, export=str(tiny.export()), evaluation=evaluation)
    real, kills = lifecycle.Deployment._load, []

    def kill_once(deployment: lifecycle.Deployment, name: str) -> None:
        if name == "srgpt_v2" and not kills:
            kills.append(deployment.server.pid)
            os.killpg(deployment.server.pid, signal.SIGKILL)
            os.waitpid(deployment.server.pid, 0)
        real(deployment, name)

    with monkeypatch.context() as patch:
        patch.setattr(lifecycle.Deployment, "_load", kill_once)
        done = promotion.promote(params, export=str(tiny.another_export()), evaluation=evaluation)
    assert (done.version, ask(params), len(kills)) == (2, "srgpt_v2", 1)
    assert server.running(params.serve).pid != kills[0]
    assert promotion.rollback(params).version == 1


def broken_export(change: Callable[[Path], None], tmp_path: Path) -> str:
    folder = tmp_path / "broken"
    shutil.copytree(tiny.another_export(), folder)
    change(folder)
    return str(folder)


def no_parity(folder: Path) -> None:
    path = folder / "parity.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "passed": False, "same_answers": 0}))


def does_not_load(folder: Path) -> None:
    (folder / "triton" / "srgpt" / "1" / "model.py").write_text(
        "raise RuntimeError('this shell is broken')\n"
    )
    tiny.rehash(folder)


def test_a_failing_candidate_leaves_the_champion_serving(params: Params, tmp_path: Path) -> None:
    good = write_evaluation(tmp_path / "good")
    promotion.promote(params, export=str(tiny.export()), evaluation=good)
    worse = write_evaluation(tmp_path / "worse", qualitative=0.6)
    other = write_evaluation(tmp_path / "other", answer="Something else.")
    cases: list[tuple[str, str, str, float]] = [
        ("gate smoke failed: 0 of 4", str(tiny.another_export()), other, 2000),
        ("gate parity failed", broken_export(no_parity, tmp_path / "b"), good, 2000),
        ("this shell is broken", broken_export(does_not_load, tmp_path / "c"), good, 2000),
        (
            "qualitative_micro: 60.0% of 400 against the champion's 80.0%",
            str(tiny.another_export()),
            worse,
            2000,
        ),
        ("gate latency failed", str(tiny.another_export()), good, 0.001),
    ]
    for number, (message, export, evaluation, bound) in enumerate(cases, 2):
        strict = params.model_copy(
            update={"promote": params.promote.model_copy(update={"max_latency_ms": bound})}
        )
        with pytest.raises(SrgptError, match=message):
            promotion.promote(strict, export=export, evaluation=evaluation)
        assert aliases(params) == {"champion": 1, "previous": None, "candidate": None}
        assert ask(params) == "srgpt_v1"
        assert {p.name for p in server.repository(params.serve).iterdir()} == {"srgpt", "srgpt_v1"}
        client = tracking.connect(params.tracking)
        tags = client.get_model_version("srgpt", str(number)).tags
        assert tags["srgpt.status"] == "failed"
        assert message.split(":")[0] in tags["srgpt.failed"]
    forced = promotion.promote(params, export=str(tiny.another_export()), evaluation=worse, force=True)
    assert (forced.version, forced.previous) == (7, 1)


def test_a_killed_promotion_is_taken_up_again(
    params: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def die(*_: object, **__: object) -> None:
        raise Killed

    evaluation = write_evaluation(tmp_path / "evaluation")
    export = str(tiny.export())
    # killed while the candidate is being tried: nothing cleans up after a kill
    with monkeypatch.context() as patch:
        patch.setattr(lifecycle, "_ask", die)
        patch.setattr(lifecycle, "_withdraw", lambda *_: None)
        with pytest.raises(Killed):
            promotion.promote(params, export=export, evaluation=evaluation)
    assert aliases(params) == {"champion": None, "previous": None, "candidate": 1}
    # killed between the aliases and the route
    with monkeypatch.context() as patch:
        patch.setattr(lifecycle.Deployment, "route", die)
        with pytest.raises(Killed):
            promotion.promote(params, export=export, evaluation=evaluation)
    assert journal.read(params) == Serving(1, None)
    done = promotion.promote(params, export=export, evaluation=evaluation)
    assert done.version == 1
    assert aliases(params) == {"champion": 1, "previous": None, "candidate": None}
    assert journal.read(params) is None
    assert ask(params) == "srgpt_v1"


def test_registry_failure_in_the_switch_moves_nothing(
    params: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluation = write_evaluation(tmp_path / "evaluation")
    promotion.promote(params, export=str(tiny.export()), evaluation=evaluation)
    real = tracking.set_alias

    def fails_once(tracked: object, name: str, alias: str, version: int | None) -> None:
        if alias == "champion" and version == 2:
            raise SrgptError("the registry is gone")
        real(tracked, name, alias, version)  # type: ignore[arg-type]

    monkeypatch.setattr(tracking, "set_alias", fails_once)
    with pytest.raises(SrgptError, match="the registry is gone"):
        promotion.promote(params, export=str(tiny.another_export()), evaluation=evaluation)
    assert aliases(params) == {"champion": 1, "previous": None, "candidate": None}
    assert ask(params) == "srgpt_v1"


def test_nothing_to_serve_or_to_return_to(params: Params) -> None:
    with pytest.raises(InputError, match="no champion of srgpt yet"):
        promotion.serve(params)
    with pytest.raises(SrgptError, match="no previous version"):
        promotion.rollback(params)


def test_only_one_promotion_at_a_time(params: Params, tmp_path: Path) -> None:
    started, release = threading.Event(), threading.Event()

    def hold() -> None:
        with journal.locked(params):
            started.set()
            release.wait(20)

    thread = threading.Thread(target=hold)
    thread.start()
    started.wait(20)
    try:
        with pytest.raises(SrgptError, match=f"under way here \\(process {os.getpid()}"):
            promotion.rollback(params)
    finally:
        release.set()
        thread.join()
    time.sleep(0)
    assert promotion.stop(params) is False
