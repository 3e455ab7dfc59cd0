"""The training loop of one rank.

Axes: B rows of text, L tokens of a row, N labelled tokens of a batch, F families of questions.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from srgpt.dataset.collator import Batch, model_inputs, to_device
from srgpt.dataset.sampler import Key, PermutationSampler, SamplerState
from srgpt.errors import InputError, SrgptError
from srgpt.model.modeling import cast_pixels
from srgpt.params import TrainParams
from srgpt.randomness import seeded
from srgpt.training import checkpoint
from srgpt.training.checkpoint import Progress
from srgpt.training.engine import norm_to_clip, set_rates
from srgpt.training.guards import Guard
from srgpt.training.metrics import Reporter, Step
from srgpt.training.recipe import learning_rate
from srgpt.training.stopping import StoppedError


@dataclass(frozen=True)
class Outcome:
    """How training ended."""

    steps: int
    loss: float
    """Loss of the last step, over all ranks."""
    seconds: float
    resumed_at: int


@dataclass(frozen=True)
class Hooks:
    """What is to be done around the steps; by default nothing."""

    advance: Callable[..., None] = lambda steps=1, note="": None
    """Told how many steps more are done."""
    stop: Callable[[], bool] = lambda: False
    """Asked once a step whether this rank was asked to stop."""
    after: Callable[[int], None] = lambda step: None
    """Called on every rank after every step."""
    work: Callable[[Batch], float] = lambda batch: 0.0
    """Counts the FLOPs of a batch."""
    name_of: Callable[[Key], str] = str
    """Gives the conversation of a sample's key, for errors."""


def train(
    engine: Any,
    batches: Callable[[], Iterator[Batch]],
    sampler: PermutationSampler,
    params: TrainParams,
    *,
    checkpoints: Path,
    reporter: Reporter,
    hooks: Hooks = Hooks(),
) -> Outcome:
    """Train ``engine`` to ``params.steps`` steps, from its newest checkpoint where there is one.

    ``batches`` starts reading where the sampler stands. Raises :class:`SrgptError` where the loss or the gradient
    is not a number or the loss jumps, and :class:`StoppedError` where any rank was asked to stop.
    """
    started = time.perf_counter()
    progress = checkpoint.resume(engine, checkpoints) or Progress(0, sampler.state)
    sampler.resume(progress.sampler)
    hooks.advance(progress.step, note="resumed" if progress.step else "")
    guard = Guard(params.spike_factor, progress.losses)
    clip = norm_to_clip(params)
    done, loss, tokens, before = progress.step, math.nan, progress.tokens, progress.seconds
    stream = batches()
    try:
        while done < params.steps:
            waiting = time.perf_counter()
            batch = [next(stream) for _ in range(params.accumulation)]
            waited = time.perf_counter() - waiting
            rates = set_rates(engine, learning_rate(done, params))
            # dropout is drawn alike, whenever the step is taken
            torch.manual_seed(int(seeded(sampler.seed, "step", done, sampler.rank).integers(2**63)))
            step = take_step(engine, batch, reporter.families, clip=clip, work=hooks.work, stop=hooks.stop())
            done, loss, tokens = done + 1, step.loss, tokens + step.tokens
            seconds = before + time.perf_counter() - started
            reporter.step(done, step, rates=rates, waited=waited, tokens_seen=tokens, seconds=seconds)
            if step.labels == 0:
                raise InputError(_nothing_to_learn(done, _names(batch, hooks.name_of), params))
            wrong = guard.check(loss, step.norm)
            if wrong is not None:
                names = _names(batch, hooks.name_of)
                raise SrgptError(_stopped_by_guard(wrong, done, max(rates.values()), names, checkpoints))
            consumed = sampler.state.consumed + params.accumulation * sampler.batch * sampler.world
            sampler.state = SamplerState(sampler.state.fingerprint, consumed)
            hooks.advance(1, note=f"loss {loss:.3f}")
            hooks.after(done)
            if done < params.steps and (step.stop or done % params.checkpoint_steps == 0):
                reached = Progress(done, sampler.state, tokens, seconds, list(guard.losses))
                checkpoint.save(engine, checkpoints, reached, main=sampler.rank == 0)
                if step.stop:
                    raise StoppedError(
                        f"the training was asked to stop and did, after step {done} of {params.steps}, whose "
                        "checkpoint is kept. The same command goes on from there."
                    )
    finally:
        reporter.flush(done)
    return Outcome(done, loss, time.perf_counter() - started, progress.step)


