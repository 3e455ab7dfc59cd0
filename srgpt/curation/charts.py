"""Small charts as inline SVG, drawn with the page's own colours so that they read in light, in dark and on paper."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup, escape

_BAR, _GAP = 24, 16
"""Height of a funnel's bar, and of what leads to the next."""

_LEFT, _RIGHT, _WIDE = 84, 300, 1000

SERIES = 6
"""Line styles that the style sheet has."""


def funnel(steps: Sequence[Mapping[str, Any]]) -> Markup:
    """Draw what each stage kept and set aside (see ``funnel.Step``), one bar each, to one scale."""
    widest = max((step["entered"] for step in steps), default=0) or 1
    scale = (_WIDE - _LEFT - _RIGHT) / widest
    parts = []
    for index, step in enumerate(steps):
        y = index * (_BAR + _GAP)
        kept, lost = step["kept"] * scale, (step["entered"] - step["kept"]) * scale
        middle = y + _BAR / 2 + 5
        count_y = y + 10 if step["lost"] else middle
        parts.append(
            f'<text class="stage" x="{_LEFT - 12}" y="{middle}" text-anchor="end">{escape(step["stage"])}</text>'
        )
        parts.append(f'<rect class="kept" x="{_LEFT}" y="{y}" width="{max(kept, 1):.1f}" height="{_BAR}"/>')
        if step["lost"]:
            # a sliver stays visible
            parts.append(
                f'<rect class="lost" x="{_LEFT + kept:.1f}" y="{y}" width="{max(lost, 3):.1f}" height="{_BAR}"/>'
            )
        x = _LEFT + kept + (max(lost, 3) if step["lost"] else 0) + 10
        parts.append(
            f'<text x="{x:.1f}" y="{count_y}"><tspan class="count">{step["kept"]:,}</tspan> '
            f'<tspan class="small">{escape(step["note"])}</tspan></text>'
        )
        parts.append(
            f'<text class="small lost-text" x="{x:.1f}" y="{y + 25}">{escape(_reasons(step["lost"]))}</text>'
        )
        if index + 1 < len(steps):
            below = min(steps[index + 1]["entered"], step["kept"]) * scale
            foot = y + _BAR + _GAP
            parts.append(
                f'<path class="flow" d="M{_LEFT} {y + _BAR}H{_LEFT + kept:.1f}L{_LEFT + below:.1f} {foot}H{_LEFT}Z"/>'
            )
    high = len(steps) * (_BAR + _GAP) - _GAP + 2
    return _svg(f"0 0 {_WIDE} {max(high, 1)}", "funnel", "Funnel by stage", parts)


def _reasons(lost: Mapping[str, int]) -> str:
    words = [f"−{count:,} {reason}" for reason, count in list(lost.items())[:3]]
    return ", ".join(words) + (f" and {len(lost) - 3} more reasons" if len(lost) > 3 else "")


def histogram(lengths: Mapping[str, Any], title: str) -> Markup:
    """Draw a distribution of lengths (see ``figures.Lengths``), bars of half an octave on a logarithmic axis."""
    bars = lengths["bars"]
    if not bars:
        return Markup("")
    wide, high, foot = 320, 120, 20
    step = wide / len(bars)
    most = max(count for *_, count in bars)
    parts = []
    for i, (low, up, count) in enumerate(bars):
        tall = count / most * (high - 14)
        parts.append(
            f'<rect class="bar" x="{i * step + 1:.1f}" y="{high - tall:.1f}" width="{max(step - 2, 1):.1f}" '
            f'height="{tall:.1f}"><title>{low:g} to {up:g} m: {count:,}</title></rect>'
        )
        octave = math.log2(low)
        if abs(octave - round(octave)) < 0.1 and round(octave) % math.ceil(len(bars) / 14) == 0:
            parts.append(f'<text class="tick" x="{i * step + 1:.1f}" y="{high + 14}">{_tick(low)}</text>')
    parts.append(f'<path class="axis" d="M0 {high}H{wide}"/>')
    return _svg(f"0 0 {wide} {high + foot}", "histogram", title, parts)


def _tick(metres: float) -> str:
    if metres < 0.1:
        return f"{metres:.1g}"
    return f"{metres:.2g}" if metres < 10 else f"{metres:.0f}"


