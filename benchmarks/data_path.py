"""Measure the data path: opening a table of many rows, and reading it with 0, 1 and 2 workers.

    python benchmarks/data_path.py [--rows 1000000] [--shard 1000] [--size 112] [--batch 6] [--batches 60]

Procedural scenes go through the chain; their conversations and pictures, over and over, fill one pair of shards, to
which all shards of a table of --rows rows are hard links, so that it is as large as a real one but on the disk. Printed
are the seconds and the memory that opening it takes (its manifests, one epoch's order), how fast samples come, with
every picture decoded anew, and how fast once pictures are kept. Ends with one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

# before numpy starts its threads
os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"

from srgpt.dataset.collator import Collator
from srgpt.dataset.loader import batches
from srgpt.dataset.mixture import Mixture
from srgpt.dataset.packing import Packer
from srgpt.dataset.reading import conversation_texts
from srgpt.dataset.sampler import PermutationSampler, epoch_order
from srgpt.dataset.source import MixtureSource
from srgpt.model.build import build_processor
from srgpt.model.tokenizer import train_tokenizer
from srgpt.params import build
from srgpt.stages import ask, ingest, lift, perceive
from srgpt.storage import (
    TableWriter,
    read_json,
    read_manifest,
    read_rows,
    shard_name,
    write_json,
    write_shard,
)

SCENES = 60
"""Different scenes behind all rows."""


def lay_out(folder: Path, rows: int, shard_rows: int, size: int) -> MixtureSource:
    """Write tables of about ``rows`` rows in shards of ``shard_rows``, of which the disk holds one."""
    params = build(
        {
            "ingest": {"scenes": SCENES, "shard_scenes": SCENES, "procedural": {"image_size": size}},
            "engine": {"workers": 1},
        }
    )
    steps = {
        name: str(folder / "chain" / name) for name in ("scenes", "perceived", "graphs", "conversations")
    }
    ingest.run(params, source=None, out=steps["scenes"], dataset="train")
    perceive.run(params, source=steps["scenes"], out=steps["perceived"])
    lift.run(params, source=steps["perceived"], out=steps["graphs"])
    ask.run(params, source=steps["graphs"], out=steps["conversations"])
    talks = list(read_rows(steps["conversations"], "conversations"))
    scenes = {row["scene_id"]: row for row in read_rows(steps["perceived"], "scenes")}
    copies = [
        {"scene_id": f"scene-{k}", "conversation_id": f"talk-{k}", "of": talks[k % len(talks)]}
        for k in range(shard_rows)
    ]
    urls = {"conversations": str(folder / "conversations"), "scenes": str(folder / "perceived")}
    for table, rows_of in (
        ("scenes", lambda c: {**scenes[c["of"]["scene_id"]], "scene_id": c["scene_id"]}),
        (
            "conversations",
            lambda c: {**c["of"], "scene_id": c["scene_id"], "conversation_id": c["conversation_id"]},
        ),
    ):
        writer = TableWriter(urls[table], table, stage="perceive", dataset="train", params={})
        write_shard(writer.work, shard_name(0), table, [rows_of(c) for c in copies])
        writer.commit([shard_name(0)])
        multiply(Path(urls[table]), -(-rows // shard_rows))
    return MixtureSource(urls["conversations"], urls["scenes"])


def multiply(table: Path, count: int) -> None:
    """Make ``count`` shards of a table's only one, by links, and say so in its manifest."""
    path = str(table / "manifest.json")
    manifest = read_json(path)
    (shard,) = read_manifest(str(table)).shards
    for number in range(1, count):
        os.link(table / shard.name, table / shard_name(number))
    manifest["shards"] = [vars(replace(shard, name=shard_name(number))) for number in range(count)]
    write_json(path, manifest)


def processor_of(source: MixtureSource, size: int) -> Any:
    """Return the processor of a model built from scratch."""
    params = build({"train": {"model": {"vision": {"image_size": size}}}}).train.model
    return build_processor(params, train_tokenizer(islice(conversation_texts(source.url), 5000), 1024))


def open_only(source: MixtureSource, size: int) -> dict[str, float]:
    """Open the table and compute an epoch's order, in this process; return seconds and megabytes."""
    processor = processor_of(source, size)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.perf_counter()
    mixture = Mixture([source], processor)
    opened = time.perf_counter()
    epoch_order(mixture.streams, 0, 0)
    ordered = time.perf_counter()
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "rows": len(mixture),
        "open_seconds": opened - started,
        "order_seconds": ordered - opened,
        "added_mb": (most - before) / 1024,
        "process_mb": most / 1024,
    }


def samples_per_second(
    mixture: Mixture, batch: int, count: int, *, workers: int, warm_up: int = 3
) -> dict[str, float]:
    """Return how fast batches come, after the first ``warm_up``, and how long the first took."""
    sampler = PermutationSampler(mixture.streams, batch=batch, seed=0, fingerprint=mixture.fingerprint)
    collator = Collator(Packer(mixture.tables[0].processor), seed=0, shares={"blind": 0.1, "rgb": 0.15})
    started = time.perf_counter()
    stream = batches(mixture, sampler, collator, workers=workers)
    next(stream)
    first = time.perf_counter() - started
    for _ in range(warm_up):
        next(stream)
    started = time.perf_counter()
    tokens = sum(b["input_ids"].numel() for b in islice(stream, count))
    seconds = time.perf_counter() - started
    return {
        "samples_per_second": batch * count / seconds,
        "tokens_per_second": tokens / seconds,
        "first_batch_seconds": first,
    }


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, default in (("rows", 1_000_000), ("shard", 1000), ("size", 112), ("batch", 6), ("batches", 60)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--open", nargs=2, metavar="URL", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.open:
        print(json.dumps(open_only(MixtureSource(*given.open), given.size)))
        return
    with tempfile.TemporaryDirectory() as folder:
        source = lay_out(Path(folder), given.rows, given.shard, given.size)
        command = [sys.executable, __file__, "--size", str(given.size), "--open", source.url, source.scenes]
        # a process of its own, so that what the chain left in this one's memory does not count
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        result = {"opening": json.loads(done.stdout)}
        shown = result["opening"]
        print(
            f"opening {shown['rows']} rows: {shown['open_seconds']:.2f} s, and {shown['order_seconds']:.2f} s for an "
            f"epoch's order; {shown['added_mb']:.0f} MB more, {shown['process_mb']:.0f} MB in all"
        )
        processor = processor_of(source, given.size)
        for workers in (0, 1, 2):
            mixture = Mixture([source], processor, cache_mb=0)
            found = samples_per_second(mixture, given.batch, given.batches, workers=workers)
            result[f"workers_{workers}"] = found
            print(f"{workers} workers: {found['samples_per_second']:.0f} samples/s", end=", ")
            print(
                f"{found['tokens_per_second']:.0f} tokens/s, the first after {found['first_batch_seconds']:.1f} s"
            )
        small = lay_out(Path(folder) / "small", 200, 200, given.size)
        mixture = Mixture([small], processor)
        for index in range(len(mixture)):
            mixture[0, index]
        result["kept"] = samples_per_second(mixture, given.batch, given.batches, workers=0)
        print(f"0 workers, pictures kept: {result['kept']['samples_per_second']:.0f} samples/s")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
