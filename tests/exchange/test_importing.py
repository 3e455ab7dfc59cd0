"""Imports: both tables whole, resumed after any kill to the same bytes, and nothing lost without a reason."""

from __future__ import annotations

import copy
import gc
import json
import multiprocessing
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from srgpt import storage
from srgpt.errors import InputError, SrgptError
from srgpt.exchange import importing, reading
from srgpt.exchange.importing import Source, run
from srgpt.records import Conversation, Scene
from tests.exchange.rows import HEIGHT, WIDTH, llava_row, osd_row, tree, write_pictures, write_rows


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importing, "SHARD_ROWS", 4)
    monkeypatch.setattr(importing, "BATCH", 2)


def source(
    folder: Path, rows: list[Any], *, lines: bool = False, pictures: bool = False, **fields: Any
) -> Source:
    url = write_rows(folder / "rows.json", rows, lines=lines)
    if pictures:
        images, depth = write_pictures(folder, [row["filename"] for row in rows])
        fields = {"images": images, "depth": depth, **fields}
    return Source(url, **{"format": "osd", "dataset": "osd", **fields})


def talks(out: Path | str) -> list[Conversation]:
    return [Conversation.from_row(r) for r in storage.read_rows(f"{out}/conversations", "conversations")]


def scenes(out: Path | str) -> list[Scene]:
    return [Scene.from_row(r) for r in storage.read_rows(f"{out}/scenes", "scenes")]


def test_rows_become_conversations_and_scenes(tmp_path: Path) -> None:
    rows = [osd_row(i) for i in range(9)]
    manifest = run(source(tmp_path, rows, pictures=True, licence="CC-BY-2.0"), str(tmp_path / "out"))
    assert [s.rows for s in manifest.shards] == [4, 4, 1]
    assert manifest.rejected == {}
    assert manifest.statistics["rows_read"] == 9
    assert manifest.statistics["categories"] == {"left_predicate": 18, "width_data": 9}
    asked, pictured = talks(tmp_path / "out"), scenes(tmp_path / "out")
    assert [c.scene_id for c in asked] == [r["filename"] for r in rows] == [s.scene_id for s in pictured]
    for row, talk, scene in zip(rows, asked, pictured, strict=True):
        assert talk.truth == "imported"
        assert talk.conversation_id == f"{row['filename']}-{asked.index(talk)}"
        assert (talk.width, talk.height) == (scene.width, scene.height) == (WIDTH, HEIGHT)
        assert scene.rgb().shape == (HEIGHT, WIDTH, 3)
        assert scene.licence == "CC-BY-2.0"
        assert scene.uri == str(tmp_path / "images" / f"{row['filename']}.jpg")
        assert (scene.depth, scene.relative_depth_source) == (None, "given")
        assert [(r.id, r.rle, r.bbox) for r in scene.regions] == [(r.id, r.rle, r.bbox) for r in talk.regions]


def test_the_conversations_say_where_their_scenes_are(tmp_path: Path) -> None:
    run(source(tmp_path, [osd_row(0)], pictures=True), str(tmp_path / "out"))
    (tmp_path / "out").rename(tmp_path / "moved")
    assert storage.scenes_of(str(tmp_path / "moved" / "conversations")) == str(tmp_path / "moved" / "scenes")


def test_relative_depth_is_the_grey_of_the_picture(tmp_path: Path) -> None:
    import io

    from PIL import Image

    given = source(tmp_path, [osd_row(0)], pictures=True)
    run(given, str(tmp_path / "out"))
    (scene,) = scenes(tmp_path / "out")
    with Image.open(next((tmp_path / "depth").iterdir())) as picture:
        grey = np.asarray(picture)[..., 0].astype(float)
    with Image.open(io.BytesIO(scene.relative_depth or b"")) as picture:
        stored = np.asarray(picture).astype(float)
    assert stored.min() >= 1
    np.testing.assert_allclose((stored - 1) / 65534, grey / 255, atol=1e-5)


