"""Latency and throughput of a served export: in batches against one by one, in the engine and on Triton.

Usage: python benchmarks/serving.py [--export exports/srgpt] [--requests 256] [--concurrency 16] [--no-triton]

Without an export at hand a model of the demo's size with random weights is exported first. It answers to the
last allowed token, so its times are an upper bound. Ends with one line of JSON: requests per second, ratios,
and percentiles of latency in milliseconds.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from srgpt.export.bundle import write_bundle
from srgpt.export.questions import SmokeQuestion, read_smoke, write_smoke
from srgpt.export.repository import write_model, write_router
from srgpt.model.build import build_model, build_processor
from srgpt.model.tokenizer import train_tokenizer
from srgpt.params import Params, ServeParams
from srgpt.progress import console
from srgpt.promotion import server
from srgpt.promotion.deploy import Deployment
from srgpt.records import encode_depth, encode_png
from srgpt.serving.client import Client
from srgpt.serving.engine import Engine
from srgpt.serving.protocol import Answer, AskedArea, Request

ROOT = Path(__file__).resolve().parents[1]
TEXTS = (
    "Is <region0> to the left of <region1>?",
    "How wide is <region0>?",
    "Region [0] is 1.25 meters wide.",
)


def main() -> None:
    arguments = parse()
    with tempfile.TemporaryDirectory(prefix="srgpt-bench-") as temporary:
        folder = Path(arguments.export)
        made = not (folder / "onnx").is_dir()
        if made:
            folder = make_export(Path(temporary) / "export")
        asked = [q.request for q in read_smoke(folder / "smoke", 50)]
        requests = [asked[i % len(asked)] for i in range(arguments.requests)]
        figures: dict[str, Any] = {
            "benchmark": "serving",
            "model": "random weights, demo size" if made else str(folder),
            "requests": len(requests),
            "cores": len(os.sched_getaffinity(0)),
            "engine": engine_figures(folder, requests, arguments.concurrency),
        }
        if not arguments.no_triton:
            figures["triton"] = triton_figures(folder, requests, arguments.concurrency, Path(temporary))
    print(json.dumps(figures))


def engine_figures(folder: Path, requests: Sequence[Request], batch: int) -> dict[str, Any]:
    """Ask one by one, then in batches; images come back, as with several questions about one image."""
    engine = Engine(folder / "onnx", max_batch=batch)
    engine.answer(requests[:batch])
    alone, seconds_alone = timed(lambda: [engine.ask(r) for r in requests])
    together, seconds_together = timed(lambda: engine.answer(requests))
    same = sum(isinstance(b, Answer) and a.text == b.text for a, b in zip(alone, together, strict=True))
    cold = Engine(folder / "onnx", max_batch=batch, cache_bytes=0)
    _, seconds_cold = timed(lambda: [cold.ask(r) for r in requests])
    console.print(f"engine: {seconds_alone:.1f} s one by one, {seconds_together:.1f} s in batches")
    return {
        "one_by_one_per_s": round(len(requests) / seconds_alone, 1),
        "one_by_one_new_image_per_s": round(len(requests) / seconds_cold, 1),
        "batched_per_s": round(len(requests) / seconds_together, 1),
        "ratio": round(seconds_alone / seconds_together, 2),
        "same_answers": same,
        "batch": batch,
    }


def triton_figures(
    folder: Path, requests: Sequence[Request], concurrency: int, temporary: Path
) -> dict[str, Any]:
    """Ask through the router from one client, then from many at once, which Triton joins into batches."""
    grpc, http, metrics = free_ports()
    serve = ServeParams(
        folder=str(temporary / "triton"), venv=str(ROOT / ".venv-triton"),
        grpc_port=grpc, http_port=http, metrics_port=metrics, max_batch_size=concurrency,
    )  # fmt: skip
    params = Params(serve=serve)
    try:
        with Deployment(params, server.start(serve)) as deployment:
            write_model(
                folder / "onnx", deployment.repository / "srgpt_v1", serve, device="cpu", max_new_tokens=32
            )
            write_router(deployment.repository / "srgpt", serve)
            deployment.load("srgpt_v1")
            deployment.route("srgpt_v1")
            ask_all(deployment.server.grpc, requests[:concurrency], 1)
            alone, seconds_alone = timed(lambda: ask_all(deployment.server.grpc, requests, 1))
            together, seconds_together = timed(lambda: ask_all(deployment.server.grpc, requests, concurrency))
    finally:
        server.stop(serve)
    return {
        "one_client_per_s": round(len(requests) / seconds_alone, 1),
        "many_clients_per_s": round(len(requests) / seconds_together, 1),
        "ratio": round(seconds_alone / seconds_together, 2),
        "clients": concurrency,
        "one_client_ms": percentiles(alone),
        "many_clients_ms": percentiles(together),
    }


def ask_all(url: str, requests: Sequence[Request], clients: int) -> list[float]:
    """Send all requests from ``clients`` threads; return each one's milliseconds."""

    def work(share: Sequence[Request]) -> list[float]:
        with Client(url) as client:
            return [timed(lambda r=request: client.send(r))[1] * 1000 for request in share]

    with ThreadPoolExecutor(clients) as pool:
        return [
            ms for found in pool.map(work, [requests[i::clients] for i in range(clients)]) for ms in found
        ]


def make_export(folder: Path) -> Path:
    """Export a model of the demo's size with random weights, with questions about random pictures."""
    console.print("exporting a model with random weights")
    params = Params().train.model
    tokenizer = train_tokenizer(TEXTS, params.text.vocab_size)
    write_bundle(
        build_model(params, tokenizer).eval(), build_processor(params, tokenizer), folder / "onnx", "fp32"
    )
    rng = np.random.default_rng(0)
    questions = []
    for number in range(16):
        image = encode_png(rng.integers(0, 256, (112, 112, 3), dtype=np.uint8))
        depth = encode_depth(rng.uniform(0.5, 8, (112, 112)))
        areas = (AskedArea((8.0, 8.0, 60.0, 50.0)), AskedArea((50.0, 40.0, 100.0, 100.0)))
        questions += [
            SmokeQuestion(Request(image, t, areas, depth), "", "", str(number), 0) for t in TEXTS[:2]
        ]
    write_smoke(questions, folder / "smoke")
    return folder


def timed(function: Any) -> tuple[Any, float]:
    """Return what ``function`` returns, and its seconds."""
    started = time.perf_counter()
    return function(), time.perf_counter() - started


def percentiles(milliseconds: Sequence[float]) -> dict[str, float]:
    """Return p50, p95 and p99."""
    return {f"p{q}": round(float(np.percentile(milliseconds, q)), 2) for q in (50, 95, 99)}


def free_ports() -> tuple[int, int, int]:
    """Return three ports that nobody listens on."""
    sockets = [socket.socket() for _ in range(3)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    first, second, third = (one.getsockname()[1] for one in sockets)
    for one in sockets:
        one.close()
    return first, second, third


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--export", default="exports/srgpt")
    parser.add_argument("--requests", type=int, default=256)
    parser.add_argument("--concurrency", type=int, default=16)
    parser.add_argument("--no-triton", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
