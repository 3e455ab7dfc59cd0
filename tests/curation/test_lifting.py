from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from srgpt.curation.lifting import clean, lift_scene
from srgpt.errors import InputError
from srgpt.geometry.pointcloud import neighbour_distances
from srgpt.params import LiftParams
from srgpt.records import Cuboid, Region, Rejected, Scene, SceneGraph, encode_depth, encode_rle

WIDTH, HEIGHT, FOCAL = 64, 48, 50.0


def region(id_: int, rows: slice, columns: slice, **changes) -> Region:
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    mask[rows, columns] = True
    box = (float(columns.start), float(rows.start), float(columns.stop), float(rows.stop))
    return Region(
        **{"id": id_, "category": "box", "label": "box", "bbox": box, "rle": encode_rle(mask), **changes}
    )


def scene(depth: np.ndarray | None, *regions: Region, **changes) -> Scene:
    fields = {
        "dataset": "d",
        "scene_id": "s",
        "width": WIDTH,
        "height": HEIGHT,
        "image": b"",
        "regions": regions,
        "depth": None if depth is None else encode_depth(depth),
        "intrinsics": (FOCAL, FOCAL, 31.5, 23.5),
        "gravity": (0.0, 1.0, 0.0),
        **changes,
    }
    return Scene(**fields)


@pytest.fixture
def slanted() -> np.ndarray:
    """A surface that recedes to the right, from 2 m by a centimetre per column."""
    return np.broadcast_to(2.0 + 0.01 * np.arange(WIDTH), (HEIGHT, WIDTH)).copy()


def lifted(value: Scene, **params) -> SceneGraph:
    graph = lift_scene(value, LiftParams(**params))
    assert isinstance(graph, SceneGraph)
    return graph


def test_a_surface_by_hand(slanted):
    value = scene(slanted, region(3, slice(10, 30), slice(20, 40), visibility=0.5))
    graph = lifted(value, outlier_std_ratio=100)
    (node,) = graph.nodes
    left, right = (20 - 31.5) / FOCAL * 2.2, (39 - 31.5) / FOCAL * 2.39
    top, bottom = (10 - 23.5) / FOCAL * 2.39, (29 - 23.5) / FOCAL * 2.39
    assert node.perceived is not None
    np.testing.assert_allclose(node.perceived.size, [right - left, bottom - top, 0.19], atol=2e-3)
    np.testing.assert_allclose(
        node.perceived.center, [(left + right) / 2, (top + bottom) / 2, 2.295], atol=2e-3
    )
    assert node.perceived.near == pytest.approx(2.2, abs=2e-3)
    assert node.oriented is not None
    assert node.oriented.size[1] == pytest.approx(node.perceived.size[1])
    assert (node.id, node.mask_points, node.kept_points, node.dropped) == (3, 400, 400, None)
    assert (node.depth_coverage, node.cluster_share, node.visibility) == (1.0, 1.0, 0.5)


def test_the_canonical_frame_undoes_the_pitch_of_the_camera():
    # a level ground 1.5 m below a camera that looks down by 30 degrees
    gravity = np.array([0.0, np.cos(np.pi / 6), np.sin(np.pi / 6)])
    v, u = np.mgrid[:HEIGHT, :WIDTH]
    rays = np.stack([(u - 31.5) / FOCAL, (v - 23.5) / FOCAL, np.ones_like(u, dtype=float)], axis=-1)
    depth = 1.5 / (rays @ gravity)
    value = scene(depth, region(0, slice(24, 48), slice(10, 50)), gravity=tuple(gravity))
    (node,) = lifted(value, min_volume=0.0).nodes
    assert node.perceived is not None
    assert node.perceived.center[1] == pytest.approx(1.5, abs=2e-3)
    assert node.perceived.size[1] < 4e-3  # millimetre depth


def test_what_is_far_behind_the_object_is_cut_away(slanted):
    slanted[10:30, 37:40] += 3.0
    (node,) = lifted(scene(slanted, region(0, slice(10, 30), slice(20, 40)))).nodes
    assert node.perceived is not None
    assert node.perceived.center[2] + node.perceived.size[2] / 2 < 2.5
    assert node.cluster_share < 1