def test_pictures_are_not_needed_to_look_at_the_text(tmp_path: Path) -> None:
    run(source(tmp_path, [osd_row(0), osd_row(1)]), str(tmp_path / "out"))
    scene = scenes(tmp_path / "out")[0]
    assert (scene.image, scene.width, scene.uri) == (b"", WIDTH, f"{0:016x}.jpg")
    with pytest.raises(InputError, match="imported without its picture"):
        scene.rgb()


def test_rows_about_one_picture_share_their_scene_and_its_regions(tmp_path: Path) -> None:
    second = {**osd_row(3), "filename": osd_row(1)["filename"]}
    second["rle"], second["bbox"] = second["rle"][::-1], second["bbox"][::-1]
    run(source(tmp_path, [osd_row(1), second]), str(tmp_path / "out"))
    (scene,) = scenes(tmp_path / "out")
    known = {r.id: (r.rle, r.bbox) for r in scene.regions}
    assert len(known) == 2
    for talk in talks(tmp_path / "out"):
        assert {r.id: (r.rle, r.bbox) for r in talk.regions} == known


# What is set aside ----------------------------------------------------------------------------------------


def bad_rows() -> list[tuple[Any, str]]:
    lost, mask, size = osd_row(20), osd_row(21), osd_row(22)
    mask["rle"][0]["counts"] = "?"
    for rle in size["rle"]:
        rle["size"], rle["counts"] = [HEIGHT, WIDTH + 1], f"{rle['counts']}"
    broken, other = osd_row(23), osd_row(24)
    return [
        (lost, "missing-picture"),
        (mask, "broken-mask"),
        ({**osd_row(25), "filename": "../../etc/passwd"}, "bad-filename"),
        ({**osd_row(26), "filename": "/etc/passwd"}, "bad-filename"),
        ({**osd_row(27), "filename": "s3://bucket/x"}, "bad-filename"),
        ({**osd_row(28), "filename": 7}, "bad-filename"),
        (["not", "a", "row"], "not-a-row"),
        (broken, "unsupported-format"),
        (other, "sizes-differ"),
        (osd_row(30), "truncated-image"),
        ({**osd_row(29), "rle": []}, "mentions-without-regions"),
    ]


def test_every_row_that_cannot_be_used_is_kept_aside_with_its_reason(tmp_path: Path) -> None:
    from PIL import Image

    bad = bad_rows()
    rows = [osd_row(0), *[row for row, _ in bad], osd_row(1)]
    names = [osd_row(i)["filename"] for i in (0, 1, 21, 23, 24, 30)]
    images, _ = write_pictures(tmp_path, names)
    (Path(images) / f"{23:016x}.jpg").write_bytes(b"no picture")
    cut = Path(images) / f"{30:016x}.jpg"
    cut.write_bytes(cut.read_bytes()[:-200])
    Image.new("RGB", (10, 10)).save(Path(images) / f"{24:016x}.jpg")
    given = source(tmp_path, rows, images=images)
    manifest = run(given, str(tmp_path / "out"))
    # a broken mask costs its own turn only
    assert [c.scene_id for c in talks(tmp_path / "out")] == [f"{n:016x}" for n in (0, 21, 1)]
    found = storage.read_rejected(f"{tmp_path}/out/conversations")
    assert [item["reason"] for item in found] == [reason for _, reason in bad]
    assert sum(manifest.rejected.values()) == len(bad)
    data = Path(given.url).read_bytes()
    for (row, _), item in zip(bad, found, strict=True):
        start, end = map(int, item["detail"].split("bytes ")[1].split(":")[0].split(" to "))
        assert json.loads(data[start:end]) == row
    assert found[1]["id"] == f"{21:016x}-2/0"


