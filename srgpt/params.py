"""Typed parameters: one section per stage, named profiles, and errors that teach.

Values come, later ones winning, from the defaults below, the ``--params`` file, the ``--profile`` overlay
(files in ``srgpt/profiles``), and ``--set section.key=value``. ``datasets.<name>`` holds what differs for
one dataset. Everything is checked before any work starts.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, model_validator
from pydantic.fields import FieldInfo

from srgpt.errors import InputError

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
_NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"
Name = Annotated[str, Field(pattern=_NAME)]

_EXPONENT = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+")
"""Numbers such as 1e-3, which YAML 1.1 reads as text."""

PROFILES = ("demo", "gpu", "full")


class Section(BaseModel):
    """A section: unknown keys are errors, values are not changed after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False)


class ProceduralParams(Section):
    """The generator of procedural scenes."""

    image_size: Annotated[int, Field(ge=32, le=2048)] = 112
    families: Annotated[list[Literal["room", "street", "tabletop"]], Field(min_length=1)] = [
        "room",
        "street",
        "tabletop",
    ]
    min_objects: Annotated[int, Field(ge=2, le=32)] = 3
    max_objects: Annotated[int, Field(ge=2, le=32)] = 8
    min_pixels: Count = 24
    """Objects with fewer visible pixels are not regions."""
    min_visibility: Share = 0.25
    """Objects less visible than this are not regions."""

    @model_validator(mode="after")
    def _ordered(self) -> ProceduralParams:
        if self.min_objects > self.max_objects:
            raise ValueError(
                f"min_objects ({self.min_objects}) must not exceed max_objects ({self.max_objects})"
            )
        return self


class Omni3dParams(Section):
    """Reading Omni3D JSON; truncation and visibility are filtered as in Omni3D's Base.yaml, height is not."""

    annotations: str = "annotations.json"
    """The JSON file, relative to the source folder."""
    max_truncation: Share = 0.75
    """Objects truncated more than this by the image border are dropped."""
    min_visibility: Share = 0.25
    """Objects known to be less visible than this are dropped."""
    min_height_share: Share = 0.0
    """Objects whose 2D box is lower than this share of the image height are dropped; Omni3D's own is 0.05."""
    gravity: Literal["cuboids", "given"] = "cuboids"
    """Where the source gives no gravity: ``cuboids`` takes the common vertical axis of the boxes."""


class FolderParams(Section):
    """Reading a folder or bucket of pictures; ``metadata.csv`` or ``metadata.jsonl`` there may describe them."""

    licence: str = ""
    """Licence of the pictures for which no metadata table names one."""


class HubParams(Section):
    """Reading a Hugging Face dataset: a hub id, or a folder that ``datasets`` can load."""

    config: str | None = None
    """Configuration of the dataset, where it has several."""
    split: str = "train"
    revision: str | None = None
    """Branch, tag or commit of the dataset's repository."""
    image_column: str = "image"
    id_column: str | None = None
    """Column with a name that is unique in the split; null numbers the rows."""
    licence_column: str | None = None
    """Null looks for ``licence`` and ``license`` in any case; empty reads none."""
    url_column: str | None = None
    """Null looks for ``source_url``, ``image_url`` and ``url`` in any case; empty reads none."""
    licence: str = ""
    """Licence of the pictures for which no column names one; empty takes the dataset card's."""
    streaming: bool = False
    """Read the files where they lie instead of making a local copy first."""


class RgbdParams(Section):
    """Reading pictures with aligned depth: ``rgb/ID.jpg``, ``depth/ID.png``, and what else there is."""

    images: str = "rgb"
    """Folder of the pictures."""
    depth: str = "depth"
    """Folder of the depth maps, 16-bit grey PNG of the picture's size."""
    masks: str = "masks"
    """Folder of the instance masks, PNG: 0 is background, every other value one object."""
    annotations: str | None = "annotations.json"
    """COCO annotations, instead of instance masks; null goes without."""
    intrinsics: str = "intrinsics"
    """Folder of ``ID.txt`` or ``ID.json``; beside it the same name with .txt or .json holds for all pictures."""
    depth_scale: Positive = 1000.0
    """Depth steps per metre: 1000 for millimetres, 5000 for TUM."""
    depth_encoding: Literal["linear", "sunrgbd"] = "linear"
    """``sunrgbd``: the bits are rotated by three, as SUN RGB-D stores them."""
    licence: str = ""
    """Licence of all pictures."""


