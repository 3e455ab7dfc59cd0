from __future__ import annotations

import numpy as np
import pytest

from srgpt import storage
from srgpt.engine import task
from srgpt.errors import InputError
from srgpt.params import Params
from srgpt.records import Cuboid, Region, Scene, SceneGraph, encode_depth, encode_png, encode_rle
from srgpt.stages import lift

SIZE = 48


def make_scene(index: int, **changes) -> Scene:
    """Three slanted surfaces before a wall, at places that depend on ``index``."""
    rng = np.random.default_rng(index)
    depth = np.full((SIZE, SIZE), 8.0)
    regions = []
    for i in range(3):
        top, left = rng.integers(0, SIZE - 16, 2)
        mask = np.zeros((SIZE, SIZE), dtype=bool)
        mask[top : top + 14, left : left + 14] = True
        depth[mask] = rng.uniform(2, 5) + 0.01 * np.arange(mask.sum())
        cuboid = Cuboid(rng.uniform(1, 4, 3), rng.uniform(0.2, 1, 3), np.eye(3))
        box = (float(left), float(top), float(left + 14), float(top + 14))
        regions.append(Region(i, "box", "box", box, encode_rle(mask), "given", cuboid))
    fields = {
        "dataset": "toy",
        "scene_id": f"s{index}",
        "width": SIZE,
        "height": SIZE,
        "image": encode_png(np.zeros((SIZE, SIZE, 3), dtype=np.uint8)),
        "regions": tuple(regions),
        "depth": encode_depth(depth),
        "intrinsics": (50.0, 50.0, 23.5, 23.5),
        "gravity": (0.0, 1.0, 0.0),
        **changes,
    }
    return Scene(**fields)


def write(url: str, *shards: list[Scene], stage: str = "perceive") -> str:
    writer = storage.TableWriter(url, "scenes", stage=stage, dataset="toy", params={})
    names = [storage.shard_name(i) for i in range(len(shards))]
    for name, scenes in zip(names, shards, strict=True):
        storage.write_shard(writer.work, name, "scenes", [s.to_row() for s in scenes])
    writer.commit(names)
    return url


def params(workers: int = 1, **sections) -> Params:
    return Params.model_validate({"engine": {"workers": workers}, **sections})


@pytest.fixture
def perceived(tmp_path) -> str:
    return write(
        str(tmp_path / "perceived"), [make_scene(i) for i in range(3)], [make_scene(i) for i in range(3, 5)]
    )


def test_one_graph_per_scene_in_order(perceived, tmp_path):
    out = str(tmp_path / "graphs")
    manifest = lift.run(params(), source=perceived, out=out)
    assert (manifest.table, manifest.stage, manifest.dataset) == ("graphs", "lift", "toy")
    assert [(s.name, s.rows) for s in manifest.shards] == [
        ("part-00000.parquet", 3),
        ("part-00001.parquet", 2),
    ]
    assert manifest.statistics["objects"] == 15
    graphs = [SceneGraph.from_row(r) for r in storage.read_rows(out, "graphs")]
    assert [g.scene_id for g in graphs] == [f"s{i}" for i in range(5)]
    assert all(n.truth is not None for g in graphs for n in g.nodes)
    dropped = sum(n.dropped is not None for g in graphs for n in g.nodes)
    assert sum(manifest.statistics["dropped"].values()) == dropped
    assert storage.trace(out, "perceive") == perceived


def test_workers_and_place_do_not_change_a_byte(perceived, tmp_path):
    one = lift.run(params(1), source=perceived, out=str(tmp_path / "one"))
    two = lift.run(params(2), source=perceived, out=str(tmp_path / "elsewhere" / "two"))
    assert one.shards == two.shards
    assert one.params == two.params


def test_a_broken_scene_is_set_aside_and_the_rest_goes_on(tmp_path):
    source = write(
        str(tmp_path / "perceived"), [make_scene(0), make_scene(1, depth=b"broken"), make_scene(2)]
    )
    manifest = lift.run(params(), source=source, out=str(tmp_path / "graphs"))
    assert (manifest.rows, manifest.rejected) == (2, {"broken-depth": 1})
    (rejected,) = storage.read_rejected(str(tmp_path / "graphs"))
    assert rejected["id"] == "s1"


def test_a_scene_without_depth_keeps_its_truth(tmp_path):
    source = write(str(tmp_path / "perceived"), [make_scene(0, depth=None)])
    manifest = lift.run(params(), source=source, out=str(tmp_path / "graphs"))
    assert manifest.statistics == {"objects": 3, "dropped": {"no-depth": 3}}


def test_a_scene_without_gravity_fails_the_stage(tmp_path):
    source = write(str(tmp_path / "perceived"), [make_scene(0, gravity=None)])
    with pytest.raises(InputError, match="s0 of toy has no gravity"):
        lift.run(params(), source=source, out=str(tmp_path / "graphs"))
    assert not (tmp_path / "graphs").exists()


def test_scenes_that_were_not_perceived_are_refused(tmp_path):
    source = write(str(tmp_path / "scenes"), [make_scene(0)], stage="ingest")
    with pytest.raises(InputError, match="written by ingest"):
        lift.run(params(), source=source, out=str(tmp_path / "graphs"))


def test_a_killed_run_goes_on_where_it_was(perceived, tmp_path, monkeypatch):
    out = str(tmp_path / "graphs")
    expected = lift.run(params(), source=perceived, out=str(tmp_path / "whole")).shards
    real, made = storage.write_shard, []

    def dies_on_the_second(work, name, *rest):
        if made:
            raise KeyboardInterrupt
        made.append(name)
        return real(work, name, *rest)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(task, "write_shard", dies_on_the_second)
        lift.run(params(), source=perceived, out=out)
    assert not (tmp_path / "graphs").exists()
    seen = []
    monkeypatch.setattr(
        task, "write_shard", lambda work, name, *rest: seen.append(name) or real(work, name, *rest)
    )
    assert lift.run(params(), source=perceived, out=out).shards == expected
    assert (made, seen) == (["part-00000.parquet"], ["part-00001.parquet"])
