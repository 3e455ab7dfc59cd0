"""Rephrasing: a language model puts questions and answers into other words, and every rewrite is checked.

Two modes. ``paraphrase`` rewrites the question and the answer of a turn, each by itself. ``reason`` takes the turn
as a fact and writes a question that needs it and an answer that uses it. In both the turn keeps its regions, its
category and its value; a rewrite that does not pass :func:`srgpt.curation.rewrites.problem` is asked for once more,
and then the template stays.

A model's answers are not deterministic, but the cache is: what one run wrote, a run with the same cache writes
again, whatever its concurrency.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from srgpt.curation import rewrites
from srgpt.curation.completions import Completion, Endpoint, Failure, Message, Request
from srgpt.geometry.language import verdict
from srgpt.params import RephraseParams
from srgpt.randomness import seeded
from srgpt.records import Conversation, Turn

log = logging.getLogger(__name__)

PROMPTS = {"paraphrase": ("question", "answer"), "reason": ("reason",)}
"""Which prompts of ``rephrasing.yaml`` a mode uses, one after the other."""

FIELDS: dict[str, tuple[str, ...]] = {
    "question": ("question",),
    "answer": ("answer",),
    "reason": ("question", "answer"),
}
"""Which texts each prompt asks for."""


def rephrase(
    conversations: Sequence[Conversation], params: RephraseParams, seed: int
) -> tuple[list[Conversation], Counter[str]]:
    """Rewrite a share of the turns of one shard; return all its conversations, and counts that add up over shards.

    Counts: ``turns``, ``chosen`` for rewriting, ``rephrased``, ``kept/REASON`` (the template stayed), ``rewrites``
    looked at, ``accepted``, ``rejected/REASON``, and those of :class:`Endpoint`. Raises :class:`InputError` where
    the cache cannot be used, and :class:`SrgptError` where ``params.required`` and the endpoint fails.
    """
    counts: Counter[str] = Counter(turns=sum(len(c.turns) for c in conversations))
    jobs = [job for index, c in enumerate(conversations) for job in _jobs(index, c, params, seed)]
    counts["chosen"] = len(jobs)
    rewritten = asyncio.run(_rewrite_all(jobs, params, counts)) if jobs else {}
    return [
        replace(c, turns=tuple(rewritten.get((i, k), turn) for k, turn in enumerate(c.turns)))
        for i, c in enumerate(conversations)
    ], +counts  # none that are 0


def statistics(counts: Mapping[str, int], params: RephraseParams) -> dict[str, Any]:
    """Return the figures of a whole dataset: acceptance, what was kept and rejected and why, tokens and cost."""
    cost = (
        counts.get("prompt_tokens", 0) * params.input_price
        + counts.get("completion_tokens", 0) * params.output_price
    ) / 1e6
    plain = ("turns", "chosen", "rephrased", "rewrites", "accepted")
    paid = ("requests", "cache_hits", "retries", "failed", "prompt_tokens", "completion_tokens")
    return {
        **{name: counts.get(name, 0) for name in plain},
        "acceptance": round(counts.get("accepted", 0) / max(counts.get("rewrites", 0), 1), 4),
        **{f"{group}_by_reason": _by_reason(counts, group) for group in ("kept", "rejected")},
        **{name: counts.get(name, 0) for name in paid},
        "cost": round(cost, 6),
    }


def _by_reason(counts: Mapping[str, int], group: str) -> dict[str, int]:
    found = {k.partition("/")[2]: v for k, v in counts.items() if k.startswith(f"{group}/")}
    return dict(sorted(found.items()))


# One turn -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Job:
    """A turn to rewrite: where it is, what its regions show, and which of the ``variants`` each prompt gets."""

    place: tuple[int, int]
    turn: Turn
    categories: tuple[str, ...]
    forbidden: tuple[str, ...]
    variants: tuple[int, ...]


def _jobs(index: int, conversation: Conversation, params: RephraseParams, seed: int) -> Iterator[_Job]:
    """Draw the turns to rewrite, and their variants, from the conversation's name alone."""
    rng = seeded(seed, conversation.dataset, conversation.scene_id, conversation.conversation_id, "rephrase")
    count = len(conversation.turns)
    draws, variants = rng.random(count), rng.integers(params.variants, size=(count, 2))
    shows = {region.id: region.category for region in conversation.regions}
    forbidden = () if params.allow_categories else tuple(sorted(set(shows.values())))
    for k, turn in enumerate(conversation.turns):
        if draws[k] < params.share:
            categories = tuple(shows.get(region, "") for region in turn.regions)
            yield _Job((index, k), turn, categories, forbidden, tuple(int(v) for v in variants[k]))


async def _rewrite_all(
    jobs: Sequence[_Job], params: RephraseParams, counts: Counter[str]
) -> dict[tuple[int, int], Turn]:
    """Rewrite all turns, ``params.concurrency`` at a time; return the changed ones by their place."""
    todo, done = iter(jobs), {}
    async with Endpoint(params, counts) as endpoint:

        async def work() -> None:
            for job in todo:  # shared by all workers
                turn, reason = await _rewrite(job, endpoint, params, counts)
                if turn != job.turn:
                    counts["rephrased"] += 1
                    done[job.place] = turn
                else:
                    counts[f"kept/{reason}"] += 1

        await asyncio.gather(*(work() for _ in range(min(params.concurrency, len(jobs)))))
        _warn(endpoint, params, counts)
    return done


