"""The gates before a model serves, and the server."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from srgpt.params.section import Count, Name, Positive, Section, Share


class PromoteParams(Section):
    """The gates before a model serves."""

    model_name: Name = "srgpt"
    noise_sigmas: Annotated[float, Field(ge=0)] = 2.0
    """The candidate may fall behind the champion by this many standard errors of the difference."""
    smoke_questions: Count = 20
    min_smoke_agreement: Share = 1.0
    """Share of smoke answers that must equal the evaluated model's."""
    max_latency_ms: Positive = 2000.0
    """Bound on the 95th percentile of one question's latency on the server."""


class ServeParams(Section):
    """The local Triton server."""

    host: str = "127.0.0.1"
    grpc_port: Annotated[int, Field(ge=1, le=65535)] = 8001
    http_port: Annotated[int, Field(ge=1, le=65535)] = 8000
    metrics_port: Annotated[int, Field(ge=1, le=65535)] = 8002
    max_batch_size: Count = 16
    max_queue_delay_ms: Annotated[float, Field(ge=0)] = 5.0
    threads: Annotated[int, Field(ge=0)] = 0
    """Threads of one graph; 0 means one per core."""
    startup_timeout: Positive = 60.0
    """Seconds."""
    folder: str = ".srgpt/triton"
    """Where the server keeps its log, its state and its model repository."""
    venv: str = ".venv-triton"
    """The virtual environment that holds the Triton binary."""
