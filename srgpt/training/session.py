"""What one rank does: build the model and the data, train, write the result."""

from __future__ import annotations

import contextlib
import copy
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from srgpt.dataset import loader
from srgpt.dataset.augmentation import Augmentation
from srgpt.dataset.collator import Batch, Collator
from srgpt.dataset.mixture import Mixture
from srgpt.dataset.packing import FAMILIES, Packer
from srgpt.dataset.reading import conversation_texts
from srgpt.dataset.sampler import PermutationSampler
from srgpt.dataset.source import MixtureSource
from srgpt.model.build import build_model, build_processor
from srgpt.model.configuration import SrgptConfig
from srgpt.model.loading import load_model
from srgpt.model.modeling import SrgptForConditionalGeneration
from srgpt.model.processing import SrgptProcessor
from srgpt.model.prompts import Inputs
from srgpt.model.tokenizer import load_tokenizer, train_tokenizer
from srgpt.params import Params, TrainParams
from srgpt.progress import progress_bar
from srgpt.storage import write_json
from srgpt.tracking import Lineage, Run, connect, give_up_soon
from srgpt.training import checkpoint, samples
from srgpt.training.checkpoint import write_errors
from srgpt.training.delivery import PAGES, UNDELIVERED, Delivery
from srgpt.training.engine import start_engine
from srgpt.training.initialise import initialise
from srgpt.training.loop import Hooks, Outcome, train
from srgpt.training.lora import add_adapters, merged_weights, quantization, save_adapter
from srgpt.training.metrics import Log, Reporter
from srgpt.training.plan import SUMMARY, epoch_rows
from srgpt.training.preparation import prepare
from srgpt.training.recipe import optimizer_steps, precision
from srgpt.training.stopping import STOP
from srgpt.training.throughput import Work, matrix_rate, memory
from srgpt.training.trainable import choose, start_depth
from srgpt.training.worker import CHECKPOINTS, Job

TOKENIZER_TEXTS = 400_000
"""A tokenizer is trained on at most so many questions and answers."""

INITIAL_IMAGES = 16
"""Pictures from which a new model's connectors are scaled."""


def make_tokenizer(params: TrainParams, urls: Sequence[str]) -> PreTrainedTokenizerBase:
    """Return the language model's tokenizer, or one trained on the conversations of the tables ``urls``."""
    if params.model.text.pretrained is not None:
        return load_tokenizer(params.model.text.pretrained)
    share = TOKENIZER_TEXTS // len(urls)
    texts = (text for url in urls for text in itertools.islice(conversation_texts(url), share))
    return train_tokenizer(texts, params.model.text.vocab_size)


def open_data(
    sources: Sequence[MixtureSource], processor: SrgptProcessor, recipe: TrainParams, seed: int
) -> Mixture:
    """Return the data of a stage."""
    change = Augmentation(recipe.augment, seed) if recipe.augment.any else None
    return Mixture(
        sources,
        processor,
        change=change,
        cache_mb=recipe.cache_mb,
        window_mb=recipe.window_mb,
    )