def test_pixels_without_a_reading_are_left_out(slanted):
    slanted[10:20, 20:40] = 0
    (node,) = lifted(scene(slanted, region(0, slice(10, 30), slice(20, 40)))).nodes
    assert (node.mask_points, node.depth_coverage) == (200, 0.5)
    assert node.perceived is not None
    assert node.perceived.size[1] == pytest.approx(9 / FOCAL * 2.39, abs=3e-3)


def test_dropped_objects_say_why(slanted):
    slanted[40:, :] = 0
    slanted[5, :] = 2  # one row of one depth: a line, not a box
    value = scene(
        slanted,
        region(0, slice(40, 48), slice(0, 20)),
        region(1, slice(0, 3), slice(0, 5)),
        region(2, slice(0, 0), slice(0, 0)),
        region(3, slice(0, 20), slice(0, 20), rle=None),
        region(4, slice(5, 6), slice(0, 20)),
        region(5, slice(10, 30), slice(20, 40)),
    )
    nodes = lifted(value).nodes
    assert [n.dropped for n in nodes] == ["no-depth", "few-points", "no-mask", "no-mask", "tiny-box", None]
    assert [n.perceived is None for n in nodes] == [True] * 5 + [False]
    assert [n.mask_points for n in nodes] == [0, 15, 0, 0, 20, 400]
    few = lifted(value, min_kept_points=1000, outlier_std_ratio=100).nodes[5]
    assert (few.dropped, few.perceived, few.kept_points) == ("few-kept-points", None, 400)


def test_without_depth_there_is_still_truth():
    cuboid = Cuboid(np.array([1.0, 0, 3]), np.array([1.0, 2, 3]), np.eye(3))
    graph = lifted(scene(None, region(0, slice(0, 9), slice(0, 9), cuboid=cuboid)))
    assert graph.nodes[0].dropped == "no-depth"
    assert graph.nodes[0].truth is not None
    np.testing.assert_allclose(graph.nodes[0].truth.size, [1, 2, 3])


def test_large_masks_are_thinned(slanted):
    value = scene(slanted, region(0, slice(0, 40), slice(0, 60)))
    (full,) = lifted(value, max_points=10_000, outlier_std_ratio=100).nodes
    (thinned,) = lifted(value, max_points=300, outlier_std_ratio=100).nodes
    assert full.kept_points == full.mask_points == thinned.mask_points == 2400
    assert 200 < thinned.kept_points < 310
    assert full.perceived is not None
    assert thinned.perceived is not None
    np.testing.assert_allclose(thinned.perceived.size, full.perceived.size, rtol=0.05)


@pytest.mark.parametrize("missing", ["intrinsics", "gravity"])
def test_a_scene_without_a_camera_is_an_error_that_names_it(slanted, missing):
    with pytest.raises(InputError, match=rf"scene s of d has no {missing}.*perceive\.{missing}"):
        lift_scene(scene(slanted, **{missing: None}), LiftParams())


@pytest.mark.parametrize(
    ("changes", "reason", "says"),
    [
        ({"gravity": (0.0, 0.0, 1.0)}, "broken-camera", "heading"),
        ({"intrinsics": (0.0, 1.0, 1.0, 1.0)}, "broken-camera", "fx"),
        ({"depth": b"no picture"}, "broken-depth", "PNG"),
        ({"depth": encode_depth(np.ones((HEIGHT, WIDTH)))[:60]}, "broken-depth", "PNG"),
        ({"depth": encode_depth(np.ones((5, 5)))}, "broken-depth", "shape"),
        (
            {"regions": (region(7, slice(0, 9), slice(0, 9), rle={"size": [5, 5], "counts": "i0"}),)},
            "broken-mask",
            "7",
        ),
        (
            {"regions": (region(7, slice(0, 9), slice(0, 9), rle={"size": [HEIGHT, WIDTH], "counts": "1"}),)},
            "broken-mask",
            "7",
        ),
    ],
)
def test_broken_scenes_are_set_aside(slanted, changes, reason, says):
    found = lift_scene(scene(slanted).replace(**changes), LiftParams())
    assert isinstance(found, Rejected)
    assert (found.id, found.reason) == ("s", reason)
    assert says in found.detail


