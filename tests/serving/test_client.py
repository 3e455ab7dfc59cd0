from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco

from srgpt.records import encode_rle
from srgpt.serving.client import Client
from srgpt.serving.protocol import AskedArea, Request, RequestError, decode_request, encode_request

MASK = np.zeros((4, 6), np.uint8)
MASK[1:3, 2:5] = 1
BOX = (1.0, 2.0, 3.0, 4.0)
RLE = encode_rle(MASK)


def sent(area: Any, monkeypatch: pytest.MonkeyPatch) -> tuple[AskedArea, ...]:
    """Return the regions as a server would read them."""
    found: list[Request] = []
    monkeypatch.setattr(Client, "send", lambda _, request: found.append(request))
    with Client() as client:
        client.ask(b"image", [area], "How wide is <region0>?")
    return decode_request(encode_request(found[0])).regions


@pytest.mark.parametrize(
    ("area", "expected"),
    [
        (BOX, AskedArea(BOX)),
        (np.array(BOX), AskedArea(BOX)),
        ({"box": [1, 2, 3, 4]}, AskedArea(BOX)),
        (RLE, AskedArea(None, RLE)),
        ({"rle": RLE}, AskedArea(None, RLE)),
        (coco.encode(np.asfortranarray(MASK)), AskedArea(None, RLE)),
        (AskedArea(BOX, coco.encode(np.asfortranarray(MASK))), AskedArea(BOX, RLE)),
    ],
)
def test_regions_in_every_form(area: Any, expected: AskedArea, monkeypatch: pytest.MonkeyPatch) -> None:
    assert sent(area, monkeypatch) == (expected,)


@pytest.mark.parametrize(
    ("area", "message"),
    [
        ((1, 2, 3), r"regions\[0\]: four numbers x1, y1, x2, y2 were expected, not \(1, 2, 3\)"),
        ({"box": [1, 2, "x", 4]}, r"regions\[0\]: four numbers"),
        (3, r"regions\[0\]: four numbers"),
        ({"size": [4, 6], "counts": [0, 24]}, r"regions\[0\]: a compressed mask"),
        ({"counts": "8"}, r"regions\[0\]: a compressed mask"),
        ({"size": 4, "counts": b"\xff"}, r"regions\[0\]: a compressed mask"),
        ({"rle": 3}, r"regions\[0\]: a compressed mask"),
        ({"mask": 3}, r"regions\[0\]: a mask, box, point or scribble"),
        (AskedArea(), r"regions\[0\]: a mask, box, point or scribble"),
    ],
)
def test_a_wrong_region_is_a_request_error(area: Any, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RequestError, match=message):
        sent(area, monkeypatch)
