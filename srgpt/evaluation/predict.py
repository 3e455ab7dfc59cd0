"""A model's answers to a benchmark: greedy, in batches, every image encoded once for all its questions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from srgpt.errors import InputError
from srgpt.evaluation.grading import grade
from srgpt.model import SrgptForConditionalGeneration, SrgptProcessor
from srgpt.model.loading import load_model
from srgpt.model.modeling import cast_pixels
from srgpt.model.pixels import Picture
from srgpt.model.processing import Question, box_shares
from srgpt.model.prompts import Inputs
from srgpt.records import CATEGORIES, Conversation, Prediction, Rejected, Scene


@dataclass(frozen=True, eq=False)
class Asked:
    """The questions of one conversation that are to be answered, with its picture ready for the model."""

    conversation: Conversation
    turns: tuple[int, ...]
    """Indices into ``conversation.turns``."""
    picture: Picture

    def questions(self, inputs: Inputs) -> list[Question]:
        """Return the questions as the processor takes them."""
        picture = None if inputs == "blind" else self.picture
        turns = [self.conversation.turns[i] for i in self.turns]
        return [
            Question(t.question, t.regions, picture, box_shares(self.conversation, t.regions)) for t in turns
        ]


class Predictor:
    """Answers questions with one model, greedily, so that the same question always gets the same answer."""

    def __init__(
        self,
        model: SrgptForConditionalGeneration,
        processor: SrgptProcessor,
        *,
        batch_size: int = 64,
        max_new_tokens: int = 32,
    ) -> None:
        self.model = model.eval()
        self.processor = processor
        self.batch_size = batch_size
        self.max_new_tokens = max_new_tokens

    @classmethod
    def load(cls, folder: Path, *, batch_size: int = 64, max_new_tokens: int = 32) -> Predictor:
        """Load a model folder: float32 on a CPU, as it was saved on a GPU.

        Raises :class:`InputError` where the folder does not hold a whole model.
        """
        device = "cuda" if torch.cuda.is_available() else "cpu"
        model, processor = load_model(folder, "float32" if device == "cpu" else "auto")
        model = model.to(torch.device(device))  # type: ignore[arg-type]
        return cls(model, processor, batch_size=batch_size, max_new_tokens=max_new_tokens)

    def prepare(
        self, conversations: Iterable[Conversation], scenes: dict[str, Scene], limit: int | None = None
    ) -> tuple[list[Asked], list[Rejected]]:
        """Pair conversations with their pictures, for at most ``limit`` questions.

        A conversation whose picture cannot be read is set aside with the reason. Raises :class:`InputError`
        where a scene is missing: the tables then do not belong together.
        """
        asked: list[Asked] = []
        rejected: list[Rejected] = []
        for conversation in conversations:
            turns = gradable(conversation)[:limit]
            if not turns:
                continue
            scene = scenes.get(conversation.scene_id)
            if scene is None:
                raise InputError(
                    f"scene {conversation.scene_id} of conversation {conversation.conversation_id} is not "
                    "among the perceived scenes; rebuild the conversations with `srgpt lift` and `srgpt ask`"
                )
            try:
                picture = self.processor.picture_of(scene, conversation)
            except (InputError, OSError) as error:
                rejected.append(Rejected(conversation.conversation_id, "picture-unusable", str(error)))
                continue
            asked.append(Asked(conversation, turns, picture))
            limit = None if limit is None else limit - len(turns)
        return asked, rejected

    def predict(
        self, asked: Sequence[Asked], inputs: Inputs, advance: Callable[[int], object] = lambda _: None
    ) -> list[Prediction]:
        """Answer and grade questions, in their order; ``advance`` is told how many more are done."""
        predictions: list[Prediction] = []
        for batch in batches(asked, self.batch_size):
            answers = self.answer([q for a in batch for q in a.questions(inputs)], inputs)
            turns = [(a.conversation, i) for a in batch for i in a.turns]
            predictions += [_graded(c, i, t, inputs) for (c, i), t in zip(turns, answers, strict=True)]
            advance(len(turns))
        return predictions

    @torch.inference_mode()
    def answer(self, questions: Sequence[Question], inputs: Inputs) -> list[str]:
        """Answer one batch of questions."""
        batch = cast_pixels(self.processor.batch(questions, inputs).to(self.model.device), self.model.dtype)
        generated = self.model.generate(
            **batch, do_sample=False, num_beams=1, max_new_tokens=self.max_new_tokens
        )
        return self.processor.answers(generated, batch["input_ids"].shape[1])


def gradable(conversation: Conversation) -> tuple[int, ...]:
    """Return the turns of the benchmark's categories: others have no rule by which an answer is right."""
    turns = enumerate(conversation.turns)
    return tuple(i for i, turn in turns if turn.category in CATEGORIES and turn.value is not None)


def batches(asked: Sequence[Asked], size: int) -> Iterator[list[Asked]]:
    """Group conversations into batches of at most ``size`` questions.

    A conversation stays whole, so that its image is encoded once, unless it alone is larger than a batch.
    """
    batch: list[Asked] = []
    filled = 0
    for item in asked:
        for start in range(0, len(item.turns), size):
            part = Asked(item.conversation, item.turns[start : start + size], item.picture)
            if batch and filled + len(part.turns) > size:
                yield batch
                batch, filled = [], 0
            batch.append(part)
            filled += len(part.turns)
    if batch:
        yield batch


def _graded(conversation: Conversation, index: int, text: str, inputs: Inputs) -> Prediction:
    turn = conversation.turns[index]
    assert turn.value is not None
    result = grade(text, turn.category, turn.value)
    return Prediction(
        conversation.dataset,
        conversation.scene_id,
        conversation.conversation_id,
        index,
        turn.category,
        turn.question,
        turn.answer,
        text,
        turn.value,
        turn.unit,
        result.predicted,
        result.success,
        result.error,
        inputs,
        turn.regions,
    )
