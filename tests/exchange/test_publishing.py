"""What was published is read back: OSD rows as they were, a Hugging Face dataset by the datasets library."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from PIL import Image

from srgpt import storage
from srgpt.errors import InputError
from srgpt.exchange import importing, publishing
from srgpt.exchange.osd_folder import grey_depth
from srgpt.records import Conversation, Scene, encode_depth
from tests.evaluation.tables import write_tables
from tests.exchange.rows import HEIGHT, WIDTH, osd_row, tree, write_pictures, write_rows
from tests.exchange.test_turns import columns


@pytest.fixture
def imported(tmp_path: Path) -> str:
    """Five conversations with pictures and depth, in two shards."""
    rows = [osd_row(i) for i in range(5)]
    images, depth = write_pictures(tmp_path, [r["filename"] for r in rows])
    given_ = importing.Source(
        write_rows(tmp_path / "rows.json", rows), "osd", "osd", images, depth, "CC-BY-2.0"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(importing, "SHARD_ROWS", 3)
        patch.setattr(importing, "BATCH", 3)
        importing.run(given_, str(tmp_path / "in"))
    return str(tmp_path / "in" / "conversations")


def test_osd_comes_out_as_it_went_in(imported: str, tmp_path: Path) -> None:
    record = publishing.run(imported, str(tmp_path / "out"), "osd")
    assert (record["rows"], record["rejected"]) == (5, {})
    rows = json.loads((tmp_path / "out" / "osd.json").read_text())
    assert rows == json.loads((tmp_path / "rows.json").read_text())
    before, after = tree(tmp_path / "depth"), tree(tmp_path / "out" / "depth")
    assert before.keys() == after.keys()
    for name, data in after.items():
        with Image.open(io.BytesIO(data)) as ours, Image.open(io.BytesIO(before[name])) as theirs:
            assert (ours.mode, ours.size) == ("RGB", (WIDTH, HEIGHT))
            np.testing.assert_array_equal(np.asarray(ours), np.asarray(theirs))
    assert tree(tmp_path / "out" / "images") == tree(tmp_path / "images")


def test_a_publication_can_be_imported_again(imported: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    publishing.run(imported, str(out), "osd")
    again = importing.Source(
        str(out / "osd.json"), "osd", "osd", str(out / "images"), str(out / "depth"), "CC-BY-2.0"
    )
    importing.run(again, str(tmp_path / "again"))
    for table in ("conversations", "scenes"):
        first = list(storage.read_rows(imported.replace("conversations", table), table))
        second = list(storage.read_rows(str(tmp_path / "again" / table), table))
        for row in (*first, *second):
            row.pop("uri", None)
        assert first == second


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(row=columns())
def test_any_row_comes_out_as_it_went_in(row: dict[str, Any], tmp_path: Path) -> None:
    row = {"filename": "a/b", **row}
    url = write_rows(tmp_path / "rows.json", [row])
    importing.run(importing.Source(url, "osd", "osd"), str(tmp_path / "in"))
    publishing.run(str(tmp_path / "in" / "conversations"), str(tmp_path / "out"), "osd", images=False)
    (back,) = json.loads((tmp_path / "out" / "osd.json").read_text())
    assert back == (row if row["rle"] else {k: v for k, v in row.items() if k != "rle"})


def test_our_own_questions_go_out_too(tmp_path: Path) -> None:
    ours = write_tables(tmp_path, scenes=4)
    publishing.run(ours, str(tmp_path / "out"), "osd")
    url = str(tmp_path / "out" / "bench.json")
    images, depth = str(tmp_path / "out" / "images"), str(tmp_path / "out" / "depth")
    importing.run(importing.Source(url, "osd", "bench", images, depth), str(tmp_path / "again"))
    talks = [Conversation.from_row(r) for r in storage.read_rows(ours, "conversations")]
    back = [
        Conversation.from_row(r)
        for r in storage.read_rows(str(tmp_path / "again" / "conversations"), "conversations")
    ]
    for before, after in zip(talks, back, strict=True):
        assert before.scene_id == after.scene_id
        masks = {r.id: r.rle for r in before.regions}, {r.id: r.rle for r in after.regions}
        for asked, read in zip(before.turns, after.turns, strict=True):
            order = [int(k) for k in asked.question.split("<region")[1:] for k in k[0]]
            assert [masks[0][asked.regions[k]] for k in order] == [masks[1][r] for r in read.regions]


def test_what_the_format_cannot_say_is_set_aside(tmp_path: Path) -> None:
    ours = write_tables(tmp_path, scenes=24)
    record = publishing.run(ours, str(tmp_path / "out"), "osd", images=False)
    rejected = storage.read_rejected(str(tmp_path / "out"))
    assert record["rows"] + len(rejected) == storage.read_manifest(ours).rows
    assert record["rejected"] == ({"answer-names-no-region": len(rejected)} if rejected else {})


def test_metric_depth_becomes_grey() -> None:
    metres = np.array([[1.0, 2.0], [4.0, 0.0]])
    scene = Scene("d", "s", 2, 2, b"", depth=encode_depth(metres))
    found = grey_depth(scene)
    assert found is not None
    # inverse depth 1, 1/2, 1/4 from 1/4 to 1
    np.testing.assert_array_equal(found, [[255, 85], [0, 0]])
    assert grey_depth(scene.replace(depth=None)) is None


# Hugging Face ---------------------------------------------------------------------------------------------


def load(folder: Path) -> Any:
    import datasets

    datasets.disable_progress_bars()
    return datasets.load_dataset(str(folder), split="train", cache_dir=str(folder.parent / "cache"))


def test_the_datasets_library_loads_it(imported: str, tmp_path: Path) -> None:
    publishing.run(imported, str(tmp_path / "out"), "huggingface", licence="cc-by-4.0")
    dataset = load(tmp_path / "out")
    talks = [Conversation.from_row(r) for r in storage.read_rows(imported, "conversations")]
    assert dataset["id"] == [c.conversation_id for c in talks]
    row, talk = dataset[3], talks[3]
    assert (row["image"].size, row["image"].mode) == ((WIDTH, HEIGHT), "RGB")
    assert row["relative_depth"].mode.startswith("I;16")
    assert row["depth"] is None
    assert row["messages"] == [
        {"role": role, "content": text}
        for turn in talk.turns
        for role, text in (("user", turn.question), ("assistant", turn.answer))
    ]
    assert row["regions"] == [r.to_row() for r in talk.regions]
    assert [f["value"] for f in row["facts"]] == [t.value for t in talk.turns]
    assert [f["regions"] for f in row["facts"]] == [list(t.regions) for t in talk.turns]
    assert row["licence"] == "CC-BY-2.0"


def test_depth_in_millimetres_comes_with_our_own_scenes(tmp_path: Path) -> None:
    ours = write_tables(tmp_path, scenes=4)
    publishing.run(ours, str(tmp_path / "out"), "huggingface")
    row = load(tmp_path / "out")[0]
    (scene, *_) = storage.read_rows(storage.scenes_of(ours), "scenes")
    expected = np.rint(1000 * Scene.from_row(scene).depth_metres())
    np.testing.assert_array_equal(np.asarray(row["depth"]), expected)


def test_text_alone_has_no_picture_columns(imported: str, tmp_path: Path) -> None:
    publishing.run(imported, str(tmp_path / "out"), "huggingface", images=False)
    assert not {"image", "depth", "relative_depth"} & {*load(tmp_path / "out").column_names}


def test_the_card_says_what_it_is(imported: str, tmp_path: Path) -> None:
    publishing.run(imported, str(tmp_path / "out"), "huggingface", licence="cc-by-4.0")
    text = (tmp_path / "out" / "README.md").read_text()
    front = yaml.safe_load(text.split("---")[1])
    assert front["license"] == "cc-by-4.0"
    assert front["size_categories"] == ["n<1K"]
    assert front["configs"][0]["data_files"] == [{"split": "train", "path": "data/train-*"}]
    for said in (
        "5 conversations with 15 questions",
        "| left\\_predicate | 10 | 66.7 % |",
        "| CC-BY-2.0 | 5 |",
        "| import | conversations | 5 | 0 |",
        "| `relative_depth` |",
        '"format": "osd"',
    ):
        assert said in text, said


def test_publishing_twice_gives_equal_bytes(imported: str, tmp_path: Path) -> None:
    for form in publishing.FORMATS:
        publishing.run(imported, str(tmp_path / "one"), form)
        publishing.run(imported, str(tmp_path / "two"), form)
        assert tree(tmp_path / "one") == tree(tmp_path / "two")


def test_what_is_wrong_is_said(imported: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'csv' is not a format that is written; allowed: osd, huggingface"):
        publishing.run(imported, str(tmp_path / "out"), "csv")
    url = write_rows(tmp_path / "rows.json", [osd_row(0)])
    importing.run(importing.Source(url, "osd", "osd"), str(tmp_path / "bare"))
    with pytest.raises(InputError, match=r"imported without pictures\. Publish with --without-images"):
        publishing.run(str(tmp_path / "bare" / "conversations"), str(tmp_path / "out"), "osd")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    with pytest.raises(InputError, match="is there already"):
        publishing.run(imported, str(tmp_path / "mine"), "osd")


def test_into_a_bucket(imported: str, tmp_path: Path, s3: str) -> None:
    publishing.run(imported, str(tmp_path / "out"), "osd")
    publishing.run(imported, f"{s3}/out", "osd")
    for name, data in tree(tmp_path / "out").items():
        assert storage.read_bytes(f"{s3}/out/{name}") == data
