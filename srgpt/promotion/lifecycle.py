"""promote, rollback, serve, stop, status: the verbs that change what the world is answered with.

    promote   register -> gates on figures -> load beside the champion -> gates on the server -> switch
    rollback  previous and champion change places
    serve     the registry's champion, on a fresh server as on a running one

The registry's aliases are the truth; the server follows them. Until the switch nothing that serves is
touched, and the switch itself is one journalled step.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from rich.table import Table

from srgpt import tracking
from srgpt.errors import InputError, SrgptError
from srgpt.export.questions import SmokeQuestion, read_smoke
from srgpt.params import Params
from srgpt.progress import console
from srgpt.promotion import gate, journal, registry, server
from srgpt.promotion.deploy import Deployment
from srgpt.promotion.gate import Gate, SmokeAnswer
from srgpt.promotion.journal import Serving
from srgpt.promotion.registry import Export
from srgpt.serving.client import Client
from srgpt.tracking import Run, Version

log = logging.getLogger(__name__)

WARM_UP = 3
"""Requests before latency counts: the first ones allocate."""


@dataclass(frozen=True)
class Promotion:
    """A version that serves, and what it showed on its way."""

    name: str
    version: int
    model: str
    """Its own name on the server."""
    url: str
    """The server's gRPC endpoint."""
    lineage: Mapping[str, str]
    previous: int | None = None
    gates: tuple[Gate, ...] = ()


@dataclass(frozen=True)
class Status:
    """What is served, what the registry says, and where the served model came from."""

    server: str
    url: str
    served: str | None
    aliases: dict[str, int | None]
    lineage: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)

    def table(self) -> Table:
        """Return it as a table for a terminal."""
        table = Table(box=None, show_header=False)
        table.add_column(style="bold")
        table.add_column()
        table.add_row("server", self.server + (f" on gRPC {self.url}" if self.server == "running" else ""))
        table.add_row("served", self.served or "nothing")
        for name, version in self.aliases.items():
            table.add_row(name, "none" if version is None else f"version {version}")
        for name, value in {**{k: f"{v:.1%}" for k, v in self.metrics.items()}, **self.lineage}.items():
            table.add_row(name, value)
        return table


# Verbs ------------------------------------------------------------------------------------------------


def promote(params: Params, *, export: str, evaluation: str, force: bool = False) -> Promotion:
    """Register an export and, if it passes every gate, let it serve as champion.

    ``force`` lets a candidate pass that is worse on the benchmark. Raises :class:`SrgptError` that names the
    gate and its figures where one fails: the champion then keeps serving.
    """
    opened = registry.open_export(export, evaluation, params.promote.model_name)
    questions = read_smoke(opened.folder / "smoke", params.promote.smoke_questions)
    questions = registry.evaluated(questions, evaluation)
    with journal.locked(params), _deployment(params) as deployment:
        current = _follow_registry(params, deployment)
        champion = registry.alias(params, "champion")
        if champion is not None and champion.tags.get("srgpt.export_hash") == opened.hash:
            console.print(f"promote: this export is champion already, version {champion.version}")
            return _promotion(params, deployment, champion, current.previous)
        with tracking.start_run(
            params.tracking, f"promote {params.promote.model_name}", stage="promote", lineage=opened.lineage
        ) as run:
            candidate = _register(params, opened, run)
            try:
                gates = _try(params, deployment, opened, candidate, champion, questions, run, force=force)
                _switch(params, deployment, current, Serving(candidate.version, current.champion))
            except BaseException as error:
                if journal.read(params) is None:  # else the next command completes the switch
                    _withdraw(params, deployment, candidate, error)
                raise
        _note(params, candidate, {"srgpt.status": "promoted"})
        console.print(f"promote: version {candidate.version} is champion and serves")
        return _promotion(params, deployment, candidate, current.champion, gates)


def rollback(params: Params) -> Promotion:
    """Let the previous champion serve again; the present one becomes previous."""
    with journal.locked(params), _deployment(params) as deployment:
        current = _follow_registry(params, deployment)
        previous = registry.alias(params, "previous")
        if previous is None:
            raise SrgptError(f"{params.promote.model_name}: there is no previous version to return to")
        deployment.load(deployment.install(previous))
        _switch(params, deployment, current, Serving(previous.version, current.champion))
        console.print(f"rollback: version {previous.version} is champion and serves")
        return _promotion(params, deployment, previous, current.champion)


