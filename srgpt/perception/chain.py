"""The chain of roles over a shard: filter, tag, detect, segment, depth, intrinsics, gravity, then the rules for gaps.

What a source gave is kept and stays marked as given; a role runs only on scenes that lack what it makes, and only
where a setting of ``perceive`` asks for it. A scene that a role sets aside goes no further.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from srgpt.errors import InputError
from srgpt.geometry.camera import intrinsics_of
from srgpt.params import PerceiveParams
from srgpt.perception.calibration import RANSAC, gravity_from_ground, ground_points
from srgpt.perception.depth import encode_relative, load_field_of_view, load_metric, load_relative
from srgpt.perception.detection import load_detector, select
from srgpt.perception.filtering import load_filter
from srgpt.perception.gaps import LEVEL, Gap, IncompleteError, SetAsideError, complete
from srgpt.perception.oracle import degrade
from srgpt.perception.roles import BBox, DepthEstimate, Detection
from srgpt.perception.segmentation import load_segmenter, subtract_contained
from srgpt.perception.tagging import load_tagger
from srgpt.perception.weights import one_thread, source_name
from srgpt.perception.words import chosen, ends_in, keep_tags
from srgpt.randomness import seeded
from srgpt.records import Region, Scene, encode_depth, encode_rle

if TYPE_CHECKING:
    from PIL.Image import Image

EXIF = "exif"
"""How the source of intrinsics begins that are only a prior: a camera's own note, which edits of a picture outlive."""


def complete_all(scenes: Sequence[Scene], params: PerceiveParams, seed: int) -> list[Scene | IncompleteError]:
    """Complete the scenes of a shard, in batches of ``perceive.batch_size``; one result per scene, in order.

    An :class:`IncompleteError` stands for a scene with gaps that no setting fills, a :class:`SetAsideError` for one
    that a role judged unfit (``not-a-photograph``, ``no-tags``, ``no-boxes``, ...), with the reason. A scene that
    lacks nothing is returned itself. Models are loaded when the first scene needs them, once per process.
    """
    results: list[Scene | IncompleteError] = []
    with one_thread() if uses_models(params) else nullcontext():
        for start in range(0, len(scenes), params.batch_size):
            batch = [_Work(scene) for scene in scenes[start : start + params.batch_size]]
            for step in _STEPS:
                step([work for work in batch if work.problem is None], params, seed)
            results += [work.problem or work.scene for work in batch]
    return results


def uses_models(params: PerceiveParams) -> bool:
    """Tell whether any role may run a model."""
    roles = (params.pictures, params.tags, params.regions, params.masks, params.depth, params.relative_depth)
    return "model" in (*roles, params.intrinsics)


@dataclass
class _Work:
    """A scene on its way, and what later roles need of it."""

    scene: Scene
    picture: Image | None = None
    problem: IncompleteError | None = None
    detections: list[Detection] = field(default_factory=list)
    """New objects, which become regions once they are segmented."""
    ground_boxes: list[BBox] = field(default_factory=list)
    ground: NDArray[np.bool_] | None = None
    """Pixels of ground, (height, width)."""
    estimate: DepthEstimate | None = None

    def set_aside(self, reason: str, detail: str) -> None:
        self.problem = SetAsideError(Gap(reason, detail))

    @property
    def rgb(self) -> Image:
        assert self.picture is not None
        return self.picture


def _attempt(work: _Work, step: Callable[[Scene], Scene]) -> None:
    try:
        work.scene = step(work.scene)
    except IncompleteError as error:
        work.problem = error


def _oracle(batch: list[_Work], params: PerceiveParams, seed: int) -> None:
    oracle = params.oracle
    if oracle is not None:
        for work in batch:
            _attempt(work, lambda scene: degrade(scene, oracle, seed))


def _gaps(batch: list[_Work], params: PerceiveParams, seed: int) -> None:
    for work in batch:
        _attempt(work, lambda scene: complete(scene, params))


# What a scene needs of the roles ----------------------------------------------------------------------------


