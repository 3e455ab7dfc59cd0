"""How perceived facts degrade with the errors of depth, masks and gravity, measured on a few scenes.

Scenes whose masks and depth were given are degraded on purpose (``perception/oracle.py``), one error at a time, and
lifted again. The facts that come out are held against two truths: the *visible surface*, which is all that a camera
can know, unprojected without any cleaning; and the whole object's *cuboid*, whose back no camera sees.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from srgpt.curation.facts import Subject
from srgpt.curation.lifting import lift_scene
from srgpt.curation.quality import Measure, is_whole
from srgpt.errors import InputError
from srgpt.geometry.boxes import box_of_points, canonical_box
from srgpt.geometry.camera import canonical_rotation, unproject_pixels
from srgpt.params import AskParams, LiftParams, OracleParams
from srgpt.perception.gaps import IncompleteError
from srgpt.perception.oracle import PREFIX, degrade
from srgpt.records import Box, Rejected, Scene, SceneGraph

KINDS: Mapping[str, tuple[str, float, tuple[float, ...]]] = {
    "depth_scale": ("depth too far or near, factor", 1.0, (0.8, 0.9, 1.1, 1.25)),
    "depth_noise": ("noise of each pixel's depth, relative", 0.0, (0.02, 0.05, 0.1)),
    "mask_erosion": ("pixels off the mask's outline", 0.0, (-2.0, 1.0, 2.0, 4.0)),
    "tilt_degrees": ("gravity wrong by degrees", 0.0, (2.0, 5.0, 10.0)),
}
"""A setting of the oracle -> what it is, its value that changes nothing, and those that are tried."""

TRUTHS = ("surface", "cuboids")

_LEAST_SIZE = 1e-4
"""Metres; a surface thinner than this has no extent to compare with."""


def accepts(scene: dict[str, Any]) -> bool:
    """Return whether a scene's row has what curves are made from: given depth and masks, and a whole camera."""
    known = (
        scene["depth_source"] == "given" and scene["intrinsics"] is not None and scene["gravity"] is not None
    )
    return known and any(r["rle"] is not None and r["mask_source"] == "given" for r in scene["regions"] or [])


def measure(rows: Iterable[dict[str, Any]], lift: LiftParams, ask: AskParams, seed: int) -> dict[str, Any]:
    """Measure facts under every degradation over rows of scenes.

    Returns ``scenes``, ``objects`` (with the exact depth and masks), and ``curves``: per kind its ``title`` and
    ``points``, each with its ``level`` and, per truth, ``labels`` (share right by relation, of pairs that are no tie
    in truth), ``abs_rel`` (median by quantity), ``direction`` (share within one hour) and ``objects``.
    """
    scenes = 0
    found: dict[tuple[str, float], dict[str, Measure]] = {}
    for row in rows:
        scene = Scene.from_row({**row, "image": b""})
        truths = _truths(scene)
        graph = lift_scene(scene, lift)
        if truths is None or isinstance(graph, Rejected):
            continue
        scenes += 1
        for kind, (_, exact, levels) in KINDS.items():
            _compare(found, (kind, exact), graph, truths, ask)
            for level in levels:
                worse = _degraded(scene, kind, level, lift, seed)
                if worse is not None:
                    _compare(found, (kind, level), worse, truths, ask)
    exact = next(iter(found.values()))["surface"].objects if found else 0
    return {
        "scenes": scenes,
        "objects": exact,
        "curves": [
            {
                "kind": kind,
                "title": title,
                "exact": exact_level,
                "points": [
                    {"level": level, **{t: _figures(found[kind, level][t]) for t in TRUTHS}}
                    for level in sorted({exact_level, *levels})
                    if (kind, level) in found
                ],
            }
            for kind, (title, exact_level, levels) in KINDS.items()
        ]
        if exact
        else [],
    }


def _degraded(scene: Scene, kind: str, level: float, lift: LiftParams, seed: int) -> SceneGraph | None:
    # what was given counts as exact here, for photographs too: the question is what an error on top of it does
    exact = scene.replace(uri=PREFIX)
    params = OracleParams.model_validate({kind: int(level) if kind == "mask_erosion" else level})
    try:
        graph = lift_scene(degrade(exact, params, seed), lift)
    except IncompleteError:  # no object is left of the scene
        return None
    return None if isinstance(graph, Rejected) else graph


def _truths(scene: Scene) -> dict[str, dict[int, Box]] | None:
    """Return the true boxes by region id, of the visible surface and of the cuboids; None for a broken scene."""
    try:
        depth = scene.depth_metres()
        assert scene.gravity is not None
        assert scene.intrinsics is not None
        rotation = canonical_rotation(scene.gravity)
        masks = {r.id: r.mask() for r in scene.regions if r.rle is not None}
    except (InputError, OSError, SyntaxError, ValueError):
        return None
    surface = {}
    for number, mask in masks.items():
        if mask.shape != depth.shape:
            return None
        v, u = np.nonzero(mask & (depth > 0))
        if len(v):
            points = unproject_pixels(u, v, depth[v, u], scene.intrinsics) @ rotation.T
            box = box_of_points(points)
            if bool((box.size > _LEAST_SIZE).all()):
                surface[number] = box
    cuboids = {r.id: canonical_box(r.cuboid, rotation) for r in scene.regions if r.cuboid is not None}
    return {"surface": surface, "cuboids": cuboids}


def _compare(
    found: dict[tuple[str, float], dict[str, Measure]],
    at: tuple[str, float],
    graph: SceneGraph,
    truths: Mapping[str, Mapping[int, Box]],
    ask: AskParams,
) -> None:
    measures = found.setdefault(at, {truth: Measure(ask) for truth in TRUTHS})
    for truth, boxes in truths.items():
        # without its uncertainty every pair outside the tie margins counts, however bad perception is
        known = [
            (Subject(node, node.perceived), boxes[node.id])
            for node in graph.nodes
            if node.perceived is not None and node.id in boxes and is_whole(boxes[node.id])
        ]
        measures[truth].compare(known)


def _figures(measure: Measure) -> dict[str, Any]:
    figures = measure.figures()
    return {
        "labels": {row["fact"]: row["clear_accuracy"] for row in figures["labels"]},
        "abs_rel": {row["fact"]: row["median_abs_rel"] for row in figures["metrics"]},
        "direction": figures["direction"]["within_one_hour"],
        "objects": measure.objects,
    }
