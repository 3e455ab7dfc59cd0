"""The page that people look at: scores on top, examples below, everything in one file."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

import jinja2
from markupsafe import Markup, escape

from srgpt.evaluation.controls import TITLES, Variants
from srgpt.evaluation.statistics import GROUPS
from srgpt.model.drawing import colour_of, data_uri, draw_regions
from srgpt.model.prompts import Inputs
from srgpt.records import GROUP_OF, AskedRegion, Conversation, Prediction, Scene
from srgpt.storage import digest

_MENTION = re.compile(r"&lt;region(\d{1,3})&gt;|[Rr]egion \[(\d{1,3})\]")


@dataclass(frozen=True)
class Example:
    """One question with its picture and everybody's answers, as the page shows it."""

    group: str
    scene: str
    picture: str
    """A ``data:`` URI."""
    question: Markup
    truth: Markup
    regions: tuple[tuple[str, str], ...]
    """Colour and category of each asked region, in the order of mention."""
    answers: tuple[tuple[str, Markup, bool], ...]
    """Title of the input, answer, and whether it is right; the model's own first."""

    @property
    def right(self) -> bool:
        """Whether the model's own answer is right."""
        return self.answers[0][2]


def choose(predictions: Sequence[Prediction], count: int) -> list[Prediction]:
    """Choose examples evenly over the groups, right or wrong: by a hash of the question's identity."""
    piles: dict[str, list[Prediction]] = {g: [] for g in GROUPS}
    for prediction in sorted(predictions, key=lambda p: digest([p.scene_id, p.conversation_id, p.turn])):
        piles[GROUP_OF[prediction.category]].append(prediction)
    rounds = max(map(len, piles.values()), default=0)
    return [p[i] for i in range(rounds) for p in piles.values() if i < len(p)][:count]


def make_examples(
    predictions: Mapping[Inputs, Sequence[Prediction]],
    variants: Variants,
    count: int,
    conversations: Iterable[Conversation],
    scenes: Iterable[Scene],
) -> list[Example]:
    """Choose ``count`` questions and draw them; conversations and scenes are read once, as they come."""
    chosen = choose(predictions[variants.main], count)
    wanted = {p.conversation_id for p in chosen}
    regions = {
        c.conversation_id: {r.id: r for r in c.regions} for c in conversations if c.conversation_id in wanted
    }
    scene_ids = {p.scene_id for p in chosen}
    pictures = {s.scene_id: s for s in scenes if s.scene_id in scene_ids}
    answers = {(i, p.conversation_id, p.turn): p for i, found in predictions.items() for p in found}
    examples = []
    for prediction in chosen:
        asked = [regions[prediction.conversation_id][k] for k in prediction.regions]
        given = [answers[i, prediction.conversation_id, prediction.turn] for i in variants.inputs]
        examples.append(_example(prediction, asked, pictures[prediction.scene_id], given))
    return examples


def _example(
    prediction: Prediction, asked: Sequence[AskedRegion], scene: Scene, given: Sequence[Prediction]
) -> Example:
    return Example(
        GROUP_OF[prediction.category],
        prediction.scene_id,
        data_uri(draw_regions(scene, asked)),
        with_chips(prediction.question),
        with_chips(prediction.answer),
        tuple((colour_of(k), r.category) for k, r in enumerate(asked)),
        tuple((TITLES[p.inputs], with_chips(p.prediction), p.success) for p in given),
    )


def with_chips(text: str) -> Markup:
    """Escape a text and show every region in it as a chip of the region's colour."""

    def chip(match: re.Match[str]) -> str:
        number = int(match[1] or match[2])
        return f'<span class="chip" style="--chip:{colour_of(number)}">Region {number}</span>'

    return Markup(_MENTION.sub(chip, str(escape(text))))  # noqa: S704 (escaped just before)


def render(page: Mapping[str, Any], examples: Sequence[Example], plots: Mapping[str, bytes]) -> str:
    """Render the page from the figures in ``page`` (see ``report.page_of``), examples and SVG plots."""
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = (resources.files("srgpt.evaluation") / "gallery.html.j2").read_text()
    images = {n: "data:image/svg+xml;base64," + base64.b64encode(svg).decode() for n, svg in plots.items()}
    return environment.from_string(template).render(**page, examples=examples, plots=images)
