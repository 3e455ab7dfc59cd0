"""MLflow: runs, lineage and the model registry. The only module that imports mlflow."""

from __future__ import annotations

import contextlib
import getpass
import logging
import math
import os
import re
import sqlite3
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote, urlsplit

from srgpt.errors import InputError, SrgptError
from srgpt.params import Params, TrackingParams
from srgpt.storage import digest

if TYPE_CHECKING:
    from mlflow import MlflowClient


_PROBE_SECONDS = 8.0
"""A server on a busy machine may need some of them for its first answer."""
_SQLITE = "sqlite:///"
_EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}
"""Opens the UI on runs and their charts, not on what it has for prompts and agents."""


def tracking_uri(params: TrackingParams) -> str:
    """Return where runs are tracked: ``MLFLOW_TRACKING_URI`` where set, else the parameter.

    It may hold a password: show :func:`shown_uri` instead.
    """
    return os.environ.get("MLFLOW_TRACKING_URI") or params.uri


def shown_uri(params: TrackingParams) -> str:
    """Return the tracking URI as it may be shown: without user, password and query."""
    return _shown(tracking_uri(params))


def _shown(uri: str) -> str:
    parts = urlsplit(uri)
    if not parts.netloc:
        return uri.split("?")[0]
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def run_page(params: TrackingParams, run_id: str) -> str | None:
    """Return the address of a run's page on the tracking server; None where runs are in a local store."""
    uri = tracking_uri(params)
    return f"{_shown(uri).rstrip('/')}/#/runs/{run_id}" if urlsplit(uri).scheme in ("http", "https") else None


def connect(params: TrackingParams) -> MlflowClient:
    """Return a client of the tracking server; make a local store where that is what the URI names.

    Raises :class:`SrgptError` within ten seconds where a server does not answer.
    """
    uri = tracking_uri(params)
    # results alone belong on stdout
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    if urlsplit(uri).scheme in ("http", "https"):
        _probe(uri)
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
    elif uri.startswith(_SQLITE):
        _prepare_sqlite(uri)
    with _errors(uri):
        import mlflow

        # they tell every step of making a store or a version
        for name in ("alembic", "mlflow"):
            logging.getLogger(name).setLevel(logging.WARNING)
        _set_uri(uri)
        client = mlflow.MlflowClient(uri)
        _experiment(client, params.experiment, uri)
    return client


def give_up_soon() -> None:
    """From now on wait for a server's answer five seconds, and once: for those who try again later anyway."""
    os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"], os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "5", "0"


def _set_uri(uri: str) -> None:
    """Set MLflow's tracking URI, but leave the environment's, which MLflow would set too, to the user."""
    import mlflow

    before = os.environ.get("MLFLOW_TRACKING_URI")
    mlflow.set_tracking_uri(uri)
    if before is None:
        os.environ.pop("MLFLOW_TRACKING_URI", None)
    else:
        os.environ["MLFLOW_TRACKING_URI"] = before


def _probe(uri: str) -> None:
    """Ask the server for any answer at all: MLflow's own client would try for minutes."""
    parts = urlsplit(uri)
    try:
        port = parts.port
    except ValueError:
        raise InputError(f"tracking.uri: {_shown(uri)} has no usable port") from None
    if not parts.hostname:
        raise InputError(f"tracking.uri: {_shown(uri)} names no host")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    address = f"{parts.scheme}://{host}" + (f":{port}" if port else "")
    request = urllib.request.Request(f"{address}{parts.path.rstrip('/')}/health")  # noqa: S310 (http or https)
    try:
        urllib.request.urlopen(request, timeout=_PROBE_SECONDS).close()  # noqa: S310
    except urllib.error.HTTPError as error:
        error.close()  # refused or not found is an answer, too
        if error.code >= 500:
            raise SrgptError(_unreachable(address, f"HTTP {error.code}")) from None
    except (OSError, HTTPException) as error:
        raise SrgptError(_unreachable(address, getattr(error, "reason", None) or error)) from None