def _wants_regions(scene: Scene, params: PerceiveParams) -> bool:
    return params.regions == "model" and not scene.regions


def _wants_masks(scene: Scene, params: PerceiveParams) -> bool:
    return params.masks == "model" and any(region.rle is None for region in scene.regions)


def _wants_depth(scene: Scene, params: PerceiveParams) -> bool:
    return params.depth == "model" and scene.depth is None


def _wants_relative(scene: Scene, params: PerceiveParams) -> bool:
    return params.relative_depth == "model" and scene.relative_depth is None


def _wants_intrinsics(scene: Scene, params: PerceiveParams) -> bool:
    """A model's field of view also replaces a prior from EXIF."""
    prior = (scene.intrinsics_source or "").startswith(EXIF)
    return params.intrinsics == "model" and (scene.intrinsics is None or prior)


def _wants_gravity(scene: Scene, params: PerceiveParams) -> bool:
    return params.gravity == "ransac" and scene.gravity is None


def _finds_ground(params: PerceiveParams) -> bool:
    """Ground is looked for with the models that are set up for regions and masks anyway."""
    return params.regions == "model" and params.masks == "model"


def _pictures(batch: list[_Work], params: PerceiveParams, seed: int) -> None:
    """Decode the pictures that a model will look at."""
    from PIL import Image

    wants = (_wants_regions, _wants_masks, _wants_depth, _wants_relative, _wants_intrinsics, _wants_gravity)
    for work in batch:
        scene = work.scene
        if params.pictures != "model" and not any(want(scene, params) for want in wants):
            continue
        try:
            work.picture = Image.fromarray(scene.rgb())
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
            work.set_aside("bad-image", "its picture cannot be decoded; ingest it again")
            continue
        if work.picture.size != (scene.width, scene.height):
            sizes = f"{work.picture.width} x {work.picture.height}, not {scene.width} x {scene.height} pixels"
            work.set_aside("wrong-image-size", f"its picture is {sizes} as the scene says; ingest it again")


# The roles --------------------------------------------------------------------------------------------------


def _filter(batch: list[_Work], params: PerceiveParams, seed: int) -> None:
    if params.pictures != "model" or not batch:
        return
    verdicts = load_filter(params.filtering, params.device).judge([work.rgb for work in batch])
    for work, verdict in zip(batch, verdicts, strict=True):
        if not verdict.keep:
            work.set_aside(
                "not-a-photograph",
                f"it looks more like {verdict.description!r} (all that perceive.filtering keeps: probability "
                f"{verdict.positive:.2f}, expected {params.filtering.min_positive:g} or more)",
            )


def _tag(batch: list[_Work], params: PerceiveParams, seed: int) -> None:
    bare = [work for work in batch if _wants_regions(work.scene, params) and not work.scene.tags]
    if params.tags == "given":
        missing = Gap(
            "missing-tags",
            "it has no tags to look for; perceive.tags=model names what it shows, perceive.tags=vocabulary looks for "
            "perceive.tagging.vocabulary",
        )
        for work in bare:
            work.problem = IncompleteError(missing)
        return
    if not bare:
        return
    tagging = params.tagging
    if params.tags == "vocabulary":
        found: list[tuple[str, ...]] = [tagging.vocabulary] * len(bare)
        removed: tuple[str, ...] = ()
    else:
        found = load_tagger(tagging, params.device).tag([work.rgb for work in bare])
        removed = chosen(tagging.removed, "tagging", "removed")
    for work, raw in zip(bare, found, strict=True):
        tags = keep_tags(raw, removed, tagging.max_tags) if params.tags == "model" else raw
        if tags:
            work.scene = work.scene.replace(tags=tags)
        else:
            dropped = ", ".join(raw[:5]) or "nothing"
            work.set_aside("no-tags", f"no object is named in it (found: {dropped})")


