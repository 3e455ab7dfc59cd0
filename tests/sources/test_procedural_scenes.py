"""Procedural scenes: what is rendered, stored and said agrees, and a recipe always gives the same bytes."""

import numpy as np
import pytest

from srgpt.geometry.boxes import canonical_box
from srgpt.geometry.camera import canonical_rotation, unproject
from srgpt.params import IngestParams, ProceduralParams
from srgpt.records import Rejected, Scene
from srgpt.sources.procedural import ProceduralSource
from srgpt.sources.procedural.backdrop import Backdrop, Quad
from srgpt.sources.procedural.camera import Camera
from srgpt.sources.procedural.catalog import COLOURS, Category
from srgpt.sources.procedural.generate import generate
from srgpt.sources.procedural.mesh import build
from srgpt.sources.procedural.placement import Body
from srgpt.sources.procedural.render import render

PARAMS = ProceduralParams()
CUBE = Category("cube", (1, 1), (1, 1), (1, 1), (("box", 0, 0, 0, 1, 1, 1, "main"),))
BALL = Category("ball", (1, 1), (1, 1), (1, 1), (("sphere", 0, 0, 0, 1, 1, 1, "main"),))
GROUND = Quad(
    np.array([[-9.0, 0, -9], [-9, 0, 60], [9, 0, 60], [9, 0, -9]]),
    (120, 120, 120),
    (90, 90, 90),
    "checks",
    1.0,
)
OPEN = Backdrop((GROUND,), (), lambda footprint: True, np.array([3.0, -8.0, -2.0]), 0.4)


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    made = [generate(PARAMS, 7, "train", index) for index in range(24)]
    assert all(isinstance(s, Scene) for s in made)
    return made


def picture(camera: Camera, *bodies: Body):
    mesh = build(camera, OPEN, list(bodies), np.random.default_rng(0))
    return render(camera, OPEN, len(bodies), mesh), mesh


def test_depth_is_z_depth_of_a_known_cube():
    """A level camera 0.5 m up looks at a 1 m cube whose front face is 3 m ahead."""
    camera = Camera(64, 0.5, 0.0, 0.0, np.radians(60))
    shown, _ = picture(camera, Body(CUBE, "red", (1, 1, 1), 0.0, 3.5, 0.0, 0.0))
    on_cube = shown.depth[shown.owner == 0]
    assert np.allclose(on_cube, 3.0, atol=1e-5), "z-depth is constant over a face parallel to the picture"
    side = camera.focal / 3.0
    assert on_cube.size == pytest.approx(side**2, rel=0.06)
    assert shown.alone[0] == on_cube.size


def test_depth_of_level_ground_by_hand():
    """On level ground z = f h / (v - cy) for a level camera."""
    camera = Camera(64, 1.5, 0.0, 0.0, np.radians(60))
    shown, _ = picture(camera, Body(CUBE, "red", (0.1, 0.1, 0.1), 5.0, 3.5, 0.0, 0.0))
    for row in (45, 50, 63):
        expected = camera.focal * 1.5 / (row - 31.5)
        assert shown.depth[row, 10] == pytest.approx(expected, rel=1e-5)


def test_pitch_and_roll_turn_gravity_as_declared():
    assert Camera(64, 1, 0.0, 0.0, 1.0).gravity == pytest.approx((0, 1, 0))
    down = Camera(64, 1, np.radians(30), 0.0, 1.0).gravity
    assert down == pytest.approx((0, np.cos(np.radians(30)), np.sin(np.radians(30))))
    rolled = Camera(64, 1, 0.0, np.radians(10), 1.0).gravity
    assert rolled == pytest.approx((np.sin(np.radians(10)), np.cos(np.radians(10)), 0))


