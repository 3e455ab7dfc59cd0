"""Questions per second of the evaluation: batched, every image encoded once, against one question at a time.

A model of the demo's size with random weights answers questions about procedural scenes; each answer runs to
the same number of tokens, so both ways do the same work. The answers must be the same.

    python benchmarks/evaluation.py [--scenes 40] [--tokens 16]
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import torch

from srgpt.evaluation.predict import Asked, Predictor
from srgpt.model.build import build_model, build_processor
from srgpt.model.tokenizer import train_tokenizer
from srgpt.params import Params, load
from srgpt.records import Conversation, Scene
from srgpt.stages import ask, ingest, lift, perceive
from srgpt.storage import read_rows


def make_questions(params: Params, folder: Path) -> tuple[list[Conversation], dict[str, Scene]]:
    urls = {n: str(folder / n) for n in ("scenes", "perceived", "graphs", "conversations")}
    ingest.run(params, source=None, out=urls["scenes"], dataset="bench")
    perceive.run(params, source=urls["scenes"], out=urls["perceived"])
    lift.run(params, source=urls["perceived"], out=urls["graphs"])
    ask.run(params, source=urls["graphs"], out=urls["conversations"])
    conversations = [Conversation.from_row(r) for r in read_rows(urls["conversations"], "conversations")]
    scenes = [Scene.from_row(r) for r in read_rows(urls["perceived"], "scenes")]
    return conversations, {s.scene_id: s for s in scenes}


def timed(predictor: Predictor, asked: list[Asked]) -> tuple[list[str], float]:
    started = time.perf_counter()
    answers = [p.prediction for p in predictor.predict(asked, "rgbd")]
    return answers, time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenes", type=int, default=40)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=16)
    arguments = parser.parse_args()
    params = load(overrides=[f"ingest.scenes={arguments.scenes}", "engine.workers=1"], cwd=Path("/"))
    with tempfile.TemporaryDirectory() as folder:
        conversations, scenes = make_questions(params, Path(folder))
    texts = [t for c in conversations for turn in c.turns for t in (turn.question, turn.answer)]
    tokenizer = train_tokenizer(texts, params.train.model.text.vocab_size)
    model = build_model(params.train.model, tokenizer, seed=params.seed)
    model.generation_config.eos_token_id = None
    processor = build_processor(params.train.model, tokenizer)
    batched = Predictor(model, processor, batch_size=arguments.batch, max_new_tokens=arguments.tokens)
    single = Predictor(model, processor, batch_size=1, max_new_tokens=arguments.tokens)
    asked, _ = batched.prepare(conversations, scenes)
    batched.predict(asked[:2], "rgbd")
    single.predict(asked[:1], "rgbd")
    answers, seconds = timed(batched, asked)
    one_by_one, single_seconds = timed(single, asked)
    assert answers == one_by_one, "batched answers differ from those to single questions"
    figures = {
        "questions": len(answers),
        "tokens_per_answer": arguments.tokens,
        "batch_size": arguments.batch,
        "threads": torch.get_num_threads(),
        "batched_questions_per_second": round(len(answers) / seconds, 2),
        "single_questions_per_second": round(len(answers) / single_seconds, 2),
        "ratio": round(single_seconds / seconds, 2),
        "identical_answers": True,
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
