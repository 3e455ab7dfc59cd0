"""Training with DeepSpeed: a recipe for all stages, and what each stage does differently."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, ValidationError, model_serializer, model_validator

from srgpt.params.model import ModelParams
from srgpt.params.section import Count, Name, Positive, Section, Share

PARTS = ("vision_tower", "region_extractor", "mm_projector", "llm")
"""The parts of the model; names of parameters begin with them."""

Pattern = Annotated[str, Field(min_length=1)]
"""A part, the beginning of a parameter's name (``llm.model.layers.3``), or a glob (``*.rgb_projector.*``)."""


class MixtureParams(Section):
    """One table of a mixture."""

    dataset: Annotated[str, Field(min_length=1)]
    """A dataset's name (``data/conversations/NAME``, else ``data/imported/NAME/conversations``), or the folder or URL
    of a table of conversations."""
    weight: Positive = 1.0
    """How often each conversation is seen in one epoch of the mixture; 0.5 takes every other one."""
    history: bool = False
    """Whether a turn sees those before it, as dialogues need; else it sees the picture and itself."""


class LoraParams(Section):
    """Low-rank adapters (Hu et al. 2021) on linear layers, instead of training them in full."""

    rank: Count = 16
    alpha: Positive = 32.0
    """The adapters count alpha / rank times."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    targets: Annotated[list[Pattern], Field(min_length=1)] = ["llm"]
    """Parts, or patterns of names, whose linear layers get adapters, the language model's head excepted."""
    quantize: Literal["nf4"] | None = None
    """``nf4`` keeps the language model under the adapters in 4 bits (QLoRA); needs a GPU and bitsandbytes."""


class AugmentParams(Section):
    """What a sensor, a depth model or a person may do to depth and regions, drawn for each sample anew."""

    depth_scale: Annotated[float, Field(ge=0)] = 0.0
    """Standard deviation of the logarithm of a factor on all depths of a picture."""
    depth_noise: Annotated[float, Field(ge=0)] = 0.0
    """Relative standard deviation of each reading."""
    depth_holes: Annotated[float, Field(ge=0)] = 0.0
    """Mean number of rectangles of a picture in which readings are lost; rgb_share is how often all are."""
    shapes: dict[Literal["mask", "box", "point", "scribble"], Annotated[float, Field(ge=0)]] = {}
    """How often regions are given in each form, for example {mask: 1, box: 1}; empty leaves them as they are."""

    @property
    def any(self) -> bool:
        """Whether anything is changed."""
        return any((self.depth_scale, self.depth_noise, self.depth_holes, *self.shapes.values()))


