"""SpatialRGPT's lifting steps on one object, written plainly with open3d: the other side of benchmarks/curation.py.

As published, but for the random jitter of 4 mm per point, which would hide what is compared.
"""

from __future__ import annotations

import numpy as np
import open3d


def unproject(depth, intrinsics, rotation):
    """Return every pixel's canonical point, (H, W, 3) metres."""
    fx, fy, cx, cy = intrinsics
    v, u = np.mgrid[: depth.shape[0], : depth.shape[1]].astype(np.float64)
    inverse = np.linalg.inv(np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]]))
    rays = np.stack([u, v, np.ones_like(u)], axis=-1) @ inverse.T
    return (rays * depth[..., None]) @ rotation.T


def lift(points):
    """Clean one object's points (N, 3); return its open3d cloud and box, or None where too little is left."""
    if len(points) < 16:
        return None
    cloud = open3d.geometry.PointCloud(open3d.utility.Vector3dVector(points))
    scale = 3.0 * np.linalg.norm(points.std(axis=0)) + 1e-6
    cloud, _ = cloud.remove_statistical_outlier(nb_neighbors=10, std_ratio=1.2)
    cloud = cloud.voxel_down_sample(voxel_size=max(0.01, scale / 40))
    labels = np.asarray(cloud.cluster_dbscan(eps=0.2, min_points=10))
    found = labels[labels >= 0]
    if len(found):
        largest = np.flatnonzero(labels == np.bincount(found).argmax())
        if len(largest) >= 5:
            cloud = cloud.select_by_index(largest)
    if len(cloud.points) < 10:
        return None
    box = cloud.get_axis_aligned_bounding_box()
    return None if box.volume() < 1e-6 else (cloud, box)


def mean_nearest(a, b):
    """Return the mean distance of each point of either cloud to the other."""
    there = np.asarray(a.compute_point_cloud_distance(b))
    back = np.asarray(b.compute_point_cloud_distance(a))
    return float(np.concatenate([there, back]).mean())
