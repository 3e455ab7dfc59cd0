"""Lifting: masked depth and a camera become clean object point clouds, boxes, and a 3D scene graph."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from srgpt.errors import InputError
from srgpt.geometry.boxes import box_of_points, canonical_box, oriented_box_of_points
from srgpt.geometry.camera import canonical_rotation, intrinsics_matrix, unproject_pixels
from srgpt.geometry.clustering import largest_cluster
from srgpt.geometry.pointcloud import (
    pixel_neighbour_distances,
    remove_outliers,
    select,
    thin,
    voxel_downsample,
)
from srgpt.params import LiftParams
from srgpt.records import Box, Node, Region, Rejected, Scene, SceneGraph

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class _View:
    """What every object of one picture is lifted with."""

    depth: NDArray[np.float32] | None
    intrinsics: tuple[float, float, float, float]
    rotation: Floats
    depth_noise: float
    """Relative standard deviation of one object's depth."""
    given: bool
    """Whether the source gave the depth."""

    @cached_property
    def columns(self) -> NDArray[np.float32]:
        """Depth column by column, as masks count pixels, (height * width,)."""
        assert self.depth is not None
        return self.depth.T.ravel()

    @property
    def focal(self) -> float:
        """Geometric mean of the focal lengths, pixels."""
        return float(np.sqrt(self.intrinsics[0] * self.intrinsics[1]))


def lift_scene(scene: Scene, params: LiftParams) -> SceneGraph | Rejected:
    """Lift all regions of a scene; set the scene aside where its depth, camera or a mask cannot be read.

    Raises :class:`InputError` where the scene lacks intrinsics or gravity, which *perceive* guarantees.
    """
    if scene.intrinsics is None or scene.gravity is None:
        missing = "intrinsics" if scene.intrinsics is None else "gravity"
        raise InputError(
            f"scene {scene.scene_id} of {scene.dataset} has no {missing}; lift needs them. "
            f"Run `srgpt perceive` first, with a perceive.{missing} setting that supplies them."
        )
    try:
        intrinsics_matrix(scene.intrinsics)
        rotation = canonical_rotation(scene.gravity)
    except InputError as error:
        return Rejected(scene.scene_id, "broken-camera", str(error))
    depth = None
    if scene.depth is not None:
        try:
            depth = scene.depth_metres()
        except (OSError, SyntaxError, ValueError):  # what Pillow raises for broken files
            return Rejected(scene.scene_id, "broken-depth", "not a readable PNG")
        if depth.shape != (scene.height, scene.width):
            expected = f"{scene.height} x {scene.width}"
            return Rejected(scene.scene_id, "broken-depth", f"shape {depth.shape}, expected {expected}")
    given = scene.depth_source in (None, "given")
    noise = params.depth_noise if given else params.model_depth_noise
    view = _View(depth, scene.intrinsics, rotation, noise, given)
    nodes = []
    for region in scene.regions:
        if region.rle is not None and list(region.rle["size"]) != [scene.height, scene.width]:
            size = f"{region.rle['size']}, expected {[scene.height, scene.width]}"
            return Rejected(scene.scene_id, "broken-mask", f"region {region.id}: mask size {size}")
        try:
            nodes.append(lift_region(region, view, params))
        except InputError as error:
            return Rejected(scene.scene_id, "broken-mask", f"region {region.id}: {error}")
    scale = 0.0 if given else params.model_scale_noise
    return SceneGraph(scene.dataset, scene.scene_id, scene.width, scene.height, rotation, tuple(nodes), scale)


def lift_region(region: Region, view: _View, params: LiftParams) -> Node:
    """Lift one region. Where no box comes of it, ``dropped`` says why:

    ``no-depth`` (none in the scene, or none under the mask), ``no-mask``, ``few-points``, ``few-kept-points``
    (too few left after cleaning), ``tiny-box``. ``truth`` is made from the cuboid in any case.
    """
    truth = None if region.cuboid is None else canonical_box(region.cuboid, view.rotation)

    def node(dropped: str | None = None, **found: Any) -> Node:
        return Node(
            region.id,
            region.category,
            region.label,
            region.bbox,
            region.rle,
            truth=truth,
            dropped=dropped,
            visibility=region.visibility,
            truncation=region.truncation,
            **found,
        )

    if view.depth is None:
        return node("no-depth")
    if region.rle is None:
        return node("no-mask")
    pixels = region.pixels()
    if len(pixels) == 0:
        return node("no-mask")
    z = view.columns[pixels]
    read = z > 0
    count = int(np.count_nonzero(read))
    quality: dict[str, Any] = {"mask_points": count, "depth_coverage": count / len(pixels)}
    if count == 0:
        return node("no-depth", **quality)
    if count < params.min_mask_points:
        return node("few-points", **quality)
    if count < len(pixels):
        pixels, z = pixels[read], z[read]
    u = pixels // view.depth.shape[0]
    v = pixels - u * view.depth.shape[0]  # many times faster than np.divmod
    chosen = thin(u, v, params.max_points)
    everywhere = unproject_pixels(u, v, z, view.intrinsics)
    neighbours = _REFERENCE.outlier_neighbours if params.compat == "reference" else params.outlier_neighbours
    distances = pixel_neighbour_distances(u, v, everywhere, z / view.focal, neighbours, chosen)
    points = (view.rotation @ select(everywhere, chosen).T).T
    spacing = float(np.median(z)) / view.focal * np.sqrt(count / len(chosen))
    exact = view.given and _given_mask(region)
    std_ratio = params.outlier_std_ratio if exact else params.model_outlier_std_ratio
    kept, share = clean(points, distances, spacing, std_ratio, params)
    quality |= {"kept_points": len(kept), "cluster_share": share}
    if len(kept) < params.min_kept_points:
        return node("few-kept-points", **quality)
    box = box_of_points(kept)
    if float(np.prod(box.size)) < params.min_volume:
        return node("tiny-box", **quality)
    center_sigma, size_sigma = uncertainty(region, box, view, params)
    if params.compat == "reference":
        quality["points"] = tuple(kept.ravel().tolist())
    return node(
        perceived=box,
        oriented=oriented_box_of_points(kept),
        center_sigma=center_sigma,
        size_sigma=size_sigma,
        **quality,
    )


