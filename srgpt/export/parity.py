"""The proof that an export says what the model says: logits and greedy answers on benchmark questions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from srgpt.errors import SrgptError
from srgpt.export.questions import AskedTurn
from srgpt.model.modeling import PIXEL_INPUTS, SrgptForConditionalGeneration
from srgpt.model.processing import Question, SrgptProcessor
from srgpt.model.prompts import Inputs
from srgpt.params import ExportParams
from srgpt.progress import progress_bar
from srgpt.serving.engine import Engine
from srgpt.serving.protocol import RequestError


@dataclass(frozen=True)
class Compared:
    """One question put to both: the largest relative logit error, and both greedy answers."""

    question: str
    category: str
    inputs: Inputs
    logit_error: float
    expected: str
    exported: str

    @property
    def same(self) -> bool:
        """Whether the answers are the same."""
        return self.expected == self.exported


@dataclass(frozen=True)
class Parity:
    """All questions compared, and what was allowed."""

    rows: tuple[Compared, ...]
    max_logit_error_allowed: float
    min_agreement_allowed: float

    @property
    def max_logit_error(self) -> float:
        """The worst relative logit error; NaN where any logit is not a number."""
        return float(np.max([r.logit_error for r in self.rows]))

    @property
    def agreement(self) -> float:
        """Share of questions with the same answer."""
        return sum(r.same for r in self.rows) / len(self.rows)

    @property
    def passed(self) -> bool:
        """Whether the export may be used; an error that is not a number is no proof."""
        logits = self.max_logit_error <= self.max_logit_error_allowed
        return logits and self.agreement >= self.min_agreement_allowed

    def to_json(self) -> dict[str, Any]:
        """Convert to what ``parity.json`` holds: the figures, and every question, differences first."""
        rows = sorted(self.rows, key=lambda r: (r.same, -r.logit_error))
        return {
            "passed": self.passed,
            "questions": len(self.rows),
            "max_logit_error": self.max_logit_error,
            "max_logit_error_allowed": self.max_logit_error_allowed,
            "same_answers": sum(r.same for r in self.rows),
            "agreement": self.agreement,
            "min_agreement_allowed": self.min_agreement_allowed,
            "rows": [{**asdict(r), "same": r.same} for r in rows],
        }

    def check(self, report: Path | str) -> None:
        """Raise :class:`SrgptError` where the export did not pass; ``report`` is where the details are."""
        if self.passed:
            return
        differing = [r for r in self.rows if not r.same]
        example = ""
        if differing:
            first = differing[0]
            example = (
                f" For {first.question!r} PyTorch says {first.expected!r}, the export {first.exported!r}."
            )
        raise SrgptError(
            f"export: no parity with PyTorch: max relative logit error {self.max_logit_error:.3g} (allowed "
            f"{self.max_logit_error_allowed:g}, export.max_logit_error), same greedy answer to "
            f"{len(self.rows) - len(differing)} of {len(self.rows)} questions (needed: "
            f"{self.min_agreement_allowed:.0%}, export.min_parity_agreement).{example} See {report}."
        )


def compare(
    model: SrgptForConditionalGeneration,
    processor: SrgptProcessor,
    engine: Engine,
    asked: Sequence[AskedTurn],
    params: ExportParams,
) -> Parity:
    """Ask the model in PyTorch and the engine the same questions.

    The logits are compared over the whole prompt and PyTorch's answer, so that cached decoding cannot hide a
    difference; the answers come from batched, cached decoding on both sides.
    """
    requests = [a.request() for a in asked]
    exported = engine.answer(requests)
    rows = []
    with progress_bar("export: parity", total=len(asked), unit="questions") as advance:
        for item, request, answer in zip(asked, requests, exported, strict=True):
            if isinstance(answer, RequestError):
                raise SrgptError(
                    f"scene {item.scene.scene_id}: the export cannot read a benchmark question: {answer}"
                )
            picture = processor.picture_of(item.scene, item.conversation)
            inputs: Inputs = "rgbd" if picture.has_depth else "rgb"
            turn = item.conversation.turns[item.turn]
            question = Question(turn.question, turn.regions, picture)
            ids, logits_TV, expected = _ask_model(model, processor, question, inputs, engine.max_new_tokens)
            prompt_TD = engine.prompt(request)
            continued_TD = np.concatenate([prompt_TD, engine.decoder.embed(np.array(ids, dtype=np.int64))])
            error = logit_error(logits_TV, engine.decoder.logits(continued_TD))
            rows.append(Compared(turn.question, turn.category, inputs, error, expected, answer.text))
            advance(1)
    return Parity(tuple(rows), params.max_logit_error, params.min_parity_agreement)


def logit_error(expected: NDArray[np.floating[Any]], found: NDArray[np.floating[Any]]) -> float:
    """Return max over positions of max |difference| / max |expected|, both (T, V): NaN and infinity stay."""
    if expected.shape != found.shape:
        return float("inf")
    scale = np.abs(expected).max(axis=-1)
    return float((np.abs(expected - found).max(axis=-1) / np.maximum(scale, 1e-12)).max())


@torch.inference_mode()
def _ask_model(
    model: SrgptForConditionalGeneration,
    processor: SrgptProcessor,
    question: Question,
    inputs: Inputs,
    max_new_tokens: int,
) -> tuple[list[int], NDArray[np.float32], str]:
    """Return the answer's token ids, the logits (T, V) over prompt and answer, and the answer's text."""
    batch = processor.batch([question], inputs)
    generate: Callable[..., torch.Tensor] = model.generate  # type: ignore[assignment,misc]
    generated = generate(**batch, do_sample=False, num_beams=1, max_new_tokens=max_new_tokens)
    start = batch["input_ids"].shape[1]
    pixels = {name: value for name, value in batch.items() if name in PIXEL_INPUTS}
    # a placeholder that the model itself wrote is a word like any other, so its answer is embedded as text
    answer_BLD = model.get_input_embeddings()(generated[:, start:])
    embeds_BLD = torch.cat([model.embed(batch["input_ids"], **pixels), answer_BLD], dim=1)
    logits = model(inputs_embeds=embeds_BLD).logits[0].float().numpy()
    return generated[0, start:].tolist(), logits, processor.answers(generated, start)[0]
