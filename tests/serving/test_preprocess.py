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
from srgpt.model.prompts import region_marks
from srgpt.records import encode_depth, encode_png, encode_rle
from srgpt.serving.preprocess import Preprocessor, decode_mask
from srgpt.serving.protocol import AskedArea, AskedCamera, Request, RequestError
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
        camera = AskedCamera(scene.intrinsics, scene.gravity)
        regions = tuple(areas[i] for i in turn.regions)
        request = Request(scene.image, turn.question, regions, scene.depth, camera)
        ours = preprocessor.prepare(request)
        theirs = processor.picture_of(scene, conversation)
        np.testing.assert_array_equal(ours.picture.rgb, theirs.rgb)
        assert (ours.picture.points is None) == (theirs.points is None) == (scene.depth is None)
        inputs = "rgb" if scene.depth is None else "rgbd"
        mentions = processor.mentions([Question(turn.question, turn.regions, theirs)], inputs)
        order = list(ours.mentions)
        np.testing.assert_array_equal(ours.picture.masks[order], theirs.masks[mentions.masks])
        if theirs.points is not None and ours.picture.points is not None:
            np.testing.assert_array_equal(ours.picture.points[order], theirs.points[mentions.masks])
        assert ours.turn == processor.template.turn(
            turn.question, inputs, region_marks(inputs, len(turn.regions)), preprocessor.reserved
        )


def test_a_point_or_a_scribble_is_a_region(preprocessor: Preprocessor) -> None:
    scene = tiny.scenes()[0]
    areas = (AskedArea(point=(20, 20)), AskedArea(scribble=((5, 5), (30, 5))))
    prepared = preprocessor.prepare(Request(scene.image, "Is <region0> above <region1>?", areas))
    assert prepared.picture.masks.shape[0] == 2
    assert prepared.picture.masks.any((1, 2)).all()
    with pytest.raises(RequestError, match=r"regions\[0\]: no point of .* lies in the image of 56 x 40"):
        preprocessor.prepare(Request(scene.image, "Is <region0> big?", (AskedArea(point=(90, 3)),)))


def test_the_camera_turns_depth_into_points(preprocessor: Preprocessor) -> None:
    depth = encode_depth(np.full((40, 56), 2.0))
    box = (AskedArea((0.0, 0.0, 56.0, 40.0)),)
    image = tiny.scenes()[0].image

    def extent(camera: AskedCamera) -> float:
        prepared = preprocessor.prepare(Request(image, "How wide is <region0>?", box, depth, camera))
        assert prepared.picture.points is not None
        return float(np.ptp(prepared.picture.points[0, :, 0]))

    # at 2 m, 56 pixels seen with a focal length of 56 span 2 m less a pixel; twice the focal length, half of that
    assert extent(AskedCamera((56, 56, 27.5, 19.5))) == pytest.approx(2 * 55 / 56, rel=0.05)
    assert extent(AskedCamera((112, 112, 27.5, 19.5))) == pytest.approx(55 / 56, rel=0.05)


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