def columns(counts: Sequence[tuple[float, int]], title: str) -> Markup:
    """Draw how often each of a few whole numbers was the answer."""
    wide, high, foot = 320, 90, 20
    step = wide / max(len(counts), 8)
    most = max((count for _, count in counts), default=0) or 1
    parts = []
    for i, (value, count) in enumerate(counts):
        tall = count / most * (high - 10)
        parts.append(
            f'<rect class="bar" x="{i * step + 2:.1f}" y="{high - tall:.1f}" width="{step - 4:.1f}" '
            f'height="{tall:.1f}"><title>{value:g}: {count:,}</title></rect>'
            f'<text class="tick" x="{(i + 0.5) * step:.1f}" y="{high + 14}" text-anchor="middle">{value:g}</text>'
        )
    parts.append(f'<path class="axis" d="M0 {high}H{wide}"/>')
    return _svg(f"0 0 {wide} {high + foot}", "histogram", title, parts)


def lines(
    title: str,
    levels: Sequence[float],
    series: Mapping[str, Sequence[float | None]],
    *,
    low: float,
    high: float,
) -> Markup:
    """Draw shares over the levels of an error, one line per name; ``low`` and ``high`` bound the vertical axis."""
    wide, tall, left, top = 300, 170, 42, 24
    span = max(levels) - min(levels) or 1.0

    def x(level: float) -> float:
        return left + (level - min(levels)) / span * (wide - left - 18)

    def y(share: float) -> float:
        clipped = min(max(share, low), high)
        return top + (high - clipped) / (high - low) * tall

    parts = [f'<text class="title" x="{left}" y="12">{escape(title)}</text>']
    for i in range(6):
        share = low + (high - low) * i / 5
        parts.append(f'<path class="grid" d="M{left} {y(share):.1f}H{wide - 6}"/>')
        parts.append(
            f'<text class="tick" x="{left - 5}" y="{y(share) + 4:.1f}" text-anchor="end">{share:.0%}</text>'
        )
    for level in levels:
        parts.append(
            f'<text class="tick" x="{x(level):.1f}" y="{top + tall + 16}" text-anchor="middle">{level:g}</text>'
        )
    for index, (name, values) in enumerate(series.items()):
        points = [(x(at), y(v)) for at, v in zip(levels, values, strict=True) if v is not None]
        if not points:
            continue
        path = "M" + "L".join(f"{px:.1f} {py:.1f}" for px, py in points)
        parts.append(f'<g class="line s{index % SERIES}"><title>{escape(name)}</title><path d="{path}"/>')
        parts += [_marker(index, px, py) for px, py in points]
        parts.append("</g>")
    return _svg(f"0 0 {wide} {top + tall + 24}", "lines", title, parts)


def _marker(index: int, x: float, y: float) -> str:
    """Draw a marker whose form tells lines apart, too."""
    form = index % SERIES
    if form in (0, 3):
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3"/>'
    if form in (1, 4):
        return f'<rect x="{x - 2.8:.1f}" y="{y - 2.8:.1f}" width="5.6" height="5.6"/>'
    return f'<path class="mark" d="M{x - 3.6:.1f} {y + 3:.1f}L{x:.1f} {y - 3.6:.1f}L{x + 3.6:.1f} {y + 3:.1f}Z"/>'


def legend(names: Sequence[str]) -> Markup:
    """Draw the legend of :func:`lines` with these names."""
    items = "".join(
        f'<span><svg class="key" viewBox="0 0 30 12"><g class="line s{i % SERIES}"><path d="M1 6L29 6"/>'
        f"{_marker(i, 15, 6)}</g></svg> {escape(name.replace('_', ' '))}</span>"
        for i, name in enumerate(names)
    )
    return Markup(f'<p class="legend">{items}</p>')  # noqa: S704 (escaped above)


def _svg(view: str, kind: str, title: str, parts: Sequence[str]) -> Markup:
    return Markup(  # noqa: S704 (every text in it was escaped)
        f'<svg class="{kind}" viewBox="{view}" role="img" aria-label="{escape(title)}">{"".join(parts)}</svg>'
    )
