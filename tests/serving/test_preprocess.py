from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from srgpt.model.processing import FILE, Question, SrgptProcessor
from srgpt.records import encode_depth, encode_png, encode_rle
from srgpt.serving.preprocess import Preprocessor, decode_mask
from srgpt.serving.protocol import AskedArea, Request, RequestError
from tests.export import tiny


@pytest.fixture(scope="module")
def processor() -> SrgptProcessor:
    return SrgptProcessor.from_pretrained(tiny.checkpoint())


@pytest.fixture(scope="module")
def preprocessor() -> Preprocessor:
    return Preprocessor(json.loads((Path(tiny.checkpoint()) / FILE).read_text()))


@pytest.mark.parametrize("number", range(4))
def test_equal_to_the_processor(number: int, processor: SrgptProcessor, preprocessor: Preprocessor) -> None:
    scene = tiny.scenes()[number]
    conversation = tiny.conversation(scene)
    areas = {r.id: AskedArea(r.bbox, r.rle) for r in conversation.regions}
    for turn in conversation.turns:
        request = Request(scene.image, turn.question, tuple(areas[i] for i in turn.regions), scene.depth)
        ours = preprocessor.prepare(request)
        theirs = processor.picture_of(scene, conversation)
        np.testing.assert_array_equal(ours.rgb, theirs.rgb)
        assert (ours.depth is None) == (theirs.depth is None)
        if theirs.depth is not None:
            np.testing.assert_array_equal(ours.depth, theirs.depth)
        inputs = "rgb" if scene.depth is None else "rgbd"
        mentions = processor.mentions([Question(turn.question, turn.regions, theirs)], inputs)
        np.testing.assert_array_equal(ours.masks[list(ours.mentions)], theirs.masks[mentions.masks])
        assert ours.turn == processor.template.turn(
            turn.question, len(turn.regions), inputs, preprocessor.reserved
        )


@given(st.integers(1, 30), st.integers(1, 30), st.randoms(use_true_random=False))
@settings(max_examples=50)
def test_masks_equal_pycocotools(height: int, width: int, random: object) -> None:
    mask = np.array([[random.random() < 0.4 for _ in range(width)] for _ in range(height)])  # type: ignore[attr-defined]
    mask[0, 0] = True
    np.testing.assert_array_equal(decode_mask(encode_rle(mask)["counts"], height, width), mask)


@given(st.text(max_size=30))
def test_a_mask_or_an_error(counts: str) -> None:
    with contextlib.suppress(RequestError):
        assert decode_mask(counts, 5, 7).shape == (5, 7)


def test_one_file_as_image_and_as_depth_is_two_things(preprocessor: Preprocessor) -> None:
    both = encode_depth(np.ones((40, 56), np.float32))
    prepared = preprocessor.prepare(Request(both, "Hm?", (), both))
    assert prepared.image_key != prepared.depth_key


RGB = np.zeros((40, 56, 3), np.uint8)
PNG = encode_png(RGB)


def bmp() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(RGB).save(buffer, "BMP")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (Request(b"nonsense", "Hm?"), "image: not a readable JPEG or PNG"),
        (Request(PNG[:60], "Hm?"), "image: not a readable JPEG or PNG"),
        (Request(bmp(), "Hm?"), "image: not a readable JPEG or PNG"),
        (Request(PNG, "Hm?", (), PNG), "depth: a 16-bit grey PNG"),
        (Request(PNG, "Hm?", (), encode_depth(np.ones((3, 4)))), r"depth: size \(3, 4\) differs"),
        (
            Request(PNG, "<region0>?", (AskedArea(None, {"size": [4, 6], "counts": "8"}),)),
            r"its size is \[4, 6\]",
        ),
        (
            Request(PNG, "<region0>?", (AskedArea(None, {"size": [40, 56], "counts": "8"}),)),
            "not a run-length mask",
        ),
        (Request(PNG, "<region0>?", (AskedArea(None, encode_rle(np.zeros((40, 56)))),)), "the mask is empty"),
        (Request(PNG, "<region0>?", (AskedArea((60, 0, 70, 10)),)), "lies outside the image of 56 x 40"),
        (Request(PNG, "Is <depth> here?"), "is reserved"),
    ],
)
def test_pixels_that_cannot_be_used(request_: Request, message: str, preprocessor: Preprocessor) -> None:
    with pytest.raises(RequestError, match=message):
        preprocessor.prepare(request_)


@given(st.data())
@settings(max_examples=60)
def test_damaged_files_are_request_errors(data: st.DataObject) -> None:
    preprocessor = Preprocessor(json.loads((Path(tiny.checkpoint()) / FILE).read_text()))
    image = bytearray(tiny.scenes()[0].image)
    for _ in range(data.draw(st.integers(1, 4))):
        image[data.draw(st.integers(0, len(image) - 1))] = data.draw(st.integers(0, 255))
    damaged = bytes(image[: data.draw(st.integers(1, len(image)))])
    with contextlib.suppress(RequestError):
        assert preprocessor.prepare(Request(damaged, "Hm?")).rgb.shape == (28, 28, 3)
