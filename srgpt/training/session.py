"""What one rank does: build the model and the data, train, write the result."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from srgpt.dataset.collator import Collator
from srgpt.dataset.packing import FAMILIES, Packer
from srgpt.dataset.reading import ConversationDataset, conversation_texts
from srgpt.dataset.sampler import PermutationSampler
from srgpt.model.build import build_model, build_processor
from srgpt.model.modeling import SrgptForConditionalGeneration
from srgpt.model.processing import SrgptProcessor
from srgpt.model.tokenizer import load_tokenizer, train_tokenizer
from srgpt.params import Params, TrainParams
from srgpt.progress import progress_bar
from srgpt.storage import read_manifest, write_json
from srgpt.tracking import Lineage, Run, connect
from srgpt.training import checkpoint, samples
from srgpt.training.checkpoint import write_errors
from srgpt.training.delivery import PAGES, UNDELIVERED, Delivery
from srgpt.training.engine import start_engine
from srgpt.training.initialise import initialise
from srgpt.training.loop import Batch, Hooks, Outcome, train
from srgpt.training.metrics import Log, Reporter
from srgpt.training.recipe import precision
from srgpt.training.throughput import Work, matrix_rate, memory
from srgpt.training.worker import CHECKPOINTS

TOKENIZER_TEXTS = 400_000
"""A tokenizer is trained on at most so many questions and answers."""

INITIAL_IMAGES = 16
"""Pictures from which a new model's connectors are scaled."""


def make_tokenizer(params: TrainParams, source: str) -> PreTrainedTokenizerBase:
    """Return the language model's tokenizer, or one trained on the conversations at ``source``."""
    if params.model.text.pretrained is not None:
        return load_tokenizer(params.model.text.pretrained)
    texts = itertools.islice(conversation_texts(source), TOKENIZER_TEXTS)
    return train_tokenizer(texts, params.model.text.vocab_size)


class Session:
    """One rank's model, data and reporting."""

    def __init__(
        self,
        params: Params,
        source: str,
        scenes: str,
        folder: Path,
        run_id: str,
        rank: int,
        world: int,
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        transformers_logging.disable_progress_bar()
        transformers_logging.set_verbosity_error()
        self.params, self.recipe, self.folder = params, params.train, folder
        self.run_id, self.rank, self.world, self.stop = run_id, rank, world, stop
        tokenizer = make_tokenizer(self.recipe, source)
        self.processor: SrgptProcessor = build_processor(self.recipe.model, tokenizer)
        self.dataset = ConversationDataset(source, scenes, self.processor)
        self.model: SrgptForConditionalGeneration = build_model(self.recipe.model, tokenizer, params.seed)
        if self.recipe.model.vision.pretrained is None and self.recipe.model.text.pretrained is None:
            initialise(self.model, self._first_batch(), params.seed)
        self.sampler = PermutationSampler(
            self.dataset.shard_rows,
            batch=self.recipe.batch_images,
            seed=params.seed,
            fingerprint=self.dataset.fingerprint,
            rank=rank,
            world=world,
        )

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
            given = samples.answers(self.model, self.processor, shown)
            if self.rank == 0:
                samples.write_page(self.folder / PAGES, step, shown, given)
                delivery({}, step)

        return after

    def _collator(self, rgb_share: float, blind_share: float) -> Collator:
        packer = Packer(
            self.processor, key_weight=self.recipe.key_weight, max_length=self.recipe.model.text.max_length
        )
        return Collator(packer, seed=self.params.seed, rgb_share=rgb_share, blind_share=blind_share)

    def _first_batch(self) -> Batch:
        """Return the dataset's first pictures, complete: the same on every rank."""
        rows = range(min(INITIAL_IMAGES, self.dataset.shard_rows[0]))
        return self._collator(0.0, 0.0)([self.dataset[(0, row)] for row in rows])

    def batches(self) -> Iterator[Batch]:
        """Yield this rank's batches from where the sampler stands, without end."""
        collator = self._collator(self.recipe.rgb_share, self.recipe.blind_share)
        workers = self.recipe.data_workers
        loader: DataLoader[Any] = DataLoader(
            self.dataset,  # type: ignore[arg-type]
            batch_sampler=self.sampler,  # type: ignore[arg-type]
            collate_fn=collator,
            num_workers=workers,
            # fsspec's event loop does not survive a fork
            multiprocessing_context="forkserver" if workers else None,
            persistent_workers=bool(workers),
        )
        yield from loader

    @contextlib.contextmanager
    def _delivery(self) -> Iterator[Log]:
        """Yield what sends points to MLflow; leave those that did not get there in the job's folder."""
        if self.rank != 0:
            yield lambda values, step: None
            return
        run = Run(connect(self.params.tracking), self.run_id, "")
        send_page = partial(run.log_artifact, to=PAGES)
        delivery = Delivery(run.log_metrics, send_page=send_page, pages=self.folder / PAGES)
        try:
            yield delivery
        finally:
            delivery.close(self.folder / UNDELIVERED)

    def _progress(self) -> contextlib.AbstractContextManager[Callable[..., None]]:
        if self.rank != 0:
            return contextlib.nullcontext(lambda steps=1, note="": None)
        return progress_bar("train", total=self.recipe.steps, unit="steps")

    def _save(self, engine: Any, outcome: Outcome) -> None:
        """Gather the weights, which ZeRO-3 spreads over the ranks, and write the model folder from rank 0."""
        import deepspeed

        parameters = list(self.model.parameters())
        with deepspeed.zero.GatheredParameters(parameters, enabled=self.recipe.zero_stage == 3):
            if self.rank != 0:
                return
            dtype = precision(self.recipe)
            weights = {k: v.detach().to("cpu", dtype) for k, v in self.model.state_dict().items()}
            weights = {k: v.contiguous() for k, v in weights.items()}
            count = sum(p.numel() for p in parameters)
        self.model.config.dtype = dtype
        with write_errors(self.folder):
            self.model.save_pretrained(self.folder, state_dict=weights)
            self.processor.save_pretrained(self.folder)
        data = {read_manifest(self.dataset.source).dataset: self.dataset.fingerprint}
        lineage = Lineage.of(self.params, data, self.run_id)
        write_json(str(self.folder / "lineage.json"), vars(lineage))
        write_json(str(self.folder / "training.json"), self._summary(outcome, count))

    def _summary(self, outcome: Outcome, parameters: int) -> dict[str, Any]:
        return {
            "steps": outcome.steps,
            "final_loss": outcome.loss,
            "seconds": round(outcome.seconds, 3),
            "resumed_at": outcome.resumed_at,
            "parameters": parameters,
            "dataset_fingerprint": self.dataset.fingerprint,
            "samples_seen": self.sampler.state.consumed,
            "ranks": self.world,
        }
