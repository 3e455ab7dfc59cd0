"""Points of regions in metres: what the encoder sees, and that nothing depends on their order."""

import math

import torch

from srgpt.model.points import DECADES, PointEncoder, logarithmic, waves


def encoder() -> PointEncoder:
    torch.manual_seed(0)
    return PointEncoder(12, 8)


def test_the_scale_is_logarithmic_and_odd():
    metres = torch.tensor([0.01, -0.99, 0.0, 9.99])
    expected = [math.log(2), -math.log(100), 0.0, math.log(1000)]
    torch.testing.assert_close(logarithmic(metres, 0.01), torch.tensor(expected))


def test_a_decade_is_a_period():
    value = torch.tensor([[0.7]])
    one, ten = (waves(value + math.log(10) * k) for k in (0, 1))
    # of periods 4, 2, 1, 1/2 and 1/4 decades the last three come back
    torch.testing.assert_close(one[0, 3:6], ten[0, 3:6], rtol=0, atol=1e-5)
    assert not torch.allclose(one[0, 1:3], ten[0, 1:3], atol=0.1)
    assert one.shape == (1, 1 + 2 * len(DECADES))


def test_order_and_repetition_of_points_change_nothing():
    points = torch.randn(2, 16, 3)
    shuffled = points[:, torch.randperm(16)]
    twice = torch.cat([points, points], 1)
    one = encoder()
    torch.testing.assert_close(one(points), one(shuffled), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(one(points), one(twice), rtol=1e-4, atol=1e-5)


def test_a_region_without_readings_has_an_embedding_of_its_own():
    one = encoder()
    torch.nn.init.normal_(one.unknown)
    points = torch.cat([torch.zeros(1, 4, 3), torch.randn(1, 4, 3)])
    out = one(points)
    torch.testing.assert_close(out[0], one.unknown)
    assert not torch.allclose(out[1], one.unknown)
    out.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in one.parameters())


def test_metres_stay_exact_in_a_model_of_half_precision():
    one = encoder().bfloat16()
    near, far = torch.full((1, 4, 3), 40.0), torch.full((1, 4, 3), 40.1)  # the same number in bfloat16
    assert torch.equal(near.bfloat16(), far.bfloat16())
    assert not torch.equal(one(near), one(far))