class DuplicateParams(Section):
    """Pictures that look like an earlier one (sources folder, hub, rgbd)."""

    max_distance: Annotated[int, Field(ge=0, le=8)] | None = 4
    """Drop a picture whose perceptual hash differs from an earlier one's in at most so many of 64 bits; null: none."""


class IngestParams(Section):
    """From a source to scenes."""

    source: Literal["procedural", "omni3d", "folder", "hub", "rgbd"] = "procedural"
    url: str | None = None
    """Folder or URL (s3://...) that a reading source reads; ``--in`` wins, a generating source takes none."""
    scenes: Count = 2000
    """How many scenes a generating source makes."""
    shard_scenes: Count = 250
    """Scenes per shard."""
    max_side: Annotated[int, Field(ge=32)] | None = None
    """Pictures with a longer side are made smaller (sources folder, hub, rgbd); null keeps their size."""
    max_pixels: Annotated[int, Field(ge=1, le=178_956_970)] = 89_478_485
    """Pictures with more pixels are set aside before they are decoded: decompression bombs."""
    duplicates: DuplicateParams = DuplicateParams()
    procedural: ProceduralParams = ProceduralParams()
    omni3d: Omni3dParams = Omni3dParams()
    folder: FolderParams = FolderParams()
    hub: HubParams = HubParams()
    rgbd: RgbdParams = RgbdParams()


class WeightsParams(Section):
    """A published model: its weights are read as safetensors, and no code comes with them."""

    model: str
    """Hub id, or a folder as ``save_pretrained`` writes it."""
    revision: str | None = None
    """Commit, tag or branch of the hub; a commit pins the weights, null takes the newest."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """``auto``: float32 on a CPU; on a GPU bfloat16 for filtering and tagging, float32 where outputs are measured."""


class FilteringParams(WeightsParams):
    """Zero-shot classification (CLIP, SigLIP): which pictures are photographs of scenes with objects."""

    model: str = "google/siglip2-base-patch16-224"
    positive: tuple[str, ...] | None = None
    """Descriptions of pictures to keep; null takes those of ``srgpt/perception/words.yaml``."""
    negative: tuple[str, ...] | None = None
    """Descriptions of pictures to set aside; null takes those of ``srgpt/perception/words.yaml``."""
    min_positive: Share = 0.5
    """Pictures are kept where all positive descriptions together are at least this probable."""


class TaggingParams(WeightsParams):
    """Naming what a picture shows (Florence-2), for the detector to look for."""

    model: str = "florence-community/Florence-2-base"
    task: Literal["objects", "region_captions"] = "objects"
    """``objects`` asks for names of objects, ``region_captions`` for short descriptions of regions."""
    vocabulary: tuple[str, ...] = ()
    """The tags of every picture where ``perceive.tags`` is ``vocabulary``."""
    removed: tuple[str, ...] | None = None
    """Tags that end in one of these words (blue sky, living room) are dropped; null takes those of ``words.yaml``."""
    max_tags: Count = 40
    max_new_tokens: Count = 512


class DetectionParams(WeightsParams):
    """Boxes for words (Grounding DINO, OWLv2), with the reference's thresholds."""

    model: str = "IDEA-Research/grounding-dino-tiny"
    box_threshold: Share = 0.25
    """Lowest score with which the model itself proposes a box."""
    text_threshold: Share = 0.2
    """Lowest score of a word that names a box (Grounding DINO only)."""
    nms_iou: Share = 0.5
    """Of boxes that overlap more, the most certain one stays, whatever their words."""
    max_box_share: Share = 0.75
    """Boxes over more of the picture are dropped."""
    min_score: Share = 0.3
    """Boxes less certain are dropped."""


