"""Refinement and mask pooling, against hand-computed values and the reference's formula."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from srgpt.model.region import LayerNorm2d, RegionExtractor, coverage, pooling_weights


def test_refinement_quadruples_and_averages_back():
    extractor = RegionExtractor(6, 10, "area")
    hires, lowres = extractor.refine(torch.randn(2, 27 * 27, 6), 27)
    assert hires.shape == (2, 108 * 108, 6)
    assert lowres.shape == (2, 27 * 27, 6)
    block = hires[1].reshape(108, 108, 6)[4:8, 8:12].mean((0, 1))
    torch.testing.assert_close(lowres[1].reshape(27, 27, 6)[1, 2], block)


def test_refinement_keeps_rows_and_columns_apart():
    """A token's features stay in its own 4x4 block of the map, row-major."""
    extractor = RegionExtractor(4, 4, "area")
    base = torch.zeros(1, 9, 4)
    changed = base.clone()
    changed[0, 5] = torch.randn(4)  # row 1, column 2
    difference = (extractor.refine(changed, 3)[0] - extractor.refine(base, 3)[0]).abs().sum(-1)
    touched = difference.reshape(12, 12) > 0
    assert touched[4:8, 8:12].any()
    touched[4:8, 8:12] = False
    assert not touched.any()


def test_layer_norm_2d_normalises_channels_of_each_pixel():
    norm = LayerNorm2d(3)
    x = torch.tensor([1.0, 2.0, 6.0]).reshape(1, 3, 1, 1).expand(1, 3, 2, 2)
    mean, variance = 3.0, (4 + 1 + 9) / 3
    expected = [(v - mean) / (variance + 1e-6) ** 0.5 for v in (1.0, 2.0, 6.0)]
    torch.testing.assert_close(norm(x)[0, :, 1, 0], torch.tensor(expected))


def test_area_weights_are_covered_shares():
    # 4x4 pixels, 2x2 cells: one whole cell and half of the one to its right
    mask = torch.tensor([[[1, 1, 1, 0], [1, 1, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]]], dtype=torch.float32)
    weights = pooling_weights(mask, 2, "area")
    torch.testing.assert_close(weights, torch.tensor([[[2 / 3, 1 / 3], [0.0, 0.0]]]))


def test_coverage_of_sizes_that_do_not_divide():
    # three pixels over two cells: the middle pixel belongs to both by half
    expected = torch.tensor([[2 / 3, 1 / 3, 0], [0, 1 / 3, 2 / 3]])
    torch.testing.assert_close(coverage(3, 2, torch.device("cpu")), expected)


@pytest.mark.parametrize(("grid", "scale"), [(108, 0.28125), (27, 0.0703125)])
def test_reference_weights_are_the_references(grid, scale):
    torch.manual_seed(0)
    masks = torch.zeros(2, 384, 384)
    masks[0, 100:300, 50:200] = 1
    masks[1] = (torch.rand(384, 384) > 0.5).float()
    sampled = functional.interpolate(
        masks[:, None], scale_factor=scale, mode="bilinear", align_corners=False, antialias=False
    )[:, 0]
    expected = sampled / (sampled.sum((1, 2), keepdim=True) + 1e-8)
    torch.testing.assert_close(pooling_weights(masks, grid, "reference"), expected)


@pytest.mark.parametrize("place", [(0, 0), (3, 5), (191, 200), (383, 383)])
def test_a_single_pixel_is_never_lost(place):
    mask = torch.zeros(1, 384, 384)
    mask[0, place[0], place[1]] = 1
    weights = pooling_weights(mask, 27, "area")
    # the reference samples every 14th pixel: it sees none of these four
    assert pooling_weights(mask, 27, "reference").sum() == 0
    assert weights.sum() == pytest.approx(1)
    row, column = divmod(int(weights.argmax()), 27)
    assert abs(row - place[0] * 27 // 384) <= 1
    assert abs(column - place[1] * 27 // 384) <= 1


def test_empty_mask_pools_to_zero():
    extractor = RegionExtractor(4, 4, "area")
    pooled = extractor.pool(torch.randn(1, 9, 4), torch.zeros(1, 6, 6), torch.tensor([0]), 3)
    assert pooled.tolist() == [[0, 0, 0, 0]]


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 9), st.integers(1, 40), st.integers(1, 40), st.integers(0, 10**6))
def test_area_weights_sum_to_one_and_lose_nothing(grid, height, width, seed):
    masks = (torch.rand(3, height, width, generator=torch.Generator().manual_seed(seed)) > 0.8).float()
    masks[:, 0, 0] = 1
    weights = pooling_weights(masks, grid, "area")
    torch.testing.assert_close(weights.sum((1, 2)), torch.ones(3))
    # the mean position under the weights is that of the mask, up to half a cell
    centre = (weights.sum(2) * ((torch.arange(grid) + 0.5) / grid)).sum(1)
    rows = (masks.sum(2) * ((torch.arange(height) + 0.5) / height)).sum(1) / masks.sum((1, 2))
    assert ((centre - rows).abs() <= 0.5 / grid + 0.5 / height + 1e-5).all()


def test_pooling_is_the_weighted_mean_of_the_masks_own_image():
    extractor = RegionExtractor(5, 4, "area")
    tokens, masks = torch.randn(3, 16, 5), torch.rand(4, 8, 8)
    images = torch.tensor([2, 0, 0, 1])
    pooled = extractor.pool(tokens, masks, images, 4)
    for k, image in enumerate(images):
        cells = functional.avg_pool2d(masks[k][None], 2)[0].flatten()
        torch.testing.assert_close(pooled[k], (cells[:, None] * tokens[image]).sum(0) / cells.sum())


def test_tensor_names_and_shapes_are_the_references():
    shapes = {k: tuple(v.shape) for k, v in RegionExtractor(8, 12, "area").state_dict().items()}
    assert shapes == {
        "feature_refinement_module.0.weight": (8, 8, 2, 2),
        "feature_refinement_module.0.bias": (8,),
        "feature_refinement_module.1.weight": (8,),
        "feature_refinement_module.1.bias": (8,),
        "feature_refinement_module.3.weight": (8, 8, 2, 2),
        "feature_refinement_module.3.bias": (8,),
        "rgb_projector.weight": (12, 8),
        "rgb_projector.bias": (12,),
        "depth_projector.weight": (12, 8),
        "depth_projector.bias": (12,),
    }
