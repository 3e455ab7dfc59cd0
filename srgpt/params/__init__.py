"""Typed parameters: one section per stage, named profiles, and errors that teach.

Values come, later ones winning, from the defaults below, the ``--params`` file, the ``--profile`` overlay
(files in ``srgpt/profiles``), and ``--set section.key=value``. ``datasets.<name>`` holds what differs for
one dataset. Everything is checked before any work starts.
"""

from srgpt.params.ask import AskParams, RephraseParams
from srgpt.params.engine import EngineParams, TrackingParams
from srgpt.params.evaluate import EvaluateParams
from srgpt.params.export import ExportParams
from srgpt.params.files import PROFILES, check_dataset, load, read_profile, write
from srgpt.params.ingest import (
    DuplicateParams,
    FolderParams,
    HubParams,
    IngestParams,
    Omni3dParams,
    ProceduralParams,
    RgbdParams,
)
from srgpt.params.lift import LiftParams
from srgpt.params.model import ModelParams, TextParams, VisionParams
from srgpt.params.perceive import (
    CalibrationParams,
    DepthEstimationParams,
    DetectionParams,
    FilteringParams,
    MetricDepthParams,
    OracleParams,
    PerceiveParams,
    RelativeDepthParams,
    SegmentationParams,
    TaggingParams,
    WeightsParams,
)
from srgpt.params.promote import PromoteParams, ServeParams
from srgpt.params.root import DatasetParams, Params, build, merge
from srgpt.params.section import Section
from srgpt.params.train import (
    PARTS,
    AugmentParams,
    LoraParams,
    MixtureParams,
    RecipeParams,
    StageParams,
    TrainParams,
)
from srgpt.params.validate import ValidateParams

__all__ = [
    "PARTS",
    "PROFILES",
    "AskParams",
    "AugmentParams",
    "CalibrationParams",
    "DatasetParams",
    "DepthEstimationParams",
    "DetectionParams",
    "DuplicateParams",
    "EngineParams",
    "EvaluateParams",
    "ExportParams",
    "FilteringParams",
    "FolderParams",
    "HubParams",
    "IngestParams",
    "LiftParams",
    "LoraParams",
    "MetricDepthParams",
    "MixtureParams",
    "ModelParams",
    "Omni3dParams",
    "OracleParams",
    "Params",
    "PerceiveParams",
    "ProceduralParams",
    "PromoteParams",
    "RecipeParams",
    "RelativeDepthParams",
    "RephraseParams",
    "RgbdParams",
    "Section",
    "SegmentationParams",
    "ServeParams",
    "StageParams",
    "TaggingParams",
    "TextParams",
    "TrackingParams",
    "TrainParams",
    "ValidateParams",
    "VisionParams",
    "WeightsParams",
    "build",
    "check_dataset",
    "load",
    "merge",
    "read_profile",
    "write",
]
