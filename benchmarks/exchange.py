"""Rows per second and peak memory of ``srgpt import`` on rows like the Open Spatial Dataset's, on one core.

Rows are made up, and of realistic size: about 35 KB with 19.3 masks and boxes each, the masks of no two objects equal.
The file is written to a temporary folder and imported there as text and regions, without pictures, by a process of its
own; beside it stands how fast rows are read alone, by our reader and by ijson's C backend.
Run it on a quiet machine: python benchmarks/exchange.py [rows]
"""

from __future__ import annotations

import json
import os
import resource
import sys
import tempfile
import time
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco

from srgpt.exchange.importing import Source, run
from srgpt.exchange.reading import read_rows

WIDTH, HEIGHT = 1024, 768
OBJECTS, TURNS, PAIRS = 6, 10, 0.93
"""Objects of a picture, questions about it, and how many of these ask about two objects: 19.3 mentions a row."""

QUESTIONS = (
    (
        "Is {} to the left of {} from the viewer's perspective?",
        "Yes, Region [0] is to the left of Region [1].",
    ),
    ("Which is taller, {} or {}?", "Region [1] is taller."),
    ("How far apart are {} and {}?", "They are {x} meters apart."),
    (
        "If you want to reach {} first and carry what you find there to {}, would you have to turn around?",
        "No, Region [1] lies {x} meters behind Region [0], so you can go straight on.",
    ),
)


def mask(rng: np.random.Generator) -> tuple[dict[str, Any], list[float]]:
    """Return the RLE, about 1,650 characters, and the box of an area between two ragged lines."""
    columns = int(rng.integers(300, 900))
    left = int(rng.integers(0, WIDTH - columns))
    steps = rng.normal(0, 16, (2, columns)).cumsum(1)
    edges = rng.uniform([[60], [460]], [[300], [700]]) + steps - np.linspace(0, 1, columns) * steps[:, -1:]
    top, bottom = np.rint(np.sort(edges, axis=0).clip(0, HEIGHT - 1)).astype(int)
    inside = bottom - top + 1
    gaps = np.concatenate([[left * HEIGHT + top[0]], HEIGHT - inside[:-1] - top[:-1] + top[1:]])
    runs = np.stack([gaps, inside], axis=1).reshape(-1)
    counts = [*runs.tolist(), WIDTH * HEIGHT - int(runs.sum())]
    packed = coco.frPyObjects({"size": [HEIGHT, WIDTH], "counts": counts}, HEIGHT, WIDTH)
    box = [float(v) for v in (left, top.min(), left + columns, bottom.max() + 1)]
    return {"size": [HEIGHT, WIDTH], "counts": packed["counts"].decode("ascii")}, box


def row(
    number: int, regions: list[tuple[dict[str, Any], list[float]]], rng: np.random.Generator
) -> dict[str, Any]:
    """Return a row of ten questions about some regions."""
    said, rle, bbox = [], [], []
    for turn in range(TURNS):
        count = 2 if rng.random() < PAIRS else 1
        chosen = rng.permutation(len(regions))[:count]
        question, answer = QUESTIONS[int(rng.integers(len(QUESTIONS)))]
        if count == 1:
            question, answer = "What is the width of {}?", "Region [0] is {x} feet wide."
        question = question.format(*["<mask> <depth>"] * count)
        answer = answer.replace("{x}", f"{rng.uniform(0.1, 9):.2f}")
        said.append({"from": "human", "value": question if turn else f"<image>\n{question}"})
        said.append({"from": "gpt", "value": answer})
        rle += [regions[k][0] for k in chosen]
        bbox += [regions[k][1] for k in chosen]
    return {"filename": f"{number:016x}", "conversations": said, "rle": rle, "bbox": bbox}


def write(path: Path, rows: int) -> float:
    """Write the file; return the mean number of masks in a row."""
    rng = np.random.default_rng(0)
    mentions = 0
    with path.open("w") as file:
        for number in range(rows):
            made = row(number, [mask(rng) for _ in range(OBJECTS)], rng)
            mentions += len(made["rle"])
            file.write(("[" if number == 0 else ", ") + json.dumps(made))
        file.write("]")
    return mentions / rows


def read_ours(path: str) -> int:
    """Count the rows with our reader."""
    return sum(1 for _ in read_rows(path))


def read_ijson(path: str) -> int:
    """Count the rows with ijson's C backend."""
    import ijson  # of the bench extra

    backend = ijson.get_backend("yajl2_c")
    with Path(path).open("rb") as file:
        return sum(1 for _ in backend.items(file, "item", use_float=True, buf_size=2**20))


def read_and_write(path: str) -> int:
    """Import the file."""
    return run(Source(path, "osd", "osd"), f"{path}.out").rows


def measure(what: str, path: str) -> dict[str, float]:
    """Return what one way of going through the file takes; in a process of its own, for its peak memory."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    clock, processor = time.perf_counter(), time.process_time()
    rows = {"ours": read_ours, "ijson": read_ijson, "import": read_and_write}[what](path)
    seconds, spent = time.perf_counter() - clock, time.process_time() - processor
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"rows": rows, "per_second": rows / seconds, "per_cpu_second": rows / spent, "peak_mb": peak}


def main() -> None:
    """Measure and print."""
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.json"
        masks = write(path, rows)
        found = {}
        for what in ("ours", "ijson", "import") if find_spec("ijson") else ("ours", "import"):
            with get_context("spawn").Pool(1) as pool:
                found[what] = pool.apply(measure, (what, str(path)))
        figures = {
            "rows": rows,
            "megabytes": round(path.stat().st_size / 2**20, 1),
            "kb_per_row": round(path.stat().st_size / 1000 / rows, 1),
            "masks_per_row": round(masks, 2),
            "import_rows_per_second": round(found["import"]["per_second"]),
            "import_rows_per_cpu_second": round(found["import"]["per_cpu_second"]),
            "import_peak_mb": round(found["import"]["peak_mb"]),
            "read_rows_per_second": round(found["ours"]["per_second"]),
            "read_rows_per_second_ijson": round(found["ijson"]["per_second"]) if "ijson" in found else None,
            "load_before": round(load, 2),
        }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