def _detect(batch: list[_Work], params: PerceiveParams, seed: int) -> None:
    """Find objects where there are no regions, and ground where gravity is wanted, in one pass."""
    ground = chosen(params.calibration.ground, "calibration", "ground")
    asked: list[tuple[_Work, tuple[str, ...], tuple[str, ...]]] = []
    for work in batch:
        objects = work.scene.tags if _wants_regions(work.scene, params) else ()
        floors = ground if _wants_gravity(work.scene, params) and _finds_ground(params) else ()
        if objects or floors:
            asked.append((work, objects, tuple(word for word in floors if word not in objects)))
    if not asked:
        return
    detector = load_detector(params.detection, params.device)
    found = detector.detect(
        [w.rgb for w, _, _ in asked], [[*objects, *floors] for _, objects, floors in asked]
    )
    # a floor may fill the picture, and the things on it may fill the floor
    floor_rules = params.detection.model_copy(update={"max_box_share": 1.0})
    for (work, objects, floors), detections in zip(asked, found, strict=True):
        size = work.rgb.size
        level = [d for d in detections if ends_in(d.tag, ground)]
        if floors:
            work.ground_boxes = [d.bbox for d in select(level, size, floor_rules)]
        if objects:
            work.detections = select([d for d in detections if d.tag in objects], size, params.detection)
            if not work.detections:
                work.set_aside(
                    "no-boxes",
                    f"none of its {len(objects)} tags was found in it with perceive.detection's thresholds",
                )


def _segment(batch: list[_Work], params: PerceiveParams, seed: int) -> None:
    """Give masks to regions without one, to new objects, and to the ground: one call per picture."""
    if params.masks != "model":
        for work in batch:
            if work.detections:
                work.scene = work.scene.replace(regions=_regions(work.detections))
        return
    wanted: list[tuple[_Work, list[BBox]]] = []
    for work in batch:
        bare = [region.bbox for region in work.scene.regions if region.rle is None]
        boxes = [*bare, *(d.bbox for d in work.detections), *work.ground_boxes]
        if boxes:
            wanted.append((work, boxes))
    if not wanted:
        return
    segmenter = load_segmenter(params.segmentation, params.device)
    found = segmenter.segment([work.rgb for work, _ in wanted], [boxes for _, boxes in wanted])
    for (work, boxes), masks in zip(wanted, found, strict=True):
        count = len(boxes) - len(work.ground_boxes)
        if work.ground_boxes:
            work.ground = np.asarray(masks[count:].any(axis=0))
        if count:
            _masked(work, masks[:count], boxes[:count], params)


def _masked(work: _Work, masks: NDArray[np.bool_], boxes: list[BBox], params: PerceiveParams) -> None:
    """Put masks into a scene: new objects largest first and renumbered, given regions where they were."""
    settings = params.segmentation
    if settings.subtract:
        masks = subtract_contained(masks, boxes)
    areas = masks.sum(axis=(1, 2))
    source = source_name(settings)
    if work.detections:
        order = sorted(np.flatnonzero(areas >= settings.min_area), key=lambda i: (-areas[i], i))
        if not order:
            work.set_aside(
                "no-masks", f"none of its {len(boxes)} boxes has a mask of {settings.min_area} pixels or more"
            )
            return
        regions = _regions([work.detections[i] for i in order])
        pairs = zip(regions, (masks[i] for i in order), strict=True)
        work.scene = work.scene.replace(
            regions=tuple(replace(r, rle=encode_rle(mask), mask_source=source) for r, mask in pairs)
        )
        return
    rest = iter(masks)
    work.scene = work.scene.replace(
        regions=tuple(
            replace(r, rle=encode_rle(next(rest)), mask_source=source) if r.rle is None else r
            for r in work.scene.regions
        )
    )


def _regions(detections: Sequence[Detection]) -> tuple[Region, ...]:
    return tuple(
        Region(id=i, category=d.tag, label=d.tag, bbox=d.bbox, score=d.score)
        for i, d in enumerate(detections)
    )


