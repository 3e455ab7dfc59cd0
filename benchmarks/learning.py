"""Measure what a profile's training learns: forms of depth and several seeds, beside the controls, by group.

    python benchmarks/learning.py [--profile cpu-long] [--runs metric-7 ...] [--jobs 2] [--root FOLDER]

A run is a form of depth and a seed, which decides the model's start values and the order of its samples; the data are
made once. The commands are those of anyone (`srgpt ingest`, ... `srgpt evaluate`), in the folder `--root`, so a second
call goes on where a killed one ended, and prints at once what is there already. `--jobs` runs are trained at a time:
with train.threads of 1, two on two cores take little longer than one.

Prints a table in Markdown, of means over seeds with the half width of their 95 % interval (Student's t), and ends
with one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from scipy import stats

from srgpt.evaluation.controls import TITLES
from srgpt.evaluation.statistics import GROUPS, score_name
from srgpt.params import TrackingParams
from srgpt.records import QUALITATIVE
from srgpt.tracking import connect

RUNS = tuple(f"{depth}-{seed}" for depth in ("metric", "relative") for seed in (7, 8, 9))

TABLES = {"ingest": "scenes", "perceive": "perceived", "lift": "graphs", "ask": "conversations"}
"""What a stage makes, below ``data``."""

ROWS = {
    "qualitative_micro": "**qualitative**",
    "quantitative_micro": "**quantitative**",
    "quantitative_macro_6": "quantitative, mean of six",
    "quantitative_macro_5": "quantitative, mean of five",
    **{score_name(g): g.replace("_", " / " if g in QUALITATIVE else " ") for g in GROUPS},
}

Scores = Mapping[str, Sequence[float]]
"""A column's values by metric, one for each seed."""


def main() -> None:
    """Make what is missing, and print the table."""
    arguments = _arguments()
    root: Path = arguments.root or Path(".srgpt/learning") / arguments.profile
    root.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("MLFLOW_TRACKING_URI", f"sqlite:///{(root / 'mlflow.db').absolute()}")
    connect(TrackingParams())  # one process makes the store, before several use it
    lab = Lab(root, arguments.profile)
    for dataset in ("train", "bench"):
        for stage in TABLES:
            lab.make_table(stage, dataset)
    with ThreadPoolExecutor(arguments.jobs) as pool:
        list(pool.map(lab.train, arguments.runs))
    for run in arguments.runs:
        lab.evaluate(run)
    columns = collect(root, arguments.runs)
    print(markdown(columns))
    print(json.dumps({"seconds": lab.seconds(), "scores": means(columns)}))


class Lab:
    """A folder with data, models and reports; what is there is not made again."""

    def __init__(self, root: Path, profile: str) -> None:
        self.root, self.profile = root, profile

    def make_table(self, stage: str, dataset: str) -> None:
        """Run a stage of curation."""
        if not (self.root / "data" / TABLES[stage] / dataset).exists():
            self._run(f"{stage} {dataset}", [stage, "--dataset", dataset])

    def train(self, run: str) -> None:
        """Train the model of a run."""
        depth, seed = run.split("-")
        if not (self.root / "models" / run).exists():
            settings = ["--set", f"seed={seed}", "--set", f"train.model.depth={depth}"]
            self._run(f"train {run}", ["train", "--out", f"models/{run}", *settings])

    def evaluate(self, run: str) -> None:
        """Evaluate the model of a run."""
        if not (self.root / "reports" / run).exists():
            self._run(f"evaluate {run}", ["evaluate", "--model", f"models/{run}", "--out", f"reports/{run}"])

    def _run(self, name: str, arguments: list[str]) -> None:
        print(f"{name} ...", file=sys.stderr, flush=True)
        started = time.perf_counter()
        command = [str(Path(sys.executable).with_name("srgpt")), *arguments, "--profile", self.profile]
        subprocess.run(command, cwd=self.root, check=True)
        with (self.root / "seconds.jsonl").open("a") as file:
            file.write(json.dumps({name: round(time.perf_counter() - started)}) + "\n")

    def seconds(self) -> dict[str, float]:
        """Return how long each step took, as far as it was not interrupted."""
        file = self.root / "seconds.jsonl"
        lines = file.read_text().splitlines() if file.exists() else []
        return {name: value for line in lines for name, value in json.loads(line).items()}


def collect(root: Path, runs: Sequence[str]) -> dict[str, dict[str, list[float]]]:
    """Return column -> metric -> one value for each seed: the model of each form of depth, and the controls."""
    columns: dict[str, dict[str, list[float]]] = {}
    for run in runs:
        depth, _ = run.split("-")
        metrics: dict[str, Any] = json.loads((root / "reports" / run / "metrics.json").read_text())
        for inputs, title in TITLES.items():
            name = f"{depth} depth" if inputs == "rgbd" else title
            # the controls are those of the first form of depth
            if inputs in metrics and (inputs == "rgbd" or depth == runs[0].split("-")[0]):
                for metric in (m for m in ROWS if m in metrics[inputs]):
                    columns.setdefault(name, {}).setdefault(metric, []).append(metrics[inputs][metric])
    return columns


def markdown(columns: Mapping[str, Scores]) -> str:
    """Return the table."""
    lines = [
        f"| % right | {' | '.join(f'{name} ({_seeds(found)})' for name, found in columns.items())} |",
        f"|---{'|---:' * len(columns)}|",
    ]
    for metric, title in ROWS.items():
        cells = (cell(found.get(metric, [])) for found in columns.values())
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return "\n".join(lines)


def cell(values: Sequence[float]) -> str:
    """Return the mean in percent, with the half width of its interval where there are several values."""
    if not values:
        return ""
    mean = f"{100 * statistics.fmean(values):.1f}"
    if len(values) < 2:
        return mean
    half = stats.t.ppf(0.975, len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
    return f"{mean} ± {100 * half:.1f}"


def means(columns: Mapping[str, Scores]) -> dict[str, dict[str, float]]:
    """Return the means by column and metric."""
    return {c: {m: round(statistics.fmean(v), 4) for m, v in found.items()} for c, found in columns.items()}


def _seeds(found: Scores) -> str:
    count = max(map(len, found.values()))
    return f"{count} seed{'s' if count > 1 else ''}"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])  # type: ignore[union-attr]
    parser.add_argument("--profile", default="cpu-long")
    parser.add_argument("--runs", nargs="+", default=RUNS, metavar="DEPTH-SEED")
    parser.add_argument("--jobs", type=int, default=1, help="models trained at a time")
    parser.add_argument(
        "--root", type=Path, help="folder of data, models and reports (.srgpt/learning/PROFILE)"
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
