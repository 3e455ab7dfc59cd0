"""The stage ingest: whole tables, equal for any number of workers, resumed, clear about bad input."""

import json
import os
import signal
from dataclasses import dataclass

import numpy as np
import pytest
from PIL import Image

from srgpt.engine import task
from srgpt.errors import InputError, SrgptError
from srgpt.params import build
from srgpt.records import Scene
from srgpt.sources.omni3d import Omni3dSource, Omni3dWork
from srgpt.stages import ingest
from srgpt.storage import read_manifest, read_rejected, read_rows, shard_name, work_url


def small(workers=1, **procedural):
    return build(
        {"ingest": {"scenes": 5, "shard_scenes": 2, "procedural": {"image_size": 48, "min_pixels": 6,
         **procedural}},
         "engine": {"workers": workers}}
    )  # fmt: skip


def shards(url):
    return {path.name: path.read_bytes() for path in sorted(url.glob("part-*"))}


def test_procedural_table(tmp_path):
    manifest = ingest.run(small(), source=None, out=str(tmp_path / "scenes"), dataset="train")
    assert [s.rows for s in manifest.shards] == [2, 2, 1]
    assert (manifest.stage, manifest.table, manifest.dataset) == ("ingest", "scenes", "train")
    scenes = [Scene.from_row(row) for row in read_rows(str(tmp_path / "scenes"), "scenes")]
    assert [s.scene_id for s in scenes] == [
        "room-000000", "street-000001", "tabletop-000002", "room-000003", "street-000004",
    ]  # fmt: skip
    assert {s.dataset for s in scenes} == {"train"}
    assert not (tmp_path / ".scenes.work").exists()


def test_same_bytes_for_any_number_of_workers(tmp_path):
    for workers in (1, 2):
        ingest.run(small(workers), source=None, out=str(tmp_path / str(workers)), dataset="train")
    assert shards(tmp_path / "1") == shards(tmp_path / "2")
    assert len(shards(tmp_path / "1")) == 3
    assert (tmp_path / "1" / "manifest.json").read_bytes() == (tmp_path / "2" / "manifest.json").read_bytes()


def test_no_scene_is_in_two_datasets(tmp_path):
    for name in ("train", "bench"):
        ingest.run(small(), source=None, out=str(tmp_path / name), dataset=name)
    images = [
        row["image"] for name in ("train", "bench") for row in read_rows(str(tmp_path / name), "scenes")
    ]
    assert len(set(images)) == len(images) == 10


def test_a_killed_run_goes_on_from_its_finished_shards(tmp_path, monkeypatch):
    whole = tmp_path / "whole"
    ingest.run(small(), source=None, out=str(whole), dataset="train")
    real, made = task.write_shard, []

    def dies_on_the_second(work, name, *rest):
        if name == shard_name(1) and not made.count("died"):
            made.append("died")
            raise KeyboardInterrupt
        made.append(name)
        return real(work, name, *rest)

    monkeypatch.setattr(task, "write_shard", dies_on_the_second)
    out = tmp_path / "scenes"
    with pytest.raises(KeyboardInterrupt):
        ingest.run(small(), source=None, out=str(out), dataset="train")
    assert not out.exists()
    assert (tmp_path / ".scenes.work" / f"{shard_name(0)}.done").exists()
    ingest.run(small(), source=None, out=str(out), dataset="train")
    assert made == [shard_name(0), "died", shard_name(1), shard_name(2)], "the first shard was made once"
    assert shards(out) == shards(whole)


@pytest.mark.parametrize("name", ["", "..", "../..", "a/b"])
def test_a_dataset_has_a_plain_name(tmp_path, name):
    with pytest.raises(InputError, match="Give --dataset NAME"):
        ingest.run(small(), source=None, out=str(tmp_path / "scenes"), dataset=name)
    assert list(tmp_path.iterdir()) == []


def test_impossible_settings_end_in_an_error_with_the_counts(tmp_path):
    params = build({"ingest": {"scenes": 1, "procedural": {"image_size": 32, "min_pixels": 100_000}}})
    with pytest.raises(SrgptError, match=r"every scene was set aside \(1 no-layout\)"):
        ingest.run(params, source=None, out=str(tmp_path / "scenes"), dataset="train")
    assert not (tmp_path / "scenes").exists()


def test_a_generating_source_takes_no_folder(tmp_path):
    with pytest.raises(InputError, match="Leave --in away"):
        ingest.run(small(), source=str(tmp_path), out=str(tmp_path / "scenes"), dataset="train")


# Omni3D ---------------------------------------------------------------------------------------------------


def photographs(folder, broken=()):
    """Write an Omni3D folder with three pictures, some of them not pictures."""
    folder.mkdir()
    rows, annotations = [], []
    for index in range(3):
        path = folder / f"{index}.png"
        noise = np.random.default_rng(index).integers(0, 255, (20, 30, 3), dtype=np.uint8)
        Image.fromarray(noise).save(path)
        if index in broken:
            path.write_bytes(path.read_bytes()[:300])
        rows.append({"id": index, "width": 30, "height": 20, "file_path": path.name,
                     "K": [[30, 0, 14.5], [0, 30, 9.5], [0, 0, 1]]})  # fmt: skip
        annotations.append({"id": index, "image_id": index, "category_id": 0, "bbox2D_tight": [2, 2, 9, 9],
                            "center_cam": [0, 0, 2], "dimensions": [1, 1, 1],
                            "R_cam": [[1, 0, 0], [0, 1, 0], [0, 0, 1]]})  # fmt: skip
    data = {"images": rows, "categories": [{"id": 0, "name": "cup"}], "annotations": annotations}
    (folder / "annotations.json").write_text(json.dumps(data))
    return str(folder)


