"""Pictures with captions come in as conversations of one turn, from JSON, JSON lines and CSV, resumed like the rest."""

from __future__ import annotations

import csv
import io
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from srgpt import storage
from srgpt.errors import InputError
from srgpt.exchange import importing
from srgpt.exchange.captions import REQUESTS, read
from srgpt.exchange.importing import Source, run
from srgpt.exchange.reading import read_rows
from srgpt.records import Conversation
from srgpt.sources.pictures import UnusableError
from tests.exchange.rows import llava_row, tree, write_pictures, write_rows


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importing, "SHARD_ROWS", 4)
    monkeypatch.setattr(importing, "BATCH", 2)


ROWS = [{"image": f"a/{i}.jpg", "caption": f'A "thing", number {i},\nand é.'} for i in range(7)]


def write_csv(path: Path, rows: list[dict[str, str]], columns: tuple[str, ...] = ("image", "caption")) -> str:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, delimiter="\t" if path.suffix == ".tsv" else ",", restval="x")
        writer.writeheader()
        writer.writerows(rows)
    return str(path)


def talks(out: Path) -> list[Conversation]:
    return [Conversation.from_row(r) for r in storage.read_rows(f"{out}/conversations", "conversations")]


@pytest.mark.parametrize("form", ["array", "lines", "csv", "tsv"])
def test_a_caption_answers_a_request(form: str, tmp_path: Path) -> None:
    images, _ = write_pictures(tmp_path, [f"a/{i}" for i in range(7)])
    if form in ("csv", "tsv"):
        url = write_csv(tmp_path / f"rows.{form}", ROWS)
    else:
        url = write_rows(tmp_path / "rows.json", ROWS, lines=form == "lines")
    manifest = run(Source(url, "captions", "coyo", images), str(tmp_path / "out"))
    assert [s.rows for s in manifest.shards] == [4, 3]
    found = talks(tmp_path / "out")
    assert [c.scene_id for c in found] == [r["image"] for r in ROWS]
    for talk, row in zip(found, ROWS, strict=True):
        (turn,) = talk.turns
        assert turn.question in REQUESTS
        assert (turn.answer, turn.category, turn.regions) == (row["caption"], "imported", ())
        assert talk.regions == ()
    assert storage.scenes_of(str(tmp_path / "out" / "conversations")) == str(tmp_path / "out" / "scenes")


def test_requests_depend_on_the_row_alone_and_all_occur() -> None:
    rows = [{"image": f"{i}.jpg", "caption": "Something."} for i in range(200)]
    drawn = [read(row).talk.turns[0].question for row in rows]
    assert drawn == [read(row).talk.turns[0].question for row in rows]
    assert set(Counter(drawn)) == set(REQUESTS)


def test_a_killed_import_of_a_table_goes_on_to_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = write_csv(tmp_path / "rows.csv", ROWS * 3)
    whole = Source(url, "captions", "c")
    run(whole, str(tmp_path / "whole"))
    original, calls = importing.write_shard, []

    def stop(*args: Any, **kwargs: Any) -> Any:
        calls.append(args)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return original(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(importing, "write_shard", stop)
        with pytest.raises(KeyboardInterrupt):
            run(whole, str(tmp_path / "killed"))
    run(whole, str(tmp_path / "killed"))
    assert tree(tmp_path / "killed") == tree(tmp_path / "whole")


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"image": "a.jpg"}, "bad-caption"),
        ({"image": "a.jpg", "caption": "  "}, "bad-caption"),
        ({"image": "a.jpg", "caption": 3}, "bad-caption"),
        ({"image": "../a.jpg", "caption": "A."}, "bad-filename"),
        ({"caption": "A."}, "bad-filename"),
        ({"image": "a.jpg", "caption": "A <mask>."}, "no-usable-turns"),
        ([], "not-a-row"),
    ],
)
def test_what_cannot_be_used_is_named(row: Any, reason: str) -> None:
    with pytest.raises(UnusableError) as error:
        read(row)
    assert error.value.reason == reason


def test_rows_of_other_lengths_are_set_aside(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text(
        'image,caption\na.jpg,A.\nb.jpg\n\nc.jpg,C.,more\nd.jpg,"D",\ne.jpg,E.\n'
    )
    manifest = run(Source(str(tmp_path / "rows.csv"), "captions", "c"), str(tmp_path / "out"))
    assert [c.scene_id for c in talks(tmp_path / "out")] == ["a.jpg", "e.jpg"]
    assert manifest.rejected == {"not-json": 3}


@pytest.mark.parametrize("text", ["", "image\na.jpg\n", "image,image\na,b\n"])
def test_a_table_without_a_first_line_of_names_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "rows.csv").write_text(text)
    with pytest.raises(InputError, match="first line must name the columns"):
        run(Source(str(tmp_path / "rows.csv"), "captions", "c"), str(tmp_path / "out"))


def test_other_formats_are_told_apart(tmp_path: Path) -> None:
    url = write_rows(tmp_path / "rows.json", [llava_row(0)])
    with pytest.raises(InputError, match="looks like llava, not captions"):
        run(Source(url, "captions", "c"), str(tmp_path / "out"))
    with pytest.raises(InputError, match="--depth is of no use to captions"):
        run(Source(url, "captions", "c", "images", "depth"), str(tmp_path / "out"))


TEXTS = st.text(
    alphabet=st.characters(blacklist_categories=["Cs"], blacklist_characters="\0\ufeff"), max_size=8
)


@given(st.lists(st.tuples(TEXTS, TEXTS), max_size=8))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_table_comes_back_and_goes_on_from_every_row(tmp_path: Path, rows: list[tuple[str, str]]) -> None:
    buffer = io.StringIO(newline="")
    csv.writer(buffer, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows([("image", "caption"), *rows])
    path = tmp_path / "any.csv"
    path.write_bytes(buffer.getvalue().encode())
    found = list(read_rows(str(path)))
    assert [r.value for r in found] == [{"image": a, "caption": b} for a, b in rows]
    for k, row in enumerate(found):
        assert list(read_rows(str(path), start=row.end, number=k + 1)) == found[k + 1 :]


@given(st.binary(max_size=60))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_are_rows_or_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "bytes.csv"
    path.write_bytes(b"image,caption\n" + data)
    for row in read_rows(str(path)):
        assert (row.value is None) == (row.problem is not None)
