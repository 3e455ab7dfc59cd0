"""Measure training: our loop beside a plain PyTorch loop, and beside padded rows of one question each.

    python benchmarks/training.py [--profile demo] [--steps 60] [--in data/conversations/train]

All three train the same model on the same conversations in this one process, step by step in turn, so that what else
the machine does befalls all alike. *ours* is what `srgpt train` does for a step: loader, DeepSpeed's engine, sums by
family, counts. *plain* is forward, backward and the same optimizer's step on a batch that is at hand already. *padded*
does as SpatialRGPT's loop would with questions that stand alone: each question in a row of its own behind its picture,
rows padded to the longest, the picture encoded for each. Tokens are those that differ between questions, and a
picture's once. Ends with one line of JSON.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import json
import os
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from typing import Any

import torch

from srgpt.dataset.collator import Batch, model_inputs
from srgpt.dataset.packing import FAMILIES, IGNORE
from srgpt.dataset.reading import Sample
from srgpt.model.processing import Question, SrgptProcessor, index_inputs
from srgpt.params import Params, load
from srgpt.training.engine import norm_to_clip, set_rates, start_engine
from srgpt.training.loop import take_step
from srgpt.training.optimizer import make_optimizer
from srgpt.training.plan import plan
from srgpt.training.recipe import parameter_groups
from srgpt.training.session import Session
from srgpt.training.throughput import Work
from srgpt.training.worker import Job, process_group

WARM_UP = 10
"""Steps that do not count."""


def main() -> None:
    """Measure, print, and end with JSON."""
    arguments = _arguments()
    params = load(None, arguments.profile)
    os.environ |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29511"}
    with process_group():
        if params.train.threads:
            torch.set_num_threads(params.train.threads)
        session = _session(params, arguments.source)
        results = measure(session, arguments.steps)
    for name, value in results.items():
        print(f"{name:32} {value:10.3f}")
    print(json.dumps(results))


def measure(session: Session, steps: int) -> dict[str, float]:
    """Return tokens per second of each loop, their ratios, and our loop's share of waiting for data."""
    start = copy.deepcopy(session.model)
    engine, work = start_engine(session.model, session.recipe), Work(session.model)
    clip = norm_to_clip(session.recipe)
    plain, padded = Plain(copy.deepcopy(start), session), Plain(start, session)
    padded.model.llm.set_attn_implementation("sdpa")
    seconds: defaultdict[str, float] = defaultdict(float)
    tokens = 0
    stream = session.batches()
    for step in range(WARM_UP + steps):
        if step == WARM_UP:
            seconds.clear()
            tokens = 0
        with clock(seconds, "ours"), clock(seconds, "waiting"):
            batch = next(stream)
        for name in (
            ("ours", "plain") if step % 2 else ("plain", "ours")
        ):  # what comes first finds caches cold
            with clock(seconds, name):
                if name == "plain":
                    plain.step(batch)
                else:
                    set_rates(engine, session.recipe.learning_rate)
                    take_step(engine, [batch], FAMILIES, clip=clip, work=work)
        rows = one_question_rows(session.processor, [session.dataset[key] for key in batch["keys"]])
        with clock(seconds, "padded"):
            padded.step(rows)
        tokens += batch["input_ids"].numel()
    return {
        **{f"{name} tokens/s": tokens / seconds[name] for name in ("ours", "plain", "padded")},
        "ours / plain": seconds["plain"] / seconds["ours"],
        "ours / padded": seconds["padded"] / seconds["ours"],
        "share of waiting for data": seconds["waiting"] / seconds["ours"],
    }


@contextlib.contextmanager
def clock(seconds: defaultdict[str, float], name: str) -> Iterator[None]:
    """Add the seconds of a block to those of ``name``."""
    started = time.perf_counter()
    yield
    seconds[name] += time.perf_counter() - started


class Plain:
    """The shortest loop that trains: forward, backward, clip, the same optimizer."""

    def __init__(self, model: Any, session: Session) -> None:
        self.model = model.train()
        self.clipping = session.recipe.gradient_clipping
        self.optimizer = make_optimizer(parameter_groups(model, session.recipe), session.recipe)

    def step(self, batch: Batch) -> None:
        """Take a step with a batch."""
        self.model(**model_inputs(batch)).loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.clipping)
        self.optimizer.step()
        self.optimizer.zero_grad()


def one_question_rows(processor: SrgptProcessor, samples: Sequence[Sample]) -> Batch:
    """Return each turn of the samples as a padded row of its own, with a picture of its own."""
    rows, questions = [], []
    for sample in samples:
        for turn in sample.conversation.turns:
            picture = replace(sample.picture)  # another object is another picture  # type: ignore[type-var]
            questions.append(Question(turn.question, turn.regions, picture))
            asked = [
                *processor.prefix_ids("rgbd"),
                *processor.turn_ids(turn.question, len(turn.regions), "rgbd"),
            ]
            rows.append((asked, processor.encode_answer(turn.answer)[0]))
    length = max(len(asked) + len(answer) for asked, answer in rows)
    pad = processor.tokenizer.pad_token_id
    ids, labels, mask = [], [], []
    for asked, answer in rows:
        empty = length - len(asked) - len(answer)
        ids.append([*asked, *answer, *[pad] * empty])
        labels.append([*[IGNORE] * len(asked), *answer, *[IGNORE] * empty])
        mask.append([1] * (length - empty) + [0] * empty)
    return {
        "input_ids": torch.tensor(ids),
        "labels": torch.tensor(labels),
        "attention_mask": torch.tensor(mask),
        **processor.pixel_inputs([q.picture for q in questions if q.picture is not None]),
        **index_inputs(processor.mentions(questions, "rgbd")),
    }


def _session(params: Params, source: str) -> Session:
    stage = plan(params, source)[0]
    job = Job(params.dump(), 0, [asdict(s) for s in stage.sources], {}, "", "")
    return Session(job, params, 0, 1)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])  # type: ignore[union-attr]
    parser.add_argument("--profile", default="demo")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--in", dest="source", default="data/conversations/train")
    return parser.parse_args()


if __name__ == "__main__":
    main()
