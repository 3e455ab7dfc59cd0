"""What can be wrong with one value; none of it may raise."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from srgpt.curation import checks
from srgpt.geometry.units import format_length
from srgpt.records import CATEGORIES, UNIT_OF, Box, encode_depth, encode_png, encode_rle


def _file(values: np.ndarray, kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, kind)
    return buffer.getvalue()


def test_depth_as_it_should_be() -> None:
    metres = np.array([[0.0, 1.5, 2.25], [0.0, 3.0, 65.535]])
    assert checks.depth_columns(encode_depth(metres), 3, 2) == {
        "depth_problem": None,
        "depth_min": 0.0,
        "depth_max": 65.535,
        "depth_not_finite": 0,
        "depth_valid_share": pytest.approx(4 / 6),
    }
    assert set(checks.depth_columns(None, 3, 2).values()) == {None}


def test_depth_of_another_encoding_keeps_its_sign() -> None:
    columns = checks.depth_columns(_file(np.array([[-7, 100]], dtype=np.int32), "TIFF"), 2, 1)
    assert columns["depth_min"] == pytest.approx(-0.007)
    assert columns["depth_problem"] == "depth is TIFF of int32, not PNG of uint16"


def test_depth_that_is_no_number_is_counted() -> None:
    columns = checks.depth_columns(_file(np.array([[np.nan, np.inf, 5.0]], dtype=np.float32), "TIFF"), 3, 1)
    assert (columns["depth_not_finite"], columns["depth_valid_share"]) == (2, pytest.approx(1 / 3))
    nothing = checks.depth_columns(_file(np.full((1, 3), np.nan, dtype=np.float32), "TIFF"), 3, 1)
    assert (nothing["depth_min"], nothing["depth_not_finite"]) == (None, 3)


@given(st.binary(max_size=200))
def test_bytes_of_any_kind_are_a_finding(data: bytes) -> None:
    assert checks.image_problem(data, 4, 4)
    assert checks.depth_columns(data, 4, 4)["depth_problem"]


@given(st.integers(1, 400), st.integers(0, 255), st.integers(0, 3))
def test_damaged_files_never_raise(cut: int, byte: int, which: int) -> None:
    rng = np.random.default_rng(1)
    depth = encode_depth(rng.uniform(0, 9, (8, 8)))
    damaged = [
        depth[:-cut],
        depth[:cut] + bytes([byte]) + depth[cut + 1 :],
        depth + bytes([byte]),
        depth[cut:],
    ][which]
    checks.image_problem(damaged, 8, 8)
    checks.depth_columns(damaged, 8, 8)


def test_a_picture_cut_off_is_found() -> None:
    rng = np.random.default_rng(1)
    picture = encode_png(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8))
    assert checks.image_problem(picture, 16, 16) is None
    assert checks.image_problem(picture[:-40], 16, 16) is not None
    assert checks.image_problem(picture, 15, 16) == "declared 15 x 16 pixels, the picture has 16 x 16"
    assert checks.image_problem(None, 16, 16) == "there is no picture"


def test_masks() -> None:
    mask = np.zeros((6, 4), dtype=bool)
    mask[1:4, 2] = True
    assert checks.mask_columns(encode_rle(mask), 4, 6) == (None, 3)
    assert checks.mask_columns(encode_rle(mask), 6, 4) == ("mask is [6, 4], the image [4, 6]", -1)
    assert checks.mask_columns(encode_rle(np.zeros((6, 4))), 4, 6) == (None, 0)


@given(st.text(max_size=300), st.one_of(st.none(), st.lists(st.integers(-5, 9000), max_size=3)))
def test_masks_of_any_text_never_crash(counts: str, size: list[int] | None) -> None:
    problem, pixels = checks.mask_columns({"counts": counts, "size": size}, 30, 20)
    assert (problem is None) == (pixels >= 0)


@pytest.mark.parametrize(
    ("box", "says"),
    [
        ([0.0, 0.0, 8.0, 6.0], None),
        ([-0.5, 0.0, 8.0, 6.0], None),
        ([-0.6, 0.0, 8.0, 6.0], "leaves"),
        ([0.0, 0.0, 8.0, 6.6], "leaves"),
        ([3.0, 0.0, 3.0, 6.0], "no area"),
        ([0.0, 5.0, 8.0, 4.0], "no area"),
        ([0.0, 0.0, float("nan"), 6.0], "finite"),
        ([0.0, 0.0, 8.0], "finite"),
        (None, "finite"),
    ],
)
def test_boxes(box: list[float] | None, says: str | None) -> None:
    problem = checks.bbox_problem(box, 8, 6)
    assert problem is None if says is None else says in str(problem)


def _turn(category: str, answer: str, value: float) -> dict[str, Any]:
    return {"category": category, "answer": answer, "value": value, "unit": UNIT_OF[category]}


@pytest.mark.parametrize(
    ("category", "answer", "value", "agrees"),
    [
        ("distance_data", "4.50 meters", 4.504, True),
        ("distance_data", "4.50 meters", 4.506, False),
        ("distance_data", "14.76 feet", 4.5, True),
        ("distance_data", "14.76 feet", 4.504, False),
        ("width_data", "About 39.37 inches.", 1.0, True),
        ("width_data", "About 39.40 inches.", 1.0, False),
        ("height_data", "98.50 centimeters", 0.98504, True),
        ("height_data", "98.50 centimeters", 0.9851, False),
        ("direction", "3 o'clock", 3.0, True),
        ("direction", "3 o'clock", 4.0, False),
        ("left_predicate", "Yes, it is.", 1.0, True),
        ("left_predicate", "Yes, it is.", 0.0, False),
        ("tall_choice", "Region [1] is.", 0.0, True),
        ("tall_choice", "Region [1] is.", 1.0, False),
        ("tall_choice", "Both are.", 1.0, False),
    ],
)
def test_answers_are_read_back(category: str, answer: str, value: float, agrees: bool) -> None:
    assert (checks.answer_problem(_turn(category, answer, value)) is None) is agrees


@given(st.floats(0.01, 80.0), st.integers(0, 1000))
def test_every_length_that_is_written_reads_as_its_value(metres: float, seed: int) -> None:
    answer = f"It is {format_length(metres, np.random.default_rng(seed))} away."
    assert checks.answer_problem(_turn("distance_data", answer, metres)) is None


@given(
    st.sampled_from([*CATEGORIES, "other"]),
    st.text(max_size=60),
    st.floats(),
    st.lists(st.integers(0, 4), max_size=3),
)
def test_turns_of_any_kind_never_raise(category: str, text: str, value: float, regions: list[int]) -> None:
    turn = {
        "question": text,
        "answer": text,
        "category": category,
        "value": value,
        "regions": regions,
        "unit": text,
    }
    box = {"center": [0.0, 0.0, 5.0], "size": [1.0, 1.0, 1.0]}
    nodes = {0: {"perceived": box, "truth": None}, 1: {"perceived": box, "truth": box}}
    for problem in (
        checks.answer_problem(turn),
        checks.unit_problem(turn),
        checks.value_problem(turn),
        checks.mentions_problem(turn),
        checks.region_count_problem(turn),
        checks.regions_problem(turn, {0, 1}),
        checks.fact_problem(turn, nodes, "perceived"),
        checks.fact_problem(turn, nodes, "cuboids"),
    ):
        assert problem is None or problem


@pytest.mark.parametrize(
    ("category", "answer", "value", "agrees"),
    [
        ("camera_distance_data", "It is 9.84 feet away.", 3.0, True),
        ("camera_distance_data", "It is 9.84 feet away.", 3.1, False),
        ("tallest", "Region [2] is the tallest of them.", 2.0, True),
        ("tallest", "Region [2] is the tallest of them.", 1.0, False),
        ("width_ratio", "The widths are 1.00 meters and 0.50 meters, so 2.00 times.", 2.004, True),
        ("width_ratio", "The widths are 1.00 meters and 0.50 meters, so 2.00 times.", 2.1, False),
    ],
)
def test_answers_beyond_the_benchmark_are_read_back(
    category: str, answer: str, value: float, agrees: bool
) -> None:
    assert (checks.answer_problem(_turn(category, answer, value)) is None) is agrees


def test_free_text_is_checked_for_what_can_be_known_of_it() -> None:
    turn = {
        "category": "anything at all",
        "question": "What is <region0> good for?",
        "answer": "Region [0] seats two.",
        "value": None,
        "unit": "text",
        "regions": [3],
    }
    problems = (
        checks.category_problem, checks.unit_problem, checks.value_problem, checks.region_count_problem,
        checks.mentions_problem, checks.answer_problem,
    )  # fmt: skip
    assert [problem(turn) for problem in problems] == [None] * len(problems)
    assert checks.fact_problem(turn, {}, "perceived") is None
    assert checks.value_problem({**turn, "value": 2.0}) == "value 2, free text has none"
    assert checks.mentions_problem({**turn, "regions": []}) is not None
    assert checks.category_problem({**turn, "unit": "metres"}) is not None


@pytest.mark.parametrize(
    ("unit", "value", "fits"),
    [
        ("region", 2.0, True), ("region", 3.0, False), ("region", 0.5, False), ("count", 0.0, True),
        ("count", -1.0, False), ("ratio", 0.0, False), ("ratio", 2.5, True), ("order", 201.0, True),
    ],
)  # fmt: skip
def test_values_beyond_the_benchmark(unit: str, value: float, fits: bool) -> None:
    turn = {"value": value, "unit": unit, "regions": [4, 5, 6]}
    assert (checks.value_problem(turn) is None) is fits


@pytest.mark.parametrize(
    ("values", "fits"), [((None,), True), ((0.0, 2.0), True), ((-0.1,), False), ((float("nan"),), False)]
)
def test_standard_deviations(values: tuple[float | None, ...], fits: bool) -> None:
    assert (checks.sigma_problem(*values) is None) is fits


@pytest.mark.parametrize(("category", "value"), [("tallest", 1.0), ("left_fact", 0.0), ("count_left", 0.0)])
def test_values_beyond_the_benchmark_are_computed_anew(category: str, value: float) -> None:
    boxes = [Box(np.array([x, 0.0, 3.0]), np.array([0.5, tall, 0.5])) for x, tall in ((0.0, 1.0), (1.0, 2.0))]
    nodes = {k: {"perceived": box.to_row(), "truth": None} for k, box in zip((4, 6), boxes, strict=True)}
    turn = {"category": category, "regions": [4, 6], "value": value}
    assert checks.fact_problem(turn, nodes, "perceived") is None
    wrong = checks.fact_problem({**turn, "value": value + 1}, nodes, "perceived")
    assert wrong == f"the value is {value + 1:.6g}, the scene graph gives {value:.6g}"
    assert checks.fact_problem({**turn, "category": "path_choice"}, nodes, "perceived") is not None