def _warn(endpoint: Endpoint, params: RephraseParams, counts: Counter[str]) -> None:
    if not counts["failed"]:
        return
    kept = counts["kept/endpoint-failed"] + counts["kept/endpoint-given-up"]
    tried = f"{params.attempts} attempts each" if params.attempts > 1 else "one attempt each"
    gave_up = "It was given up for this shard. " if endpoint.given_up else ""
    log.warning(
        "ask.rephrase: %s: %d requests failed (%s; the last: %s). %s%d questions of this shard keep their templates. "
        "Start the server, or correct the endpoint, the model or the key in %s, and run ask again: what was answered "
        "is kept. ask.rephrase.required=true stops instead.",
        params.endpoint, counts["failed"], tried, endpoint.trouble, gave_up, kept, params.api_key_env,
    )  # fmt: skip


async def _rewrite(
    job: _Job, endpoint: Endpoint, params: RephraseParams, counts: Counter[str]
) -> tuple[Turn, str]:
    """Rewrite one turn, prompt by prompt; return it with the reason why the last prompt changed nothing, if any."""
    turn, reason = job.turn, ""
    for name, variant in zip(PROMPTS[params.mode], job.variants, strict=False):
        found = await _ask(name, variant, job, turn, endpoint, params, counts)
        if isinstance(found, Turn):
            turn = found
        else:
            reason = found
    return turn, reason


async def _ask(
    name: str,
    variant: int,
    job: _Job,
    turn: Turn,
    endpoint: Endpoint,
    params: RephraseParams,
    counts: Counter[str],
) -> Turn | str:
    """Ask with one prompt, again with what was wrong; return the changed turn, or the last reason."""
    limits = rewrites.Limits(params.max_characters, job.forbidden, free_question=name == "reason")
    names = job.categories if params.allow_categories else ()
    messages, reason = prompt(name, job.turn, variant, names), ""
    for _ in range(params.rewrites):
        answer = await endpoint.complete(Request(tuple(messages), FIELDS[name], variant))
        if isinstance(answer, Failure):
            return answer.reason
        counts["rewrites"] += 1
        found = read(answer, job.turn, FIELDS[name], limits)
        if isinstance(found, dict):
            counts["accepted"] += 1
            return _with(turn, found)
        reason = found
        counts[f"rejected/{reason}"] += 1
        messages = [*messages, *_again(answer, reason)]
    return reason


def read(
    completion: Completion, template: Turn, fields: Sequence[str], limits: rewrites.Limits
) -> dict[str, str] | str:
    """Return the texts of a completion that may stand in for the template's, or the reason why they may not."""
    if completion.finish in ("length", "content_filter"):
        return "cut-off" if completion.finish == "length" else "refused"
    found = rewrites.read_fields(completion.text, fields)
    if isinstance(found, str):
        return found
    tidy = {"question": rewrites.tidy_question, "answer": rewrites.tidy_answer}
    found = {name: tidy[name](text) for name, text in found.items()}
    return rewrites.problem(template, _with(template, found), limits) or found


def _with(turn: Turn, texts: Mapping[str, str]) -> Turn:
    question, answer = texts.get("question", turn.question), texts.get("answer", turn.answer)
    return replace(turn, question=question, answer=answer)


# Prompts --------------------------------------------------------------------------------------------------


def prompt(name: str, turn: Turn, variant: int, categories: Sequence[str] = ()) -> list[Message]:
    """Return the messages of a prompt of ``rephrasing.yaml`` about a turn.

    ``categories`` name what the turn's regions show, in their order; empty where the model must not know.
    """
    data = rewrites.words()
    told, styles = data[name], data["styles"]
    messages = [{"role": "system", "content": told["system"].strip()}]
    for example in told["examples"]:
        messages += [
            {"role": "user", "content": _fill(told["user"], {"names": "", **example})},
            {"role": "assistant", "content": _json(example["output"])},
        ]
    shown = ", ".join(f"<region{k}> is a {c}" for k, c in enumerate(categories) if c)
    values = {
        "question": turn.question,
        "answer": turn.answer,
        "value": must_say(turn),
        "names": f"\nWhat they show: {shown}." if shown else "",
        "style": styles[variant % len(styles)],
    }
    return [*messages, {"role": "user", "content": _fill(told["user"], values)}]


def _fill(template: str, values: Mapping[str, Any]) -> str:
    return template.strip().format_map(values)


def _json(value: Mapping[str, str]) -> str:
    return json.dumps(value, ensure_ascii=False)


def must_say(turn: Turn) -> str:
    """Return what an answer to a turn concludes, in the words of its template."""
    if turn.unit == "truth" and not turn.category.endswith("_choice"):
        return "yes" if turn.value else "no"
    concluded = verdict(turn.answer).strip()
    return concluded[:-1] if concluded.endswith(".") else concluded


def _again(answer: Completion, reason: str) -> list[Message]:
    data = rewrites.words()
    return [
        {"role": "assistant", "content": answer.text[:2000] or "-"},
        {"role": "user", "content": data["again"].format(problem=data["problems"][reason])},
    ]
