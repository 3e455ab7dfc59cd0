"""All parameters together, checked as a whole."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, PrivateAttr, ValidationError, model_validator

from srgpt.errors import InputError
from srgpt.params.ask import AskParams
from srgpt.params.engine import EngineParams, TrackingParams
from srgpt.params.evaluate import EvaluateParams
from srgpt.params.explaining import explain
from srgpt.params.export import ExportParams
from srgpt.params.ingest import IngestParams
from srgpt.params.lift import LiftParams
from srgpt.params.perceive import PerceiveParams
from srgpt.params.promote import PromoteParams, ServeParams
from srgpt.params.section import Name, Section
from srgpt.params.train import TrainParams
from srgpt.params.validate import ValidateParams


class DatasetParams(Section):
    """What differs for one dataset: overrides of whole sections' keys, by name."""

    ingest: dict[str, Any] = {}
    perceive: dict[str, Any] = {}
    lift: dict[str, Any] = {}
    ask: dict[str, Any] = {}


class Params(Section):
    """All parameters."""

    profile: Literal["demo", "cpu-long", "gpu", "full"] = "demo"
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 7
    datasets: dict[Name, DatasetParams] = {
        "train": DatasetParams(),
        "bench": DatasetParams(ingest={"scenes": 250}, ask={"truth": "cuboids"}),
    }
    ingest: IngestParams = IngestParams()
    perceive: PerceiveParams = PerceiveParams()
    lift: LiftParams = LiftParams()
    ask: AskParams = AskParams()
    validate_: ValidateParams = Field(default=ValidateParams(), alias="validate")
    train: TrainParams = TrainParams()
    evaluate: EvaluateParams = EvaluateParams()
    export: ExportParams = ExportParams()
    promote: PromoteParams = PromoteParams()
    serve: ServeParams = ServeParams()
    engine: EngineParams = EngineParams()
    tracking: TrackingParams = TrackingParams()

    _explicit: dict[str, Any] = PrivateAttr(default_factory=dict)
    """What ``--set`` said: it wins over a dataset's own overrides, too."""

    @model_validator(mode="after")
    def _datasets_exist(self) -> Params:
        used = {"train.dataset": self.train.dataset, "evaluate.dataset": self.evaluate.dataset}
        for key, name in used.items():
            if name not in self.datasets:
                allowed = ", ".join(sorted(self.datasets))
                raise ValueError(f"{key} = {name!r}: no such dataset; allowed: {allowed}")
        return self

    def for_dataset(self, name: str) -> Params:
        """Return these parameters with the overrides of dataset ``name`` (none where it is unknown)."""
        if name not in self.datasets:
            return self
        overrides = {k: v for k, v in self.datasets[name].model_dump().items() if v}
        explicit = merge(self._explicit, self._explicit.get("datasets", {}).get(name, {}))
        result = build(merge(merge(self.dump(), overrides), explicit), f"datasets.{name}")
        result._explicit = self._explicit
        return result

    def dump(self) -> dict[str, Any]:
        """Return plain data, as ``params.yaml`` has it."""
        return self.model_dump(mode="json", by_alias=True)


def build(data: Mapping[str, Any], origin: str = "parameters") -> Params:
    """Check plain data; an :class:`InputError` names each wrong key, its value and what is allowed."""
    try:
        params = Params.model_validate(data)
        for name, dataset in params.datasets.items():
            overrides = {k: v for k, v in dataset.model_dump().items() if v}
            try:
                Params.model_validate(
                    merge({**params.dump(), "datasets": {}, **_no_links(params)}, overrides)
                )
            except ValidationError as error:
                raise InputError(
                    explain(error, Params, {**params.dump(), **overrides}, f"{origin}, datasets.{name}")
                ) from None
    except ValidationError as error:
        raise InputError(explain(error, Params, data, origin)) from None
    return params


def _no_links(params: Params) -> dict[str, Any]:
    return {"datasets": {params.train.dataset: {}, params.evaluate.dataset: {}}}


def merge(base: Mapping[str, Any], overlay: Mapping[str, Any]) -> dict[str, Any]:
    """Merge nested mappings; the overlay wins."""
    result = dict(base)
    for key, value in overlay.items():
        nested = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
        result[key] = merge(result[key], value) if nested else value
    return result
