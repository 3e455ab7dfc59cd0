"""The Arrow schema of each table; ``SCHEMAS[name]`` is what a shard of that table must carry."""

from __future__ import annotations

import pyarrow as pa

from srgpt.records import SCHEMA_VERSION

_RLE = pa.struct([("size", pa.list_(pa.int32())), ("counts", pa.string())])
_VECTOR = pa.list_(pa.float64())
_CUBOID = pa.struct([("center", _VECTOR), ("size", _VECTOR), ("rotation", _VECTOR)])
_BOX = pa.struct([("center", _VECTOR), ("size", _VECTOR)])
_ORIENTED = pa.struct([("center", _VECTOR), ("size", _VECTOR), ("yaw", pa.float64())])
_REGION = pa.struct(
    [
        ("id", pa.int32()),
        ("category", pa.string()),
        ("label", pa.string()),
        ("bbox", _VECTOR),
        ("rle", _RLE),
        ("mask_source", pa.string()),
        ("cuboid", _CUBOID),
        ("visibility", pa.float64()),
        ("truncation", pa.float64()),
        ("score", pa.float64()),
    ]
)
_NODE = pa.struct(
    [
        ("id", pa.int32()),
        ("category", pa.string()),
        ("label", pa.string()),
        ("bbox", _VECTOR),
        ("rle", _RLE),
        ("perceived", _BOX),
        ("oriented", _ORIENTED),
        ("truth", _BOX),
        ("dropped", pa.string()),
        ("mask_points", pa.int32()),
        ("kept_points", pa.int32()),
        ("depth_coverage", pa.float64()),
        ("cluster_share", pa.float64()),
        ("center_sigma", _VECTOR),
        ("size_sigma", _VECTOR),
        ("points", pa.list_(pa.float32())),
        ("visibility", pa.float64()),
        ("truncation", pa.float64()),
    ]
)
_ASKED = pa.struct([("id", pa.int32()), ("category", pa.string()), ("rle", _RLE), ("bbox", _VECTOR)])
_TURN = pa.struct(
    [
        ("question", pa.string()),
        ("answer", pa.string()),
        ("category", pa.string()),
        ("regions", pa.list_(pa.int32())),
        ("value", pa.float64()),
        ("unit", pa.string()),
        ("sigma", pa.float64()),
    ]
)


def _schema(fields: list[tuple[str, pa.DataType]], table: str) -> pa.Schema:
    return pa.schema(fields, metadata={"srgpt.table": table, "srgpt.schema_version": str(SCHEMA_VERSION)})


SCHEMAS: dict[str, pa.Schema] = {
    "scenes": _schema(
        [
            ("dataset", pa.string()),
            ("scene_id", pa.string()),
            ("width", pa.int32()),
            ("height", pa.int32()),
            ("image", pa.binary()),
            ("depth", pa.binary()),
            ("depth_source", pa.string()),
            ("intrinsics", _VECTOR),
            ("intrinsics_source", pa.string()),
            ("gravity", _VECTOR),
            ("gravity_source", pa.string()),
            ("uri", pa.string()),
            ("licence", pa.string()),
            ("relative_depth", pa.binary()),
            ("relative_depth_source", pa.string()),
            ("tags", pa.list_(pa.string())),
            ("regions", pa.list_(_REGION)),
        ],
        "scenes",
    ),
    "graphs": _schema(
        [
            ("dataset", pa.string()),
            ("scene_id", pa.string()),
            ("width", pa.int32()),
            ("height", pa.int32()),
            ("rotation", _VECTOR),
            ("nodes", pa.list_(_NODE)),
            ("scale_sigma", pa.float64()),
        ],
        "graphs",
    ),
    "conversations": _schema(
        [
            ("dataset", pa.string()),
            ("scene_id", pa.string()),
            ("conversation_id", pa.string()),
            ("truth", pa.string()),
            ("width", pa.int32()),
            ("height", pa.int32()),
            ("regions", pa.list_(_ASKED)),
            ("turns", pa.list_(_TURN)),
        ],
        "conversations",
    ),
    "predictions": _schema(
        [
            ("dataset", pa.string()),
            ("scene_id", pa.string()),
            ("conversation_id", pa.string()),
            ("turn", pa.int32()),
            ("category", pa.string()),
            ("question", pa.string()),
            ("answer", pa.string()),
            ("prediction", pa.string()),
            ("value", pa.float64()),
            ("unit", pa.string()),
            ("predicted_value", pa.float64()),
            ("success", pa.bool_()),
            ("error", pa.float64()),
            ("inputs", pa.string()),
            ("regions", pa.list_(pa.int32())),
        ],
        "predictions",
    ),
}
