"""A client of the served model, over gRPC."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import shorten
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from srgpt.errors import SrgptError
from srgpt.serving.protocol import (
    Answer,
    AskedArea,
    AskedCamera,
    Request,
    RequestError,
    decode_answer,
    encode_request,
)

if TYPE_CHECKING:
    from tritonclient.grpc import InferenceServerClient

Area = AskedArea | Sequence[float] | Mapping[str, Any]
"""A region: an ``xyxy`` box, an ``xy`` point, a COCO RLE (``{"size": ..., "counts": ...}``, with counts as text or, as
pycocotools makes them, bytes), an :class:`AskedArea`, or what that is in JSON (``{"scribble": [[x, y], ...]}``)."""


class Client:
    """Asks a Triton server; keep one per thread.

    ``model`` is the router by default; a version's own name (``srgpt_v7``) asks that version.
    """

    def __init__(self, url: str = "127.0.0.1:8001", *, model: str = "srgpt", timeout: float = 60.0) -> None:
        self.url = url
        self.model = model
        self.timeout = timeout
        self._client = connect(url)

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the connection."""
        self._client.close()

    def ask(
        self,
        image: bytes | str | Path,
        regions: Sequence[Area] = (),
        question: str = "",
        depth: bytes | str | Path | None = None,
        intrinsics: Sequence[float] | None = None,
        gravity: Sequence[float] | None = None,
    ) -> Answer:
        """Ask a question that names the regions ``<region0>``, ``<region1>``, ...

        ``image`` is a JPEG or PNG file (a path or its bytes), ``depth`` a PNG of uint16 millimetres;
        ``intrinsics`` (fx, fy, cx, cy) in pixels and ``gravity`` (3,) in the camera's frame say how depth becomes
        metres in space: without them, a level camera with a field of view of 60 degrees is assumed.
        Raises :class:`RequestError` for a wrong request, :class:`SrgptError` where no server answers.
        """
        areas = tuple(_area(r, f"regions[{i}]") for i, r in enumerate(regions))
        camera = AskedCamera(
            None if intrinsics is None else tuple(float(v) for v in intrinsics),  # type: ignore[arg-type]
            None if gravity is None else tuple(float(v) for v in gravity),  # type: ignore[arg-type]
        )
        return self.send(
            Request(_bytes(image), question, areas, None if depth is None else _bytes(depth), camera)
        )

    def send(self, request: Request) -> Answer:
        """Send one request."""
        from tritonclient.grpc import InferInput
        from tritonclient.utils import InferenceServerException

        inputs = []
        for name, value in encode_request(request).items():
            tensor = InferInput(name, [1, 1], "BYTES")
            tensor.set_data_from_numpy(np.array([[value]], dtype=np.object_))
            inputs.append(tensor)
        try:
            result = self._client.infer(self.model, inputs, client_timeout=self.timeout)
        except InferenceServerException as error:
            raise self._explain(error) from None
        return decode_answer(bytes(result.as_numpy("answer").reshape(-1)[0]))

    def _explain(self, error: Any) -> SrgptError:
        status, message = str(error.status()), str(error.message())
        if "INVALID_ARGUMENT" in status:
            return RequestError(message)
        if "UNAVAILABLE" in status and "connect" in message:
            return SrgptError(
                f"no server answers at {self.url}. Start it with `srgpt serve`, or check the address."
            )
        if "DEADLINE_EXCEEDED" in status:
            return SrgptError(f"{self.url}: {self.model} gave no answer within {self.timeout:g} s")
        return SrgptError(f"{self.url}: {self.model}: {message} ({status})")


def connect(url: str) -> InferenceServerClient:
    """Return Triton's own client, for messages of any size.

    It connects by itself: among connections that share one, a server that was started anew counts as gone for
    as long as the last failure asks them to wait.
    """
    from tritonclient.grpc import InferenceServerClient

    options = [
        ("grpc.max_send_message_length", -1),
        ("grpc.max_receive_message_length", -1),
        ("grpc.use_local_subchannel_pool", 1),
    ]
    return InferenceServerClient(url, channel_args=options)


def _bytes(value: bytes | str | Path) -> bytes:
    if isinstance(value, bytes):
        return value
    try:
        return Path(value).read_bytes()
    except OSError as error:
        raise RequestError(f"{value}: cannot be read ({error.strerror})") from None


def _area(value: Area, where: str) -> AskedArea:
    if isinstance(value, Mapping):
        forms = {f: value.get(f) for f in AskedArea.__dataclass_fields__}
        value = AskedArea(rle=value) if "counts" in value else AskedArea(**forms)
    elif not isinstance(value, AskedArea):
        point = isinstance(value, Sequence) and len(value) == 2
        value = AskedArea(point=value) if point else AskedArea(value)  # type: ignore[arg-type]
    if all(getattr(value, form) is None for form in AskedArea.__dataclass_fields__):
        raise RequestError(f"{where}: a mask, box, point or scribble was expected, and none was given")
    return AskedArea(
        None if value.box is None else _box(value.box, where),
        None if value.rle is None else _rle(value.rle, where),
        None if value.point is None else _point(value.point, where),
        None if value.scribble is None else tuple(_point(p, where) for p in value.scribble),
    )


def _point(value: Any, where: str) -> tuple[float, float]:
    try:
        x, y = (float(v) for v in value)
    except (TypeError, ValueError):
        raise RequestError(f"{where}: a point is two numbers x, y, not {shorten(str(value), 80)}") from None
    return x, y


def _rle(value: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    try:
        counts = value["counts"].decode() if isinstance(value["counts"], bytes) else value["counts"]
        height, width = (int(v) for v in value["size"])
    except (KeyError, TypeError, ValueError):
        counts, height, width = None, 0, 0
    if not isinstance(counts, str):
        raise RequestError(
            f'{where}: a compressed mask {{"size": [height, width], "counts": "..."}} was expected, not '
            f"{shorten(str(value), 80)}"
        )
    return {"size": [height, width], "counts": counts}


def _box(value: Any, where: str) -> tuple[float, float, float, float]:
    try:
        x1, y1, x2, y2 = (float(v) for v in value)
    except (TypeError, ValueError):
        raise RequestError(
            f"{where}: four numbers x1, y1, x2, y2 were expected, not {shorten(str(value), 80)}"
        ) from None
    return x1, y1, x2, y2
