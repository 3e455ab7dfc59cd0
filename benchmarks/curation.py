"""Measure lift and ask: against SpatialRGPT's steps on one core, and by processes.

    python benchmarks/curation.py [--compared 12] [--scenes 2000]

First both sides lift the same pictures, 640 x 480 with eight objects whose masks fill a third of it or more, on one
thread each, and answer the facts of three pairs: SpatialRGPT's steps, written plainly with open3d
(``reference/steps.py``; ``pip install -e '.[bench]'``), and ours with ``compat: reference``, with objects thinned
to 2,048 points ("ours") and as by default. Their facts are compared, and processor time is, of each picture the
least of three runs for either side, so that other work on the machine does not count. A third of the pictures goes
again with 1 % of noise on every pixel's depth. Then smaller scenes (112 x 112) go through both stages with one process
and with two, by the clock. Ends with one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from itertools import combinations
from pathlib import Path

# before numpy and open3d start their threads
os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"

import numpy as np

from srgpt import storage
from srgpt.curation.lifting import lift_scene
from srgpt.curation.questions import ask_scene
from srgpt.curation.reference import fact
from srgpt.geometry.camera import canonical_rotation
from srgpt.params import AskParams, LiftParams, Params, ProceduralParams
from srgpt.progress import progress_bar
from srgpt.records import QUALITATIVE, Region, Scene, encode_depth, encode_png, encode_rle
from srgpt.sources.procedural.generate import generate
from srgpt.stages import ask, lift

sys.path.insert(0, str(Path(__file__).parent / "reference"))

SHARDS = 8
OBJECTS = 8
WIDTH, HEIGHT = 640, 480
LEAST_COVER = 1 / 3
PAIRS = 3
REPEATS = 3
THINNED = 2048
NOISE = 0.01
QUANTITIES = (
    "width_data",
    "height_data",
    "distance_data",
    "horizontal_distance_data",
    "vertical_distance_data",
)


# Against the reference --------------------------------------------------------------------------------------


def crowded(count: int, seed: int) -> list[Scene]:
    """Make ``count`` scenes of eight objects, cut to 640 x 480, whose masks fill a third of the picture."""
    params = ProceduralParams(image_size=WIDTH, min_objects=OBJECTS, max_objects=OBJECTS)
    found: list[Scene] = []
    index = 0
    with progress_bar("pictures", total=count, unit="pictures") as advance:
        while len(found) < count:
            made = generate(params, seed, "compared", index)
            index += 1
            scene = cut(made) if isinstance(made, Scene) else None
            if scene is not None:
                found.append(scene)
                advance(1)
    return found


def cut(scene: Scene) -> Scene | None:
    """Cut a square picture to its middle rows; None where not all objects stay, or they are small."""
    top = (scene.height - HEIGHT) // 2
    masks = [(region, region.mask()[top : top + HEIGHT]) for region in scene.regions]
    seen = [(r, m) for r, m in masks if m.sum() >= 100]
    if len(seen) != OBJECTS or sum(m.mean() for _, m in seen) < LEAST_COVER:
        return None
    fx, fy, cx, cy = scene.intrinsics
    regions = []
    for region, mask in seen:
        v, u = np.nonzero(mask)
        box = tuple(float(x) for x in (u.min(), v.min(), u.max() + 1, v.max() + 1))
        regions.append(Region(region.id, region.category, region.label, box, encode_rle(mask), "given"))
    return scene.replace(
        height=HEIGHT,
        image=encode_png(scene.rgb()[top : top + HEIGHT]),
        depth=encode_depth(scene.depth_metres()[top : top + HEIGHT]),
        intrinsics=(fx, fy, cx, cy - top),
        regions=tuple(regions),
    )


def lift_by_reference(scene: Scene):
    """Return region id -> open3d cloud and box."""
    import steps

    depth = scene.depth_metres().astype(np.float64)
    points = steps.unproject(depth, scene.intrinsics, canonical_rotation(scene.gravity))
    lifted = {region.id: steps.lift(points[region.mask() & (depth > 0)]) for region in scene.regions}
    return {k: found for k, found in lifted.items() if found is not None}


def with_distances(lifted):
    """Compute the distances of three pairs, as its questions need them; return what was lifted."""
    import steps

    for a, b in list(combinations(lifted, 2))[:PAIRS]:
        steps.mean_nearest(lifted[a][0], lifted[b][0])
    return lifted


def asked(graph, params: AskParams, seed: int):
    """Ask about a scene graph; return it."""
    ask_scene(graph, params, seed)
    return graph


def timed(side, scene: Scene):
    """Return the processor seconds of one run, and what it returned."""
    start = time.process_time()
    result = side(scene)
    return time.process_time() - start, result


def compare(scenes: list[Scene]) -> dict[str, object]:
    """Lift and ask on both sides; return processor seconds per scene, their ratio, and how equal the facts are."""
    params, seed = LiftParams(compat="reference", max_points=THINNED), 0
    questions = AskParams(compat="reference")
    count = len(scenes)
    sides = {
        "reference": lambda scene: with_distances(lift_by_reference(scene)),
        "ours": lambda scene: asked(lift_scene(scene, params), questions, seed),
        "ours_by_default": lambda scene: asked(
            lift_scene(scene, LiftParams(compat="reference")), questions, seed
        ),
        "corrected": lambda scene: asked(lift_scene(scene, LiftParams()), AskParams(), seed),
    }
    for side in sides.values():
        side(scenes[0])  # imports, caches
    least = dict.fromkeys(sides, np.full(count, np.inf))
    results = {}
    with progress_bar("compare", total=REPEATS * len(sides) * count, unit="runs") as advance:
        for _ in range(REPEATS):
            for name, side in sides.items():  # scene after scene, as either would be run
                runs = [timed(side, scene) for scene in scenes]
                least[name] = np.minimum(least[name], [seconds for seconds, _ in runs])
                results[name] = [result for _, result in runs]
                advance(count)
    mean = {name: float(times.mean()) for name, times in least.items()}
    return {
        "scenes": count,
        "cpu_ms_per_scene": {k: round(1000 * s, 1) for k, s in mean.items()},
        "ratio": {k: round(mean["reference"] / s, 2) for k, s in mean.items() if k != "reference"},
        "ours": differences(results["ours"], results["reference"]),
        "ours_by_default": differences(results["ours_by_default"], results["reference"]),
    }


def noisy(scene: Scene) -> Scene:
    """Disturb every pixel's depth by 1 %."""
    depth = scene.depth_metres()
    noise = np.random.default_rng(0).normal(1, NOISE, depth.shape)
    return scene.replace(depth=encode_depth(depth * noise))