class SegmentationParams(WeightsParams):
    """Masks from boxes (SAM 2, SAM-HQ)."""

    model: str = "facebook/sam2.1-hiera-small"
    min_area: Count = 25
    """Detected objects with fewer mask pixels are dropped."""
    subtract: bool = True
    """Take the mask of a contained object (a cup on a table) out of the mask that contains it."""


class MetricDepthParams(WeightsParams):
    """Depth in metres (Depth Pro, Depth Anything V2 metric, ZoeDepth)."""

    model: str = "Intel/zoedepth-nyu-kitti"


class RelativeDepthParams(WeightsParams):
    """Inverse depth without scale (Depth Anything), which models may consume and facts never do."""

    model: str = "depth-anything/Depth-Anything-V2-Small-hf"


class DepthEstimationParams(Section):
    """Depth from one picture: the two kinds never mix."""

    metric: MetricDepthParams = MetricDepthParams()
    relative: RelativeDepthParams = RelativeDepthParams()


class CalibrationParams(WeightsParams):
    """Intrinsics from a field-of-view model (Depth Pro), gravity from the ground plane."""

    model: str = "apple/DepthPro-hf"
    ground: tuple[str, ...] | None = None
    """Words for ground, looked for where gravity is; null takes those of ``srgpt/perception/words.yaml``."""
    iterations: Count = 300
    """RANSAC hypotheses per picture."""
    tolerance: Positive = 0.02
    """Distance to the plane, as a share of a point's depth, up to which a point supports it."""
    min_inliers: Share = 0.5
    """Share of the ground's points that must support the plane."""
    max_tilt_degrees: Annotated[float, Field(gt=0, le=90)] = 60.0
    """Largest angle between gravity and the picture's vertical; a plane beyond it is not the ground."""


class OracleParams(Section):
    """Perception that is right by construction, made worse on purpose: for procedural scenes only."""

    mask_erosion: Annotated[int, Field(ge=-64, le=64)] = 0
    """Pixels taken off every mask's outline; a negative number adds them."""
    depth_scale: Positive = 1.0
    """Factor on every depth."""
    depth_noise: Annotated[float, Field(ge=0)] = 0.0
    """Standard deviation of every pixel's depth, relative to the depth."""
    tilt_degrees: Annotated[float, Field(ge=0, le=45)] = 0.0
    """Angle by which gravity is wrong, in a random direction."""
    missed_share: Share = 0.0
    """Chance of every object to be overlooked."""