def test_rejected_rows_leave_nothing_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within a shard nobody looks for cycles, so that rows must not be in any."""
    monkeypatch.setattr(importing, "SHARD_ROWS", 1024)
    monkeypatch.setattr(reading, "CHUNK", 1000)

    def garbage(count: int) -> int:
        bad = [{**osd_row(i), "filename": ".."} for i in range(count)]
        for row in bad[::2]:
            row["filename"], row["conversations"][1]["value"] = f"{len(row)}", ""
        given = source(tmp_path, [*bad, osd_row(0)])
        gc.collect()
        gc.disable()
        run(given, str(tmp_path / f"out{count}"))
        found = gc.collect()
        gc.enable()
        return found

    garbage(2)
    assert abs(garbage(40) - garbage(200)) < 100


def test_the_wrong_folder_of_pictures_is_noticed_at_once(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    rows = [osd_row(i) for i in range(50)]
    with pytest.raises(InputError, match="has none of the pictures of 4 rows in a row"):
        run(source(tmp_path, rows, images=str(tmp_path / "empty")), str(tmp_path / "out"))


def test_an_import_of_nothing_fails_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(SrgptError, match=r"not one of 2 rows could be used \(2 bad-filename\)"):
        run(source(tmp_path, [{}, {}]), str(tmp_path / "out"))
    assert [p.name for p in tmp_path.rglob("*")] == ["rows.json", "out"] or not any(
        (tmp_path / "out").rglob("*")
    )


@pytest.mark.parametrize(
    ("text", "form", "says"),
    [
        ("[]", "osd", "rows.json: has no rows"),
        (json.dumps([{"id": "text"}, llava_row(0)]), "osd", "row 1 has 'image' and no 'filename'.*with --format llava"),
        (json.dumps(osd_row(0)), "llava", "has 'filename' and no 'image'.*Import it with --format osd"),
        (json.dumps({"data": [osd_row(0)]}), "osd", "inside of an object, as its 'data'.*jq '.\\[\"data\"\\]'"),
        (json.dumps({"v": 1.5, "of": "a", "data": [llava_row(0)] * 3}, indent=1), "llava", "as its 'data'"),
        ('{"rows": [\n' + ",\n".join(json.dumps(osd_row(i)) for i in range(9)) + "\n]}", "osd", "its 'rows'"),
    ],
)  # fmt: skip
def test_a_file_that_is_another_one_than_was_said_is_told_as_such(
    text: str, form: str, says: str, tmp_path: Path
) -> None:
    (tmp_path / "rows.json").write_text(text)
    with pytest.raises(InputError, match=says):
        run(Source(str(tmp_path / "rows.json"), form, "osd"), str(tmp_path / "out"))


def test_a_first_row_that_is_broken_does_not_look_like_another_file(tmp_path: Path) -> None:
    rows = [osd_row(i) for i in range(3)]
    rows[0] = {"objects": [{"id": 1}], **rows[0], "filename": "../x"}
    assert run(source(tmp_path, rows, lines=True), str(tmp_path / "out")).rejected == {"bad-filename": 1}


def test_a_broken_array_names_the_byte_and_keeps_what_was_before(tmp_path: Path) -> None:
    given = source(tmp_path, [osd_row(i) for i in range(11)])
    path = Path(given.url)
    whole = path.read_text()
    at = whole.index(osd_row(9)["filename"])
    path.write_text(whole[: at - 1] + "!" + whole[at:])
    with pytest.raises(InputError, match=rf"rows.json: broken JSON at byte {at - 1}, in row 9"):
        run(given, str(tmp_path / "out"))
    work = tmp_path / "out" / ".conversations.work"
    assert len(list(work.glob("*.done"))) == 2
    run(given, str(tmp_path / "out"), limit=9)
    assert len(talks(tmp_path / "out")) == 9


def test_the_first_rows_alone(tmp_path: Path) -> None:
    given = source(tmp_path, [osd_row(i) for i in range(9)])
    for limit in (3, 8, None):
        manifest = run(given, str(tmp_path / "out"), limit=limit)
        assert manifest.rows == (limit or 9)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0, 10**6), byte=st.integers(0, 255), lines=st.booleans())
def test_damage_never_crashes_and_costs_no_other_row(at: int, byte: int, lines: bool, tmp_path: Path) -> None:
    rows = [osd_row(i, turns=1) for i in range(6)]
    given = source(tmp_path, rows, lines=lines)
    ends = [row.end for row in importing.read_rows(given.url)]
    data = bytearray(Path(given.url).read_bytes())
    at %= len(data)
    data[at] = byte
    Path(given.url).write_bytes(bytes(data))
    for name in ("scenes", "conversations"):
        storage.remove(str(tmp_path / "out" / name))
        storage.remove(str(tmp_path / "out" / f".{name}.work"))
    before = sum(end <= at - lines for end in ends)  # its newline belongs to a line
    # a line's end may have been damaged, and two rows with it
    unhurt = [i for i in range(6) if not before <= i <= before + lines]
    try:
        run(given, str(tmp_path / "out"))
    except InputError as error:
        if before == 0 or "broken JSON" not in str(error):
            assert at == 0 or not lines
            return
        unhurt = list(range(before))
        run(given, str(tmp_path / "out"), limit=before)
    kept = {c.scene_id for c in talks(tmp_path / "out")}
    assert {rows[i]["filename"] for i in unhurt} <= kept


# Killed and resumed ---------------------------------------------------------------------------------------


def _import_until(point: int, given: Source, out: str) -> None:
    """Import, and die by SIGKILL when something is written for the ``point``-th time."""
    left = [point]

    def dying(function: Any) -> Any:
        def wrapped(*arguments: Any, **named: Any) -> Any:
            left[0] -= 1
            if left[0] < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **named)

        return wrapped

    from srgpt.storage import writer

    for module, name in (
        (writer, "write_bytes"),
        (writer, "write_json"),
        (importing, "write_json"),
        (writer, "move"),
    ):
        setattr(module, name, dying(getattr(module, name)))
    run(given, out)


def test_killed_anywhere_it_ends_with_the_same_bytes(tmp_path: Path) -> None:
    rows = [osd_row(i) for i in range(9)]
    rows[5] = {**rows[5], "rle": []}
    given = source(tmp_path, rows, pictures=True)
    run(given, str(tmp_path / "undisturbed"))
    expected = tree(tmp_path / "undisturbed")
    context = multiprocessing.get_context("fork")
    killed = 0
    for point in range(100):
        out = tmp_path / f"out{point}"
        process = context.Process(target=_import_until, args=(point, given, str(out)))
        process.start()
        process.join()
        if process.exitcode == 0:
            break
        assert process.exitcode == -signal.SIGKILL
        killed += 1
        run(given, str(out))
        assert tree(out) == expected
    assert killed > 20


def test_a_resumed_import_does_not_read_the_rows_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = source(tmp_path, [osd_row(i) for i in range(9)])
    process = multiprocessing.get_context("fork").Process(
        target=_import_until, args=(13, given, str(tmp_path / "out"))
    )
    process.start()
    process.join()
    started = []
    real = importing.read_rows

    def watched(url: str, **place: int) -> Any:
        started.append(place)
        return real(url, **place)

    monkeypatch.setattr(importing, "read_rows", watched)
    run(given, str(tmp_path / "out"))
    (place,) = started
    assert place["number"] in (4, 8)
    assert place["start"] > 0


def test_work_of_another_file_is_not_taken_up(tmp_path: Path) -> None:
    given = source(tmp_path, [osd_row(i) for i in range(9)])
    process = multiprocessing.get_context("fork").Process(
        target=_import_until, args=(13, given, str(tmp_path / "out"))
    )
    process.start()
    process.join()
    given = source(tmp_path, [osd_row(i + 20) for i in range(9)])
    run(given, str(tmp_path / "out"))
    assert [c.scene_id for c in talks(tmp_path / "out")] == [f"{i + 20:016x}" for i in range(9)]


# Other shapes and places ----------------------------------------------------------------------------------


@pytest.mark.parametrize("lines", [False, True])
def test_llava_rows_have_no_regions(tmp_path: Path, lines: bool) -> None:
    rows = [llava_row(i) for i in range(5)]
    rows[2] = {k: v for k, v in rows[2].items() if k != "image"}
    images, _ = write_pictures(tmp_path, [f"coco/{i:04d}" for i in range(5)])
    given = replace(source(tmp_path, rows, lines=lines), format="llava", images=images)
    manifest = run(given, str(tmp_path / "out"))
    assert manifest.rejected == {"not-one-picture": 1}
    first = talks(tmp_path / "out")[0]
    assert (first.scene_id, first.conversation_id, first.regions) == ("coco/0000.jpg", "coco/0000.jpg-0", ())
    assert (first.width, first.height) == (WIDTH, HEIGHT)
    assert [(t.question, t.answer, t.category, t.value, t.unit) for t in first.turns] == [
        ("What is in the picture?", "Noise, number 0.", "imported", None, "text"),
        ("Anything else?", "No.", "imported", None, "text"),
    ]


def test_pictures_that_differ_in_their_suffix_alone_are_two_scenes(tmp_path: Path) -> None:
    from PIL import Image

    rows = [{**llava_row(i), "image": name} for i, name in enumerate(["a.jpg", "a.png", "a.jpg"])]
    images, _ = write_pictures(tmp_path, ["a"])
    Image.new("RGB", (7, 5)).save(Path(images) / "a.png")
    run(replace(source(tmp_path, rows), format="llava", images=images), str(tmp_path / "out"))
    sizes = {"a.jpg": (WIDTH, HEIGHT), "a.png": (7, 5)}
    assert {s.scene_id: (s.width, s.height) for s in scenes(tmp_path / "out")} == sizes
    assert [(c.scene_id, (c.width, c.height)) for c in talks(tmp_path / "out")] == [
        (row["image"], sizes[row["image"]]) for row in rows
    ]


def test_a_broken_line_is_set_aside(tmp_path: Path) -> None:
    given = source(tmp_path, [osd_row(0), osd_row(1)], lines=True)
    Path(given.url).write_text(Path(given.url).read_text().replace("}\n", "}}\n", 1))
    assert run(given, str(tmp_path / "out")).rejected == {"not-json": 1}
    assert len(talks(tmp_path / "out")) == 1


def test_from_a_bucket_to_a_bucket(tmp_path: Path, s3: str) -> None:
    rows = [osd_row(i) for i in range(5)]
    given = source(tmp_path, rows, pictures=True)
    (tmp_path / "images" / f"{3:016x}.jpg").unlink()
    run(given, str(tmp_path / "out"))
    for file, data in tree(tmp_path).items():
        if not file.startswith("out"):
            storage.write_bytes(f"{s3}/{file}", data)
    remote = Source(f"{s3}/rows.json", "osd", "osd", f"{s3}/images", f"{s3}/depth")
    manifest = run(remote, f"{s3}/out")
    assert manifest.rejected == {"missing-picture": 1}
    assert talks(f"{s3}/out") == talks(tmp_path / "out")
    found = [replace(s, uri="") for s in scenes(f"{s3}/out")]
    assert found == [replace(s, uri="") for s in scenes(tmp_path / "out")]
    assert storage.scenes_of(f"{s3}/out/conversations") == f"{s3}/out/scenes"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"format": "coco"}, "'coco' is not a format that is read; allowed: osd, llava"),
        ({"dataset": "a/b"}, "cannot name a dataset"),
        ({"depth": "somewhere"}, "--depth needs --images"),
        (
            {"url": "nowhere.json"},
            "nowhere.json: not found. Check the path; if a stage writes it, run that stage first",
        ),
        ({"images": "s4://bucket"}, "s4:// cannot be used"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, change: dict[str, Any], says: str) -> None:
    given = source(tmp_path, [copy.deepcopy(osd_row(0))])
    with pytest.raises(InputError, match=says):
        run(replace(given, **change), str(tmp_path / "out"))