OMNI = build({"ingest": {"source": "omni3d", "shard_scenes": 2}, "engine": {"workers": 1}})


def test_unreadable_pictures_are_set_aside_and_counted(tmp_path):
    manifest = ingest.run(
        OMNI, source=photographs(tmp_path / "in", {1}), out=str(tmp_path / "out"), dataset="real"
    )
    assert (manifest.rows, manifest.rejected) == (2, {"truncated-image": 1})
    (rejected,) = read_rejected(str(tmp_path / "out"))
    assert rejected["id"] == "omni3d-000001"
    assert "1.png" in rejected["detail"]
    assert read_manifest(str(tmp_path / "out")).statistics == {
        "images": 3, "annotations": 3, "objects": 2, "dropped": {},
    }  # fmt: skip


def test_nothing_usable_is_an_error_and_a_repaired_source_is_read_afresh(tmp_path):
    source = photographs(tmp_path / "in", {0, 1, 2})
    with pytest.raises(SrgptError, match=r"every scene was set aside \(3 truncated-image\)") as caught:
        ingest.run(OMNI, source=source, out=str(tmp_path / "out"), dataset="real")
    assert not isinstance(caught.value, InputError)
    assert "0.png" in str(caught.value)
    for index in range(3):
        Image.new("RGB", (30, 20)).save(tmp_path / "in" / f"{index}.png")
    assert ingest.run(OMNI, source=source, out=str(tmp_path / "out"), dataset="real").rows == 3


def test_the_folder_can_be_a_parameter_of_the_dataset(tmp_path):
    url, other = photographs(tmp_path / "in"), photographs(tmp_path / "other", {1})
    own = {"source": "omni3d", "url": url}
    params = build({"datasets": {"train": {"ingest": own}, "bench": {}}, "engine": {"workers": 1}})
    train = params.for_dataset("train")
    manifest = ingest.run(train, source=None, out=str(tmp_path / "out"), dataset="train")
    assert (manifest.rows, manifest.rejected) == (3, {})
    assert str(tmp_path) not in (tmp_path / "out" / "manifest.json").read_text()
    given = ingest.run(train, source=other, out=str(tmp_path / "out"), dataset="train")
    assert (given.rows, given.rejected) == (2, {"truncated-image": 1}), "--in wins"
    with pytest.raises(InputError, match="overlaps with the input"):
        ingest.run(train, source=None, out=f"{url}/scenes", dataset="train")


def test_a_generating_source_takes_no_url(tmp_path):
    params = build({"ingest": {"url": "/data/omni3d"}})
    with pytest.raises(InputError, match=r"/data/omni3d: ingest\.source is 'procedural'.*ingest\.url null"):
        ingest.run(params, source=None, out=str(tmp_path / "out"), dataset="train")


def test_omni3d_needs_a_folder(tmp_path):
    with pytest.raises(InputError, match=r"give it with --in.*set datasets\.real\.ingest\.url"):
        ingest.run(OMNI, source=None, out=str(tmp_path / "out"), dataset="real")
    with pytest.raises(InputError, match="not found"):
        ingest.run(OMNI, source=str(tmp_path), out=str(tmp_path / "out"), dataset="real")
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / work_url("out")).exists()


def test_tables_hold_no_absolute_paths(tmp_path):
    ingest.run(OMNI, source=photographs(tmp_path / "in"), out=str(tmp_path / "out"), dataset="real")
    assert str(tmp_path) not in (tmp_path / "out" / "manifest.json").read_text()
    assert [row["uri"] for row in read_rows(str(tmp_path / "out"), "scenes")] == ["0.png", "1.png", "2.png"]


# A picture that kills its decoder -----------------------------------------------------------------------------


@dataclass(frozen=True)
class DeadlyWork:
    """Photographs of an Omni3D folder, one of which ends the process that decodes it."""

    real: Omni3dWork
    deadly: str

    def load(self):
        if [self.deadly] == [item.scene_id for item in self.real.items]:
            os.kill(os.getpid(), signal.SIGSEGV)
        return self.real.load()

    def pieces(self):
        return [(name, DeadlyWork(piece, self.deadly)) for name, piece in self.real.pieces()]


class DeadlySource(Omni3dSource):
    def shards(self):
        return [DeadlyWork(work, "omni3d-000001") for work in super().shards()]


def test_a_picture_that_kills_its_decoder_is_set_aside_and_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(
        ingest, "open_source", lambda params, seed, name, url, engine: DeadlySource(params, name, url)
    )
    params = build({"ingest": {"source": "omni3d"}, "engine": {"workers": 0}})
    manifest = ingest.run(
        params, source=photographs(tmp_path / "in"), out=str(tmp_path / "out"), dataset="real"
    )
    assert (manifest.rows, manifest.rejected) == (2, {"kills-worker": 1})
    (rejected,) = read_rejected(str(tmp_path / "out"))
    assert rejected["id"] == "omni3d-000001"
    assert manifest.statistics["objects"] == 2, "what was in it does not count"