class PerceiveParams(Section):
    """What fills the gaps that a source left. ``given`` means: the source must have it."""

    pictures: Literal["given", "model"] = "given"
    """``model`` sets pictures aside that are no photographs of scenes."""
    tags: Literal["given", "vocabulary", "model"] = "given"
    """Words to look for where there are no regions: the source's, ``tagging.vocabulary``, or a model's."""
    regions: Literal["given", "model"] = "given"
    """``model`` detects objects by their tags in pictures without regions."""
    masks: Literal["given", "boxes", "model"] = "given"
    """``boxes`` uses a region's box as its mask where no mask was given, ``model`` segments it."""
    depth: Literal["given", "none", "model"] = "given"
    """``none`` goes on without depth: only facts from cuboids can then be asked."""
    relative_depth: Literal["given", "model"] = "given"
    """``model`` adds relative depth; no scene needs it."""
    intrinsics: Literal["given", "fov", "model"] = "given"
    """``fov`` assumes ``fov_degrees``; ``model`` estimates the field of view, also in place of EXIF's."""
    gravity: Literal["given", "level", "ransac"] = "given"
    """``level`` assumes a level camera; ``ransac`` fits the ground plane, and assumes it where there is none."""
    fov_degrees: Annotated[float, Field(gt=1, lt=179)] = 60.0
    """Assumed horizontal field of view."""
    on_missing: Literal["error", "reject"] = "error"
    """``reject`` sets incomplete scenes aside with their reason instead of failing the stage."""
    batch_size: Annotated[int, Field(ge=1, le=1024)] = 8
    """Pictures that the models see at once."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """``auto``: a GPU where there is one."""
    filtering: FilteringParams = FilteringParams()
    tagging: TaggingParams = TaggingParams()
    detection: DetectionParams = DetectionParams()
    segmentation: SegmentationParams = SegmentationParams()
    depth_estimation: DepthEstimationParams = DepthEstimationParams()
    calibration: CalibrationParams = CalibrationParams()
    oracle: OracleParams | None = None
    """Degrade what procedural scenes give, to see how labels suffer; null leaves it."""

    @model_validator(mode="after")
    def _vocabulary(self) -> PerceiveParams:
        if self.tags == "vocabulary" and not self.tagging.vocabulary:
            raise ValueError(
                "tags is vocabulary, and tagging.vocabulary is empty: list the words to look for"
            )
        return self


class LiftParams(Section):
    """From masked depth to clean object point clouds and boxes (reference thresholds where it has them)."""

    compat: Literal["corrected", "reference"] = "corrected"
    """``reference`` cleans as SpatialRGPT does, with its thresholds, and keeps the clouds for ``ask.compat``."""
    min_mask_points: Count = 16
    outlier_neighbours: Count = 10
    outlier_std_ratio: Positive = 20.0
    """Lower drops more: 6 also takes faces seen at a slant, the reference's 1.2 the edges of all."""
    model_outlier_std_ratio: Positive = 3.0
    """The same where a model estimated the depth or drew the mask: there the edges of objects smear."""
    voxel_min: Positive = 0.01
    """Smallest voxel edge, metres."""
    voxel_share: Positive = 0.025
    """Voxel edge as a share of the object's scale (the reference divides the scale by 40)."""
    cluster_eps: Positive = 0.2
    """DBSCAN radius, metres."""
    cluster_spacing: Annotated[float, Field(ge=0)] = 8.0
    """The DBSCAN radius grows to this many voxel edges or pixel spacings, so that far objects hold."""
    cluster_min_points: Count = 10
    min_kept_points: Count = 10
    min_volume: Annotated[float, Field(ge=0)] = 1e-6
    """Smallest box, cubic metres."""
    max_points: Count = 8192
    """Larger masks are thinned evenly to this many points before cleaning; fewer are faster, and miss more."""
    mask_noise: Annotated[float, Field(ge=0)] = 0.5
    """Standard deviation of where a mask ends that the source gave, pixels; with the next ones, an uncertainty."""
    model_mask_noise: Annotated[float, Field(ge=0)] = 2.0
    """The same for a mask that a model drew."""
    depth_noise: Annotated[float, Field(ge=0)] = 0.005
    """Relative standard deviation of one object's depth where the source gave the depth."""
    model_depth_noise: Annotated[float, Field(ge=0)] = 0.05
    """The same where a model estimated it."""
    model_scale_noise: Annotated[float, Field(ge=0)] = 0.15
    """Relative standard deviation of the scale of a picture whose depth a model estimated."""


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


class ValidateParams(Section):
    """What a dataset must satisfy."""

    min_rows: Count = 1
    max_rejected_share: Share = 0.5
    """Highest share of input that may have been set aside."""
    yes_share: tuple[Share, Share] = (0.45, 0.55)
    """Allowed share of positive answers per qualitative category."""
    min_balance_rows: Count = 40
    """Categories with fewer questions are not judged for balance."""
    min_label_accuracy: Share = 0.8
    """Lowest agreement of perceived with true qualitative facts."""
    max_abs_rel: Positive = 1.0
    """Largest median relative error of perceived metric facts."""
    max_blind_lead: Share = 0.1
    """More right answers than by chance, from the text of questions alone, are a warning."""
    gallery: Annotated[int, Field(ge=0, le=200)] = 24
    """Scenes shown in the report."""
    curve_scenes: Annotated[int, Field(ge=0)] = 16
    """Scenes that are degraded to see how facts suffer; a few tenths of a second each."""


