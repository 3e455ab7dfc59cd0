"""The stage perceive: complete rows pass unchanged; gaps are errors, filled, or set aside."""

import pytest

from srgpt.errors import InputError
from srgpt.params import build
from srgpt.stages import ingest, perceive
from srgpt.storage import TableWriter, input_url, read_rejected, read_rows, shard_name, trace, write_shard

SMALL = {
    "ingest": {"scenes": 4, "shard_scenes": 2, "procedural": {"image_size": 48, "min_pixels": 6}},
    "engine": {"workers": 1},
}


@pytest.fixture(scope="module")
def complete_rows(tmp_path_factory):
    out = tmp_path_factory.mktemp("data") / "scenes"
    ingest.run(build(SMALL), source=None, out=str(out), dataset="train")
    return out


def table(folder, rows):
    """Write rows as a scenes table of two per shard."""
    writer = TableWriter(str(folder), "scenes", stage="ingest", dataset="train", params={})
    names = [shard_name(i) for i in range((len(rows) + 1) // 2)]
    for index, name in enumerate(names):
        write_shard(writer.work, name, "scenes", rows[2 * index : 2 * index + 2])
    writer.commit(names)
    return str(folder)


def test_complete_scenes_pass_unchanged(complete_rows, tmp_path):
    manifest = perceive.run(build(SMALL), source=str(complete_rows), out=str(tmp_path / "perceived"))
    for shard in manifest.shards:
        assert (tmp_path / "perceived" / shard.name).read_bytes() == (complete_rows / shard.name).read_bytes()
    assert (manifest.stage, manifest.dataset, manifest.rejected) == ("perceive", "train", {})
    assert input_url(str(tmp_path / "perceived"), "scenes") == str(complete_rows)
    assert trace(str(tmp_path / "perceived"), "ingest") == str(complete_rows)


def test_missing_things_are_named_with_scene_and_setting(complete_rows, tmp_path):
    rows = list(read_rows(str(complete_rows), "scenes"))
    rows[0] = {**rows[0], "depth": None, "depth_source": None}
    rows[1] = {**rows[1], "gravity": None, "gravity_source": None}
    source = table(tmp_path / "scenes", rows)
    with pytest.raises(InputError) as caught:
        perceive.run(build(SMALL), source=source, out=str(tmp_path / "perceived"))
    told = str(caught.value)
    assert f"{source}: 2 of 2 scenes of one shard are incomplete" in told
    assert "missing-depth: room-000000" in told
    assert "perceive.depth=none" in told
    assert "missing-gravity: street-000001" in told
    assert "perceive.on_missing=reject" in told
    assert not (tmp_path / "perceived").exists()


def test_every_gap_of_a_scene_is_named_at_once_and_the_scene_is_set_aside_once(complete_rows, tmp_path):
    rows = list(read_rows(str(complete_rows), "scenes"))
    nothing = {"depth": None, "gravity": None, "intrinsics": None}
    rows[0] = {**rows[0], **nothing, **{f"{key}_source": None for key in nothing}}
    source = table(tmp_path / "scenes", rows)
    with pytest.raises(InputError, match="1 of 2 scenes of one shard are incomplete") as caught:
        perceive.run(build(SMALL), source=source, out=str(tmp_path / "perceived"))
    settings = ("perceive.depth=none", "perceive.gravity=level", "perceive.intrinsics=fov")
    assert all(setting in str(caught.value) for setting in settings)
    params = build({**SMALL, "perceive": {"on_missing": "reject"}})
    manifest = perceive.run(params, source=source, out=str(tmp_path / "perceived"))
    assert manifest.rejected == {"missing-depth": 1}
    (rejected,) = read_rejected(str(tmp_path / "perceived"))
    assert all(setting in rejected["detail"] for setting in settings)


def test_incomplete_scenes_can_be_set_aside(complete_rows, tmp_path):
    rows = list(read_rows(str(complete_rows), "scenes"))
    rows[1] = {**rows[1], "intrinsics": None, "intrinsics_source": None}
    source = table(tmp_path / "scenes", rows)
    params = build({**SMALL, "perceive": {"on_missing": "reject"}})
    manifest = perceive.run(params, source=source, out=str(tmp_path / "perceived"))
    assert [s.rows for s in manifest.shards] == [1, 2]
    assert manifest.rejected == {"missing-intrinsics": 1}
    (rejected,) = read_rejected(str(tmp_path / "perceived"))
    assert rejected["id"] == "street-000001"
    assert "perceive.intrinsics=fov" in rejected["detail"]
    kept = [row["scene_id"] for row in read_rows(str(tmp_path / "perceived"), "scenes")]
    assert kept == ["room-000000", "tabletop-000002", "room-000003"], "the order stays"


def test_gaps_are_filled_by_settings_and_marked(complete_rows, tmp_path):
    rows = list(read_rows(str(complete_rows), "scenes"))
    bare = [{**region, "rle": None, "mask_source": None} for region in rows[2]["regions"]]
    rows[2] = {**rows[2], "gravity": None, "gravity_source": None, "regions": bare}
    source = table(tmp_path / "scenes", rows)
    params = build({**SMALL, "perceive": {"gravity": "level", "masks": "boxes"}})
    perceive.run(params, source=source, out=str(tmp_path / "perceived"))
    done = list(read_rows(str(tmp_path / "perceived"), "scenes"))
    assert (done[2]["gravity"], done[2]["gravity_source"]) == ([0.0, 1.0, 0.0], "level")
    assert {region["mask_source"] for region in done[2]["regions"]} == {"boxes"}
    assert [done[i] for i in (0, 1, 3)] == [rows[i] for i in (0, 1, 3)]


def test_source_must_be_a_scenes_table(tmp_path):
    with pytest.raises(InputError, match=r"no manifest\.json"):
        perceive.run(build(SMALL), source=str(tmp_path), out=str(tmp_path / "perceived"))


@pytest.mark.omni3d_mini
def test_real_photographs_pass_through(omni3d_mini, tmp_path):
    params = build({"ingest": {"source": "omni3d"}, "engine": {"workers": 1}})
    ingest.run(params, source=str(omni3d_mini), out=str(tmp_path / "scenes"), dataset="mini")
    manifest = perceive.run(params, source=str(tmp_path / "scenes"), out=str(tmp_path / "perceived"))
    assert (manifest.rows, manifest.rejected) == (4, {})
    rows = list(read_rows(str(tmp_path / "perceived"), "scenes"))
    assert rows == list(read_rows(str(tmp_path / "scenes"), "scenes"))
    assert {row["depth_source"] for row in rows} == {"given"}
