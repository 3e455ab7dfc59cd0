"""Models that fill the gaps that a source left."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from srgpt.params.section import Count, Positive, Section, Share


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