class VisionParams(Section):
    """The vision tower, shared by RGB and depth images."""

    pretrained: str | None = None
    """A SigLIP- or CLIP-like checkpoint (folder or hub id); null builds one from the sizes below."""
    image_size: Annotated[int, Field(ge=16, le=2048)] = 112
    patch_size: Annotated[int, Field(ge=4, le=64)] = 14
    hidden_size: Count = 96
    layers: Count = 3
    heads: Count = 3
    mlp_size: Count = 256
    feature_layer: Literal["last", "penultimate"] = "last"
    """``last`` ends in the tower's norm; ``penultimate`` is the reference's ``hidden_states[-2]``."""


class TextParams(Section):
    """The language model."""

    pretrained: str | None = None
    """A causal language model (folder or hub id); null builds a small Llama from the sizes below."""
    vocab_size: Annotated[int, Field(ge=300)] = 1024
    """Size of the tokenizer trained on the conversations where there is no pretrained one."""
    hidden_size: Count = 96
    layers: Count = 2
    heads: Count = 3
    mlp_size: Count = 256
    max_length: Count = 2048


class ModelParams(Section):
    """The region-and-depth model."""

    vision: VisionParams = VisionParams()
    text: TextParams = TextParams()
    depth_encoding: Literal["relative", "metric"] = "metric"
    """How depth becomes an image: the reference's inverse depth per image, or log depth of a fixed scale."""


class TrainParams(Section):
    """Training with DeepSpeed."""

    dataset: Name = "train"
    model: ModelParams = ModelParams()
    steps: Count = 1600
    batch_images: Count = 6
    """Images per batch and rank; each brings all its questions."""
    accumulation: Count = 1
    """Batches per optimizer step and rank: a step sees batch_images * accumulation * ranks * nodes images."""
    learning_rate: Positive = 1e-3
    vision_rate: Positive = 1.0
    """Learning rate of vision tower and region extractor, relative to the language model's. From scratch a small
    one keeps features still while the language model learns to compare them."""
    warmup_share: Share = 0.03
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    betas: tuple[Share, Share] = (0.9, 0.95)
    """AdamW's decay rates of the first and second moment."""
    gradient_clipping: Positive = 1.0
    key_weight: Positive = 1.0
    """How much the words of an answer that state a relation count in the loss, and whole numbers by its square
    root; wording and decimals count 1."""
    rgb_share: Share = 0.15
    """Share of samples trained without depth, so that one model answers with and without."""
    blind_share: Share = 0.1
    """Share of samples trained without any picture, so that the blind control knows what text alone gives."""
    zero_stage: Annotated[int, Field(ge=0, le=3)] = 0
    offload: Literal["none", "optimizer", "parameters"] = "none"
    """What ZeRO keeps in the memory of the CPU: the optimizer's states and its step (stage 1 and up), or the
    parameters, too (stage 3)."""
    ranks: Count = 1
    """Processes to train with on each node (torchrun)."""
    nodes: Count = 1
    """Machines that train together on a shared folder; each runs `srgpt train` with its own --node-rank."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """``auto``: bfloat16 on a GPU, float32 on a CPU."""
    spike_factor: Annotated[float, Field(gt=1)] | None = None
    """A loss of so many times the usual one stops the training; null lets it go on."""
    checkpoint_steps: Count = 100
    log_steps: Count = 10
    sample_steps: Annotated[int, Field(ge=0)] = 0
    """Steps between pages of answers to a fixed handful of questions in MLflow; 0 makes none."""
    data_workers: Annotated[int, Field(ge=0)] = 0
    """Processes per rank that read and collate ahead; 0 does it between steps."""

    @property
    def world(self) -> int:
        """Number of ranks on all nodes."""
        return self.ranks * self.nodes

    @property
    def global_batch(self) -> int:
        """Images per optimizer step, over all ranks."""
        return self.batch_images * self.accumulation * self.world

    @model_validator(mode="after")
    def _offload_needs_zero(self) -> TrainParams:
        least = {"none": 0, "optimizer": 1, "parameters": 3}[self.offload]
        if self.zero_stage < least:
            raise ValueError(f"train.offload = {self.offload!r} needs train.zero_stage >= {least}")
        return self


class EvaluateParams(Section):
    """Benchmarking."""

    dataset: Name = "bench"
    batch_size: Count = 64
    max_new_tokens: Count = 32
    max_questions: Annotated[int, Field(ge=0)] = 0
    """Evaluate only the first so many questions; 0 means all."""
    gallery: Annotated[int, Field(ge=0)] = 24
    """Examples shown on the gallery page."""


class ExportParams(Section):
    """ONNX export and its proof."""

    precision: Literal["fp32", "fp16", "int4"] = "fp32"
    parity_questions: Count = 50
    max_logit_error: Positive = 1e-3
    """Largest allowed max relative logit error against PyTorch."""
    min_parity_agreement: Share = 1.0
    """Share of the parity questions whose greedy answer must be the same as PyTorch's."""


