"""Blind-answerability: how well answers are predicted from the words of their questions alone.

A dataset that answers itself teaches nothing about pictures. For each category a multinomial naive Bayes classifier
over the words of a question and their pairs (Manning, Raghavan and Schuetze, Introduction to Information Retrieval,
2008, chapter 13) learns answers from some scenes and is asked about the others. Its guess is the answer with the
best chance of success under the benchmark's tolerance: 25 % for lengths, an hour for directions, else the very
answer. Beside it stands *chance*, what can be had without reading: where answers are few (yes or no, one of the N
regions that can be it) a toss between them, else the one best answer of the category.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from srgpt.curation.reasoning import candidates
from srgpt.geometry.directions import hour_difference
from srgpt.records import UNIT_OF
from srgpt.storage import digest

FOLDS = 5
MAX_CONVERSATIONS = 4000
"""Larger datasets are measured on so many conversations, evenly spread: more would not move the figures."""

MIN_QUESTIONS = 20
"""Categories with fewer questions are not measured: the figures would be noise."""

_TOLERANCE = 0.25
"""Of lengths and ratios, relative: as in SpatialRGPT-Bench."""

_STEP = math.log(1.1)
"""Lengths are guessed on a logarithmic grid of this step."""

_WORD = re.compile(r"<region\d+>|[a-z]+|[0-9]+(?:\.[0-9]+)?")
_SMOOTHING = 1.0
_SIGMAS = 2.0
"""A lead is beyond doubt by so many standard errors."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class _Question:
    fold: int
    words: tuple[str, ...]
    answer: float
    regions: int


@dataclass
class Blind:
    """Collects questions, scene by scene; ``report`` predicts their answers."""

    questions: dict[str, list[_Question]] = field(default_factory=lambda: defaultdict(list))
    units: dict[str, str] = field(default_factory=dict)
    text: int = 0
    """Questions with free text for an answer, which nothing can grade."""

    def add(self, conversation: dict[str, Any]) -> None:
        """Add the turns of one conversation's row; all questions of a scene fall into one fold."""
        fold = int(digest(["blind", conversation["dataset"], conversation["scene_id"]])[:8], 16) % FOLDS
        for turn in conversation["turns"] or []:
            category, value = turn["category"], turn["value"]
            if value is None or not math.isfinite(value) or category not in UNIT_OF:
                self.text += 1
                continue
            words = features(turn["question"] or "")
            self.questions[category].append(_Question(fold, words, float(value), len(turn["regions"] or [])))

    def report(self) -> dict[str, Any]:
        """Return ``categories`` (per category: questions, from_text, same_answer, chance, lead, error) and ``text``."""
        rows = [_measure(c, self.questions[c]) for c in UNIT_OF if self.questions.get(c)]
        return {"categories": rows, "text": self.text}


def features(question: str) -> tuple[str, ...]:
    """Return the words of a question and their pairs, regions by their number."""
    words = _WORD.findall(question.lower())
    return (*words, *(f"{a} {b}" for a, b in pairwise(words)))


def rows(report: dict[str, Any], min_questions: int) -> list[dict[str, Any]]:
    """Return the rows of the ``blind`` frame: the lead beyond doubt, empty below ``min_questions``."""
    result = []
    for row in report["categories"]:
        judged = row["questions"] >= min_questions and row["lead"] is not None
        result.append(
            {
                **{name: row[name] for name in ("category", "questions", "from_text", "chance")},
                "judged_lead": row["lead"] - _SIGMAS * row["error"] if judged else None,
            }
        )
    return result


def _measure(category: str, questions: Sequence[_Question]) -> dict[str, Any]:
    unit = UNIT_OF[category]
    read, same = np.zeros(len(questions)), np.zeros(len(questions))
    folds = np.array([q.fold for q in questions])
    answers = np.array([q.answer for q in questions])
    predicted = 0
    for fold in range(FOLDS):
        asked, learnt = np.flatnonzero(folds == fold), np.flatnonzero(folds != fold)
        if not len(asked) or not len(learnt):
            continue
        predicted += len(asked)
        bayes = _Bayes([questions[int(i)].words for i in learnt], answers[learnt], unit)
        read[asked] = [_succeeds(bayes.guess(questions[int(i)].words), answers[i], unit) for i in asked]
        same[asked] = [_succeeds(bayes.best, answers[i], unit) for i in asked]
    row: dict[str, Any] = {"category": category, "questions": len(questions)}
    # too few, or of too few scenes to learn from some and ask about others
    if predicted < len(questions) or len(questions) < MIN_QUESTIONS:
        return {**row, **dict.fromkeys(("from_text", "same_answer", "chance", "lead", "error"))}
    from_text, alike = float(read.mean()), float(same.mean())
    chance = _toss(category, questions)
    chance = alike if chance is None else chance
    # the lead over the same answer is paired, the lead over a toss is not
    spread = read - same if chance == alike else read
    error = float(spread.std() / math.sqrt(len(questions)))
    figures = {"from_text": from_text, "same_answer": alike, "chance": chance}
    return {
        **row,
        **{name: round(value, 6) for name, value in figures.items()},
        "lead": round(from_text - chance, 6),
        "error": round(max(error, 0.5 / len(questions)), 6),
    }


def _toss(category: str, questions: Sequence[_Question]) -> float | None:
    """Return the chance of a toss between all possible answers; None where they are not few."""
    unit = UNIT_OF[category]
    if unit == "truth":
        return 0.5
    if unit == "region":
        return float(np.mean([1 / candidates(category, q.regions) for q in questions]))
    return None


def _succeeds(guess: float, answer: float, unit: str) -> bool:
    """Return whether a guess is right, under the benchmark's tolerance."""
    if unit == "clock_hours":
        return hour_difference(guess, answer) <= 1
    if unit in ("metres", "ratio"):
        return abs(guess - answer) <= _TOLERANCE * answer
    return guess == answer


class _Bayes:
    """Multinomial naive Bayes over word counts, whose guess has the best chance of success."""

    def __init__(self, texts: Sequence[Sequence[str]], answers: Floats, unit: str) -> None:
        self._columns = {word: i for i, word in enumerate(sorted({w for text in texts for w in text}))}
        labels = np.array([_label(a, unit) for a in answers])
        self._classes, index = np.unique(labels, return_inverse=True)
        counts = np.zeros((len(self._classes), len(self._columns)))
        for label, text in zip(index, texts, strict=True):
            for word, count in Counter(text).items():
                counts[label, self._columns[word]] += count
        smoothed = counts + _SMOOTHING
        self._words = np.log(smoothed / smoothed.sum(axis=1, keepdims=True))
        self._prior = np.log(np.bincount(index) / len(index))
        values = np.array([_value(c, unit) for c in self._classes])
        self._values = values
        self._success = np.array([[_succeeds(g, a, unit) for a in values] for g in values], dtype=np.float64)
        self.best = self._choose(np.exp(self._prior))

    def guess(self, text: Sequence[str]) -> float:
        """Return the answer that is most likely to succeed."""
        known = [self._columns[w] for w in text if w in self._columns]
        logs = self._prior + self._words[:, known].sum(axis=1)
        return self._choose(np.exp(logs - logs.max()))

    def _choose(self, weights: Floats) -> float:
        return float(self._values[int(np.argmax(self._success @ weights))])


def _label(answer: float, unit: str) -> float:
    return float(round(math.log(max(answer, 1e-3)) / _STEP)) if unit in ("metres", "ratio") else answer


def _value(label: float, unit: str) -> float:
    return math.exp(label * _STEP) if unit in ("metres", "ratio") else float(label)
