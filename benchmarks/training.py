"""Measure training: our loop beside a plain PyTorch loop, and beside padded rows of one question each.

    python benchmarks/training.py [--profile demo] [--blocks 5] [--in data/conversations/train]

All three train the same model on the same conversations in this one process, twenty steps at a time in turn, so that
what else the machine does befalls all alike. *ours* is what `srgpt train` does: the loader, DeepSpeed's engine, counts,
guards and reports, the last not sent. *plain* is forward, backward and the same optimizer's step on batches that are at
hand already. *padded* does as SpatialRGPT's loop would with questions that stand alone: each question in a row of its
own behind its picture, rows padded to the longest, the picture encoded for each. Tokens are those that differ between
questions, and a picture's once. Ends with one line of JSON.
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
from srgpt.training.guards import Guard
from srgpt.training.loop import take_step
from srgpt.training.metrics import Reporter
from srgpt.training.optimizer import make_optimizer
from srgpt.training.plan import plan
from srgpt.training.recipe import parameter_groups
from srgpt.training.session import Session
from srgpt.training.throughput import Work, memory
from srgpt.training.worker import Job, process_group

BLOCK = 20
"""Steps that each loop takes at a time: more than the loader has ready."""

IDLE = 3.0
"""Seconds that the loader gets to have its batches ready, so that the other loops are alone."""


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
        results = measure(session, arguments.blocks)
    for name, value in results.items():
        print(f"{name:32} {value:10.3f}")
    print(json.dumps(results))


def measure(session: Session, blocks: int) -> dict[str, float]:
    """Return tokens per second of each loop, their ratios, and our loop's share of waiting for data."""
    start = copy.deepcopy(session.model)
    engine, work = start_engine(session.model, session.recipe), Work(session.model)
    clip, guard = norm_to_clip(session.recipe), Guard(session.recipe.spike_factor)
    reporter = Reporter(lambda values, step: None, session.recipe.log_steps, families=FAMILIES, memory=memory)
    plain, padded = Plain(copy.deepcopy(start), session), Plain(start, session)
    padded.model.llm.set_attn_implementation("sdpa")
    seconds: defaultdict[str, float] = defaultdict(float)
    tokens = 0
    stream = session.batches()
    for block in range(1 + blocks):
        if block == 1:  # the first one warms up
            seconds.clear()
            tokens = 0
        taken: list[Batch] = []
        with clock(seconds, "ours"):
            for number in range(BLOCK):
                with clock(seconds, "waiting"):
                    batch = next(stream)
                rates = set_rates(engine, session.recipe.learning_rate)
                step = take_step(engine, [batch], FAMILIES, clip=clip, work=work)
                reporter.step(number, step, rates=rates)
                guard.check(step.loss, step.norm)
                taken.append(batch)
        rows = [
            one_question_rows(session.processor, [session.dataset[key] for key in batch["keys"]])
            for batch in taken
        ]
        time.sleep(IDLE)
        for name, loop, batches in (("plain", plain, taken), ("padded", padded, rows)):
            with clock(seconds, name):
                for batch in batches:
                    loop.step(batch)
        tokens += sum(batch["input_ids"].numel() for batch in taken)
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
    parser.add_argument("--blocks", type=int, default=5)
    parser.add_argument("--in", dest="source", default="data/conversations/train")
    return parser.parse_args()


if __name__ == "__main__":
    main()
