"""The oracle: nothing happens at zero, and each error is what it says, alone and the same again."""

import numpy as np
import pytest

from srgpt.params import IngestParams, OracleParams, PerceiveParams
from srgpt.perception import IncompleteError, SetAsideError, complete_all
from srgpt.perception.oracle import degrade
from srgpt.records import decode_rle
from srgpt.sources.procedural import ProceduralSource

SEED = 7


@pytest.fixture(scope="module")
def scenes():
    source = ProceduralSource(IngestParams(scenes=9, procedural={"image_size": 96}), SEED, "t")
    return source.shards()[0].load().scenes


def test_zero_degradation_returns_exactly_what_is_given(scenes):
    for scene in scenes:
        assert degrade(scene, OracleParams(), SEED) is scene
    params = PerceiveParams(oracle=OracleParams())
    assert all(a is b for a, b in zip(complete_all(scenes, params, SEED), scenes, strict=True))


def test_erosion_and_dilation_move_the_outline_and_nothing_else(scenes):
    scene = scenes[0]
    smaller, larger = (degrade(scene, OracleParams(mask_erosion=n), SEED) for n in (1, -2))
    kept = {r.id: r for r in smaller.regions}
    for region, grown in zip(scene.regions, larger.regions, strict=True):
        mask = region.mask()
        assert (mask <= grown.mask()).all()
        assert grown.mask().sum() > mask.sum()
        assert grown.mask_source == "oracle:mask_erosion=-2"
        if region.id in kept:
            assert (kept[region.id].mask() <= mask).all()
            assert kept[region.id].mask().sum() < mask.sum()
        assert grown.cuboid is region.cuboid
        assert (grown.category, grown.id) == (region.category, region.id)
    assert (smaller.depth, smaller.gravity, smaller.depth_source) == (scene.depth, scene.gravity, "given")


def test_a_mask_is_not_eroded_at_the_pictures_edge(scenes):
    for scene in scenes:
        for region in degrade(scene, OracleParams(mask_erosion=1), SEED).regions:
            before = next(r for r in scene.regions if r.id == region.id).mask()
            after = region.mask()
            edge = before[1:-1, 0] & before[:-2, 0] & before[2:, 0] & before[1:-1, 1]
            assert after[1:-1, 0][edge].all()
            rows, columns = np.flatnonzero(after.any(1)), np.flatnonzero(after.any(0))
            assert region.bbox == (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)


def test_objects_eroded_away_are_gone_and_a_scene_without_any_is_set_aside(scenes):
    with pytest.raises(SetAsideError, match="overlooked every object"):
        degrade(scenes[0], OracleParams(mask_erosion=64), SEED)


def test_depth_is_scaled_and_noisy_as_told(scenes):
    scene = scenes[0]
    before = scene.depth_metres()
    seen = before > 0
    scaled = degrade(scene, OracleParams(depth_scale=1.1), SEED)
    np.testing.assert_allclose(scaled.depth_metres()[seen], 1.1 * before[seen], atol=0.0006)
    noisy = degrade(scene, OracleParams(depth_noise=0.05), SEED)
    relative = noisy.depth_metres()[seen] / before[seen] - 1
    assert abs(relative.mean()) < 0.005
    assert relative.std() == pytest.approx(0.05, rel=0.05)
    assert (noisy.depth_metres()[~seen] == 0).all(), "no reading stays no reading"
    assert noisy.depth_source == "oracle:depth_scale=1,depth_noise=0.05"
    assert noisy.regions == scene.regions


def test_gravity_is_off_by_the_angle_in_a_random_direction(scenes):
    offsets = []
    for scene in scenes:
        tilted = degrade(scene, OracleParams(tilt_degrees=5), SEED)
        cosine = np.dot(scene.gravity, tilted.gravity)
        assert np.degrees(np.arccos(cosine)) == pytest.approx(5, abs=1e-6)
        assert np.linalg.norm(tilted.gravity) == pytest.approx(1)
        assert tilted.gravity_source == "oracle:tilt_degrees=5"
        offsets.append(np.subtract(tilted.gravity, scene.gravity))
    directions = np.array(offsets) / np.linalg.norm(offsets, axis=1, keepdims=True)
    assert np.linalg.norm(directions.mean(axis=0)) < 0.9


def test_the_missed_share_is_missed(scenes):
    total = sum(len(s.regions) for s in scenes)
    done = complete_all(scenes, PerceiveParams(oracle=OracleParams(missed_share=0.3)), SEED)
    left = sum(len(s.regions) for s in done if not isinstance(s, IncompleteError))
    assert 0.5 < left / total < 0.9


def test_everything_missed_is_set_aside_and_counted(scenes):
    done = complete_all(scenes, PerceiveParams(oracle=OracleParams(missed_share=1.0)), SEED)
    assert all(isinstance(d, SetAsideError) and d.gaps[0].reason == "no-regions" for d in done)


def test_errors_are_seeded_per_scene_and_do_not_disturb_each_other(scenes):
    scene = scenes[1]
    both = degrade(scene, OracleParams(depth_noise=0.1, tilt_degrees=3, missed_share=0.2), SEED)
    assert both == degrade(scene, OracleParams(depth_noise=0.1, tilt_degrees=3, missed_share=0.2), SEED)
    assert both.depth == degrade(scene, OracleParams(depth_noise=0.1), SEED).depth
    assert both.gravity == degrade(scene, OracleParams(tilt_degrees=3), SEED).gravity
    assert both.depth != degrade(scene, OracleParams(depth_noise=0.1), SEED + 1).depth
    renamed = scene.replace(scene_id="another")
    assert degrade(renamed, OracleParams(depth_noise=0.1), SEED).depth != both.depth


def test_only_procedural_scenes_have_a_truth_to_degrade(scenes):
    photograph = scenes[0].replace(uri="s3://bucket/a.jpg")
    with pytest.raises(
        IncompleteError, match=r"s3://bucket/a\.jpg is not procedural; set perceive\.oracle=null"
    ):
        degrade(photograph, OracleParams(), SEED)


def test_masks_stay_decodable(scenes):
    for region in degrade(scenes[0], OracleParams(mask_erosion=1), SEED).regions:
        assert decode_rle(region.rle).shape == (96, 96)
