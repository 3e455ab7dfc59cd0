"""From masked depth to object point clouds and boxes."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from srgpt.params.section import Count, Positive, Section


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