class PromoteParams(Section):
    """The gates before a model serves."""

    model_name: Name = "srgpt"
    noise_sigmas: Annotated[float, Field(ge=0)] = 2.0
    """The candidate may fall behind the champion by this many standard errors of the difference."""
    smoke_questions: Count = 20
    min_smoke_agreement: Share = 1.0
    """Share of smoke answers that must equal the evaluated model's."""
    max_latency_ms: Positive = 2000.0
    """Bound on the 95th percentile of one question's latency on the server."""


class ServeParams(Section):
    """The local Triton server."""

    host: str = "127.0.0.1"
    grpc_port: Annotated[int, Field(ge=1, le=65535)] = 8001
    http_port: Annotated[int, Field(ge=1, le=65535)] = 8000
    metrics_port: Annotated[int, Field(ge=1, le=65535)] = 8002
    max_batch_size: Count = 16
    max_queue_delay_ms: Annotated[float, Field(ge=0)] = 5.0
    threads: Annotated[int, Field(ge=0)] = 0
    """Threads of one graph; 0 means one per core."""
    startup_timeout: Positive = 60.0
    """Seconds."""
    folder: str = ".srgpt/triton"
    """Where the server keeps its log, its state and its model repository."""
    venv: str = ".venv-triton"
    """The virtual environment that holds the Triton binary."""


class EngineParams(Section):
    """How stages map over shards; it never changes what they write."""

    backend: Literal["local", "ray"] = "local"
    """``local``: processes of this machine; ``ray``: actors of a Ray cluster."""
    workers: Annotated[int, Field(ge=0)] = 0
    """Processes; 0 means one per core, or per GPU for a stage that runs models on it. 1 works in the command's own
    process, where a crash in native code ends the run."""
    gpus_per_worker: Annotated[float, Field(ge=0)] = 1.0
    """GPUs that a worker of such a stage holds, where there are GPUs; 0.5 puts two on one, 0 claims none."""
    ray_address: str | None = None
    """Of a running Ray cluster (``auto``, ``ray://host:10001``); null starts one in the command's own process."""


class TrackingParams(Section):
    """MLflow. The environment's MLFLOW_TRACKING_URI wins."""

    uri: str = "sqlite:///.srgpt/mlflow.db"
    experiment: str = "srgpt"


class DatasetParams(Section):
    """What differs for one dataset: overrides of whole sections' keys, by name."""

    ingest: dict[str, Any] = {}
    perceive: dict[str, Any] = {}
    lift: dict[str, Any] = {}
    ask: dict[str, Any] = {}


class Params(Section):
    """All parameters."""

    profile: Literal["demo", "gpu", "full"] = "demo"
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


