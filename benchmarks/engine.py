"""Measure memory and rate of lift and ask over a short and a long run: memory must not grow with the work.

    python benchmarks/engine.py [--scenes 1000 10000] [--workers 2] [--backend local]

A few hundred procedural scenes of 64 x 64 pixels are rendered once (not measured), and repeated under other ids
up to the wanted number. Each run is a process of its own. Its memory is that of the run and all its children,
sampled four times a second: resident (RSS, where each process counts what it shares with others in full) and
proportional (PSS, where shared pages count once). Ends with one line of JSON, and with an error where the longest
run's peak is over 10 % above the shortest's.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import tempfile
import time
from pathlib import Path

import psutil

from srgpt import storage
from srgpt.params import Params
from srgpt.progress import progress_bar
from srgpt.records import Scene
from srgpt.sources.procedural.generate import generate
from srgpt.stages import ask, lift

RENDERED = 250
SHARD = 250
ALLOWED = 1.10


def prepare(folder: Path, counts: list[int]) -> dict[int, str]:
    """Write perceived tables of so many scenes; return their URLs."""
    params = Params.model_validate({"ingest": {"procedural": {"image_size": 64, "min_pixels": 8}}})
    with progress_bar("procedural scenes", total=RENDERED, unit="scenes") as advance:
        rows = []
        for index in range(RENDERED):
            scene = generate(params.ingest.procedural, params.seed, "bench", index)
            advance(1)
            if isinstance(scene, Scene):
                rows.append(scene.to_row())
    urls = {}
    for count in counts:
        urls[count] = str(folder / f"perceived-{count}")
        writer = storage.TableWriter(urls[count], "scenes", stage="perceive", dataset="bench", params={})
        names = [storage.shard_name(i) for i in range(-(-count // SHARD))]
        for shard, name in enumerate(names):
            ids = range(shard * SHARD, min((shard + 1) * SHARD, count))
            renamed = [{**rows[i % len(rows)], "scene_id": f"scene-{i:07d}"} for i in ids]
            storage.write_shard(writer.work, name, "scenes", renamed)
        writer.commit(names)
    return urls


def work(source: str, folder: str, engine: dict, times) -> None:
    """Lift and ask, as a run of its own; report the seconds of each."""
    params = Params.model_validate({"engine": engine})
    start = time.perf_counter()
    lift.run(params, source=source, out=f"{folder}/graphs")
    lifted = time.perf_counter()
    ask.run(params, source=f"{folder}/graphs", out=f"{folder}/conversations")
    times.send((lifted - start, time.perf_counter() - lifted))


def measure(source: str, folder: Path, engine: dict) -> dict:
    """Run in a fresh process; return its peak memory in MB and the seconds that its stages took."""
    context = multiprocessing.get_context("spawn")
    receive, send = context.Pipe(duplex=False)
    run = context.Process(target=work, args=(source, str(folder), engine, send))
    run.start()
    rss, pss = 0, 0
    while run.is_alive():
        now = resident(run.pid)
        rss, pss = max(rss, now[0]), max(pss, now[1])
        time.sleep(0.25)
    if run.exitcode:
        sys.exit(f"the run ended with exit code {run.exitcode}")
    seconds = receive.recv()
    return {"rss_mb": rss / 2**20, "pss_mb": pss / 2**20, "lift_s": seconds[0], "ask_s": seconds[1]}


def resident(pid: int | None) -> tuple[int, int]:
    """Return the resident and the proportional bytes of a process with all its descendants."""
    rss, pss = 0, 0
    try:
        parent = psutil.Process(pid)
        family = [parent, *parent.children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0, 0
    for process in family:
        try:
            memory = process.memory_full_info()
        except psutil.Error:  # it has just ended
            continue
        rss, pss = rss + memory.rss, pss + memory.pss
    return rss, pss


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scenes", type=int, nargs="+", default=[1000, 10000], help="lengths of the runs")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--backend", choices=["local", "ray"], default="local")
    options = parser.parse_args()
    counts = sorted(options.scenes)
    engine = {"workers": options.workers, "backend": options.backend}
    figures: dict = {"cores": len(os.sched_getaffinity(0)), **engine, "load": round(os.getloadavg()[0], 1)}
    with tempfile.TemporaryDirectory(prefix="srgpt-bench-") as name:
        urls = prepare(Path(name), counts)
        for count in counts:
            found = measure(urls[count], Path(name) / str(count), engine)
            figures[str(count)] = {
                "peak_rss_mb": round(found["rss_mb"], 1),
                "peak_pss_mb": round(found["pss_mb"], 1),
                "lift_per_second": round(count / found["lift_s"], 1),
                "ask_per_second": round(count / found["ask_s"], 1),
            }
    first, last = figures[str(counts[0])], figures[str(counts[-1])]
    for kind in ("rss", "pss"):
        figures[f"{kind}_growth"] = round(last[f"peak_{kind}_mb"] / first[f"peak_{kind}_mb"], 3)
    print(json.dumps(figures))
    growth = max(figures["rss_growth"], figures["pss_growth"])
    if growth > ALLOWED:
        sys.exit(f"memory grew by {100 * (growth - 1):.1f} %; allowed are 10 %")


if __name__ == "__main__":
    main()
