"""Measure lift and ask: scenes per second and core, and how much a second process brings.

    python benchmarks/curation.py [--scenes 400]

Procedural scenes of 112 x 112 pixels are made first (not measured), in eight shards. Times are wall clock and
include starting the worker processes. Ends with one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

from srgpt import storage
from srgpt.params import Params
from srgpt.progress import progress_bar
from srgpt.records import Scene
from srgpt.sources.procedural.generate import generate
from srgpt.stages import ask, lift

SHARDS = 8


def prepare(folder: Path, count: int, params: Params) -> tuple[str, float]:
    """Write ``count`` procedural scenes as a perceived table; return its URL and the regions per scene."""
    url = str(folder / "perceived")
    writer = storage.TableWriter(url, "scenes", stage="perceive", dataset="bench", params={})
    names = [storage.shard_name(i) for i in range(SHARDS)]
    regions = 0
    with progress_bar("procedural scenes", total=count, unit="scenes") as advance:
        for shard, name in enumerate(names):
            rows = []
            for index in range(shard, count, SHARDS):
                scene = generate(params.ingest.procedural, params.seed, "bench", index)
                advance(1)
                if isinstance(scene, Scene):
                    rows.append(scene.to_row())
                    regions += len(scene.regions)
            storage.write_shard(writer.work, name, "scenes", rows)
    return url, regions / writer.commit(names).rows


def measure(folder: Path, source: str, workers: int) -> dict[str, float]:
    """Return the scenes per second of each stage, and of both, with so many processes."""
    params = Params.model_validate({"engine": {"workers": workers}})
    start = time.perf_counter()
    graphs = lift.run(params, source=source, out=str(folder / f"graphs-{workers}"))
    lifted = time.perf_counter()
    ask.run(params, source=str(folder / f"graphs-{workers}"), out=str(folder / f"conversations-{workers}"))
    end = time.perf_counter()
    rows = graphs.rows
    return {"lift": rows / (lifted - start), "ask": rows / (end - lifted), "both": rows / (end - start)}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scenes", type=int, default=400, help="procedural scenes to work on")
    count = parser.parse_args().scenes
    with tempfile.TemporaryDirectory(prefix="srgpt-bench-") as name:
        folder = Path(name)
        source, regions = prepare(folder, count, Params())
        start = time.process_time()
        one = measure(folder, source, 1)
        used = time.process_time() - start
        two = measure(folder, source, 2)
    figures = {
        "scenes": count,
        "regions_per_scene": round(regions, 2),
        "cores": len(os.sched_getaffinity(0)),
        "load": round(os.getloadavg()[0], 1),
        "cpu_ms_per_scene": round(1000 * used / count, 1),
        "scenes_per_second_1_process": {k: round(v, 1) for k, v in one.items()},
        "scenes_per_second_2_processes": {k: round(v, 1) for k, v in two.items()},
        "growth_1_to_2": round(two["both"] / one["both"], 2),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
