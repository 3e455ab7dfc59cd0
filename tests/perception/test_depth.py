"""Depth: metres and inverse depth, kept apart; Depth Pro's focal length; what is stored."""

import io

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForDepthEstimation

from srgpt.errors import InputError
from srgpt.params import CalibrationParams, MetricDepthParams, RelativeDepthParams
from srgpt.perception.depth import (
    encode_relative,
    focal_of,
    fov_of,
    load_field_of_view,
    load_metric,
    load_relative,
)
from tests.perception import tiny

METRIC = ("depth_anything_metric", "zoedepth", "zoedepth_two_heads", "depth_pro")


def estimate(folder, pictures, focals=None, **settings):
    return load_metric(MetricDepthParams(model=folder, **settings)).estimate(pictures, focals)


@pytest.mark.parametrize("name", METRIC)
def test_depth_is_at_each_pictures_own_size_in_order(name, checkpoint, pictures):
    folder = checkpoint(name)
    found = estimate(folder, pictures)
    assert [e.values.shape for e in found] == [(60, 80), (70, 50), (60, 80)]
    assert {e.values.dtype for e in found} == {np.dtype(np.float32)}
    for picture, together in zip(pictures, found, strict=True):
        (alone,) = estimate(folder, [picture])
        np.testing.assert_allclose(alone.values, together.values, rtol=1e-3, atol=1e-3)
    assert not np.allclose(found[0].values, found[2].values, rtol=1e-3), "different pictures differ"


def test_each_picture_chooses_its_own_head_whatever_its_neighbours(checkpoint):
    loaded = load_metric(MetricDepthParams(model=checkpoint("zoedepth_two_heads")))
    dark, bright = tiny.shades()
    heads = []
    for picture in (dark, bright):
        inputs = loaded._loaded.processor(images=[picture], return_tensors="pt")
        with torch.inference_mode():
            heads.append(int(loaded._loaded.model(**inputs).domain_logits.argmax()))
    assert heads[0] != heads[1]
    together = loaded.estimate([dark, bright, bright])
    for picture, found in zip((dark, bright, bright), together, strict=True):
        (alone,) = loaded.estimate([picture])
        np.testing.assert_allclose(found.values, alone.values, rtol=1e-5)


@pytest.mark.parametrize("name", ["depth_anything_metric", "depth_anything_relative"])
def test_depth_anything_gives_what_its_own_post_processing_gives(name, checkpoint, pictures):
    folder = checkpoint(name)
    processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
    model = AutoModelForDepthEstimation.from_pretrained(folder).eval()
    with torch.inference_mode():
        outputs = model(**processor(images=pictures[:1], return_tensors="pt"))
    (expected,) = processor.post_process_depth_estimation(outputs, target_sizes=[(60, 80)])
    load, params = (
        (load_metric, MetricDepthParams) if "metric" in name else (load_relative, RelativeDepthParams)
    )
    (found,) = load(params(model=folder)).estimate(pictures[:1])
    np.testing.assert_allclose(found.values, expected["predicted_depth"].numpy(), rtol=1e-4, atol=1e-4)
    assert found.fov_degrees is None


def test_depth_is_what_the_processors_that_need_torchvision_give(checkpoint, pictures, torchvision):
    for name in ("zoedepth", "depth_pro"):
        folder = checkpoint(name)
        processor = AutoImageProcessor.from_pretrained(folder, backend="torchvision")
        model = AutoModelForDepthEstimation.from_pretrained(folder).eval()
        with torch.inference_mode():
            outputs = model(**processor(images=pictures[:1], return_tensors="pt"))
        sizes = {"target_sizes": [(60, 80)], **({"source_sizes": [(60, 80)]} if name == "zoedepth" else {})}
        (expected,) = processor.post_process_depth_estimation(outputs, **sizes)
        (found,) = estimate(folder, pictures[:1])
        reference = expected["predicted_depth"].numpy()
        assert np.median(np.abs(found.values - reference) / np.abs(reference)) < 0.01, name


def test_depth_pro_is_metric_by_the_focal_length(checkpoint, pictures):
    folder = checkpoint("depth_pro")
    (own,) = estimate(folder, pictures[:1])
    assert 5 <= own.fov_degrees <= 170
    same = focal_of(own.fov_degrees, 80)
    (known,) = estimate(folder, pictures[:1], [same])
    np.testing.assert_allclose(known.values, own.values, rtol=1e-4)
    assert known.fov_degrees == own.fov_degrees, "the model's own view is told all the same"
    (twice,) = estimate(folder, pictures[:1], [2 * same])
    inner = (own.values > 1e-3) & (own.values < 1e3)  # away from where depth is clipped
    assert inner.any()
    np.testing.assert_allclose(twice.values[inner], 2 * own.values[inner], rtol=1e-3)


def test_the_field_of_view_is_a_calibration(checkpoint, pictures):
    estimates = load_field_of_view(CalibrationParams(model=checkpoint("depth_pro"))).estimate(pictures)
    assert all(5 <= e.fov_degrees <= 170 for e in estimates)
    assert len({e.fov_degrees for e in estimates}) == 3


@pytest.mark.parametrize("name", METRIC)
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_runs(name, dtype, checkpoint, pictures):
    (found,) = estimate(checkpoint(name), pictures[:1], dtype=dtype)
    assert found.values.dtype == np.float32
    assert np.isfinite(found.values).mean() > 0.9


def test_the_two_kinds_of_depth_never_mix(checkpoint):
    with pytest.raises(InputError, match=r"depth_estimation\.metric\.model.*not known to give metres"):
        load_metric(MetricDepthParams(model=checkpoint("depth_anything_relative")))
    for name in METRIC:
        with pytest.raises(InputError, match="not known to give inverse depth"):
            load_relative(RelativeDepthParams(model=checkpoint(name)))
    with pytest.raises(InputError, match=r"Expected Depth Pro.*perceive\.intrinsics=fov"):
        load_field_of_view(CalibrationParams(model=checkpoint("zoedepth")))


def test_a_depth_pro_without_a_field_of_view_is_refused(tmp_path):
    folder = str(tiny.depth_pro(tmp_path / "blind", field_of_view=False))
    with pytest.raises(InputError, match="without its field-of-view head"):
        load_metric(MetricDepthParams(model=folder))
    with pytest.raises(InputError, match="without its field-of-view head"):
        load_field_of_view(CalibrationParams(model=folder))


@given(st.floats(5, 170), st.integers(1, 8192))
def test_angle_and_focal_length_are_inverse(angle, width):
    assert fov_of(focal_of(angle, width), width) == pytest.approx(angle)


def decode(png):
    with Image.open(io.BytesIO(png)) as picture:
        return np.array(picture)


@given(arrays(np.float32, (3, 4), elements=st.floats(-1e6, 1e6, width=32)))
def test_relative_depth_keeps_order_and_range(values):
    stored = decode(encode_relative(values)).astype(np.int64)
    assert stored.shape == values.shape
    assert stored.max() == 65535, "the nearest"
    assert stored.min() >= 1, "0 means no reading"
    order = np.argsort(values, axis=None, kind="stable")
    assert (np.diff(stored.ravel()[order]) >= 0).all()


def test_relative_depth_without_a_value_is_no_reading():
    values = np.array([[np.nan, 1.0], [np.inf, 3.0]], dtype=np.float32)
    np.testing.assert_array_equal(decode(encode_relative(values)), [[0, 1], [0, 65535]])
    assert not decode(encode_relative(np.full((2, 2), np.nan, dtype=np.float32))).any()
    assert (decode(encode_relative(np.ones((2, 2), dtype=np.float32))) == 65535).all()