def test_visibility_counts_what_another_body_hides():
    camera = Camera(64, 0.5, 0.0, 0.0, np.radians(60))
    far = Body(CUBE, "red", (1, 1, 1), 0.0, 5.5, 0.0, 0.0)
    near = Body(CUBE, "blue", (0.5, 1, 0.5), -0.25, 2.75, 0.0, 0.0)
    alone, _ = picture(camera, far)
    both, _ = picture(camera, far, near)
    hidden = (alone.owner == 0) & (both.owner == 1)
    assert both.alone[0] == np.count_nonzero(alone.owner == 0)
    assert np.count_nonzero(both.owner == 0) == both.alone[0] - np.count_nonzero(hidden)
    assert 0 < np.count_nonzero(hidden) < both.alone[0]


def test_shadow_darkens_the_ground():
    camera = Camera(64, 2.0, 0.5, 0.0, np.radians(60))
    cube = Body(CUBE, "red", (1, 1, 1), 0.0, 3.5, 0.0, 0.0)
    lit, _ = picture(camera, Body(CUBE, "red", (0.01, 0.01, 0.01), 8.0, 3.5, 0.0, 0.0))
    shaded, _ = picture(camera, cube)
    ground = (shaded.owner == -1) & (shaded.depth > 0)
    darker = lit.rgb[ground].sum(-1).astype(int) - shaded.rgb[ground].sum(-1)
    assert np.count_nonzero(darker > 60) > 20
    assert np.count_nonzero(darker < 0) == 0


def test_scene_is_a_function_of_its_recipe(scenes):
    again = generate(PARAMS, 7, "train", 5)
    assert again.to_row() == scenes[5].to_row()
    for seed, dataset, index in ((8, "train", 5), (7, "bench", 5), (7, "train", 8)):
        assert generate(PARAMS, seed, dataset, index).image != scenes[5].image


def test_identity_fields(scenes):
    assert [s.scene_id for s in scenes[:4]] == [
        "room-000000",
        "street-000001",
        "tabletop-000002",
        "room-000003",
    ]
    assert scenes[1].uri == "procedural://street/1?dataset=train&seed=7"
    assert {s.licence for s in scenes} == {"CC0-1.0"}
    assert all(s.depth_source == s.intrinsics_source == s.gravity_source == "given" for s in scenes)
    assert all(r.mask_source == "given" for s in scenes for r in s.regions)


def test_masked_points_lie_in_their_cuboid_and_reach_its_visible_faces(scenes):
    """Stored depth (millimetres), masks, intrinsics and cuboids all describe one geometry."""
    for scene in scenes:
        points = unproject(scene.depth_metres(), scene.intrinsics)
        for region in scene.regions:
            own = (points[region.mask()] - region.cuboid.center) @ region.cuboid.rotation
            assert (np.abs(own) <= region.cuboid.size / 2 + 2e-3).all(), (scene.scene_id, region.label)


def test_cuboids_stand_upright_and_gravity_is_their_axis(scenes):
    for scene in scenes:
        rotation = canonical_rotation(scene.gravity)
        assert np.linalg.norm(scene.gravity) == pytest.approx(1)
        for region in scene.regions:
            assert region.cuboid.rotation[:, 1] @ scene.gravity == pytest.approx(1, abs=1e-9)
            assert np.linalg.det(region.cuboid.rotation) == pytest.approx(1)
            box = canonical_box(region.cuboid, rotation)
            assert box.size[1] == pytest.approx(region.cuboid.size[1])


def test_regions_are_seen_well_enough_and_do_not_overlap(scenes):
    for scene in scenes:
        assert PARAMS.min_objects <= len(scene.regions) <= PARAMS.max_objects
        assert [r.id for r in scene.regions] == list(range(len(scene.regions)))
        masks = np.array([r.mask() for r in scene.regions])
        assert masks.shape[1:] == (scene.height, scene.width)
        assert masks.sum(0).max() == 1
        for region, mask in zip(scene.regions, masks, strict=True):
            assert mask.sum() >= PARAMS.min_pixels
            assert PARAMS.min_visibility <= region.visibility <= 1
            assert 0 <= region.truncation < 1
            rows, columns = np.nonzero(mask)
            assert region.bbox == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
            assert region.label == f"{region.label.split()[0]} {region.category}"
            assert region.label.split()[0] in COLOURS


