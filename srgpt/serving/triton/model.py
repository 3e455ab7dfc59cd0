"""Triton's shell around the engine: one version of the model, its requests batched by Triton.

Beside this file lie ``onnx/`` (the export), ``srgpt/`` (the runtime that was tested with it), and
``manifest.json``, which has the hash of every file.
"""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

HERE = Path(__file__).resolve().parent
if (HERE / "srgpt").is_dir():
    # before site-packages: the version's own runtime answers, whatever is installed
    sys.path.insert(0, str(HERE))

from srgpt.serving.bundle import bundle_hash, read_manifest  # noqa: E402
from srgpt.serving.engine import Engine  # noqa: E402
from srgpt.serving.protocol import (  # noqa: E402
    FIELDS,
    OPTIONAL,
    Answer,
    Request,
    RequestError,
    decode_request,
    encode_answer,
)

INVALID = "invalid request: "
"""Opens the message of a request's own error; the router knows it by this."""


class TritonPythonModel:
    """The class that Triton's Python backend looks for."""

    def initialize(self, args: dict[str, str]) -> None:
        """Open the export; an error here is what the load call reports."""
        logging.basicConfig(level=logging.WARNING)
        config = json.loads(args["model_config"])
        settings = {key: value["string_value"] for key, value in config["parameters"].items()}
        self._engine = Engine(
            HERE / "onnx",
            name=args["model_name"],
            identity=bundle_hash(read_manifest(HERE)),
            device=settings["device"],
            threads=int(settings["threads"]),
            max_batch=max(int(config["max_batch_size"]), 1),
            max_new_tokens=int(settings["max_new_tokens"]),
        )

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer the rows of all requests in one batch; a bad request gets its error, the rest answers."""
        rows: list[Request] = []
        spans: list[range | RequestError] = []
        for request in requests:
            try:
                decoded = _decode(request)
            except RequestError as error:
                spans.append(error)
                continue
            spans.append(range(len(rows), len(rows) + len(decoded)))
            rows.extend(decoded)
        answers = self._engine.answer(rows) if rows else []
        return [
            _respond(span if isinstance(span, RequestError) else [answers[i] for i in span]) for span in spans
        ]


def _decode(request: Any) -> list[Request]:
    """Return the rows of one Triton request; raise :class:`RequestError` for the first that is wrong."""
    columns: dict[str, list[bytes]] = {}
    for name in FIELDS:
        tensor = pb_utils.get_input_tensor_by_name(request, name)
        if tensor is not None:
            columns[name] = [bytes(value) for value in tensor.as_numpy().reshape(-1)]
    rows = len(columns["image"])
    for name in OPTIONAL:
        columns.setdefault(name, [b""] * rows)
    return [decode_request({name: column[i] for name, column in columns.items()}) for i in range(rows)]


def _respond(outcome: RequestError | list[Answer | RequestError]) -> Any:
    """Return Triton's response: all rows' answers, or the first error among them."""
    outcomes = [outcome] if isinstance(outcome, RequestError) else outcome
    for item in outcomes:
        if isinstance(item, RequestError):
            message = f"{INVALID}{item}"
            return pb_utils.InferenceResponse(
                error=pb_utils.TritonError(message, pb_utils.TritonError.INVALID_ARG)
            )
    rows = [[encode_answer(answer)] for answer in outcomes if isinstance(answer, Answer)]
    return pb_utils.InferenceResponse([pb_utils.Tensor("answer", np.array(rows, dtype=np.object_))])