Vector = tuple[float, float, float]


def uncertainty(region: Region, box: Box, view: _View, params: LiftParams) -> tuple[Vector, Vector]:
    """Return the standard deviations of a perceived box's centre and extents along the canonical axes, metres.

    Independent errors add up in squares. Each side of a mask is off by ``mask_noise`` pixels (``model_mask_noise``
    where a model drew it), which are ``distance / focal`` metres each at the object; the object's depth is off by a
    share of its distance, along the line of sight; its extents are off by the same share of themselves. What a
    picture does not show is not known: where the object is hidden in part, the lost share of an extent counts as
    its deviation, and where its mask ends at the border of the picture, half of the extent across that border does.
    """
    distance = float(np.linalg.norm(box.center))
    edge = (params.mask_noise if _given_mask(region) else params.model_mask_noise) * distance / view.focal
    sight = np.abs(box.center) * view.depth_noise
    hidden = 0.0 if region.visibility < 0 else max(0.0, 1.0 - float(np.sqrt(region.visibility)))
    lost = np.full(3, hidden)
    lost[:2] = np.maximum(lost[:2], 0.5 * np.array(_cut(region)))
    unseen = lost * box.size
    center = np.sqrt(edge**2 / 2 + sight**2 + (unseen / 2) ** 2)
    size = np.sqrt(2 * edge**2 + (view.depth_noise * box.size) ** 2 + unseen**2)
    return tuple(center.tolist()), tuple(size.tolist())


def _given_mask(region: Region) -> bool:
    return region.mask_source in (None, "given")


def _cut(region: Region) -> tuple[bool, bool]:
    """Return whether a mask ends at the left or right, and at the upper or lower border of the picture."""
    assert region.rle is not None
    height, width = region.rle["size"]
    x0, y0, x1, y1 = region.bbox
    return (x0 <= 0.5 or x1 >= width - 1.5), (y0 <= 0.5 or y1 >= height - 1.5)


def clean(
    points: Floats, distances: NDArray[np.floating], spacing: float, std_ratio: float, params: LiftParams
) -> tuple[Floats, float]:
    """Clean one object's points (N, 3): outliers go, voxels even out density, the largest cluster stays.

    ``distances`` (N,) are the points' mean distances to their nearest neighbours, of which those beyond
    ``std_ratio`` standard deviations go; ``spacing`` is the distance between the points of neighbouring pixels on a
    surface that faces the camera, metres. Returns the kept points
    (M, 3), all those in the cluster's voxels (their centroids alone would give boxes one voxel too small), and
    the cluster's share of the voxels. As in SpatialRGPT, everything is kept, with share 0, where there is no
    cluster. The DBSCAN radius grows with voxel edge and spacing: with a fixed one, all that is large or far away
    would count as noise. With ``compat: reference`` its fixed thresholds decide, and what is kept are the voxels'
    centroids, as there.
    """
    scale = 3.0 * float(np.linalg.norm(points.std(axis=0)))
    if params.compat == "reference":
        return _clean_as_reference(points, distances, max(_REFERENCE.voxel_min, scale / 40))
    edge = max(params.voxel_min, params.voxel_share * scale)
    eps = max(params.cluster_eps, params.cluster_spacing * max(edge, spacing))
    inliers = select(points, remove_outliers(distances, std_ratio))
    voxels, voxel = voxel_downsample(inliers, edge)
    cluster = largest_cluster(voxels, eps, params.cluster_min_points)
    if not cluster.any():
        return inliers, 0.0
    return select(inliers, cluster[voxel]), float(cluster.mean())


_REFERENCE = LiftParams(outlier_neighbours=9, outlier_std_ratio=1.2, cluster_eps=0.2, cluster_min_points=10)
"""SpatialRGPT's thresholds; of its ten neighbours one is the point itself."""


def _clean_as_reference(points: Floats, distances: NDArray[np.floating], edge: float) -> tuple[Floats, float]:
    inliers = select(points, remove_outliers(distances, _REFERENCE.outlier_std_ratio))
    voxels, _ = voxel_downsample(inliers, edge, margin=edge / 2)
    cluster = largest_cluster(voxels, _REFERENCE.cluster_eps, _REFERENCE.cluster_min_points)
    if cluster.sum() < 5:  # its rule: smaller ones are not trusted, and everything stays
        return voxels, 0.0
    return select(voxels, cluster), float(cluster.mean())