def _unreachable(address: str, reason: object) -> str:
    return (
        f"MLflow tracking server {address} does not answer ({reason}). "
        "Start it (`make mlflow`), or set MLFLOW_TRACKING_URI or tracking.uri to one that runs."
    )


def _prepare_sqlite(uri: str) -> None:
    """Make the folder of a SQLite store, and see that the file is one."""
    path = Path(uri.removeprefix(_SQLITE).split("?")[0]).resolve()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            with contextlib.closing(sqlite3.connect(path, timeout=30)) as connection:
                connection.execute("select name from sqlite_master limit 1").fetchall()
    except (OSError, sqlite3.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise SrgptError(
            f"tracking.uri: {path} cannot be used as MLflow's store ({reason}). "
            "Choose another place, or move the file away."
        ) from None


def _experiment(client: MlflowClient, name: str, uri: str) -> None:
    """Make the experiment where there is none."""
    import mlflow

    found = client.get_experiment_by_name(name)
    if found is None:
        location = None
        if uri.startswith(_SQLITE):
            path = Path(uri.removeprefix(_SQLITE).split("?")[0]).resolve()
            location = (path.parent / "mlartifacts").as_uri()
        try:
            client.create_experiment(name, artifact_location=location, tags=_EXPERIMENT_TAGS)
        except mlflow.exceptions.MlflowException as error:
            if not _is(error, "RESOURCE_ALREADY_EXISTS"):  # another process made it meanwhile
                raise
    elif found.lifecycle_stage != "active":
        raise SrgptError(
            f"MLflow experiment {name!r} was deleted. Bring it back with "
            f"`mlflow experiments restore --experiment-id {found.experiment_id}`, or set tracking.experiment."
        )


@contextlib.contextmanager
def _errors(uri: str) -> Iterator[None]:
    """Turn what MLflow raises into errors for people, without the URI's secrets."""
    import mlflow
    from alembic.util.exc import CommandError
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (mlflow.exceptions.MlflowException, SQLAlchemyError, CommandError) as error:
        message = _redact(str(error), uri)
        # the original may hold the password: it is left out of the chain where that is so
        cause = error if message == str(error) else None
        raise SrgptError(f"MLflow at {_shown(uri)}: {message}") from cause


def _redact(text: str, uri: str) -> str:
    parts = urlsplit(uri)
    text = text.replace(uri, _shown(uri))
    known = {parts.netloc.rpartition("@")[0], parts.password or "", parts.query}
    known |= {os.environ.get(n, "") for n in ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")}
    for secret in sorted(filter(None, known), key=len, reverse=True):
        for spelling in {secret, unquote(secret), quote(secret, safe="")}:
            text = text.replace(spelling, "***")
    return re.sub(r"(\w+://)[^\s/@]+@", r"\1***@", text)


def _is(error: Exception, *codes: str) -> bool:
    return getattr(error, "error_code", None) in codes


@dataclass(frozen=True)
class Lineage:
    """What an artifact was made from. One record travels with every model, run and registered version."""

    commit: str
    profile: str
    params_hash: str
    data: dict[str, str] = field(default_factory=dict)
    """Dataset name -> fingerprint of its conversations."""
    run_id: str = ""

    @classmethod
    def of(cls, params: Params, data: Mapping[str, str], run_id: str = "") -> Lineage:
        """Collect the lineage of work done now, in this checkout, with these parameters."""
        semantic = {k: v for k, v in params.dump().items() if k not in ("engine", "tracking", "serve")}
        return cls(git_commit(), params.profile, digest(semantic)[:16], dict(data), run_id)

    def tags(self) -> dict[str, str]:
        """Return the tags that runs and registered versions carry."""
        return {
            "srgpt.commit": self.commit,
            "srgpt.profile": self.profile,
            "srgpt.params_hash": self.params_hash,
            **{f"srgpt.data.{name}": value[:16] for name, value in sorted(self.data.items())},
        }


def git_commit() -> str:
    """Return the commit of the current folder's checkout (``-dirty`` where files changed), or ``unknown``."""
    from srgpt.process import capture

    commit = capture(["git", "rev-parse", "--short=12", "HEAD"])
    if commit is None:
        return "unknown"
    # dvc.lock changes as a result of running, and is not part of what ran
    tracked = ["git", "status", "--porcelain", "--untracked-files=no"]
    dirty = capture([*tracked, "--", ":/", ":(exclude,top)dvc.lock"])
    return f"{commit}-dirty" if dirty else commit


class Run:
    """One open MLflow run."""

    def __init__(self, client: MlflowClient, run_id: str, experiment_id: str) -> None:
        self.client = client
        self.id = run_id
        self.experiment_id = experiment_id

    def log_params(self, values: Mapping[str, Any]) -> None:
        """Log chosen parameters, flat; the full set belongs in an artifact."""
        import mlflow

        mlflow.log_params({k: str(v)[:500] for k, v in values.items()}, run_id=self.id)

    def log_metrics(self, values: Mapping[str, float], step: int | None = None) -> None:
        """Log numbers; not-finite ones are left out. Raises :class:`SrgptError` where the server refuses them."""
        import mlflow

        finite = {k: float(v) for k, v in values.items() if v is not None and math.isfinite(v)}
        if finite:
            with _errors(self.client.tracking_uri):
                mlflow.log_metrics(finite, step=step, run_id=self.id)

    def log_artifacts(self, folder: Path, to: str | None = None) -> None:
        """Upload a folder."""
        self.client.log_artifacts(self.id, str(folder), to)

    def log_artifact(self, file: Path, to: str | None = None) -> None:
        """Upload a file. Raises :class:`SrgptError` where it cannot be stored."""
        with _errors(self.client.tracking_uri):
            try:
                self.client.log_artifact(self.id, str(file), to)
            except OSError as error:  # a server's, too: what requests raises is one
                raise SrgptError(f"{file.name}: MLflow could not store it ({error})") from error

    def log_dict(self, value: Any, name: str) -> None:
        """Upload a value as JSON or YAML, by the suffix of ``name``."""
        self.client.log_dict(self.id, value, name)

    def log_dataset(self, name: str, fingerprint: str, *, context: str) -> None:
        """Say which data the run used (``context``: ``training`` or ``evaluation``): a column in the UI."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        data = Dataset(name=name, digest=fingerprint[:12], source_type="srgpt", source="{}")
        tag = InputTag(key="mlflow.data.context", value=context)
        self.client.log_inputs(self.id, [DatasetInput(dataset=data, tags=[tag])])

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Set tags."""
        for key, value in tags.items():
            self.client.set_tag(self.id, key, value)

    @property
    def artifact_uri(self) -> str:
        """Where this run's artifacts are."""
        return str(self.client.get_run(self.id).info.artifact_uri)


@contextlib.contextmanager
def start_run(
    params: TrackingParams,
    name: str,
    *,
    stage: str,
    lineage: Lineage,
    tags: Mapping[str, str] | None = None,
    run_id: str | None = None,
    system_metrics: bool = False,
) -> Iterator[Run]:
    """Open a run (with ``run_id``: reopen one), tagged with stage and lineage; a failure marks it FAILED."""
    import mlflow

    client = connect(params)
    uri = tracking_uri(params)
    os.environ.setdefault("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "5")
    all_tags = {"srgpt.stage": stage, **lineage.tags(), **(tags or {})}
    with _errors(uri):
        experiment = client.get_experiment_by_name(params.experiment)
        assert experiment is not None
        if run_id is None:
            # made here, not by mlflow.start_run, which would take up the run of MLFLOW_RUN_ID if that is set
            run_id = client.create_run(
                experiment.experiment_id, run_name=name, tags={**_context_tags(stage, lineage), **all_tags}
            ).info.run_id
        else:
            for key, value in all_tags.items():
                client.set_tag(run_id, key, value)
        with mlflow.start_run(run_id=run_id, log_system_metrics=system_metrics) as active:
            yield Run(client, active.info.run_id, experiment.experiment_id)


def _context_tags(stage: str, lineage: Lineage) -> dict[str, str]:
    """Return what the UI shows as user, source and version of a run."""
    tags = {"mlflow.source.name": f"srgpt {stage}", "mlflow.source.type": "LOCAL"}
    commit = lineage.commit.removesuffix("-dirty")
    if commit != "unknown":
        tags["mlflow.source.git.commit"] = commit
    with contextlib.suppress(OSError, KeyError):  # a container's user may have no name
        tags["mlflow.user"] = getpass.getuser()
    return tags


def log_to_run(
    params: TrackingParams, run_id: str, metrics: Mapping[str, float], tags: Mapping[str, str] | None = None
) -> bool:
    """Add metrics and tags to a run without reopening it; return False where there is no such run."""
    client = connect(params)
    with _errors(tracking_uri(params)):
        run = _find_run(client, run_id)
        if run is None:
            return False
        run.log_metrics(metrics)
        run.set_tags(tags or {})
    return True


def has_run(params: TrackingParams, run_id: str) -> bool:
    """Return whether the tracking server has this run, and not as a deleted one."""
    client = connect(params)
    with _errors(tracking_uri(params)):
        return _find_run(client, run_id) is not None


def _find_run(client: MlflowClient, run_id: str) -> Run | None:
    import mlflow

    try:
        found = client.get_run(run_id)
    except mlflow.exceptions.MlflowException as error:
        if _is(error, "RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise
    active = found.info.lifecycle_stage == "active"
    return Run(client, run_id, found.info.experiment_id) if active else None


# Registry -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Version:
    """A registered model version."""

    name: str
    version: int
    source: str
    run_id: str
    tags: dict[str, str]


def register(
    params: TrackingParams, name: str, *, source: str, run_id: str, tags: Mapping[str, str]
) -> Version:
    """Register artifacts (``source`` is a URI) as the next version of model ``name``."""
    import mlflow

    client = connect(params)
    with _errors(tracking_uri(params)):
        try:
            client.create_registered_model(name)
        except mlflow.exceptions.MlflowException as error:
            if not _is(error, "RESOURCE_ALREADY_EXISTS"):
                raise
        made = client.create_model_version(name, source, run_id or None, tags=dict(tags))
        return _version(made)


def version_of_alias(params: TrackingParams, name: str, alias: str) -> Version | None:
    """Return the version that carries ``alias`` (``candidate``, ``champion``, ``previous``), or None."""
    import mlflow

    client = connect(params)
    with _errors(tracking_uri(params)):
        try:
            return _version(client.get_model_version_by_alias(name, alias))
        except mlflow.exceptions.MlflowException as error:
            # a registry that does not answer must not look like one without a champion
            if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                return None
            raise


def set_alias(params: TrackingParams, name: str, alias: str, version: int | None) -> None:
    """Point an alias at a version; None takes it away."""
    client = connect(params)
    with _errors(tracking_uri(params)):
        if version is None:
            client.delete_registered_model_alias(name, alias)
        else:
            client.set_registered_model_alias(name, alias, str(version))


def set_version_tags(params: TrackingParams, name: str, version: int, tags: Mapping[str, str]) -> None:
    """Tag a registered version."""
    client = connect(params)
    with _errors(tracking_uri(params)):
        for key, value in tags.items():
            client.set_model_version_tag(name, str(version), key, value)


def download(params: TrackingParams, uri: str, target: Path) -> Path:
    """Download artifacts of a ``runs:/``, ``models:/`` or plain URI into ``target``; return their path."""
    import mlflow

    connect(params)
    with _errors(tracking_uri(params)):
        target.mkdir(parents=True, exist_ok=True)
        return Path(mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=str(target)))


def _version(made: Any) -> Version:
    return Version(
        made.name, int(made.version), str(made.source), str(made.run_id or ""), dict(made.tags or {})
    )