def differences(graphs, theirs) -> dict[str, object]:
    """Say how equal the facts of both sides are, over all pairs of all scenes."""
    errors: dict[str, list[float]] = {}
    same: list[bool] = []
    for graph, other in zip(graphs, theirs, strict=True):
        add_differences(graph, other, errors, same)
    everything = [e for found in errors.values() for e in found]
    return {
        "median_difference": {k: round(float(np.median(e)), 5) for k, e in errors.items()},
        "share_within_1_percent": round(float(np.mean(np.array(everything) <= 0.01)), 3),
        "same_relations": round(float(np.mean(same)), 4),
        "objects_missing": sum(1 for e in everything if np.isinf(e)),
    }


def add_differences(graph, theirs, errors, same) -> None:
    """Compare all facts of all pairs, computed by one definition from both sides' clouds."""
    clouds = {n.id: np.reshape(n.points, (-1, 3)).astype(np.float64) for n in graph.nodes if n.points}
    others = {k: np.asarray(cloud.points) for k, (cloud, _) in theirs.items()}
    for lost in set(clouds) ^ set(others):
        errors.setdefault("width_data", []).append(np.inf)
        print(f"object {lost} of {graph.scene_id} was lifted on one side only", file=sys.stderr)
    for a, b in combinations(sorted(set(clouds) & set(others)), 2):
        for category in QUANTITIES:
            true = fact(category, others[a], others[b])
            errors.setdefault(category, []).append(
                abs(fact(category, clouds[a], clouds[b]) - true) / max(true, 0.05)
            )
        for first, *_ in QUALITATIVE.values():
            same.append(fact(first, clouds[a], clouds[b]) == fact(first, others[a], others[b]))


# By processes -----------------------------------------------------------------------------------------------


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


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--compared", type=int, default=12, help="pictures that both sides lift")
    parser.add_argument(
        "--scenes", type=int, default=2000, help="procedural scenes for one and two processes"
    )
    options = parser.parse_args()
    scenes = crowded(options.compared, 0)
    compared = compare(scenes)
    rough = compare([noisy(scene) for scene in scenes[: max(1, len(scenes) // 3)]])
    with tempfile.TemporaryDirectory(prefix="srgpt-bench-") as name:
        folder = Path(name)
        source, regions = prepare(folder, options.scenes, Params())
        one, two = (measure(folder, source, workers) for workers in (1, 2))
    figures = {
        "masks_cover_at_least": round(LEAST_COVER, 2),
        "compared": compared,
        "compared_with_noise": rough,
        "scenes": options.scenes,
        "regions_per_scene": round(regions, 2),
        "cores": len(os.sched_getaffinity(0)),
        "load": round(os.getloadavg()[0], 1),
        "scenes_per_second_1_process": {k: round(v, 1) for k, v in one.items()},
        "scenes_per_second_2_processes": {k: round(v, 1) for k, v in two.items()},
        "growth_1_to_2": round(two["both"] / one["both"], 2),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
