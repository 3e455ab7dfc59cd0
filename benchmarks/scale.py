"""Measure what a picture costs in each curation stage, and work out what a large set would.

    python benchmarks/scale.py [--pictures 400] [--of 1000000] [--cores 512] [--shard 250]

Procedural scenes of 640 x 640 pixels are laid out as an RGB-D set (JPEG, depth, masks, intrinsics), which goes through
`ingest`, `perceive` (depth and masks are given, gravity comes from the ground plane), `lift`, `ask` and `validate` in
one process. So does a quarter of them: the difference is what more pictures cost, without what every run costs once.
Printed are processor milliseconds and bytes per picture, and what --of pictures take on --cores; the survey that
`ingest` begins with (duplicates, broken files) and `validate` run on one machine, here on one core of it. Models on
GPUs are not in it. Ends with one line of JSON. docs/scale.md explains how to use the figures.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

# before numpy starts its threads
os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"

import numpy as np
from PIL import Image

from srgpt import storage
from srgpt.params import Params, ProceduralParams
from srgpt.progress import progress_bar
from srgpt.records import Scene, encode_depth, encode_png
from srgpt.sources import open_source
from srgpt.sources.procedural.generate import generate
from srgpt.stages import ask, ingest, lift, perceive, validate

SIDE = 640
TABLES = {"ingest": "scenes", "perceive": "perceived", "lift": "graphs", "ask": "conversations"}


def lay_out(folder: Path, count: int, start: int) -> None:
    """Write ``count`` procedural scenes, from the ``start``-th on, as an RGB-D set."""
    params = ProceduralParams(image_size=SIDE)
    for part in ("rgb", "depth", "masks", "intrinsics"):
        (folder / part).mkdir(parents=True)
    written, index = 0, start
    with progress_bar("pictures", total=count, unit="pictures") as advance:
        while written < count:
            scene = generate(params, 7, "scale", index)
            index += 1
            if isinstance(scene, Scene):
                write(folder, scene)
                written += 1
                advance(1)


def write(folder: Path, scene: Scene) -> None:
    """Write one scene's files."""
    buffer = io.BytesIO()
    Image.fromarray(scene.rgb()).save(buffer, "JPEG", quality=90)
    instances = np.zeros((scene.height, scene.width), np.uint8)
    names = {}
    for number, region in enumerate(scene.regions, 1):
        instances[region.mask()] = number
        names[str(number)] = region.category
    assert scene.intrinsics is not None
    (folder / "rgb" / f"{scene.scene_id}.jpg").write_bytes(buffer.getvalue())
    (folder / "depth" / f"{scene.scene_id}.png").write_bytes(encode_depth(scene.depth_metres()))
    (folder / "masks" / f"{scene.scene_id}.png").write_bytes(encode_png(instances))
    (folder / "masks" / f"{scene.scene_id}.json").write_text(json.dumps(names))
    (folder / "intrinsics" / f"{scene.scene_id}.txt").write_text(" ".join(map(str, scene.intrinsics)))


def measure(folder: Path, params: Params) -> dict[str, dict[str, float]]:
    """Run the stages one after the other; return the rows, processor seconds and bytes of each."""
    url = {name: str(folder / name) for name in TABLES.values()}
    pictures = str(folder / "set")
    stages: dict[str, Callable[[], Any]] = {
        "survey": lambda: open_source(params.ingest, params.seed, "scale", pictures),
        "ingest": lambda: ingest.run(params, source=pictures, out=url["scenes"], dataset="scale"),
        "perceive": lambda: perceive.run(params, source=url["scenes"], out=url["perceived"]),
        "lift": lambda: lift.run(params, source=url["perceived"], out=url["graphs"]),
        "ask": lambda: ask.run(params, source=url["graphs"], out=url["conversations"]),
        "validate": lambda: validate.run(params, source=url["conversations"], out=str(folder / "validation")),
    }
    figures: dict[str, dict[str, float]] = {}
    for name, stage in stages.items():
        start = time.process_time()
        stage()
        spent = time.process_time() - start
        rows = storage.read_manifest(url[TABLES.get(name, "scenes")]).rows if name != "survey" else 0
        size = sum(p.stat().st_size for p in (folder / TABLES.get(name, "-")).glob("*.parquet"))
        figures[name] = {"rows": rows, "seconds": spent, "bytes": size}
    figures["survey"]["rows"] = figures["ingest"]["rows"]
    figures["ingest"]["seconds"] -= figures["survey"]["seconds"]  # it begins with one
    return figures


def per_picture(few: dict[str, dict[str, float]], many: dict[str, dict[str, float]]) -> dict[str, Any]:
    """Return what a further picture costs in each stage: processor milliseconds, kilobytes, and ms once per run."""
    found = {}
    for stage, all_of_it in many.items():
        rows, seconds, size = (all_of_it[k] - few[stage][k] for k in ("rows", "seconds", "bytes"))
        once = few[stage]["seconds"] - few[stage]["rows"] * seconds / rows
        found[stage] = {
            "cpu_ms": round(1000 * seconds / rows, 1),
            "kilobytes": round(size / rows / 1000, 2),
            "once_s": round(max(once, 0.0), 1),
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pictures", type=int, default=400, help="pictures to measure with")
    parser.add_argument("--of", type=int, default=1_000_000, help="pictures to work out the cost of")
    parser.add_argument("--cores", type=int, default=512, help="cores to work it out for")
    parser.add_argument("--shard", type=int, default=250, help="pictures per shard")
    options = parser.parse_args()
    params = Params.model_validate(
        {
            "ingest": {"source": "rgbd", "shard_scenes": options.shard},
            "perceive": {"gravity": "ransac"},
            "engine": {"workers": 1},
        }
    )
    load = round(os.getloadavg()[0], 2)
    with tempfile.TemporaryDirectory(prefix="srgpt-bench-") as name:
        few, many = Path(name) / "few", Path(name) / "many"
        lay_out(many / "set", options.pictures, start=options.pictures)
        lay_out(few / "set", -(-options.pictures // 4), start=0)
        figures = per_picture(measure(few, params), measure(many, params))
    for stage, found in figures.items():
        cores = options.cores if stage in TABLES else 1
        hours = options.of * found["cpu_ms"] / 3.6e6
        print(
            f"{stage:9} {found['cpu_ms']:6.1f} ms, {found['kilobytes']:7.2f} kB a picture; {options.of:,} pictures: "
            f"{hours:6.1f} core hours, {60 * hours / cores:6.1f} min on {cores} cores, "
            f"{options.of * found['kilobytes'] / 1e6:7.1f} GB",
            file=sys.stderr,
        )
    print(json.dumps({"pictures": options.pictures, "side": SIDE, "load_before": load, "stages": figures}))


if __name__ == "__main__":
    main()
