"""Rows come out of a file of any size as json would read them, from any place on, however the file is damaged."""

import gzip
import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from srgpt.errors import InputError
from srgpt.exchange import reading
from srgpt.exchange.reading import read_rows
from srgpt.storage import write_bytes

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
ROWS = st.lists(st.dictionaries(st.text(max_size=5), VALUES, max_size=3), min_size=1, max_size=5)


LOOKALIKES = st.lists(
    st.sampled_from(['{"a": ', "},", '"', "\\", "}, ", "é", "\ud800", "x"]), max_size=5
).map("".join)
ALIKE = st.lists(
    st.fixed_dictionaries({"a": LOOKALIKES | st.fixed_dictionaries({"a": LOOKALIKES}), "b": VALUES}),
    min_size=1, max_size=5,
)  # fmt: skip
"""Rows that all begin alike, and hold what looks like the beginning of one."""


@pytest.fixture(autouse=True, params=[7, 1 << 16])
def chunks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is read at a time: mostly less than a row, or all rows."""
    monkeypatch.setattr(reading, "CHUNK", request.param)


def read(data: bytes, **place: int) -> list[reading.Row]:
    write_bytes("memory://rows.json", data)
    return list(read_rows("memory://rows.json", **place))


def read_until_broken(data: bytes) -> tuple[list[reading.Row], str | None]:
    """The rows that come, and the error that ends them."""
    found: list[reading.Row] = []
    write_bytes("memory://rows.json", data)
    try:
        for row in read_rows("memory://rows.json"):
            found.append(row)
    except InputError as error:
        return found, str(error)
    return found, None


@given(rows=ROWS | ALIKE, ascii_only=st.booleans(), indent=st.sampled_from([None, 0, 2]))
def test_an_array_reads_as_json_does(rows: list[Any], ascii_only: bool, indent: int | None) -> None:
    data = json.dumps(rows, ensure_ascii=ascii_only, indent=indent).encode("utf-8", "surrogatepass")
    found = read(data)
    expected = json.loads(data.decode("utf-8", "surrogateescape"))
    assert [r.value for r in found] == expected
    assert [r.number for r in found] == list(range(len(rows)))
    assert [json.loads(data[r.start : r.end].decode("utf-8", "surrogateescape")) for r in found] == expected


@given(rows=ROWS | ALIKE, ascii_only=st.booleans())
def test_lines_read_as_json_does(rows: list[Any], ascii_only: bool) -> None:
    lines = [json.dumps(row, ensure_ascii=ascii_only) for row in rows]
    data = "\n\n".join(lines).encode("utf-8", "surrogatepass")
    assert [r.value for r in read(data)] == json.loads(
        f"[{','.join(lines)}]".encode("utf-8", "surrogatepass").decode("utf-8", "surrogateescape")
    )


@given(rows=ROWS | ALIKE, lines=st.booleans())
def test_reading_goes_on_from_the_end_of_any_row(rows: list[Any], lines: bool) -> None:
    data = ("\n".join(map(json.dumps, rows)) if lines else json.dumps(rows)).encode()
    found = read(data)
    for row in found:
        assert read(data, start=row.end, number=row.number + 1) == found[row.number + 1 :]


@given(rows=ROWS | ALIKE, at=st.integers(0, 10**6), byte=st.integers(0, 255), lines=st.booleans())
@example(rows=[{"a": "b"}], at=1, byte=0xFF, lines=True)
def test_damage_is_an_error_that_names_it_and_never_a_crash(
    rows: list[Any], at: int, byte: int, lines: bool
) -> None:
    data = bytearray(("\n".join(map(json.dumps, rows)) if lines else json.dumps(rows)).encode())
    whole = read(bytes(data))
    at %= len(data)
    newline = b"\n"[0] in (data[at], byte)
    data[at] = byte
    found, error = read_until_broken(bytes(data))
    untouched = [r for r in whole if r.end <= at - lines]  # its newline belongs to a line
    assert found[: len(untouched)] == untouched
    if error is not None:
        assert "rows.json: " in error
    elif lines and not newline:
        assert len(found) == len(whole)


@given(rows=ROWS | ALIKE, share=st.floats(0, 1, exclude_max=True))
def test_an_array_that_was_cut_off_keeps_the_rows_before(rows: list[Any], share: float) -> None:
    data = json.dumps(rows).encode()
    whole = read(data)
    cut = data[: int(share * len(data))]
    found, error = read_until_broken(cut)
    assert found == [r for r in whole if r.end <= len(cut)]
    assert error is not None


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "found nothing"),
        (b"  \n", "found nothing"),
        (
            gzip.compress(b"[]", mtime=0),
            "is packed with gzip, and a JSON array or JSON lines were expected. Unpack it",
        ),
        (b"hello", "found 'h' at byte 0"),
        (b'[{"a": 1}, {"a": tru}]', "at byte 17, in row 1, which begins at byte 11: Expecting value"),
        (b'[{"a": 1} {"a": 2}]', "at byte 10, in row 1: ',' or ']' was expected"),
        (b'[{"a": 1},]', "at byte 10, in row 1"),
        (b'[{"a": 1}] x', "at byte 11, in row 1: nothing was expected after the array"),
        (b'[{"a": 1}', "at byte 9, in row 1: ',' or ']' was expected"),
        (b"[" + b"[" * 200_000, "nested too deeply"),
        (b'[{"a": ' + b"9" * 5000 + b"}]", "too many digits"),
    ],
)
def test_what_is_wrong_is_said(data: bytes, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "CHUNK", 1 << 16)
    error = read_until_broken(data)[1]
    assert error is not None
    assert says in error


def test_a_broken_line_is_a_row_with_a_problem() -> None:
    first, second, third = read(b'{"a": 1}\n{"a": tru}\n{"a": 3}\n')
    assert (first.value, third.value) == ({"a": 1}, {"a": 3})
    assert second.value is None
    assert second.problem == "Expecting value (about byte 15)"


@pytest.mark.parametrize("layout", ["array", "lines"])
def test_a_row_without_an_end_does_not_fill_the_memory(layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "CHUNK", 7)
    monkeypatch.setattr(reading, "MAX_ROW", 50)
    data = b'{"a": "' + b"x" * 500 + b'"}'
    if layout == "lines":
        found = read(b'{"b": 1}\n' + data + b'\n{"b": 2}\n')
        assert [r.value for r in found] == [{"b": 1}, None, {"b": 2}]
        assert found[1].problem == "the line has more than 50 bytes"
    else:
        found, error = read_until_broken(b'[{"b": 1}, ' + data + b"]")
        assert len(found) == 1
        assert error is not None
