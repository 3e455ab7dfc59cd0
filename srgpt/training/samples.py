"""Pages of what the model answers while it is trained: a fixed handful of questions, with their pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Protocol

import jinja2
import torch

from srgpt.dataset.reading import Sample
from srgpt.dataset.sampler import Key
from srgpt.model.drawing import colour_of, data_uri, draw_masks
from srgpt.model.modeling import cast_pixels
from srgpt.model.pixels import Picture
from srgpt.model.processing import Question, SrgptProcessor
from srgpt.model.prompts import Inputs

COUNT = 8
"""Questions on a page."""

MAX_NEW_TOKENS = 48


class Dataset(Protocol):
    """What questions are taken from."""

    def __len__(self) -> int: ...

    def __getitem__(self, key: Key) -> Sample: ...


@dataclass(frozen=True, eq=False)
class Shown:
    """One question of the page: the turn ``turn`` of a sample's conversation."""

    sample: Sample
    picture: Picture
    turn: int

    @property
    def question(self) -> Question:
        """The question as the processor takes it."""
        turn = self.sample.conversation.turns[self.turn]
        return Question(turn.question, turn.regions, self.picture)

    def row(self, answer: str) -> dict[str, Any]:
        """Return what the page's template shows, with the model's ``answer``."""
        picture, turn = self.picture, self.sample.conversation.turns[self.turn]
        masks = [picture.masks[picture.region_ids.index(region)] for region in turn.regions]
        names = {r.id: r.category for r in self.sample.conversation.regions}
        return {
            "picture": data_uri(draw_masks(picture.rgb, masks)),
            "name": self.sample.conversation.conversation_id,
            "regions": [(k, colour_of(k), names.get(r, "")) for k, r in enumerate(turn.regions)],
            "question": turn.question,
            "truth": turn.answer,
            "answer": answer,
        }


def choose(dataset: Dataset, count: int = COUNT) -> list[Shown]:
    """Choose ``count`` questions, evenly over the data: the same ones always; what has no picture is left out."""
    indices = sorted({k * len(dataset) // count for k in range(count)})
    found = [dataset[(0, index)] for index in indices]
    return [
        Shown(s, s.picture, k % len(s.conversation.turns))
        for k, s in enumerate(found)
        if s.conversation.turns and s.picture is not None
    ]


@torch.no_grad()
def answers(
    model: Any, processor: SrgptProcessor, shown: Sequence[Shown], *, together: bool = False
) -> list[str]:
    """Ask the model greedily; it is left as it was, and no random number is drawn.

    Where ZeRO-3 spreads the weights over ranks, all ranks must call it, ``together``: layer by layer, the forward
    passes gather them as in training, so that no rank may end before the others.
    """
    seen: Inputs = "rgbd" if all(s.picture.has_depth for s in shown) else "rgb"
    batch = processor.batch([s.question for s in shown], seen)
    inputs = cast_pixels(batch.to(model.device), next(model.parameters()).dtype)
    training = model.training
    model.eval()
    try:
        made = model.generate(
            **inputs, do_sample=False, num_beams=1, max_new_tokens=MAX_NEW_TOKENS, synced_gpus=together
        )
    finally:
        model.train(training)
    return processor.answers(made, batch["input_ids"].shape[1])


def write_page(folder: Path, step: int, shown: Sequence[Shown], given: Sequence[str]) -> Path:
    """Write the page of ``step`` to ``folder``; it needs no other file."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    template = (resources.files("srgpt.training") / "samples.html.j2").read_text()
    rows = [s.row(a) for s, a in zip(shown, given, strict=True)]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"step-{step:06d}.html"
    partial = path.with_suffix(".partial")
    partial.write_text(environment.from_string(template).render(step=step, rows=rows))
    return partial.replace(path)
