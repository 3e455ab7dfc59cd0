"""How stages map over shards, and where their numbers go."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from srgpt.params.section import Section


class EngineParams(Section):
    """How stages map over shards; it never changes what they write."""

    backend: Literal["local", "ray"] = "local"
    """``local``: processes of this machine; ``ray``: actors of a Ray cluster."""
    workers: Annotated[int, Field(ge=0)] = 0
    """Processes; 0 means one per core, or per GPU for a stage that runs models on it. 1 works in the command's own
    process, where a crash in native code ends the run."""
    gpus_per_worker: Annotated[float, Field(ge=0)] = 1.0
    """GPUs that a worker of such a stage holds, where there are GPUs; 0.5 puts two on one, 0 claims none."""
    ray_address: str | None = None
    """Of a running Ray cluster (``auto``, ``ray://host:10001``); null starts one in the command's own process."""


class TrackingParams(Section):
    """MLflow. The environment's MLFLOW_TRACKING_URI wins."""

    uri: str = "sqlite:///.srgpt/mlflow.db"
    experiment: str = "srgpt"