def test_what_models_drew_or_estimated_is_known_less_well(slanted):
    exact = region(3, slice(10, 30), slice(20, 40))
    given, drawn = (
        lifted(scene(slanted, replace(exact, mask_source=source))).nodes[0]
        for source in ("given", "some/model")
    )
    estimated = lifted(scene(slanted, exact, depth_source="some/model")).nodes[0]
    for other in (drawn, estimated):
        assert all(np.array(other.size_sigma) > np.array(given.size_sigma))
        assert all(np.array(other.center_sigma) >= np.array(given.center_sigma))


def test_stray_points_go_where_a_model_estimated_the_depth(slanted):
    depth = slanted.copy()
    depth[12:30:6, 24:40:6] += 0.15  # near enough to the surface to be of its cluster
    box = region(3, slice(10, 30), slice(20, 40))
    given, estimated = (
        lifted(scene(depth, box, depth_source=source)).nodes[0].perceived
        for source in ("given", "some/model")
    )
    assert estimated.size[2] == pytest.approx(0.19, abs=0.005)
    assert given.size[2] == pytest.approx(0.31, abs=0.005)


def test_far_objects_do_not_dissolve_into_noise():
    # at 40 m neighbouring pixels are 0.8 m apart, four times the clustering radius near by
    y, x = np.mgrid[:8, :8] * 0.8
    points = np.stack([x, y, 40 + 0.01 * x], axis=-1).reshape(-1, 3)
    kept, share = clean(points, neighbour_distances(points, 10), 0.8, 6.0, LiftParams())
    assert (len(kept), share) == (64, 1.0)


def test_where_nothing_clusters_everything_is_kept():
    points = np.random.default_rng(0).uniform(-50, 50, (30, 3))
    params = LiftParams(cluster_spacing=0)
    kept, share = clean(points, neighbour_distances(points, 10), 0.01, 100.0, params)
    assert (len(kept), share) == (30, 0.0)


@pytest.mark.omni3d_mini
def test_truth_boxes_equal_the_annotations(omni3d_mini):
    """Widths, heights and distances within 1 mm or 0.1 % of what the annotated corners give."""
    data = json.loads((omni3d_mini / "annotations.json").read_text())
    checked = 0
    for image in data["images"]:
        gravity = np.array(image.get("gravity_cam") or [0.0, 1.0, 0.0])
        annotations = [a for a in data["annotations"] if a["image_id"] == image["id"]]
        K = image["K"]
        value = Scene(
            "omni",
            str(image["id"]),
            image["width"],
            image["height"],
            b"",
            tuple(_annotated(a) for a in annotations),
            intrinsics=(K[0][0], K[1][1], K[0][2], K[1][2]),
            gravity=tuple(gravity),
        )
        # the canonical frame, worked out once more: down, ahead on the ground, and to the right
        down = gravity / np.sqrt(sum(gravity**2))
        ahead = np.array([0, 0, 1.0]) - down[2] * down
        ahead /= np.sqrt(sum(ahead**2))
        right = np.cross(down, ahead)
        corners = np.array([a["bbox3D_cam"] for a in annotations]) @ np.stack([right, down, ahead]).T
        low, high = corners.min(axis=1), corners.max(axis=1)
        boxes = [node.truth for node in lifted(value).nodes]
        sizes, centers = np.array([b.size for b in boxes]), np.array([b.center for b in boxes])
        np.testing.assert_allclose(sizes, high - low, rtol=1e-3, atol=1e-3)
        middle = (low + high) / 2
        expected = np.linalg.norm(middle[:, None] - middle, axis=-1)
        np.testing.assert_allclose(
            np.linalg.norm(centers[:, None] - centers, axis=-1), expected, rtol=1e-3, atol=1e-3
        )
        checked += len(boxes)
    assert checked == len(data["annotations"])


def _annotated(annotation: dict) -> Region:
    width, height, length = annotation["dimensions"]
    cuboid = Cuboid(
        np.array(annotation["center_cam"]), np.array([length, height, width]), np.array(annotation["R_cam"])
    )
    name = annotation["category_name"]
    return Region(annotation["id"], name, name, tuple(annotation["bbox2D_proj"]), cuboid=cuboid)
