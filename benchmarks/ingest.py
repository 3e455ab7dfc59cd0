"""Scenes per second of the procedural source, on one and on two processes, everything included.

Each figure times the stage's own work, from layout to written shard, after the worker processes have
started and made a few scenes. Run it on a quiet machine: python benchmarks/ingest.py [scenes per process]
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from srgpt.params import ProceduralParams
from srgpt.sources.procedural import ProceduralWork
from srgpt.storage import write_shard

WARM_UP = 6


def make(start: int, scenes: int, dataset: str = "benchmark") -> tuple[float, float]:
    """Make and write a shard; return its seconds on the clock and on the processor."""
    clock, processor = time.perf_counter(), time.process_time()
    loaded = ProceduralWork(ProceduralParams(), 7, dataset, start, start + scenes).load()
    with tempfile.TemporaryDirectory() as folder:
        write_shard(
            folder, "part-00000.parquet", "scenes", [s.to_row() for s in loaded.scenes], loaded.rejected
        )
    return time.perf_counter() - clock, time.process_time() - processor


def measure(processes: int, scenes: int) -> tuple[float, float]:
    """Return scenes per second over all processes, and processor milliseconds per scene."""
    with ProcessPoolExecutor(processes, mp_context=get_context("forkserver")) as pool:
        warm = [pool.submit(make, 0, WARM_UP, f"warm{i}") for i in range(processes)]
        for future in warm:
            future.result()
        clock = time.perf_counter()
        spent = list(pool.map(make, [i * scenes for i in range(processes)], [scenes] * processes))
        seconds = time.perf_counter() - clock
    return processes * scenes / seconds, 1000 * sum(cpu for _, cpu in spent) / (processes * scenes)


def main() -> None:
    """Measure and print."""
    scenes = int(sys.argv[1]) if len(sys.argv) > 1 else 300
    load = os.getloadavg()[0]
    figures: dict[str, float | int] = {
        "image_size": ProceduralParams().image_size,
        "scenes_per_process": scenes,
    }
    for processes in (1, 2):
        rate, cpu = measure(processes, scenes)
        print(f"{processes} process(es): {rate:.1f} scenes/s, {cpu:.1f} ms of processor time per scene")
        figures[f"scenes_per_second_{processes}"] = round(rate, 1)
        figures[f"cpu_ms_per_scene_{processes}"] = round(cpu, 1)
    figures["load_before"] = round(load, 2)
    figures["cores"] = len(os.sched_getaffinity(0))
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
