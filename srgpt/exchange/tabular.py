"""Rows of a CSV or TSV file, each with the bytes that it came from; the first line names the columns."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from typing import IO

from srgpt.errors import InputError

DELIMITERS = {".csv": ",", ".tsv": "\t"}
"""Ending of a file's name -> what parts its fields."""

MAX_LINE = 2**20
"""Bytes after which a line counts as broken."""

Parsed = tuple[int, int, dict[str, str] | None, str | None]
"""First byte of a row, the one after its last, its fields by column, and what is wrong where there are none."""


def table_rows(url: str, file: IO[bytes], delimiter: str, start: int) -> Iterator[Parsed]:
    """Yield the rows of an open table, from byte ``start`` where that is not 0.

    A row with another number of fields than the first line has is one with a problem. Raises :class:`InputError` where
    there is no first line.
    """
    lines = _Lines(file)
    columns = next(csv.reader(lines, delimiter=delimiter, strict=True), [])
    if len(columns) < 2 or len(set(columns)) != len(columns):
        raise InputError(
            f"{url}: the first line must name the columns, parted by {delimiter!r}, each once; found {columns}"
        )
    lines.go_to(start or lines.byte)
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    while True:
        begin = lines.byte
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            reader = csv.reader(lines, delimiter=delimiter, strict=True)
            yield begin, lines.byte, None, str(error)
            continue
        if len(fields) == len(columns):
            yield begin, lines.byte, dict(zip(columns, fields, strict=True)), None
        elif fields:  # an empty line is no row
            yield begin, lines.byte, None, f"{len(fields)} fields, where the first line has {len(columns)}"


class _Lines:
    """The lines of a file as text, and how many bytes of it they are; what is not UTF-8 becomes lone surrogates."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.byte = 0

    def go_to(self, byte: int) -> None:
        """Go on at a byte of the file."""
        self._file.seek(byte)
        self.byte = byte

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._file.readline(MAX_LINE)
        if not line:
            raise StopIteration
        first, self.byte = self.byte == 0, self.byte + len(line)
        text = line.decode("utf-8", "surrogateescape").replace("\0", "\ufffd")
        return text.removeprefix("\ufeff") if first else text
