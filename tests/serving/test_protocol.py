from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srgpt.curation.phrasing import templates
from srgpt.records import UNIT_OF
from srgpt.serving.protocol import (
    FIELDS,
    MAX_IMAGE_BYTES,
    Answer,
    AskedArea,
    AskedCamera,
    Request,
    RequestError,
    decode_answer,
    decode_request,
    encode_answer,
    encode_request,
    read_answer,
)

GOOD = Request(
    b"\x89PNG",
    "Is <region0> big?",
    (
        AskedArea((1.0, 2.0, 3.5, 4.0), {"size": [4, 6], "counts": "8"}),
        AskedArea(point=(1.5, 2.0)),
        AskedArea(scribble=((1.0, 2.0), (3.0, 4.0))),
    ),
    b"d",
    AskedCamera((50.0, 50.0, 2.5, 1.5), (0.0, 1.0, 0.0)),
)


def test_a_request_survives_the_wire() -> None:
    assert decode_request(encode_request(GOOD)) == GOOD
    assert decode_request(encode_request(Request(b"x", "What is this?"))) == Request(b"x", "What is this?")


def test_an_answer_survives_the_wire() -> None:
    answer = Answer("1.25 meters", 1.25, "metres", "srgpt_v1@abc", {"decode": 3.5})
    assert decode_answer(encode_answer(answer)) == answer


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("image", b"", "image: empty"),
        ("image", b"x" * (MAX_IMAGE_BYTES + 1), "image: 33554433 bytes, at most"),
        ("question", b"", "question: empty"),
        ("question", b"\xff\xfe", "question: not UTF-8"),
        ("question", b"a" * 5000, "question: 5000 characters"),
        ("question", b"Is <region3> big?", r"names <region3>, but 3 region\(s\) were given"),
        ("regions", b"{", "regions: not JSON"),
        ("regions", b"{}", "a JSON list was expected"),
        ("regions", b"[" * 100_000, "regions: not JSON"),
        ("regions", json.dumps([{"box": [0, 0, 1, 1]}] * 65).encode(), "65 given, at most 64"),
        ("regions", b"[3]", r"regions\[0\]: an object"),
        ("regions", b"[{}]", r"regions\[0\]: an object"),
        ("regions", b'[{"boxes": 1}]', r"regions\[0\]: an object"),
        ("regions", b'[{"box": [1, 2, 3]}]', r"regions\[0\]\.box: four finite numbers"),
        ("regions", b'[{"box": [1, 2, 3, "4"]}]', r"regions\[0\]\.box: four finite numbers"),
        ("regions", b'[{"box": [1, 2, 3, NaN]}]', r"regions\[0\]\.box: four finite numbers"),
        ("regions", b'[{"box": [5, 2, 3, 4]}]', r"regions\[0\]\.box: .* is empty"),
        ("regions", b'[{"rle": {"size": [4, 6]}}]', r"regions\[0\]\.rle"),
        ("regions", b'[{"rle": {"size": [4, -6], "counts": "8"}}]', r"regions\[0\]\.rle"),
        ("regions", b'[{"point": [1]}]', r"regions\[0\]: a point is two finite numbers"),
        ("regions", b'[{"scribble": []}]', r"regions\[0\]\.scribble: a list of 1 to 1000 points"),
        ("regions", b'[{"scribble": [3]}]', r"regions\[0\]: a point is two finite numbers"),
        ("camera", b"{", "camera: not JSON"),
        ("camera", b'{"fov": 60}', 'camera: an object with "intrinsics"'),
        ("camera", b'{"intrinsics": [1, 2, 3]}', "camera.intrinsics: fx, fy, cx, cy, 4 finite numbers"),
        ("camera", b'{"intrinsics": [-1, 2, 3, 4]}', "fx, fy above 0"),
        ("camera", b'{"gravity": [0, 0, 0]}', "gravity is the zero vector"),
        ("camera", b'{"gravity": [0, 0, 1]}', "straight along gravity"),
    ],
)
def test_what_is_wrong_is_said(field: str, value: bytes, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        decode_request({**encode_request(GOOD), field: value})


@pytest.mark.parametrize("field", FIELDS)
def test_a_missing_field_is_named(field: str) -> None:
    fields: dict[str, Any] = encode_request(GOOD)
    del fields[field]
    with pytest.raises(RequestError, match=f"{field}: missing"):
        decode_request(fields)


WORDS = ("box", "rle", "size", "counts", "point", "scribble", "intrinsics", "gravity")

json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.sampled_from(WORDS), inner),
    max_leaves=12,
)


@given(
    image=st.binary(max_size=8),
    depth=st.binary(max_size=8),
    camera=st.binary(max_size=40) | json_values.map(lambda v: json.dumps(v).encode()),
    regions=st.binary(max_size=40) | json_values.map(lambda v: json.dumps(v).encode()),
    question=st.binary(max_size=40) | st.text(max_size=40).map(str.encode),
)
def test_nothing_but_a_request_or_its_error_comes_out(**fields: bytes) -> None:
    with contextlib.suppress(RequestError):
        request = decode_request(fields)
        assert request.image
        assert request.question.strip()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Region [0] is 1.25 meters wide.", (1.25, "metres")),
        ("About 50.00 centimeters.", (0.5, "metres")),
        ("Region [1] is at 3 o'clock.", (3.0, "clock_hours")),
        ("Yes, Region [0] is left of Region [1].", (1.0, "truth")),
        ("No.", (0.0, "truth")),
        ("Region [1] is taller.", (0.0, "truth")),
        ("It is hard to say.", (None, None)),
    ],
)
def test_values_are_read_from_answers(text: str, expected: tuple[float | None, str | None]) -> None:
    assert read_answer(text) == expected


CONCLUSIONS = [
    (category, line, truth)
    for category, words in templates().items()
    for kind, truth in (("positive", 1.0), ("negative", 0.0))
    for line in words.get(kind, ())
]


@pytest.mark.parametrize(("category", "line", "truth"), CONCLUSIONS)
def test_every_answer_that_is_taught_is_read_as_it_was_meant(category: str, line: str, truth: float) -> None:
    assert UNIT_OF[category] == "truth"
    text = line.format(A="Region [0]", B="Region [1]", X="1.20 meters", Y="3.00 feet")
    assert read_answer(text) == (truth, "truth")
