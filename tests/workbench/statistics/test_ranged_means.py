"""Bounds of means of values in a known range."""

import numpy as np
import pytest
import torch
from scipy import stats
from torch.testing import assert_close

from workbench import statistics


@pytest.mark.parametrize("hits", [0, 1, 7, 16])
def test_of_zeros_and_ones_they_are_clopper_and_pearsons(hits):
    values = torch.tensor([1.0] * hits + [0.0] * (16 - hits))
    found = statistics.ranged_mean(values, least=0.0, most=1.0, draws=100_000)
    expected = stats.binomtest(hits, 16).proportion_ci(method="exact")
    assert float(found.low) == pytest.approx(expected.low, abs=4e-3)
    assert float(found.high) == pytest.approx(expected.high, abs=4e-3)
    assert float(found.mean) == hits / 16


def test_values_that_are_all_the_same_have_bounds_that_reach_towards_the_range():
    found = statistics.ranged_mean(torch.full((8,), 1.0), least=-3.0, most=5.0)
    # the largest share that 8 values may have missed, by hand
    unseen = 1 - 0.025 ** (1 / 8)
    assert float(found.low) == pytest.approx(1 - 4 * unseen, abs=0.04)
    assert float(found.high) == pytest.approx(1 + 4 * unseen, abs=0.04)
    # zero is the mean where a quarter is at -3: missed by 8 with a chance of 0.75 ** 8
    assert float(found.p) == pytest.approx(2 * 0.75**8, abs=0.01)


def test_p_is_at_most_0_05_where_the_bounds_leave_zero_out():
    generator = torch.Generator().manual_seed(0)
    values = 0.6 * torch.rand(40, 12, generator=generator) - 0.1 + 0.02 * torch.arange(40)[:, None]
    for sign in (1, -1):
        found = statistics.ranged_mean(sign * values, least=-2.0, most=2.0)
        outside = (found.low > 0) | (found.high < 0)
        assert 5 < int(outside.sum()) < 35
        clear = (found.p - 0.05).abs() > 0.005
        assert (found.p <= 0.05)[clear].equal(outside[clear])


def test_rare_large_values_are_covered_that_students_bounds_miss():
    generator = np.random.default_rng(0)
    drawn = torch.from_numpy(4.0 * (generator.random((400, 8)) < 0.1))
    found = statistics.ranged_mean(drawn, least=0.0, most=4.0, draws=4000)
    assert float(((found.low <= 0.4) & (found.high >= 0.4)).double().mean()) >= 0.95
    half = stats.t.ppf(0.975, 7) * drawn.std(1) / 8**0.5
    assert float(((drawn.mean(1) - 0.4).abs() <= half).double().mean()) < 0.65


def test_cells_keep_their_shape_and_the_same_seed_gives_the_same_bits():
    values = torch.rand(2, 3, 6, generator=torch.Generator().manual_seed(0))
    one, again = (statistics.ranged_mean(values, least=0.0, most=1.0, seed=3) for _ in range(2))
    assert one.low.shape == one.p.shape == (2, 3)
    assert all(a.equal(b) for a, b in zip(one, again, strict=True))
    assert_close(one.mean, values.double().mean(-1))


def test_values_outside_of_their_range_are_refused():
    with pytest.raises(ValueError, match="from 0 to 2 do not lie in the range 0 to 1"):
        statistics.ranged_mean(torch.tensor([0.0, 2.0]), least=0.0, most=1.0)
    with pytest.raises(ValueError, match=r"from -0\.5 to 1 do not lie in the range 0 to 1"):
        statistics.ranged_mean(torch.tensor([-0.5, 1.0]), least=0.0, most=1.0)
    with pytest.raises(ValueError, match="no values"):
        statistics.ranged_mean(torch.zeros(2, 0), least=0.0, most=1.0)
