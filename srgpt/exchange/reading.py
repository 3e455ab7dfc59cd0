"""Rows of a JSON array, of JSON lines or of CSV, whatever the size of the file, each with the bytes that it came from.

A row of an array is looked for up to where the next one seems to begin, and parsed by orjson: if that text is JSON, it
is the row, for no object of JSON begins with a whole other one. Where it is not, the standard library's parser finds
the end, or what is wrong. So reading is faster than by an event parser, goes on from any row's end without what came
before, and knows the byte of an error.
"""

from __future__ import annotations

import json
import re
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import IO, Any

import orjson

from srgpt.errors import InputError
from srgpt.exchange.tabular import DELIMITERS, table_rows
from srgpt.storage import filesystem, io_errors

CHUNK = 8 * 2**20
"""Bytes that are read at a time."""

MAX_ROW = 64 * 2**20
"""Bytes after which a row that has not ended counts as broken."""

_FIRST_TRY = 2**16
_SPACE = b" \t\n\r"
_GZIP = b"\x1f\x8b"
_OPENING = re.compile(rb'\{\s*"[^"\\]{1,64}"\s*:')
"""What every row of a file begins with, mostly: the name of its first column."""

_decode = json.JSONDecoder().raw_decode


@dataclass(frozen=True)
class Row:
    """One row: its number from 0, its first byte and the one after its last, and its value.

    ``problem`` says why a line is not JSON; it then has no value.
    """

    number: int
    start: int
    end: int
    value: Any = None
    problem: str | None = None


def read_rows(url: str, *, start: int = 0, number: int = 0) -> Generator[Row, None, None]:
    """Yield the rows of the file at ``url``: the items of one JSON array, or values on lines of their own; where its
    name ends in ``.csv`` or ``.tsv``, those of a table with a first line of names.

    With ``start``, the ``end`` of row ``number - 1``, it goes on from there. A line that is not JSON is a row with a
    problem. A broken array raises :class:`InputError`, which names the byte, after all rows before it.
    """
    fs, path = filesystem(url)
    with io_errors(url), fs.open(path, "rb", block_size=CHUNK) as file:
        if delimiter := DELIMITERS.get(path[-4:].lower()):
            for begin, end, value, problem in table_rows(url, file, delimiter, start):
                yield Row(number, begin, end, value, problem)
                number += 1
            return
        head = _Window(file, 0)
        opening = head.skip(b"\xef\xbb\xbf" + _SPACE)
        if head.data.startswith(_GZIP):
            raise InputError(
                f"{url}: is packed with gzip, and a JSON array or JSON lines were expected. Unpack it (gunzip) and "
                "give the file that comes out."
            )
        if opening not in (b"[", b"{"):
            found = f"{opening.decode('latin-1')!r} at byte {head.at()}" if opening else "nothing"
            raise InputError(
                f"{url}: a JSON array or JSON lines were expected, which begin with '[' or '{{'; found {found}"
            )
        if start:
            file.seek(start)
            head = _Window(file, start)
        elif opening == b"[":
            head.position += 1
        rows = _array_rows if opening == b"[" else _line_rows
        yield from rows(url, head, number)


class _Window:
    """The part of a file that is being parsed."""

    def __init__(self, file: IO[bytes], offset: int) -> None:
        self.file = file
        self.data = b""
        self.position = 0
        """Where parsing stands in ``data``."""
        self._offset = offset
        """The byte of the file that ``data`` begins with."""

    def at(self, position: int | None = None) -> int:
        """Return the byte of the file at a position, by default the current one."""
        return self._offset + (self.position if position is None else position)

    def grow(self) -> bool:
        """Drop what was parsed and read on; False at the end of the file."""
        more = self.file.read(CHUNK)
        self._offset += self.position
        self.data = self.data[self.position :] + more
        self.position = 0
        return bool(more)

    def skip(self, characters: bytes) -> bytes:
        """Pass over ``characters``; return the one that follows, nothing at the end of the file."""
        while self.position < len(self.data) or self.grow():
            found = self.data[self.position : self.position + 1]
            if found not in characters:
                return found
            self.position += 1
        return b""