class RecipeParams(Section):
    """What a stage may do differently from others."""

    mixture: Annotated[list[MixtureParams], Field(min_length=1)] | None = None
    """Tables to train on; null takes ``train.dataset`` alone."""
    trainable: Annotated[list[Pattern], Field(min_length=1)] = list(PARTS)
    """What is trained in full: parts, or patterns of parameters' names. The rest is frozen."""
    lora: LoraParams | None = None
    """Adapters on frozen layers; null trains none."""
    depth_init: Literal["keep", "rgb", "random"] = "keep"
    """The depth connector at the stage's start (of ``train``: the first one's): as it is, a copy of the RGB connector,
    as SpatialRGPT's paper says, or drawn anew."""
    steps: Count = 1600
    """Optimizer steps, where ``epochs`` does not say."""
    epochs: Positive | None = None
    """Passes over the mixture, instead of ``steps``."""
    batch_images: Count = 6
    """Images per batch and rank; each brings all its questions."""
    accumulation: Count = 1
    """Batches per optimizer step and rank: a step sees batch_images * accumulation * ranks * nodes images."""
    learning_rate: Positive = 1e-3
    rates: dict[str, Annotated[float, Field(ge=0)]] = {}
    """Learning rates of parts, or of what patterns name, relative to ``learning_rate``; the first that fits counts.
    From scratch a small one keeps the vision side's features still while the language model learns to compare them."""
    warmup_share: Share = 0.03
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    betas: tuple[Share, Share] = (0.9, 0.95)
    """AdamW's decay rates of the first and second moment."""
    muon: list[Pattern] = []
    """Hidden layers' matrices that Muon trains instead of AdamW, by patterns of names; small models from scratch learn
    sooner. Without ZeRO and in float32 only, for it needs whole matrices."""
    gradient_clipping: Positive = 1.0
    key_weight: Positive = 1.0
    """How much the words of an answer that state a relation or a verdict count in the loss; wording counts 1."""
    number_weight: Positive = 1.0
    """How much a number's whole digits and its decimals up to the second significant digit count; decimals after them
    count its inverse."""
    rgb_share: Share = 0.15
    """Share of samples trained without depth, so that one model answers with and without."""
    boxes_share: Share = 0.0
    """Share of samples trained with the regions' boxes in words instead of regions: the control without regions."""
    blind_share: Share = 0.1
    """Share of samples trained without any picture, so that the blind control knows what text alone gives."""
    augment: AugmentParams = AugmentParams()
    zero_stage: Annotated[int, Field(ge=0, le=3)] = 0
    offload: Literal["none", "optimizer", "parameters"] = "none"
    """What ZeRO keeps in the memory of the CPU: the optimizer's states and its step (stage 1 and up), or the
    parameters, too (stage 3)."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """``auto``: bfloat16 on a GPU, float32 on a CPU and with Muon."""
    gradient_checkpointing: bool = False
    """Compute activations of tower and language model twice instead of keeping them: slower, in less memory."""
    attention: Literal["auto", "eager", "sdpa", "flash_attention_2"] = "auto"
    """How the tower attends; the language model always does over packed rows. ``auto``: flash attention on a GPU where
    it is installed, else sdpa."""
    checkpoint_steps: Count = 100
    spike_factor: Annotated[float, Field(gt=1)] | None = None
    """A loss of so many times the usual one stops the training; null lets it go on."""


class StageParams(RecipeParams):
    """One stage of training. What it does not say it takes from the ``train`` section."""

    name: Name

    @model_validator(mode="after")
    def _steps_or_epochs(self) -> StageParams:
        if self.epochs is not None and "steps" in self.model_fields_set:
            raise ValueError("give steps or epochs, not both")
        return self

    @model_serializer(mode="wrap")
    def _only_what_it_says(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {k: v for k, v in handler(self).items() if k in self.model_fields_set}


class TrainParams(RecipeParams):
    """Training with DeepSpeed: one or more stages, each starting from the model that the one before wrote."""

    dataset: Name = "train"
    """What a stage without a mixture trains on."""
    model: ModelParams = ModelParams()
    init: str | None = None
    """A model folder to start from, its tokenizer and sizes included; null builds ``model``."""
    stages: Annotated[list[StageParams], Field(min_length=1)] = [StageParams(name="instruct")]
    ranks: Count = 1
    """Processes to train with on each node (torchrun)."""
    nodes: Count = 1
    """Machines that train together on a shared folder; each runs ``srgpt train`` with its own --node-rank."""
    threads: Annotated[int, Field(ge=0)] = 0
    """Threads of each rank on the CPU; 0 takes OMP_NUM_THREADS, else shares the cores among the ranks. A small model
    computes no faster with two, and one leaves a core to reading; an offloaded optimizer wants many."""
    log_steps: Count = 10
    sample_steps: Annotated[int, Field(ge=0)] = 0
    """Steps between pages of answers to a fixed handful of questions in MLflow; 0 makes none."""
    data_workers: Annotated[int, Field(ge=0)] = 1
    """Processes per rank that read and collate ahead; with 0, a thread of the rank's own does, in each other's way."""
    cache_mb: Annotated[int, Field(ge=0)] = 1024
    """Memory for prepared pictures in each process that reads: data that fits is decoded once."""
    window_mb: Count = 1024
    """Memory for shards that are shuffled together, encoded, in each process that reads. It changes the order."""

    @model_validator(mode="after")
    def _offload_needs_zero(self) -> TrainParams:
        least = {"none": 0, "optimizer": 1, "parameters": 3}[self.offload]
        if self.zero_stage < least:
            raise ValueError(f"offload = {self.offload!r} needs zero_stage >= {least}")
        return self

    @model_validator(mode="after")
    def _muon_needs_whole_matrices(self) -> TrainParams:
        if self.muon and (self.zero_stage > 0 or self.dtype == "bfloat16"):
            raise ValueError(
                "muon needs whole matrices in float32, so zero_stage = 0 and not dtype = 'bfloat16'; "
                "set muon=[] to train by AdamW alone"
            )
        return self

    @model_validator(mode="after")
    def _quantises_whole_weights(self) -> TrainParams:
        if self.lora is not None and self.lora.quantize and "llm" not in self.lora.targets:
            raise ValueError(
                "lora.quantize needs llm among lora.targets: 4-bit weights are trained by adapters only"
            )
        if self.lora is not None and self.lora.quantize and self.zero_stage == 3:
            raise ValueError(
                "lora.quantize needs zero_stage <= 2: ZeRO-3 would cut the 4-bit weights to pieces"
            )
        return self

    @model_validator(mode="after")
    def _names_differ(self) -> TrainParams:
        names = [stage.name for stage in self.stages]
        if len(names) != len(set(names)):
            raise ValueError(f"the stages' names must differ: {', '.join(names)}")
        for index, name in enumerate(names):
            try:
                self.at(index)
            except ValidationError as error:
                message = error.errors()[0]["msg"].removeprefix("Value error, ")
                raise ValueError(f"stage {name}: {message}") from None
        return self

    @property
    def world(self) -> int:
        """Number of ranks on all nodes."""
        return self.ranks * self.nodes

    @property
    def global_batch(self) -> int:
        """Images per optimizer step, over all ranks."""
        return self.batch_images * self.accumulation * self.world

    def at(self, index: int) -> TrainParams:
        """Return the parameters of one stage: its own values, and these for the rest; ``stages`` is that stage."""
        if len(self.stages) == 1 and self.stages[0].model_fields_set == {"name"}:
            return self
        stage = self.stages[index]
        values = {k: v for k, v in self.model_dump().items() if k != "stages"}
        own = {k: v for k, v in stage.model_dump().items() if k != "name"}
        if index:
            del values["depth_init"]
        if "steps" in own:
            values["epochs"] = None
        return TrainParams.model_validate({**values, **own, "stages": [{"name": stage.name}]})
