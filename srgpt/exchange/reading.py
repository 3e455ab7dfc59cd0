"""Rows of a JSON array or of JSON lines, whatever the size of the file, each with the bytes that it came from.

The standard library's parser is asked for one value at a time at the place where the last one ended. That is as fast
as an event parser in C, and it says where a row lies: so reading goes on from any row's end without what came before.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import IO, Any

from srgpt.errors import InputError
from srgpt.storage import filesystem, io_errors

CHUNK = 8 * 2**20
"""Bytes that are read at a time."""

MAX_ROW = 64 * 2**20
"""Bytes after which a row that has not ended counts as broken."""

_SPACE = " \t\n\r"
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
    """Yield the rows of the file at ``url``: the items of one JSON array, or values on lines of their own.

    With ``start``, the ``end`` of row ``number - 1``, it goes on from there. A line that is not JSON is a row with a
    problem. A broken array raises :class:`InputError`, which names the byte, after all rows before it.
    """
    fs, path = filesystem(url)
    with io_errors(url), fs.open(path, "rb", block_size=CHUNK) as file:
        head = _Window(file, 0)
        head.skip("\ufeff".encode().decode("latin-1") + _SPACE)
        opening = head.peek()
        if opening not in ("[", "{"):
            found = f"{opening!r} at byte {head.at()}" if opening else "nothing"
            raise InputError(
                f"{url}: a JSON array or JSON lines were expected, which begin with '[' or '{{'; found {found}"
            )
        if start:
            file.seek(start)
            head = _Window(file, start)
        elif opening == "[":
            head.position += 1
        rows = _array_rows if opening == "[" else _line_rows
        yield from rows(url, head, number)


class _Window:
    """The part of a file that is being parsed, one character for each byte, so that places are bytes."""

    def __init__(self, file: IO[bytes], offset: int) -> None:
        self.file = file
        self.text = ""
        self.position = 0
        """Where parsing stands in ``text``."""
        self._offset = offset
        """The byte of the file that ``text`` begins with."""

    def at(self, position: int | None = None) -> int:
        """Return the byte of the file at a position, by default the current one."""
        return self._offset + (self.position if position is None else position)

    def grow(self) -> bool:
        """Drop what was parsed and read on; False at the end of the file."""
        more = self.file.read(CHUNK)
        self._offset += self.position
        self.text = self.text[self.position :] + more.decode("latin-1")
        self.position = 0
        return bool(more)

    def peek(self) -> str:
        """Return the next character; nothing at the end of the file."""
        if self.position == len(self.text):
            self.grow()
        return self.text[self.position : self.position + 1]

    def skip(self, characters: str) -> str:
        """Pass over ``characters``; return the one that follows, nothing at the end of the file."""
        while (found := self.peek()) and found in characters:
            self.position += 1
        return found


def _array_rows(url: str, window: _Window, number: int) -> Iterator[Row]:
    first = number == 0
    while (found := window.skip(_SPACE)) != "]":
        if not first:
            if found != ",":
                raise _broken(url, number, window.at(), "',' or ']' was expected after a row")
            window.position += 1
            window.skip(_SPACE)
        yield _array_row(url, window, number)
        number, first = number + 1, False
    window.position += 1
    if window.skip(_SPACE):
        raise _broken(url, number, window.at(), "nothing was expected after the array")


def _array_row(url: str, window: _Window, number: int) -> Row:
    """Parse the value that begins here, reading on while it has not ended."""
    while True:
        start = window.position
        try:
            value, end = _decode(window.text, start)
        except (ValueError, RecursionError) as error:
            # not the error itself, which would keep the whole window alive in a cycle
            offset, words = getattr(error, "pos", start) - start, _words(error)
        else:
            # a number at the end of what was read may have more digits
            if end < len(window.text) or not window.grow():
                return _row(window, number, value, end - start)
            continue
        if len(window.text) - start > MAX_ROW or not window.grow():
            raise _broken(url, number, window.at() + offset, words, window.at())


def _row(window: _Window, number: int, value: Any, length: int) -> Row:
    start, end = window.position, window.position + length
    text = window.text[start:end]
    if not text.isascii():
        value = _parse(text)
    row = Row(number, window.at(start), window.at(end), value)
    window.position = end
    return row


def _line_rows(url: str, window: _Window, number: int) -> Iterator[Row]:
    while window.skip(_SPACE):
        start, end = window.at(), window.text.find("\n", window.position)
        too_long = False
        while end < 0:
            if len(window.text) - window.position > MAX_ROW:
                too_long = True
                window.position = len(window.text)
            searched = len(window.text) - window.position
            if not window.grow():
                end = len(window.text)
                break
            end = window.text.find("\n", searched)
        yield _line(window, number, start, end, too_long)
        window.position = end
        number += 1


def _line(window: _Window, number: int, start: int, end: int, too_long: bool) -> Row:
    place = (number, start, window.at(end))
    if too_long:
        return Row(*place, problem=f"the line has more than {MAX_ROW} bytes")
    try:
        return Row(*place, _parse(window.text[window.position : end]))
    except (ValueError, RecursionError) as error:
        byte = start + getattr(error, "pos", 0)
        return Row(*place, problem=f"{_words(error)} (about byte {byte})")


def _parse(text: str) -> Any:
    """Parse JSON whose characters are the bytes of UTF-8; bytes that are none become lone surrogates."""
    return json.loads(text.encode("latin-1").decode("utf-8", "surrogateescape"))


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