def load(
    path: str | Path | None = None,
    profile: str | None = None,
    overrides: Sequence[str] = (),
    *,
    cwd: Path | None = None,
) -> Params:
    """Load and check parameters.

    ``path`` None means ``params.yaml`` in ``cwd`` (default: the current folder) where it exists, else
    defaults. ``overrides`` are ``section.key=value`` strings with YAML values. Raises :class:`InputError`.
    """
    if path is None:
        default = (cwd or Path.cwd()) / "params.yaml"
        path = default if default.exists() else None
    data = Params().dump()
    if path is not None:
        data = merge(data, _read_yaml(Path(path)))
    if profile is not None:
        data = merge(data, read_profile(profile))
    explicit: dict[str, Any] = {}
    for override in overrides:
        explicit = merge(explicit, _parse_override(override))
    params = build(merge(data, explicit), str(path or "parameters"))
    params._explicit = explicit
    return params


def check_dataset(name: str) -> str:
    """Return the name of a dataset; it becomes part of paths, so :class:`InputError` where it is not plain."""
    if not re.fullmatch(_NAME.strip("^$"), name):
        raise InputError(
            f"{name!r} cannot name a dataset: letters, digits, '_', '.' and '-' are allowed, the first a letter "
            "or a digit. Give --dataset NAME."
        )
    return name


def read_profile(name: str) -> dict[str, Any]:
    """Return the overlay of a named profile."""
    if name not in PROFILES:
        raise InputError(f"--profile {name}: no such profile; allowed: {', '.join(PROFILES)}")
    text = (resources.files("srgpt") / "profiles" / f"{name}.yaml").read_text()
    return {"profile": name, **(yaml.safe_load(text) or {})}


def write(path: Path, profile: str | None = None, overrides: Sequence[str] = ()) -> Params:
    """Apply a profile and overrides to the parameter file itself, keeping its comments; return the result.

    Checked first: a wrong value leaves the file as it was. An override of a section wins over what datasets
    say, as on the command line: it replaces their own values for that key.
    """
    params = load(path, profile, overrides)
    editor = _editor()
    document = editor.load(path.read_text()) or {}
    if profile:
        _update(document, read_profile(profile))
    explicit: dict[str, Any] = {}
    for override in overrides:
        explicit = merge(explicit, _parse_override(override))
    own = {name: _shared(dataset.model_dump(), explicit) for name, dataset in params.datasets.items()}
    _update(document, merge({"datasets": {name: values for name, values in own.items() if values}}, explicit))
    partial = path.with_suffix(".yaml.tmp")
    with partial.open("w") as file:
        editor.dump(document, file)
    partial.replace(path)
    return params


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
                    _explain(error, {**params.dump(), **overrides}, f"{origin}, datasets.{name}")
                ) from None
    except ValidationError as error:
        raise InputError(_explain(error, data, origin)) from None
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


def _editor() -> Any:
    from ruamel.yaml import YAML
    from ruamel.yaml.representer import RoundTripRepresenter

    class Representer(RoundTripRepresenter):
        """Says ``null`` where the default leaves nothing."""

    Representer.add_representer(type(None), lambda r, _: r.represent_scalar("tag:yaml.org,2002:null", "null"))
    editor = YAML()
    editor.Representer = Representer
    editor.preserve_quotes = True
    editor.width = 110
    return editor


def _update(document: Any, changes: Mapping[str, Any]) -> None:
    for key, value in changes.items():
        if isinstance(value, Mapping) and isinstance(document.get(key), Mapping):
            _update(document[key], value)
        elif key not in document or document[key] != value:
            document[key] = value


