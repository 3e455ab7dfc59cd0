"""The stage with models: the same shards from any number of workers, and the unfit are set aside, not an error."""

import pytest
from PIL import Image

from srgpt.errors import SrgptError
from srgpt.params import FilteringParams, build
from srgpt.perception.filtering import load_filter
from srgpt.records import Scene
from srgpt.stages import ingest, perceive
from srgpt.storage import TableWriter, read_rejected, read_rows, shard_name, write_shard


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """Procedural scenes of which only the pictures are left, two per shard."""
    folder = tmp_path_factory.mktemp("data")
    params = build({"ingest": {"scenes": 4, "procedural": {"image_size": 64}}, "engine": {"workers": 1}})
    ingest.run(params, source=None, out=str(folder / "scenes"), dataset="train")
    nothing = {"depth": None, "gravity": None, "intrinsics": None}
    marks = {f"{name}_source": None for name in nothing}
    rows = [{**row, **nothing, **marks, "regions": []} for row in read_rows(str(folder / "scenes"), "scenes")]
    writer = TableWriter(str(folder / "bare"), "scenes", stage="ingest", dataset="train", params={})
    names = [shard_name(0), shard_name(1)]
    for index, name in enumerate(names):
        write_shard(writer.work, name, "scenes", rows[2 * index : 2 * index + 2])
    writer.commit(names)
    return str(folder / "bare")


@pytest.fixture(scope="module")
def settings(checkpoint):
    return {
        "pictures": "model", "tags": "vocabulary", "regions": "model", "masks": "model", "depth": "model",
        "intrinsics": "fov", "gravity": "ransac",
        "filtering": {"model": checkpoint("clip"), "min_positive": 0.0},
        "tagging": {"vocabulary": ["chair", "cup"]},
        "detection": {"model": checkpoint("owlv2"), "box_threshold": 0.0, "min_score": 0.0},
        "segmentation": {"model": checkpoint("sam_hq"), "min_area": 1},
        "depth_estimation": {"metric": {"model": checkpoint("zoedepth")}},
    }  # fmt: skip


@pytest.mark.slow
def test_any_number_of_workers_writes_the_same_bytes(bare, settings, tmp_path):
    written = []
    for workers in (1, 2):
        out = tmp_path / f"perceived-{workers}"
        params = build({"perceive": settings, "engine": {"workers": workers}})
        manifest = perceive.run(params, source=bare, out=str(out))
        assert manifest.rows >= 2, "boxes of random weights may all lie outside of a picture"
        assert manifest.rejected == ({"no-boxes": 4 - manifest.rows} if manifest.rows < 4 else {})
        written.append([(out / shard.name).read_bytes() for shard in manifest.shards])
    assert written[0] == written[1]
    for row in read_rows(str(out), "scenes"):
        assert row["regions"]
        assert row["depth_source"] == settings["depth_estimation"]["metric"]["model"]


def test_pictures_that_are_no_photographs_are_set_aside_and_no_error(bare, settings, tmp_path):
    judged = load_filter(FilteringParams(**settings["filtering"])).judge(
        [Image.fromarray(Scene.from_row(row).rgb()) for row in read_rows(bare, "scenes")]
    )
    second_worst = sorted(verdict.positive for verdict in judged)[1]
    some = {**settings, "filtering": {**settings["filtering"], "min_positive": second_worst}}
    params = build({"perceive": some, "engine": {"workers": 1}})
    manifest = perceive.run(params, source=bare, out=str(tmp_path / "perceived"))
    assert manifest.rejected["not-a-photograph"] == 1
    details = [row["detail"] for row in read_rejected(str(tmp_path / "perceived"))]
    assert sum("it looks more like" in detail for detail in details) == 1


@pytest.mark.parametrize(
    ("change", "reason"),
    [({"filtering": {"min_positive": 1.0}}, "not-a-photograph"), ({"regions": "given"}, "no-regions")],
)
def test_a_stage_that_sets_every_scene_aside_fails_and_starts_afresh(
    change, reason, bare, settings, tmp_path
):
    filtering = {**settings["filtering"], **change.get("filtering", {})}
    strict = {**settings, **change, "filtering": filtering, "on_missing": "reject"}
    params = build({"perceive": strict, "engine": {"workers": 1}})
    for _ in range(2):
        with pytest.raises(SrgptError, match=rf"perceive train: every scene was set aside \(4 {reason}\)"):
            perceive.run(params, source=bare, out=str(tmp_path / "perceived"))
        assert list(tmp_path.iterdir()) == []