def take_step(
    engine: Any,
    batches: Sequence[Batch],
    families: Sequence[str] = (),
    *,
    clip: float | None = None,
    work: Callable[[Batch], float] = lambda batch: 0.0,
    stop: bool = False,
) -> Step:
    """Take one optimizer step over the ``batches`` of this rank; return its sums over all ranks.

    The loss is the weighted mean over the labels of the *global* batch, however they fall to ranks and batches.
    ``clip`` is the greatest norm of the gradient, where the engine does not clip itself.
    ``stop`` is this rank's wish, and true in the result where any rank has it.
    """
    world = dist.get_world_size()
    weight = torch.stack([_weights(b).sum() for b in batches]).double().sum().to(engine.device)
    dist.all_reduce(weight)
    # DeepSpeed averages gradients over ranks and batches: the divisor is the mean of their weights
    divisor = (weight / world / len(batches)).float()
    loss = torch.zeros((), dtype=torch.float64, device=engine.device)
    sums_F2 = torch.zeros((len(families), 2), dtype=torch.float64, device=engine.device)
    norm = None
    for number, batch in enumerate(batches):
        inputs = _to_device(batch, engine)
        output = engine(**inputs, loss_divisor=divisor)
        engine.backward(output.loss)
        loss += output.loss.detach() / len(batches)
        if families and "families" in batch:
            sums_F2 += _by_family(batch, output.token_losses, len(families)).to(engine.device)
        if clip is not None and number == len(batches) - 1:
            norm = torch.nn.utils.clip_grad_norm_(engine.module.parameters(), clip)
        engine.step()
    found = float(engine.get_global_grad_norm() if norm is None else norm)
    counts = [_count(batches, name) for name in ("tokens", "labels", "samples", "left_out")]
    flags = [float(not math.isfinite(found)), float(stop)]
    own = torch.tensor([*counts, sum(map(work, batches)), *flags], dtype=torch.float64)
    totals = torch.cat([loss[None], own.to(engine.device), sums_F2.flatten()])
    dist.all_reduce(totals)
    mean, tokens, labels, samples, left_out, flops, broken, stops, *by_family = totals.tolist()
    pairs = zip(families, by_family[::2], by_family[1::2], strict=True)
    return Step(
        loss=mean / world,
        norm=math.nan if broken and math.isfinite(found) else found,
        tokens=int(tokens),
        labels=int(labels),
        samples=int(samples),
        left_out=int(left_out),
        flops=flops,
        stop=stops > 0,
        families={name: (total, weight) for name, total, weight in pairs if weight > 0},
    )


def _to_device(batch: Batch, engine: Any) -> Batch:
    """Return the model's inputs on its device; pixels in its precision, metres and masks as they are."""
    inputs = to_device(model_inputs(batch), engine.device)
    return cast_pixels(inputs, torch.bfloat16) if engine.bfloat16_enabled() else inputs


def _labelled(batch: Batch) -> Tensor:
    labelled_BL: Tensor = batch["labels"][:, 1:] != -100
    return labelled_BL


def _weights(batch: Batch) -> Tensor:
    return torch.where(_labelled(batch), batch["loss_weights"][:, 1:], 0.0)


def _by_family(batch: Batch, losses_N: Tensor, count: int) -> Tensor:
    """Return each family's weighted sum of losses and its weight, (F, 2); tokens of none (-1) are left out."""
    chosen = _labelled(batch)
    family_N, weight_N = batch["families"][:, 1:][chosen], batch["loss_weights"][:, 1:][chosen].double()
    terms_N2 = torch.stack([losses_N.detach().double().cpu() * weight_N, weight_N], dim=1)
    sums_F2 = torch.zeros((count, 2), dtype=torch.float64)
    return sums_F2.index_add(0, family_N[family_N >= 0], terms_N2[family_N >= 0])


def _count(batches: Sequence[Batch], what: str) -> float:
    if what == "samples":
        return float(sum(len(b["keys"]) if "keys" in b else len(b["labels"]) for b in batches))
    if what == "left_out":
        return float(sum(b.get("left_out", 0) for b in batches))
    if what == "labels":
        return float(sum(int(_labelled(b).sum()) for b in batches))
    return float(sum(b["input_ids"].numel() for b in batches))


def _names(batches: Sequence[Batch], name_of: Callable[[Key], str]) -> list[str]:
    """Return the conversations of a step, of all ranks, in their order; all ranks call it."""
    own = [name_of(key) for batch in batches for key in batch.get("keys", ())]
    gathered: list[list[str]] = [[] for _ in range(dist.get_world_size())]
    dist.all_gather_object(gathered, own)
    return [name for names in gathered for name in names]


def _nothing_to_learn(step: int, names: Sequence[str], params: TrainParams) -> str:
    return (
        f"train.model.text.max_length = {params.model.text.max_length}: nothing is left to learn in step {step}, for "
        f"no answer of conversations {', '.join(names)} fits; raise it"
    )


def _stopped_by_guard(wrong: str, step: int, rate: float, names: Sequence[str], checkpoints: Path) -> str:
    found = checkpoint.latest(checkpoints)
    kept = (
        f"the checkpoint of step {found.progress.step} is kept" if found else "no checkpoint was written yet"
    )
    return (
        f"{wrong} at step {step} (learning rate {rate:.3g}); {kept}. "
        f"The step saw conversations {', '.join(names) or 'without names'}. "
        "Look at them; lower train.learning_rate or train.gradient_clipping, or raise train.warmup_share or "
        "train.spike_factor, and train again."
    )
