"""The frames of a dataset in one SQLite file: a disk holds a million rows, memory only what is being written.

A frame is a table with one row per thing that a rule can judge. Great Expectations reads the same file, so that
judging a large dataset takes no more memory than judging a small one.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

Row = dict[str, Any]

_WHERE = {"file": "TEXT", "row": "INTEGER", "scene_id": "TEXT"}
_MASK = {"bbox_problem": "TEXT", "mask_problem": "TEXT", "mask_pixels": "INTEGER"}

FRAMES: Mapping[str, Mapping[str, str]] = {
    "scenes": {
        **_WHERE,
        "table": "TEXT",
        "key": "TEXT",
        "dataset": "TEXT",
        "image_problem": "TEXT",
        "depth_problem": "TEXT",
        "depth_min": "REAL",
        "depth_max": "REAL",
        "depth_not_finite": "INTEGER",
        "depth_valid_share": "REAL",
        "intrinsics_problem": "TEXT",
        "gravity_problem": "TEXT",
        "provenance_problem": "TEXT",
    },
    "regions": {
        **_WHERE,
        "region": "INTEGER",
        "key": "TEXT",
        "category": "TEXT",
        **_MASK,
        "cuboid_problem": "TEXT",
        "visibility": "REAL",
        "truncation": "REAL",
        "score": "REAL",
    },
    "graphs": {**_WHERE, "dataset": "TEXT", "scene_problem": "TEXT", "rotation_problem": "TEXT"},
    "nodes": {
        **_WHERE,
        "region": "INTEGER",
        "key": "TEXT",
        "category": "TEXT",
        "region_problem": "TEXT",
        **_MASK,
        "perceived_problem": "TEXT",
        "oriented_problem": "TEXT",
        "truth_problem": "TEXT",
        "dropped_problem": "TEXT",
        "sigma_problem": "TEXT",
        "mask_points": "INTEGER",
        "kept_points": "INTEGER",
        "depth_coverage": "REAL",
        "cluster_share": "REAL",
    },
    "conversations": {
        **_WHERE,
        "conversation_id": "TEXT",
        "dataset": "TEXT",
        "truth": "TEXT",
        "scene_problem": "TEXT",
        "turns": "INTEGER",
    },
    "asked_regions": {
        **_WHERE,
        "conversation_id": "TEXT",
        "region": "INTEGER",
        "key": "TEXT",
        "region_problem": "TEXT",
        **_MASK,
    },
    "turns": {
        **_WHERE,
        "conversation_id": "TEXT",
        "turn": "INTEGER",
        "question": "TEXT",
        "answer": "TEXT",
        "category": "TEXT",
        "category_problem": "TEXT",
        "unit_problem": "TEXT",
        "value_problem": "TEXT",
        "sigma_problem": "TEXT",
        "regions_problem": "TEXT",
        "region_count_problem": "TEXT",
        "mentions_problem": "TEXT",
        "answer_problem": "TEXT",
        "fact_problem": "TEXT",
    },
    "tables": {
        "table": "TEXT",
        "rows": "INTEGER",
        "rejected": "INTEGER",
        "rejected_share": "REAL",
        "lineage_problem": "TEXT",
    },
    "balance": {
        "category": "TEXT",
        "questions": "INTEGER",
        "yes_share": "REAL",
        "judged_yes_share": "REAL",
    },
    "quality": {
        "fact": "TEXT",
        "count": "INTEGER",
        "judged_accuracy": "REAL",
        "judged_abs_rel": "REAL",
    },
    "blind": {
        "category": "TEXT",
        "questions": "INTEGER",
        "from_text": "REAL",
        "chance": "REAL",
        "judged_lead": "REAL",
    },
}
"""Frame -> its columns and their SQLite types. ``file`` is ``ROLE/SHARD``, ``row`` a row's number in it."""

KEYS = {
    "scenes": ("file", "row", "scene_id"),
    "regions": ("file", "row", "scene_id", "region"),
    "graphs": ("file", "row", "scene_id"),
    "nodes": ("file", "row", "scene_id", "region"),
    "conversations": ("file", "row", "scene_id", "conversation_id"),
    "asked_regions": ("file", "row", "scene_id", "conversation_id", "region"),
    "turns": ("file", "row", "scene_id", "conversation_id", "turn"),
    "tables": ("table",),
    "balance": ("category",),
    "quality": ("fact",),
    "blind": ("category",),
}
"""Frame -> the columns that say where one of its rows came from, so that a broken rule can name file and row."""

_BUFFER = 5000


class Store:
    """Writes frames to a SQLite file and counts what is in them. Use as a context manager."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._connection = sqlite3.connect(path)
        # a scratch file: nobody reads it after a crash
        self._connection.execute("PRAGMA journal_mode = OFF")
        self._connection.execute("PRAGMA synchronous = OFF")
        self._buffers: dict[str, list[tuple[Any, ...]]] = {name: [] for name in FRAMES}
        for name, columns in FRAMES.items():
            fields = ", ".join(f'"{column}" {kind}' for column, kind in columns.items())
            self._connection.execute(f'CREATE TABLE "{name}" ({fields})')

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()

    def add(self, frame: str, row: Row) -> None:
        """Append one row, which has every column of its frame."""
        buffer = self._buffers[frame]
        buffer.append(tuple(row[column] for column in FRAMES[frame]))
        if len(buffer) >= _BUFFER:
            self._write(frame)

    def flush(self) -> None:
        """Write what is still buffered."""
        for frame in FRAMES:
            self._write(frame)
        self._connection.commit()

    def _write(self, frame: str) -> None:
        marks = ", ".join("?" * len(FRAMES[frame]))
        self._connection.executemany(f'INSERT INTO "{frame}" VALUES ({marks})', self._buffers[frame])  # noqa: S608
        self._buffers[frame].clear()

    def count(self, frame: str) -> int:
        """Return the number of rows of a frame."""
        return int(self.query(f'SELECT count(*) FROM "{frame}"')[0][0])  # noqa: S608 (our own names)

    def rows(self, frame: str) -> list[Row]:
        """Return a (small) frame."""
        names = list(FRAMES[frame])
        return [dict(zip(names, row, strict=True)) for row in self.query(f'SELECT * FROM "{frame}"')]  # noqa: S608

    def query(self, sql: str, values: Iterable[Any] = ()) -> list[tuple[Any, ...]]:
        """Return the rows of a SELECT, whatever was added before it included."""
        self.flush()
        return self._connection.execute(sql, tuple(values)).fetchall()
