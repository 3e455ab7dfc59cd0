"""The training loop of one rank."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from srgpt.dataset.collator import Batch, model_inputs, to_device
from srgpt.dataset.sampler import PermutationSampler, SamplerState
from srgpt.errors import SrgptError
from srgpt.params import TrainParams
from srgpt.training import checkpoint
from srgpt.training.metrics import Reporter
from srgpt.training.recipe import deepspeed_config, learning_rate, parameter_groups


@dataclass(frozen=True)
class Outcome:
    """How training ended."""

    steps: int
    loss: float
    """Loss of the last step, over all ranks."""
    seconds: float
    resumed_at: int


def start_engine(model: torch.nn.Module, params: TrainParams) -> Any:
    """Hand the model to DeepSpeed; needs an initialised process group."""
    import deepspeed

    engine, _, _, _ = deepspeed.initialize(
        model=model,
        model_parameters=parameter_groups(model, params),  # type: ignore[arg-type]
        config=deepspeed_config(params),
    )
    return engine


def train(
    engine: Any,
    batches: Callable[[], Iterator[Batch]],
    sampler: PermutationSampler,
    params: TrainParams,
    *,
    checkpoints: Path,
    reporter: Reporter,
    advance: Callable[..., None],
) -> Outcome:
    """Train ``engine`` to ``params.steps`` steps, from its newest checkpoint where there is one.

    ``batches`` starts reading where the sampler stands. Raises :class:`SrgptError` where the loss is not a
    number.
    """
    started = time.perf_counter()
    done = 0
    found = checkpoint.resume(engine, checkpoints)
    if found is not None:
        done, state = found
        sampler.resume(state)
        advance(done, note="resumed")
    resumed_at, loss = done, math.nan
    stream = batches()
    while done < params.steps:
        waiting = time.perf_counter()
        batch = to_device(next(stream), engine.device)
        waited = time.perf_counter() - waiting
        rate = learning_rate(done, params)
        loss, tokens, norm = _step(engine, batch, rate)
        done += 1
        if not math.isfinite(loss):
            raise SrgptError(_not_a_number(loss, done, rate, checkpoints))
        consumed = sampler.state.consumed + sampler.batch * sampler.world
        sampler.state = SamplerState(sampler.state.fingerprint, consumed)
        samples = params.batch_images * sampler.world
        reporter.step(done, loss=loss, rate=rate, norm=norm, tokens=tokens, samples=samples, waited=waited)
        advance(1, note=f"loss {loss:.3f}")
        if done % params.checkpoint_steps == 0 and done < params.steps:
            checkpoint.save(engine, checkpoints, done, sampler.state, main=sampler.rank == 0)
    return Outcome(done, loss, time.perf_counter() - started, resumed_at)


def _step(engine: Any, batch: Batch, rate: float) -> tuple[float, int, float]:
    """Take one optimizer step; return the loss and the tokens of all ranks, and the gradient's norm.

    The loss is the weighted mean over the labels of the *global* batch, however they fall to the ranks.
    """
    world = dist.get_world_size()
    weight = torch.where(batch["labels"][:, 1:] != -100, batch["loss_weights"][:, 1:], 0.0).sum()
    tokens = torch.tensor(batch["input_ids"].numel(), device=weight.device)
    totals = torch.stack([weight.double(), tokens.double()])
    dist.all_reduce(totals)
    for group in engine.optimizer.param_groups:
        group["lr"] = rate * group["rate"]
    # DeepSpeed averages gradients over ranks: the divisor is the mean of the ranks' weights
    loss = engine(**model_inputs(batch), loss_divisor=(totals[0] / world).float()).loss
    engine.backward(loss)
    # without ZeRO, DeepSpeed clips by a norm that it does not tell
    grads = [p.grad for p in engine.module.parameters() if p.grad is not None]
    norm = None if engine.zero_optimization() else torch.nn.utils.get_total_norm(grads)
    engine.step()
    norm = engine.get_global_grad_norm() if norm is None else norm
    mean = loss.detach().double()
    dist.all_reduce(mean)
    return float(mean) / world, int(totals[1]), float(norm or 0.0)


def _not_a_number(loss: float, step: int, rate: float, checkpoints: Path) -> str:
    found = checkpoint.latest(checkpoints)
    kept = f"the checkpoint of step {found[1]} is kept" if found else "no checkpoint was written yet"
    return (
        f"the loss is {loss} at step {step} (learning rate {rate:.3g}); {kept}. "
        "Lower train.learning_rate or train.gradient_clipping, or raise train.warmup_share, and train again."
    )
