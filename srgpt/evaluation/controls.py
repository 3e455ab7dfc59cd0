"""The controls: what the same weights score without depth, without regions, and without any picture.

Training drops depth from some samples, puts the regions' boxes into words in others, and drops the whole picture from
yet others, so the controls are inputs that the model has learnt to answer, and its lead over them is what depth,
regions and sight are worth.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import pyarrow.compute as pc

from srgpt.errors import InputError
from srgpt.evaluation.statistics import Comparison, compare_groups
from srgpt.model.pixels import DepthInput
from srgpt.model.prompts import Inputs
from srgpt.records import Prediction
from srgpt.storage import read_manifest, read_shard

TITLES: dict[Inputs, str] = {
    "rgbd": "RGB + depth",
    "rgb": "RGB only",
    "boxes": "no regions",
    "blind": "blind",
}
"""What people read for each kind of input."""

VARIANTS: tuple[Inputs, ...] = get_args(Inputs)
"""Most informed first."""


@dataclass(frozen=True)
class Variants:
    """Which inputs a benchmark allows; the first is the model's own, the others its controls."""

    inputs: tuple[Inputs, ...]
    note: str = ""
    """Why some are left out, for people."""

    @property
    def main(self) -> Inputs:
        """The inputs that the model is judged by."""
        return self.inputs[0]

    @property
    def controls(self) -> tuple[Inputs, ...]:
        """The inputs that it is held against."""
        return self.inputs[1:]


def variants_of(scenes: str, depth: DepthInput, learnt: Sequence[Inputs] = VARIANTS) -> Variants:
    """Return the inputs that a model of a form of ``depth`` has ``learnt`` and the table of scenes allows.

    With depth only where every scene has it; relative depth counts for models that see no scale. Raises
    :class:`InputError` where nothing is left.
    """
    inputs = tuple(i for i in VARIANTS if i in learnt and (i != "rgbd" or depth != "none"))
    if not inputs:
        raise InputError(
            f"the model has learnt {', '.join(learnt) or 'no inputs'}, none of which it can be given"
        )
    if "rgbd" not in inputs:
        return Variants(inputs)
    columns = ["depth", "relative_depth"] if depth == "relative" else ["depth"]
    total = missing = 0
    for shard in read_manifest(scenes, "scenes").shards:
        found = read_shard(scenes, shard, "scenes", columns)
        depth = pc.coalesce(*(found[name] for name in columns))
        total += len(depth)
        missing += int(pc.sum(pc.is_null(depth)).as_py() or 0)
    if missing == 0:
        return Variants(inputs)
    without = tuple(i for i in inputs if i != "rgbd")
    if not without:
        raise InputError(
            f"{scenes}: {missing} of {total} scenes have no depth, and the model has learnt to answer with it only; "
            "give them depth (perceive.depth=model), or train with train.rgb_share above 0"
        )
    return Variants(without, f"{missing} of {total} scenes have no depth, so the model is asked without it.")


def compare_controls(
    predictions: Mapping[Inputs, Sequence[Prediction]], variants: Variants
) -> dict[Inputs, dict[str, Comparison]]:
    """Compare the model with each control, per group and overall; empty where there is nothing to compare."""
    ours = predictions[variants.main]
    return {c: compare_groups(ours, predictions[c]) for c in variants.controls} if ours else {}


def main_inputs(metrics: Mapping[str, Any]) -> Inputs:
    """Return which of the inputs in ``metrics.json`` is the model's own."""
    return next(i for i in VARIANTS if i in metrics)
