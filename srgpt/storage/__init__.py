"""Sharded Parquet tables and folders over fsspec: written atomically, resumable, verified on reading.

A table is a folder of ``part-*.parquet`` shards with a ``manifest.json`` and, where input was set aside, a
``rejected.jsonl``. While a stage works, shards collect in a work folder beside the output (``.NAME.work``),
each with a small done-marker that is written last; a killed stage finds them there and goes on. Only a complete
table moves to its final place, the manifest last, so that a table is whole or absent. What lies at an output's
place is replaced only where it is an output of this project itself. URLs are local paths or any fsspec URL
(``s3://bucket/prefix``).
"""

from srgpt.storage.files import (
    digest,
    exists,
    filesystem,
    io_errors,
    is_local,
    join,
    plain_path,
    read_bytes,
    read_json,
    relative_url,
    remove,
    resolve_url,
    write_bytes,
    write_json,
)
from srgpt.storage.outputs import Kind, check_output, local_copy, move, staged_folder, work_url
from srgpt.storage.tables import (
    MANIFEST,
    REJECTED,
    Manifest,
    Shard,
    input_url,
    read_manifest,
    read_rejected,
    read_rows,
    read_shard,
    scenes_of,
    trace,
)
from srgpt.storage.writer import TableWriter, shard_name, write_shard

__all__ = [
    "MANIFEST",
    "REJECTED",
    "Kind",
    "Manifest",
    "Shard",
    "TableWriter",
    "check_output",
    "digest",
    "exists",
    "filesystem",
    "input_url",
    "io_errors",
    "is_local",
    "join",
    "local_copy",
    "move",
    "plain_path",
    "read_bytes",
    "read_json",
    "read_manifest",
    "read_rejected",
    "read_rows",
    "read_shard",
    "relative_url",
    "remove",
    "resolve_url",
    "scenes_of",
    "shard_name",
    "staged_folder",
    "trace",
    "work_url",
    "write_bytes",
    "write_json",
    "write_shard",
]
