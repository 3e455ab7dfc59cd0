"""A table beside the pictures, ``metadata.csv`` or ``metadata.jsonl``, that says where each comes from.

The layout is that of ``imagefolder`` of Hugging Face datasets: the column ``file_name`` holds paths relative to
the table, the others describe the picture.
"""

from __future__ import annotations

import csv
import io
import json
import posixpath
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from srgpt.errors import InputError
from srgpt.sources.listing import Tree, is_storable

TABLES = ("metadata.csv", "metadata.jsonl")
LICENCE_COLUMNS = ("licence", "license")
URL_COLUMNS = ("source_url", "image_url", "url")


@dataclass(frozen=True)
class Provenance:
    """Where a picture comes from, as far as is known: URL and licence, empty where they are not."""

    url: str = ""
    licence: str = ""


def provenance(
    row: Mapping[str, Any], urls: Collection[str] = URL_COLUMNS, licences: Collection[str] = LICENCE_COLUMNS
) -> Provenance:
    """Read the first of the columns ``urls`` and of ``licences`` that holds text."""
    return Provenance(_text(row, urls), _text(row, licences))


def read_metadata(tree: Tree, files: Collection[str]) -> dict[str, Provenance]:
    """Read the table of a folder with ``files``, by path; empty where there is none.

    Raises :class:`InputError` with the line where the table is broken: a licence must not get lost silently.
    """
    tables = [name for name in TABLES if name in files]
    if not tables:
        return {}
    if len(tables) > 1:
        raise InputError(f"{tree.url}: has both {tables[0]} and {tables[1]}; keep one of them")
    where = f"{tree.url.rstrip('/')}/{tables[0]}"
    try:
        text = tree.read(tables[0]).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{where}: not UTF-8 ({error}); save it as UTF-8") from error
    rows = _csv_rows(text, where) if tables[0].endswith(".csv") else _json_rows(text, where)
    found: dict[str, Provenance] = {}
    for line, row in rows:
        name = row.get("file_name")
        if not isinstance(name, str) or not name or not is_storable(name):
            raise InputError(f"{where}, line {line}: no 'file_name', the path of the picture in this folder")
        path = posixpath.normpath(name)
        if path in found:
            raise InputError(f"{where}, line {line}: {path!r} was described before; keep one of the lines")
        found[path] = provenance(row)
    return found


def _csv_rows(text: str, where: str) -> Iterator[tuple[int, dict[str, Any]]]:
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
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


def _text(row: Mapping[str, Any], columns: Collection[str]) -> str:
    for column in columns:
        value = row.get(column)
        if isinstance(value, str) and value.strip() and is_storable(value):
            return value.strip()
    return ""
