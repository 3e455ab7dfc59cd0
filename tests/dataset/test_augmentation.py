"""Augmentation: what is drawn for a sample is its own, and what it does to depth and regions."""

import numpy as np
import pytest

from srgpt.dataset.augmentation import Augmentation, change_depth, reshape
from srgpt.dataset.mixture import Mixture
from srgpt.dataset.source import MixtureSource
from srgpt.model.processing import View
from srgpt.params import AugmentParams
from srgpt.storage import scenes_of
from tests.model.tiny import make_tiny
from tests.training.data import write_dataset

DISC = np.hypot(*np.mgrid[-10:10, -15:15]) < 6


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_a_box_is_the_masks_bounds():
    box = reshape(DISC, "box", rng())
    rows, columns = np.nonzero(DISC)
    assert box.sum() == (np.ptp(rows) + 1) * (np.ptp(columns) + 1)
    assert box[DISC].all()


@pytest.mark.parametrize("form", ["point", "scribble"])
def test_a_stroke_lies_on_the_region(form):
    for seed in range(20):
        stroke = reshape(DISC, form, rng(seed))
        assert stroke[DISC].any()
        assert stroke.sum() < DISC.sum()


def test_a_mask_stays():
    assert reshape(DISC, "mask", rng()) is DISC


def test_scale_is_common_to_a_picture_and_noise_is_not():
    depth = np.full((40, 40), 2.0)
    scaled = change_depth(depth, AugmentParams(depth_scale=0.3), rng())
    assert len(np.unique(scaled)) == 1
    assert scaled[0, 0] != 2.0
    noisy = change_depth(depth, AugmentParams(depth_noise=0.05), rng()) / 2
    assert noisy.std() == pytest.approx(0.05, rel=0.1)
    assert noisy.mean() == pytest.approx(1, abs=0.01)
    assert (change_depth(depth, AugmentParams(), rng()) == depth).all()


def test_holes_have_no_reading():
    shares = [
        (change_depth(np.ones((40, 40)), AugmentParams(depth_holes=2), rng(k)) == 0).mean() for k in range(50)
    ]
    assert 0.01 < np.mean(shares) < 0.1
    assert min(shares) == 0


def test_draws_belong_to_the_sample():
    change = Augmentation(AugmentParams(depth_noise=0.1, shapes={"mask": 1, "box": 1, "point": 1}), seed=3)
    view = View(np.zeros((20, 30, 3), np.uint8), {1: DISC}, np.ones((20, 30)))

    def same(a: View, b: View) -> bool:
        return np.array_equal(a.depth, b.depth) and np.array_equal(a.masks[1], b.masks[1])

    assert same(change(view, (0, 5)), change(view, (0, 5)))
    assert not any(same(change(view, (0, 5)), change(view, key)) for key in [(1, 5), (0, 6)])
    forms = {int(change(view, (0, k)).masks[1].sum()) for k in range(30)}
    assert len(forms) >= 3
    assert view.masks[1] is DISC
    assert (view.depth == 1).all()


def test_a_sample_is_augmented_anew_in_each_epoch(tmp_path):
    source = write_dataset(tmp_path)
    _, processor = make_tiny()
    change = Augmentation(AugmentParams(depth_noise=0.1), seed=0)
    mixture = Mixture([MixtureSource(source, scenes_of(source))], processor, change=change)
    plain = Mixture([MixtureSource(source, scenes_of(source))], processor)
    first, again, later, unchanged = (
        m[key].picture.points
        for m, key in [(mixture, (0, 2)), (mixture, (0, 2)), (mixture, (1, 2)), (plain, (0, 2))]
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, later)
    assert not np.array_equal(first, unchanged)
