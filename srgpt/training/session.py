"""What one rank does: build the model and the data, train, write the result."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from srgpt.dataset import loader
from srgpt.dataset.collator import Batch, Collator
from srgpt.dataset.mixture import Mixture, MixtureSource
from srgpt.dataset.packing import Packer
from srgpt.dataset.reading import conversation_texts
from srgpt.dataset.sampler import PermutationSampler
from srgpt.model.attention import PACKED
from srgpt.model.build import build_model, build_processor
from srgpt.model.modeling import SrgptForConditionalGeneration
from srgpt.model.processing import SrgptProcessor
from srgpt.model.prompts import Inputs
from srgpt.model.tokenizer import load_tokenizer, train_tokenizer
from srgpt.params import Params, TrainParams
from srgpt.progress import progress_bar
from srgpt.storage import write_json
from srgpt.tracking import Lineage, Run, connect
from srgpt.training.checkpoint import write_errors
from srgpt.training.initialise import initialise
from srgpt.training.loop import Outcome, start_engine, train
from srgpt.training.metrics import UNDELIVERED, Delivery, Log, Reporter
from srgpt.training.recipe import precision
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
        self, params: Params, source: str, scenes: str, folder: Path, run_id: str, rank: int, world: int
    ) -> None:
        transformers_logging.disable_progress_bar()
        transformers_logging.set_verbosity_error()
        self.params, self.recipe, self.folder = params, params.train, folder
        self.run_id, self.rank, self.world = run_id, rank, world
        tokenizer = make_tokenizer(self.recipe, source)
        self.processor: SrgptProcessor = build_processor(self.recipe.model, tokenizer)
        self.dataset = Mixture(
            [MixtureSource(source, scenes)],
            self.processor,
            cache_mb=self.recipe.cache_mb,
            window_mb=self.recipe.window_mb,
        )
        self.model: SrgptForConditionalGeneration = build_model(self.recipe.model, tokenizer, params.seed)
        self.model.llm.set_attn_implementation(PACKED)
        if self.recipe.model.vision.pretrained is None and self.recipe.model.text.pretrained is None:
            initialise(self.model, self._first_batch(), params.seed)
        self.sampler = PermutationSampler(
            self.dataset.streams,
            batch=self.recipe.batch_images,
            seed=params.seed,
            fingerprint=self.dataset.fingerprint,
            rank=rank,
            world=world,
        )

    def run(self) -> None:
        """Train, then write the model."""
        engine = start_engine(self.model, self.recipe)
        with self._delivery() as delivery, self._progress() as advance:
            reporter = Reporter(delivery, self.recipe.log_steps)
            outcome = train(
                engine,
                self.batches,
                self.sampler,
                self.recipe,
                checkpoints=self.folder / CHECKPOINTS,
                reporter=reporter,
                advance=advance,
            )
        self._save(engine, outcome)

    def _collator(self, shares: Mapping[Inputs, float]) -> Collator:
        packer = Packer(
            self.processor, key_weight=self.recipe.key_weight, max_length=self.recipe.model.text.max_length
        )
        return Collator(packer, seed=self.params.seed, shares=shares)

    def _first_batch(self) -> Batch:
        """Return the dataset's first pictures, complete: the same on every rank."""
        rows = range(min(INITIAL_IMAGES, len(self.dataset)))
        return self._collator({})([self.dataset[(0, row)] for row in rows])

    def batches(self) -> Iterator[Batch]:
        """Yield this rank's batches from where the sampler stands, without end."""
        recipe = self.recipe
        collator = self._collator(
            {"blind": recipe.blind_share, "boxes": recipe.boxes_share, "rgb": recipe.rgb_share}
        )
        return loader.batches(self.dataset, self.sampler, collator, workers=self.recipe.data_workers)

    @contextlib.contextmanager
    def _delivery(self) -> Iterator[Log]:
        """Yield what sends points to MLflow; leave those that did not get there in the job's folder."""
        if self.rank != 0:
            yield lambda values, step: None
            return
        run = Run(connect(self.params.tracking), self.run_id, "")
        delivery = Delivery(run.log_metrics)
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
        lineage = Lineage.of(self.params, self.dataset.data, self.run_id)
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