def serve(params: Params) -> Promotion:
    """Start the server (or take the running one) and let it serve the registry's champion."""
    champion = registry.alias(params, "champion")
    if champion is None and journal.read(params) is None:
        raise _no_champion(params)
    with journal.locked(params), _deployment(params) as deployment:
        current = _follow_registry(params, deployment)
        champion = registry.alias(params, "champion")
        if champion is None:  # the switch that was cut off aimed at none
            raise _no_champion(params)
        return _promotion(params, deployment, champion, current.previous)


def _no_champion(params: Params) -> InputError:
    name = params.promote.model_name
    return InputError(f"the registry has no champion of {name} yet. Run `srgpt promote` first.")


def stop(params: Params) -> bool:
    """Stop the server; return whether one was running."""
    with journal.locked(params):
        return server.stop(params.serve)


def status(params: Params) -> Status:
    """Return what is served, the aliases, and the champion's lineage and figures."""
    versions = {name: registry.alias(params, name) for name in registry.ALIASES}
    state, served, url = server.state(params.serve), None, ""
    if state == "running":
        running = server.running(params.serve)
        url = running.grpc
        with Deployment(params, running) as deployment:
            routed = deployment.routed()
            served = routed if routed and deployment.is_ready(deployment.router) else None
    champion = versions["champion"]
    return Status(
        state,
        url,
        served,
        {name: None if v is None else v.version for name, v in versions.items()},
        {} if champion is None else registry.lineage_of(champion),
        {} if champion is None else {n: s.share for n, s in registry.scores_of(champion).items()},
    )


# Steps of a promotion ---------------------------------------------------------------------------------


@contextlib.contextmanager
def _deployment(params: Params) -> Iterator[Deployment]:
    if server.state(params.serve) != "running":
        console.print(f"triton: starting (log in {server.log_file(params.serve)})")
    with Deployment(params, server.start(params.serve)) as deployment:
        yield deployment


def _register(params: Params, export: Export, run: Run) -> Version:
    """Register the export as candidate; one that a killed promotion left behind is taken up again.

    It gets the tags of the present evaluation, which need not be the one that it was registered with.
    """
    left = registry.alias(params, "candidate")
    if left is not None and left.tags.get("srgpt.export_hash") == export.hash:
        console.print(f"promote: going on with candidate version {left.version}")
        _note(params, left, export.tags())
        return replace(left, tags={**left.tags, **export.tags()})
    console.print(f"promote: registering {params.promote.model_name}")
    version = registry.register(params, export, run)
    tracking.set_alias(params.tracking, version.name, "candidate", version.version)
    _note(params, version, {"srgpt.status": "candidate"})
    return version


def _try(
    params: Params,
    deployment: Deployment,
    export: Export,
    candidate: Version,
    champion: Version | None,
    questions: Sequence[SmokeQuestion],
    run: Run,
    *,
    force: bool,
) -> tuple[Gate, ...]:
    """Put the candidate through its gates; raise :class:`SrgptError` at the first that it does not pass."""
    passed: list[Gate] = []
    _pass(gate.parity_gate(export.parity, export.hash), passed)
    against = None if champion is None else registry.scores_of(champion)
    _pass(
        _benchmark(export, champion, gate.benchmark_gate(export.scores, against, params.promote)),
        passed,
        force,
    )
    name = deployment.install(candidate, export.folder)
    console.print(f"promote: loading {name} beside the champion")
    deployment.load(name)
    answers = _ask(deployment.server.grpc, name, questions)
    _pass(gate.smoke_gate(answers, params.promote), passed)
    latencies = [a.milliseconds for a in answers]
    _pass(gate.latency_gate(latencies, params.promote), passed)
    run.log_metrics(
        {"smoke_latency_ms_max": max(latencies), "smoke_latency_ms_mean": sum(latencies) / len(latencies)}
    )
    return tuple(passed)


def _benchmark(export: Export, champion: Version | None, verdict: Gate) -> Gate:
    """Two figures from different questions say nothing about each other."""
    theirs = None if champion is None else champion.tags.get("srgpt.benchmark")
    if theirs in (None, export.benchmark[:16]):
        return verdict
    detail = (
        f"the champion was measured on benchmark {theirs}, the candidate on {export.benchmark[:16]}; "
        f"evaluate both on one benchmark, or promote with --force. {verdict.detail}"
    )
    return Gate(verdict.name, False, detail)