def _array_rows(url: str, window: _Window, number: int) -> Iterator[Row]:
    first = number == 0
    opening: bytes | None = None
    while (found := window.skip(_SPACE)) != b"]":
        if not first:
            if found != b",":
                raise _broken(url, number, window.at(), "',' or ']' was expected after a row")
            window.position += 1
            window.skip(_SPACE)
        if opening is None:
            named = _OPENING.match(window.data, window.position)
            opening = named[0] if named else b""
        value, length = _to_next(window, opening) or _to_end(url, window, number)
        start, window.position = window.position, window.position + length
        yield Row(number, window.at(start), window.at(), value)
        number, first = number + 1, False
    window.position += 1
    if window.skip(_SPACE):
        raise _broken(url, number, window.at(), "nothing was expected after the array")


def _to_next(window: _Window, opening: bytes) -> tuple[Any, int] | None:
    """Parse what lies before the next row's opening; None where none is in sight, or where that is not a value."""
    following = window.data.find(opening, window.position + 1) if opening else -1
    if following < 0:
        return None
    text = window.data[window.position : following].rstrip()
    if not text.endswith(b","):
        return None
    text = text[:-1].rstrip()
    try:
        return orjson.loads(text), len(text)
    except ValueError:
        return None


def _to_end(url: str, window: _Window, number: int) -> tuple[Any, int]:
    """Parse the value that begins here, reading on while it has not ended; return its length in bytes, too."""
    size = _FIRST_TRY
    while True:
        # one character for each byte, so that places are bytes
        text = window.data[window.position : window.position + size].decode("latin-1")
        problem: tuple[int, str] | None = None
        try:
            value, end = _decode(text)
        except (ValueError, RecursionError) as error:
            # not the error itself, which would keep all this alive in a cycle
            problem = getattr(error, "pos", 0), _words(error)
        # what was read may end in the middle of a value, be it only that a number has more digits
        whole = problem is None and end < len(text)
        if not whole and len(text) <= MAX_ROW:
            if len(text) == size:
                size *= 4
                continue
            if window.grow():
                continue
        if problem is not None:
            raise _broken(url, number, window.at() + problem[0], problem[1], window.at())
        return value if text[:end].isascii() else _parse(text[:end].encode("latin-1")), end


def _line_rows(url: str, window: _Window, number: int) -> Iterator[Row]:
    while window.skip(_SPACE):
        start, end = window.at(), window.data.find(b"\n", window.position)
        too_long = False
        while end < 0:
            if len(window.data) - window.position > MAX_ROW:
                too_long = True
                window.position = len(window.data)
            searched = len(window.data) - window.position
            if not window.grow():
                end = len(window.data)
                break
            end = window.data.find(b"\n", searched)
        yield _line(window, number, start, end, too_long)
        window.position = end
        number += 1


def _line(window: _Window, number: int, start: int, end: int, too_long: bool) -> Row:
    place = (number, start, window.at(end))
    if too_long:
        return Row(*place, problem=f"the line has more than {MAX_ROW} bytes")
    try:
        return Row(*place, _parse(window.data[window.position : end]))
    except (ValueError, RecursionError) as error:
        byte = start + getattr(error, "pos", 0)
        return Row(*place, problem=f"{_words(error)} (about byte {byte})")


def _parse(data: bytes) -> Any:
    """Parse JSON; bytes that are not UTF-8 become lone surrogates."""
    try:
        return orjson.loads(data)
    except ValueError:  # it is stricter
        return json.loads(data.decode("utf-8", "surrogateescape"))


def _words(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "values are nested too deeply"
    return getattr(error, "msg", "") or "a number has too many digits"


def _broken(url: str, number: int, byte: int, words: str, start: int | None = None) -> InputError:
    begins = "" if start is None else f", which begins at byte {start}"
    return InputError(
        f"{url}: broken JSON at byte {byte}, in row {number}{begins}: {words}. What comes before is kept: mend the "
        f"file and run the same command again, or take only the rows before with --rows {number}."
    )
