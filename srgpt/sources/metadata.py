"""Tables beside the pictures, ``metadata.csv`` or ``metadata.jsonl``, that say where each comes from.

The layout is that of ``imagefolder`` of Hugging Face datasets: a folder, and every folder in it, may have a table of
its own; the column ``file_name`` holds paths relative to the table, the others describe the picture. Columns are
found by their names in any case.
"""

from __future__ import annotations

import csv
import io
import json
import posixpath
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from srgpt.errors import InputError
from srgpt.sources.listing import Tree, is_storable
from srgpt.sources.pictures import UnusableError

TABLES = ("metadata.csv", "metadata.jsonl")
LICENCE_COLUMNS = ("licence", "license")
URL_COLUMNS = ("source_url", "image_url", "url")

_NAME_COLUMNS = ("file_name",)


@dataclass(frozen=True)
class Provenance:
    """Where a picture comes from, as far as is known: URL and licence, empty where they are not."""

    url: str = ""
    licence: str = ""


def columns(names: Iterable[Any], wanted: Collection[str]) -> list[str]:
    """Return those of ``names`` that are ``wanted`` but for their case, in the order of ``wanted`` (lower case)."""
    names = [name for name in names if isinstance(name, str)]
    return [name for want in wanted for name in names if name.strip().lower() == want]


def provenance(
    row: Mapping[str, Any], urls: Collection[str], licences: Collection[str], where: str
) -> Provenance:
    """Read the first of the columns ``urls`` and of ``licences`` that is not empty.

    Raises :class:`InputError`, which begins with ``where``, for a value that is no text.
    """
    return Provenance(_text(row, urls, where), _text(row, licences, where))


def read_metadata(tree: Tree, files: Collection[str]) -> dict[str, Provenance]:
    """Read the tables among ``files``; return what they say by path.

    Raises :class:`InputError` with the line where a table is broken: a licence must not get lost silently.
    """
    found: dict[str, Provenance] = {}
    folders: dict[str, str] = {}
    for table in files:
        folder, name = posixpath.split(table)
        if name not in TABLES:
            continue
        if folder in folders:
            raise InputError(
                f"{posixpath.join(tree.url, folder)}: has both {folders[folder]} and {name}; keep one of them"
            )
        folders[folder] = name
        _read_table(tree, table, found)
    return found


def _read_table(tree: Tree, table: str, found: dict[str, Provenance]) -> None:
    """Add what a table says to ``found``."""
    where = f"{tree.url.rstrip('/')}/{table}"
    try:
        text = tree.read(table).decode("utf-8-sig")
    except UnusableError as error:
        raise InputError(f"{where}: cannot be read ({error.detail})") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{where}: not UTF-8 ({error}); save it as UTF-8") from error
    rows = _csv_rows(text, where) if table.endswith(".csv") else _json_rows(text, where)
    for line, row in rows:
        at = f"{where}, line {line}"
        name = next((row[column] for column in columns(row, _NAME_COLUMNS)), None)
        if not isinstance(name, str) or not name or not is_storable(name):
            raise InputError(f"{at}: no 'file_name', the path of the picture in this folder")
        path = posixpath.normpath(posixpath.join(posixpath.dirname(table), name))
        if path in found:
            raise InputError(f"{at}: {path!r} was described before; keep one of the lines")
        licences = columns(row, LICENCE_COLUMNS)
        close = [column for column in row if re.search("licen[cs]e", column, re.IGNORECASE) and row[column]]
        if close and not licences:
            raise InputError(
                f"{at}: the licence is read from a column 'licence' or 'license', and there is {close[0]!r} only; "
                "rename the one that names the licence"
            )
        found[path] = provenance(row, columns(row, URL_COLUMNS), licences, at)


def _csv_rows(text: str, where: str) -> Iterator[tuple[int, dict[str, Any]]]:
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        for name in (*_NAME_COLUMNS, *LICENCE_COLUMNS, *URL_COLUMNS):
            if len(columns(reader.fieldnames or (), (name,))) > 1:
                raise InputError(f"{where}, line 1: several columns {name!r}; keep one of them")
        for row in reader:
            if None in row or None in row.values():
                raise InputError(
                    f"{where}, line {reader.line_num}: {len(reader.fieldnames or ())} columns were expected, "
                    "as in the first line"
                )
            yield reader.line_num, row
    except csv.Error as error:
        raise InputError(f"{where}, line {reader.line_num}: not CSV ({error})") from error


def _json_rows(text: str, where: str) -> Iterator[tuple[int, dict[str, Any]]]:
    for line, content in enumerate(text.split("\n"), 1):
        if not content.strip():
            continue
        try:
            row = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{where}, line {line}: not JSON ({error})") from error
        if not isinstance(row, dict):
            raise InputError(f"{where}, line {line}: expected an object, found {type(row).__name__}")
        yield line, row


def _text(row: Mapping[str, Any], names: Collection[str], where: str) -> str:
    for name in names:
        value = row.get(name)
        if value is None:
            continue
        if not isinstance(value, str) or not is_storable(value):
            raise InputError(
                f"{where}: {name!r} is {value!r}, and text was expected; write the licence's name (COCO's numbers "
                "stand for the names in its own list of licences) or the URL"
            )
        if value.strip():
            return value.strip()
    return ""