def test_truncation_of_a_body_cut_in_half():
    """A camera level with the middle of a cube whose left half is outside of the picture."""
    from srgpt.sources.procedural.generate import _truncation

    camera = Camera(64, 0.5, 0.0, 0.0, np.radians(60))
    edge = 10.0 * 32 / camera.focal
    _, mesh = picture(camera, Body(CUBE, "red", (1, 1, 0.01), -edge, 10.0, 0.0, 0.0))
    assert _truncation(camera, mesh, 0, np.random.default_rng(0)) == pytest.approx(0.5, abs=0.1)
    _, mesh = picture(camera, Body(CUBE, "red", (1, 1, 1), 0.0, 10.0, 0.0, 0.0))
    assert _truncation(camera, mesh, 0, np.random.default_rng(0)) == 0.0


def test_label_colour_is_the_colour_seen(scenes):
    """The median hue of a strongly coloured object is nearest to the colour its label names."""
    vivid = {
        c: np.array(v) / np.linalg.norm(v)
        for c, v in COLOURS.items()
        if c in ("red", "green", "blue", "yellow")
    }
    right = total = 0
    for scene in scenes:
        for region in scene.regions:
            name = region.label.split()[0]
            if name not in vivid or region.category in (
                "plant",
                "flower pot",
                "flower tub",
                "monitor",
                "picture",
            ):
                continue
            seen = np.median(scene.rgb()[region.mask()].astype(float), axis=0)
            seen = seen / max(np.linalg.norm(seen), 1e-9)
            right += name == max(vivid, key=lambda c: float(vivid[c] @ seen))
            total += 1
    assert total > 10
    assert right / total > 0.75


def test_relations_are_not_given_by_order_row_or_category():
    """The order of regions says nothing, the image row does not decide, and sizes vary within a category."""
    facts, by_row, sizes = {"above": [], "left": [], "front": []}, [], {}
    for index in range(36):
        scene = generate(PARAMS, 3, "spread", index)
        rotation = canonical_rotation(scene.gravity)
        boxes = [canonical_box(r.cuboid, rotation) for r in scene.regions]
        rows = [r.bbox[1] + r.bbox[3] for r in scene.regions]
        for second, b in enumerate(boxes):
            for first, a in enumerate(boxes[:second]):
                facts["above"].append(a.center[1] < b.center[1])
                facts["left"].append(a.center[0] < b.center[0])
                facts["front"].append(a.near < b.near)
                by_row.append((a.near < b.near) == (rows[first] > rows[second]))
        for region in scene.regions:
            sizes.setdefault(region.category, []).append(region.cuboid.size[1])
    assert len(by_row) > 250
    for name, values in facts.items():
        assert 0.4 < np.mean(values) < 0.6, name
    assert np.mean(by_row) < 0.9
    spreads = [np.std(v) / np.mean(v) for v in sizes.values() if len(v) >= 5]
    assert len(spreads) > 5
    assert np.median(spreads) > 0.08


def test_impossible_settings_set_the_scene_aside_with_the_reason():
    params = ProceduralParams(image_size=32, min_objects=3, max_objects=3, min_pixels=100000)
    made = generate(params, 7, "train", 0)
    assert isinstance(made, Rejected)
    assert made.reason == "no-layout"
    assert "100000 pixels" in made.detail


def test_shards_cover_all_scenes_once():
    params = IngestParams(scenes=10, shard_scenes=4)
    work = ProceduralSource(params, 7, "train").shards()
    assert [(w.start, w.stop) for w in work] == [(0, 4), (4, 8), (8, 10)]


@pytest.mark.parametrize("size", [32, 224])
def test_other_picture_sizes(size):
    scene = generate(ProceduralParams(image_size=size, min_pixels=4), 7, "train", 2)
    assert isinstance(scene, Scene)
    assert scene.rgb().shape == (size, size, 3)
    assert scene.depth_metres().shape == (size, size)