def _pass(verdict: Gate, passed: list[Gate], force: bool = False) -> None:
    mark = (
        "[green]passed[/]" if verdict.passed else "[yellow]failed, forced[/]" if force else "[red]failed[/]"
    )
    console.print(f"promote: gate {verdict.name} {mark}: ", end="")
    console.print(verdict.detail, markup=False, highlight=False)
    if not verdict.passed and not force:
        hint = " `srgpt promote --force` overrides this gate alone." if verdict.name == "benchmark" else ""
        raise SrgptError(
            f"promote: gate {verdict.name} failed: {verdict.detail}. The champion keeps serving.{hint}"
        )
    passed.append(verdict)


def _ask(url: str, model: str, questions: Sequence[SmokeQuestion]) -> list[SmokeAnswer]:
    with Client(url, model=model) as client:
        for question in questions[:WARM_UP]:
            client.send(question.request)
        answers = []
        for question in questions:
            started = time.perf_counter()
            found = client.send(question.request).text
            elapsed = 1000 * (time.perf_counter() - started)
            answers.append(SmokeAnswer(question.request.question, question.answer, found, elapsed))
        return answers


def _withdraw(params: Params, deployment: Deployment, candidate: Version, error: BaseException) -> None:
    """Take a failed candidate back, as far as server and registry still answer."""
    reason = f"{type(error).__name__}: {error}"[:480]
    with contextlib.suppress(SrgptError):
        deployment.revive()
    with contextlib.suppress(SrgptError):
        deployment.remove(deployment.name_of(candidate.version))
    with contextlib.suppress(SrgptError):
        tracking.set_alias(params.tracking, candidate.name, "candidate", None)
        _note(params, candidate, {"srgpt.status": "failed", "srgpt.failed": reason})


def _switch(params: Params, deployment: Deployment, before: Serving, aim: Serving) -> None:
    """Move aliases and route to ``aim``; back to ``before`` where that fails."""
    journal.write(params, aim)
    try:
        _apply(params, deployment, aim)
    except SrgptError:
        journal.write(params, before)
        _apply(params, deployment, before)
        journal.clear(params)
        raise
    journal.clear(params)
    _tidy(deployment, aim)


def _apply(params: Params, deployment: Deployment, aim: Serving) -> None:
    name = params.promote.model_name
    for alias, version in (("previous", aim.previous), ("champion", aim.champion)):
        tracking.set_alias(params.tracking, name, alias, version)
    candidate = registry.alias(params, "candidate")
    if candidate is not None and candidate.version == aim.champion:
        tracking.set_alias(params.tracking, name, "candidate", None)
    if aim.champion is not None:
        deployment.route(deployment.name_of(aim.champion))


def _tidy(deployment: Deployment, serving: Serving) -> None:
    keep = {deployment.name_of(v) for v in (serving.champion, serving.previous) if v is not None}
    deployment.tidy(keep)


def _follow_registry(params: Params, deployment: Deployment) -> Serving:
    """Complete a switch that was cut off, and let the server serve what the aliases say.

    The champion comes first; a previous version that cannot be loaded is told of and stops nothing.
    """
    begun = journal.read(params)
    if begun is not None:
        console.print("promote: completing a switch that was cut off")
        for alias, number in (("previous", begun.previous), ("champion", begun.champion)):
            tracking.set_alias(params.tracking, params.promote.model_name, alias, number)
    champion, previous = registry.alias(params, "champion"), registry.alias(params, "previous")
    serving = Serving(*(None if v is None else v.version for v in (champion, previous)))
    if champion is not None:
        deployment.load(deployment.install(champion))
        _apply(params, deployment, serving)
    journal.clear(params)
    if previous is not None:
        _try_previous(deployment, previous)
    _tidy(deployment, serving)
    return serving


def _try_previous(deployment: Deployment, previous: Version) -> None:
    try:
        deployment.load(deployment.install(previous))
    except SrgptError as error:
        log.warning(
            "previous version %s cannot be loaded, so there is nothing to roll back to until it can: %s",
            previous.version,
            error,
        )
        deployment.revive()


def _promotion(
    params: Params,
    deployment: Deployment,
    version: Version,
    previous: int | None,
    gates: tuple[Gate, ...] = (),
) -> Promotion:
    return Promotion(
        params.promote.model_name,
        version.version,
        deployment.name_of(version.version),
        deployment.server.grpc,
        registry.lineage_of(version),
        previous,
        gates,
    )


def _note(params: Params, version: Version, tags: Mapping[str, str]) -> None:
    tracking.set_version_tags(params.tracking, version.name, version.version, tags)
