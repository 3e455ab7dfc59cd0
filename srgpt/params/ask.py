"""From scene graphs to questions."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from srgpt.params.section import Count, Positive, Section, Share


class RephraseParams(Section):
    """Rephrasing questions and answers by a language model behind an OpenAI-compatible endpoint."""

    endpoint: Annotated[str, Field(pattern=r"^https?://[^\s@?#]+$", repr=False)]
    """Base URL, for example ``http://127.0.0.1:8000/v1``; no credentials in it."""
    model: Annotated[str, Field(min_length=1)]
    """The model's name at the endpoint."""
    mode: Literal["paraphrase", "reason"] = "paraphrase"
    """``paraphrase`` puts both into other words; ``reason`` asks a question that needs the fact."""
    share: Share = 0.5
    """Share of the turns that are rewritten."""
    variants: Count = 16
    """Different rewrites of one and the same wording; more cost more and repeat less."""
    rewrites: Annotated[int, Field(ge=1, le=10)] = 2
    """How often a rewrite is asked for while none is accepted."""
    temperature: Annotated[float, Field(ge=0, le=2)] = 0.7
    max_tokens: Count = 512
    """Longest answer of the model, tokens."""
    max_characters: Annotated[int, Field(ge=20)] = 400
    """Longest question or answer."""
    allow_categories: bool = False
    """Tell the model what the regions show, and let it say so."""
    required: bool = False
    """Stop where the endpoint fails, instead of keeping the templates."""
    concurrency: Count = 16
    """Requests at a time, in every worker process."""
    timeout: Positive = 60.0
    """Seconds for one attempt."""
    attempts: Count = 5
    """Attempts per request where the network or the server fails."""
    backoff: Positive = 1.0
    """Seconds before the second attempt, at most; doubles with every further one."""
    max_wait: Positive = 60.0
    """Longest wait between attempts, seconds; a server that asks for more is not asked again for this question."""
    max_failures: Count = 8
    """Failed requests in a row after which the rest of a shard keeps its templates."""
    cache: Annotated[str, Field(min_length=1)] = ".srgpt/rephrase"
    """Local folder of the answers; processes share it."""
    api_key_env: Annotated[str, Field(pattern=r"^[A-Z_][A-Z0-9_]*$", repr=False)] = "OPENAI_API_KEY"
    """Name of the environment variable with the key; never the key."""
    input_price: Annotated[float, Field(ge=0)] = 0.0
    """Money per million prompt tokens, in any currency."""
    output_price: Annotated[float, Field(ge=0)] = 0.0
    """Money per million tokens of answers."""


class AskParams(Section):
    """From scene graphs to questions."""

    truth: Literal["cuboids", "perceived"] = "perceived"
    """Where the facts come from: ground truth (for a benchmark) or perception (for training)."""
    compat: Literal["corrected", "reference"] = "corrected"
    """``reference`` asks as SpatialRGPT's pipeline does, biases included; needs ``lift.compat: reference`` and
    ``truth: perceived``, and knows only ``facts`` of ``reasoning``."""
    reasoning: list[Literal["camera", "ratio", "ranking", "counting", "multi_hop", "facts"]] = []
    """Families of questions beyond the benchmark's 24 categories, for training; ``facts`` are plain statements."""
    reasoning_share: Share = 0.3
    """Share of questions from these families, where there are any; 1 asks nothing else."""
    max_error_chance: Annotated[float, Field(gt=0, le=0.5)] = 0.05
    """Relations whose answer is wrong with a higher chance, by the objects' uncertainty, are not asked about."""
    max_relative_sigma: Positive = 0.25
    """Quantities whose standard deviation is a larger share of their value are not asked about."""
    turns: Annotated[int, Field(ge=1, le=100)] = 10
    """Questions per conversation."""
    conversations: Annotated[int, Field(ge=1, le=100)] = 1
    """Conversations per scene."""
    quantitative_share: Share = 0.5
    """Share of questions that ask for a number."""
    tie_margin: Share = 0.1
    """Relative difference under which two sizes are a tie and not asked about."""
    tie_metres: Annotated[float, Field(ge=0)] = 0.05
    """Absolute difference in metres under which two positions or sizes are a tie."""
    tie_angle_degrees: Annotated[float, Field(ge=0, lt=15)] = 3.0
    """Clock directions closer than this to the border between two hours are not asked about."""
    min_distance: Annotated[float, Field(ge=0)] = 0.05
    """Distances under this many metres are not asked about."""
    units: Literal["everyday", "metres"] = "everyday"
    """Units of lengths in answers: ``everyday`` draws meters, feet, inches or centimeters as SpatialRGPT does, which
    makes the first digit a matter of chance; ``metres`` writes meters alone."""
    rephrase: RephraseParams | None = None
    """Put a share of the questions into other words; null asks in the templates' words."""

    def recorded(self) -> dict[str, Any]:
        """Return plain data for manifests: what decides what is written, and not how the endpoint is reached."""
        how = {
            "concurrency",
            "timeout",
            "attempts",
            "backoff",
            "max_wait",
            "max_failures",
            "cache",
            "api_key_env",
        }
        return self.model_dump(mode="json", exclude={"rephrase": how})
