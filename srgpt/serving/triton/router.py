"""The model that clients call: it passes every request on to the version that ``route.json`` names.

Replacing that one small file is the whole switch from one version to the next. No model is reloaded for it,
so no request fails; one that is on its way ends where it began.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import triton_python_backend_utils as pb_utils

ROUTE = "route.json"

INVALID = "invalid request: "
"""How a version's message opens where the request was wrong: the status itself is lost between models."""


class TritonPythonModel:
    """The class that Triton's Python backend looks for."""

    def initialize(self, args: dict[str, str]) -> None:
        """Find the route beside the model's configuration."""
        self._route = Path(args["model_repository"]) / ROUTE

    async def execute(self, requests: list[Any]) -> list[Any]:
        """Pass all requests on at once, so that the version's own batcher joins them again."""
        target = json.loads(self._route.read_text())["target"]
        return list(await asyncio.gather(*(_forward(request, target) for request in requests)))


async def _forward(request: Any, target: str) -> Any:
    inner = pb_utils.InferenceRequest(
        model_name=target, requested_output_names=["answer"], inputs=request.inputs()
    )
    response = await inner.async_exec()
    if response.has_error():
        error = response.error()
        if error.message().startswith(INVALID):
            error = pb_utils.TritonError(error.message(), pb_utils.TritonError.INVALID_ARG)
        return pb_utils.InferenceResponse(error=error)
    return pb_utils.InferenceResponse(response.output_tensors())
