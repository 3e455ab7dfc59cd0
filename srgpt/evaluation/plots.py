"""Plots as SVG: scores of the model beside its controls, and predicted against true lengths.

The files carry no dates and no random names, so equal figures are equal bytes; their colours read on a light
and on a dark page.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from srgpt.evaluation.controls import TITLES
from srgpt.evaluation.grading import HIGH, LOW
from srgpt.evaluation.statistics import GROUPS, Metrics, score_name
from srgpt.model.prompts import Inputs
from srgpt.records import QUALITATIVE, QUANTITATIVE, Prediction

INK = "#7a8699"
INPUT_COLOURS: dict[Inputs, str] = {
    "rgbd": "#2f7de1", "rgb": "#29a383", "boxes": "#d9822b", "blind": "#a0a8b5",
}  # fmt: skip

_STYLE: Any = {
    "svg.hashsalt": "srgpt",
    "svg.fonttype": "path",
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
}


def score_bars(metrics: Mapping[Inputs, Metrics]) -> bytes:
    """Return bars of every group's score per kind of input, with 95 % intervals."""
    groups = [g for g in GROUPS if any(score_name(g) in m for m in metrics.values())]
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(10.5, 3.6), layout="constrained")
        axes = figure.add_subplot()
        step = 0.8 / len(metrics)
        for row, (inputs, values) in enumerate(metrics.items()):
            _bars(
                axes, groups, values, inputs, offset=(row - (len(metrics) - 1) / 2) * step, width=step * 0.92
            )
        axes.set_xticks(range(len(groups)), [g.replace("_", "\n", 1).replace("_", " ") for g in groups])
        axes.tick_params(axis="x", length=0)
        axes.set_ylim(0, 1)
        axes.yaxis.set_major_formatter(lambda v, _: f"{100 * v:.0f} %")
        axes.grid(axis="y", color=INK, alpha=0.2, linewidth=0.6)
        axes.set_axisbelow(True)
        border = sum(g in QUALITATIVE for g in groups) - 0.5
        if -0.5 < border < len(groups) - 0.5:
            axes.axvline(border, color=INK, alpha=0.5, linewidth=0.8, linestyle=":")
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=len(metrics))
        return _svg(figure)


def _bars(
    axes: Axes, groups: Sequence[str], values: Metrics, inputs: Inputs, *, offset: float, width: float
) -> None:
    found = [(i, score_name(g)) for i, g in enumerate(groups) if score_name(g) in values]
    scores = [values[n] for _, n in found]
    # rounding may put an interval's end a hair inside its own score
    below = [max(0.0, values[n] - values[f"{n}_low"]) for _, n in found]
    above = [max(0.0, values[f"{n}_high"] - values[n]) for _, n in found]
    axes.bar(
        [i + offset for i, _ in found],
        scores,
        width,
        label=TITLES[inputs],
        color=INPUT_COLOURS[inputs],
        yerr=(below, above),
        error_kw={"ecolor": INK, "elinewidth": 1, "capsize": 1.5},
    )


def length_scatter(predictions: Sequence[Prediction]) -> bytes:
    """Return predicted against true metres for each group of lengths, on logarithmic axes.

    The band is where an answer succeeds. Unreadable answers, and zeros, have no place on it and are
    counted in the title.
    """
    groups = {g: cs for g, cs in QUANTITATIVE.items() if g != "direction"}
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(12.5, 2.9), layout="constrained")
        for axes, (group, categories) in zip(figure.subplots(1, len(groups)), groups.items(), strict=True):
            _scatter(axes, group, [p for p in predictions if p.category in categories])
        return _svg(figure)


def _scatter(axes: Axes, group: str, predictions: Sequence[Prediction]) -> None:
    points = [
        (p.value, p.predicted_value, p.success) for p in predictions if p.predicted_value and p.value > 0
    ]
    title = group.replace("_", " ")
    lost = len(predictions) - len(points)
    axes.set_title(
        f"{title}\n{len(predictions)} questions" + (f", {lost} not shown" if lost else ""), fontsize=9
    )
    axes.set_xscale("log")
    axes.set_yscale("log")
    numbers = [v for t, p, _ in points for v in (t, p)] or [0.1, 10.0]
    low, high = min(numbers) / 1.3, max(numbers) * 1.3
    edge = [low, high]
    axes.fill_between(
        edge, [LOW * v for v in edge], [HIGH * v for v in edge], color=INK, alpha=0.18, linewidth=0
    )
    axes.plot(edge, edge, color=INK, linewidth=0.7)
    for right, colour in ((False, "#e0574f"), (True, "#2f9e6b")):
        chosen = [(t, p) for t, p, ok in points if ok == right]
        true, predicted = [t for t, _ in chosen], [p for _, p in chosen]
        axes.scatter(true, predicted, s=9, color=colour, alpha=0.6, linewidths=0)
    axes.set(xlim=edge, ylim=edge, aspect="equal", xlabel="true, m", ylabel="predicted, m")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(lambda v, _: f"{v:g}")
        axis.set_minor_formatter(lambda v, _: "")


def _svg(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return buffer.getvalue()