def _shared(own: Mapping[str, Any], explicit: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of the explicit values whose keys a dataset has values of its own for."""
    result: dict[str, Any] = {}
    for key in own.keys() & explicit.keys():
        nested = isinstance(own[key], Mapping) and isinstance(explicit[key], Mapping)
        result[key] = _shared(own[key], explicit[key]) if nested else explicit[key]
    return result


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        data = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise InputError(f"--params {path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--params {path}: cannot be read ({error})") from None
    except yaml.YAMLError as error:
        raise InputError(f"--params {path}: not YAML ({error})") from None
    if data is not None and not isinstance(data, dict):
        raise InputError(f"--params {path}: expected sections (a mapping), found {type(data).__name__}")
    return data or {}


def _parse_override(text: str) -> dict[str, Any]:
    key, separator, value = text.partition("=")
    if not separator or not all(key.split(".")):
        raise InputError(f"--set {text}: expected section.key=value, for example train.steps=200")
    try:
        parsed: Any = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise InputError(f"--set {text}: the value is not YAML ({error})") from None
    if isinstance(parsed, str) and _EXPONENT.fullmatch(value.strip()):
        parsed = float(parsed)
    for part in reversed(key.strip().split(".")):
        parsed = {part: parsed}
    return parsed


# Errors that teach ------------------------------------------------------------------------------------------


def _explain(error: ValidationError, data: Mapping[str, Any], origin: str) -> str:
    lines = [f"{origin}: {error.error_count()} wrong parameter(s)"]
    for item in error.errors():
        location = [str(p) for p in item["loc"]]
        key = ".".join(location)
        if item["type"] == "extra_forbidden":
            allowed = _keys(location[:-1])
            close = difflib.get_close_matches(location[-1], allowed, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            lines.append(f"  {key} = {item['input']!r}: unknown key.{hint} Allowed: {', '.join(allowed)}")
        elif not location:
            lines.append(f"  {item['msg'].removeprefix('Value error, ')}")
        else:
            message = item["msg"].removeprefix("Value error, ")
            shown = repr(item["input"]) if _may_be_shown(location) else "(not shown)"
            lines.append(f"  {key} = {shown}: {message[0].lower()}{message[1:]}{_allowed(location)}")
    return "\n".join(lines)


def _section_at(location: Sequence[str]) -> type[BaseModel] | None:
    current: type[BaseModel] | None = Params
    for index, part in enumerate(location):
        field = (
            next((f for n, f in current.model_fields.items() if part in (n, f.alias)), None)
            if current
            else None
        )
        if field is None:
            # inside datasets.<name>, the next part is a section's name again
            return DatasetParams if index == 1 and location[0] == "datasets" else None
        models = [a for a in _types(field.annotation) if isinstance(a, type) and issubclass(a, BaseModel)]
        current = models[0] if models else None
        if part == "datasets":
            return DatasetParams if len(location) == 2 else None
    return current


def _types(annotation: Any) -> Iterator[Any]:
    yield annotation
    if get_origin(annotation) is Annotated:
        yield from _types(get_args(annotation)[0])
    elif get_origin(annotation) in (Union, type(int | None)):
        for argument in get_args(annotation):
            yield from _types(argument)


def _keys(location: Sequence[str]) -> list[str]:
    section = _section_at(location)
    return [] if section is None else [f.alias or n for n, f in section.model_fields.items()]


def _field_at(location: Sequence[str]) -> FieldInfo | None:
    section = _section_at(location[:-1])
    fields = section.model_fields if section else {}
    return next((f for n, f in fields.items() if location[-1] in (n, f.alias)), None)


def _may_be_shown(location: Sequence[str]) -> bool:
    """Whether a wrong value is no secret that somebody put in the wrong place (``repr=False``)."""
    field = _field_at(location)
    return field is None or field.repr


def _allowed(location: Sequence[str]) -> str:
    field = _field_at(location)
    if field is None:
        return ""
    bounds = [
        f"{symbol} {getattr(m, name)}"
        for m in field.metadata
        for name, symbol in (("ge", ">="), ("gt", ">"), ("le", "<="), ("lt", "<"))
        if getattr(m, name, None) is not None
    ]
    choices = [repr(c) for a in _types(field.annotation) if get_origin(a) is Literal for c in get_args(a)]
    text = " or ".join(filter(None, [", ".join(choices), " and ".join(bounds)]))
    return f" (allowed: {text})" if text else ""