class Session:
    """One rank's model, data and reporting, for one stage."""

    def __init__(
        self, job: Job, params: Params, rank: int, world: int, stop: Callable[[], bool] = lambda: False
    ) -> None:
        transformers_logging.disable_progress_bar()
        transformers_logging.set_verbosity_error()
        self.job, self.params, self.folder = job, params, Path(job.folder)
        self.rank, self.world, self.stop = rank, world, stop
        recipe = params.train.at(job.stage)
        sources = [MixtureSource(**s) for s in job.sources]
        self.model, self.processor = self._start(recipe, sources)
        self.dataset = open_data(sources, self.processor, recipe, params.seed)
        self.recipe = recipe.model_copy(
            update={"steps": optimizer_steps(recipe, epoch_rows(sources), world), "epochs": None}
        )
        self._start_values()
        choose(self.model, self.recipe)
        prepare(self.model, self.recipe)
        self.sampler = PermutationSampler(
            self.dataset.streams,
            batch=self.recipe.batch_images,
            seed=params.seed,
            fingerprint=self.dataset.fingerprint,
            rank=rank,
            world=world,
        )

    def _start(
        self, recipe: TrainParams, sources: Sequence[MixtureSource]
    ) -> tuple[SrgptForConditionalGeneration, SrgptProcessor]:
        """Return the model that the stage starts from: the job's, with its own processor, or a new one."""
        quantised = quantization(recipe.lora)
        if self.job.init is not None:
            return load_model(Path(self.job.init), quantization=quantised)
        tokenizer = make_tokenizer(recipe, [s.url for s in sources])
        model = build_model(recipe.model, tokenizer, self.params.seed, quantised)
        return model, build_processor(recipe.model, tokenizer)

    def _start_values(self) -> None:
        """Set what the stage starts from anew: a small model from scratch, the depth connector, adapters."""
        recipe, seed = self.recipe, self.params.seed
        pretrained = recipe.model.vision.pretrained, recipe.model.text.pretrained
        if self.job.init is None and pretrained == (None, None):
            initialise(self.model, self._first_batch(), seed)
        start_depth(self.model, recipe, seed)
        if recipe.lora is not None:
            add_adapters(self.model, recipe.lora, seed)

    def run(self) -> None:
        """Train, then write the model."""
        work = Work(self.model)  # counted before ZeRO-3 spreads the weights
        checkpoints = self.folder / CHECKPOINTS
        found = checkpoint.latest(checkpoints)
        universal = found is not None and found.universal(self.world, self.recipe.zero_stage)
        engine = start_engine(self.model, self.recipe, universal=universal)
        with self._delivery() as delivery, self._progress() as advance:
            hooks = Hooks(
                advance=advance,
                stop=self.stop,
                after=self._samples(delivery),
                work=work,
                name_of=self.dataset.name_of,
            )
            outcome = train(
                engine,
                self.batches,
                self.sampler,
                self.recipe,
                checkpoints=checkpoints,
                reporter=self._reporter(delivery, engine.device),
                hooks=hooks,
            )
        self._save(engine, outcome)
        if self.stop():  # too late for this stage, but not for the next
            (self.folder / STOP).touch()

    def _reporter(self, delivery: Log, device: Any) -> Reporter:
        """Return what reports from rank 0, which alone measures what the devices could do."""
        peak = matrix_rate(str(device), precision(self.recipe)) * self.world if self.rank == 0 else 0.0
        return Reporter(delivery, self.recipe.log_steps, families=FAMILIES, peak=peak, memory=memory)

    def _samples(self, delivery: Log) -> Callable[[int], None]:
        """Return what writes a page of answers every ``sample_steps`` steps."""
        every = self.recipe.sample_steps
        takes_part = self.rank == 0 or self.recipe.zero_stage == 3
        shown = samples.choose(self.dataset) if every and takes_part else []

        def after(step: int) -> None:
            if not shown or step % every:
                return
            together = self.recipe.zero_stage == 3 and self.world > 1
            given = samples.answers(self.model, self.processor, shown, together=together)
            if self.rank == 0:
                samples.write_page(self.folder / PAGES, self.job.first_step + step, shown, given)
                delivery({}, step)

        return after

    def _collator(self, shares: Mapping[Inputs, float]) -> Collator:
        packer = Packer(
            self.processor,
            key_weight=self.recipe.key_weight,
            number_weight=self.recipe.number_weight,
            max_length=self.recipe.model.text.max_length,
        )
        return Collator(packer, seed=self.params.seed, shares=shares)

    def _first_batch(self) -> Batch:
        """Return the dataset's first pictures, complete: the same on every rank."""
        rows = range(min(INITIAL_IMAGES, len(self.dataset)))
        return self._collator({})([self.dataset[(0, row)] for row in rows])

    def batches(self) -> Iterator[Batch]:
        """Yield this rank's batches from where the sampler stands, without end."""
        collator = self._collator(self._shares)
        return loader.batches(self.dataset, self.sampler, collator, workers=self.recipe.data_workers)

    @property
    def _shares(self) -> dict[Inputs, float]:
        recipe = self.recipe
        return {"blind": recipe.blind_share, "boxes": recipe.boxes_share, "rgb": recipe.rgb_share}

    @contextlib.contextmanager
    def _delivery(self) -> Iterator[Log]:
        """Yield what sends points to MLflow; leave those that did not get there in the job's folder."""
        if self.rank != 0:
            yield lambda values, step: None
            return
        run = Run(connect(self.params.tracking), self.job.run_id, "")
        give_up_soon()  # a server that hangs must not hold up the steps
        send_page = partial(run.log_artifact, to=PAGES)
        delivery = Delivery(
            run.log_metrics, self.folder / UNDELIVERED, send_page=send_page, pages=self.folder / PAGES
        )
        several = len(self.params.train.stages) > 1
        stage = {"train/stage": float(self.job.stage + 1)} if several else {}
        try:
            yield lambda values, step: delivery({**values, **stage}, self.job.first_step + step)
        finally:
            delivery.close()

    def _progress(self) -> contextlib.AbstractContextManager[Callable[..., None]]:
        if self.rank != 0:
            return contextlib.nullcontext(lambda steps=1, note="": None)
        several = len(self.params.train.stages) > 1
        title = f"train {self.recipe.stages[0].name}" if several else "train"
        return progress_bar(title, total=self.recipe.steps, unit="steps")

    def _save(self, engine: Any, outcome: Outcome) -> None:
        """Gather the weights, which ZeRO-3 spreads over the ranks, and write the model folder from rank 0."""
        import deepspeed

        parameters = list(self.model.parameters())
        with deepspeed.zero.GatheredParameters(parameters, enabled=self.recipe.zero_stage == 3):
            if self.rank != 0:
                return
            dtype = precision(self.recipe)
            weights = {k: v.detach().to("cpu", dtype) for k, v in merged_weights(self.model).items()}
            with write_errors(self.folder):
                if self.recipe.lora is not None:
                    save_adapter(self.model, self.folder)
                count = write_model(self.model, weights, dtype, self.folder)
                self.processor.save_pretrained(self.folder)
        lineage = Lineage.of(self.params, self.job.data, self.job.run_id)
        write_json(str(self.folder / "lineage.json"), vars(lineage))
        write_json(str(self.folder / SUMMARY), self._summary(outcome, count))

    def _summary(self, outcome: Outcome, parameters: int) -> dict[str, Any]:
        trained = [p for p in self.model.parameters() if p.requires_grad]
        shown = ["rgb" if self.model.config.depth == "none" else "rgbd"]
        shown += [inputs for inputs, share in self._shares.items() if share > 0 and inputs not in shown]
        return {
            "steps": outcome.steps,
            "final_loss": outcome.loss,
            "seconds": round(outcome.seconds, 3),
            "resumed_at": outcome.resumed_at,
            "parameters": parameters,
            "trained_parameters": sum(getattr(p, "ds_numel", p.numel()) for p in trained),
            "dataset_fingerprint": self.dataset.fingerprint,
            "samples_seen": self.sampler.state.consumed,
            "inputs": shown,
            "ranks": self.world,
        }


def write_model(
    model: SrgptForConditionalGeneration, weights: dict[str, Tensor], dtype: torch.dtype, folder: Path
) -> int:
    """Write a model folder of ``weights``; return how many parameters it has.

    It is a plain model's, whatever adapters or 4-bit weights this one has.
    """
    config = cast(SrgptConfig, copy.deepcopy(model.config))
    config.dtype = dtype
    for part in (config, config.text_config):
        if hasattr(part, "quantization_config"):
            del part.quantization_config
    with torch.device("meta"):
        plain = SrgptForConditionalGeneration(config)
    plain.generation_config = model.generation_config
    plain.save_pretrained(folder, state_dict={k: v.contiguous() for k, v in weights.items()})
    return sum(p.numel() for p in plain.parameters())