def _depth(batch: list[_Work], params: PerceiveParams, seed: int) -> None:
    metric, relative = params.depth_estimation.metric, params.depth_estimation.relative
    bare = [work for work in batch if _wants_depth(work.scene, params)]
    if bare:
        focals = [_known_focal(work.scene, params) for work in bare]
        estimates = load_metric(metric, params.device).estimate([work.rgb for work in bare], focals)
        for work, estimate in zip(bare, estimates, strict=True):
            work.estimate = estimate
            work.scene = work.scene.replace(
                depth=encode_depth(estimate.values), depth_source=source_name(metric)
            )
    bare = [work for work in batch if _wants_relative(work.scene, params)]
    if bare:
        estimates = load_relative(relative, params.device).estimate([work.rgb for work in bare])
        for work, estimate in zip(bare, estimates, strict=True):
            work.scene = work.scene.replace(
                relative_depth=encode_relative(estimate.values), relative_depth_source=source_name(relative)
            )


def _known_focal(scene: Scene, params: PerceiveParams) -> float | None:
    if scene.intrinsics is None or _wants_intrinsics(scene, params):
        return None
    return scene.intrinsics[0]


def _intrinsics(batch: list[_Work], params: PerceiveParams, seed: int) -> None:
    """Estimate the field of view; where a model gives none, a prior from EXIF stays, else it is assumed."""
    bare = [work for work in batch if _wants_intrinsics(work.scene, params)]
    calibration, metric = params.calibration, params.depth_estimation.metric
    same = (calibration.model, calibration.revision, calibration.dtype) == (
        metric.model,
        metric.revision,
        metric.dtype,
    )
    fresh = [work for work in bare if not same or work.estimate is None]
    if fresh:
        model = load_field_of_view(calibration, params.device)
        for work, estimate in zip(fresh, model.estimate([work.rgb for work in fresh]), strict=True):
            work.estimate = estimate
    for work in bare:
        scene = work.scene
        fov = None if work.estimate is None else work.estimate.fov_degrees
        if fov is not None:
            source: str | None = source_name(calibration)
        elif scene.intrinsics is None:
            fov, source = params.fov_degrees, f"fov:{params.fov_degrees:g}"
        else:
            continue
        intrinsics = intrinsics_of(fov, scene.width, scene.height)
        work.scene = scene.replace(intrinsics=intrinsics, intrinsics_source=source)


def _gravity(batch: list[_Work], params: PerceiveParams, seed: int) -> None:
    """Fit the ground plane; where there is no ground to see, the camera is taken to be level."""
    words = chosen(params.calibration.ground, "calibration", "ground")
    for work in batch:
        if not _wants_gravity(work.scene, params):
            continue
        gravity = _ground_gravity(work, words, params, seed)
        work.scene = work.scene.replace(
            gravity=gravity or (0.0, 1.0, 0.0), gravity_source=RANSAC if gravity else LEVEL
        )


def _ground_gravity(
    work: _Work, words: Sequence[str], params: PerceiveParams, seed: int
) -> tuple[float, float, float] | None:
    scene = work.scene
    if scene.depth is None or scene.intrinsics is None:
        return None
    ground = np.zeros((scene.height, scene.width), dtype=bool) if work.ground is None else work.ground.copy()
    try:
        depth = scene.depth_metres()
        masks = [(ends_in(r.category, words), r.mask()) for r in scene.regions if r.rle is not None]
        for _, mask in filter(lambda found: found[0], masks):
            ground |= mask
        for _, mask in filter(lambda found: not found[0], masks):
            ground &= ~mask  # things on the ground are not the ground
        usable = depth.shape == ground.shape
    except (OSError, SyntaxError, LookupError, TypeError, ValueError, InputError):
        usable = False
    if not usable:
        return None  # the rules for gaps say what is wrong with the scene
    rng = seeded(seed, scene.dataset, scene.scene_id, RANSAC)
    return gravity_from_ground(ground_points(depth, ground, scene.intrinsics), params.calibration, rng)


_STEPS = (_oracle, _pictures, _filter, _tag, _detect, _segment, _depth, _intrinsics, _gravity, _gaps)
