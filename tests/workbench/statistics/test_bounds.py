"""Bounds cover the true mean at their rate."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch.testing import assert_close

from workbench import statistics


@pytest.mark.parametrize("n", [4, 8, 16, 64])
def test_bounds_of_normal_data_cover_the_true_mean_at_their_rate(n, coverage):
    samples = np.random.default_rng(n).normal(3.0, 2.0, size=(2000, n))
    assert 0.93 <= coverage(samples, 3.0) <= 0.97


@pytest.mark.parametrize("n", [16, 32])
def test_bounds_of_skewed_data_cover_the_true_mean(n, coverage):
    samples = np.random.default_rng(n).exponential(size=(2000, n))
    assert 0.92 <= coverage(samples, 1.0) <= 0.97


def test_a_skewed_sample_has_its_longer_bound_on_the_side_of_its_long_tail():
    found = statistics.estimate(torch.from_numpy(np.random.default_rng(0).exponential(size=16)))
    assert found.high - found.value > 1.2 * (found.value - found.low)


def test_bounds_on_groups_cover_where_bounds_on_prompts_do_not(coverage):
    generator = np.random.default_rng(0)
    shared = generator.normal(size=(1000, 12, 1))
    samples = (shared + 0.3 * generator.normal(size=(1000, 12, 5))).reshape(1000, 60)
    groups = [group for group in range(12) for _ in range(5)]
    assert 0.93 <= coverage(samples, 0.0, groups) <= 0.97
    assert coverage(samples, 0.0) < 0.75


def test_bounds_on_groups_of_unequal_size_cover(coverage):
    generator = np.random.default_rng(0)
    sizes = [1, 2, 3, 4] * 6
    groups = [group for group, size in enumerate(sizes) for _ in range(size)]
    samples = generator.normal(size=(1000, 24))[:, groups]
    samples = samples + 0.5 * generator.normal(size=samples.shape)
    assert 0.925 <= coverage(samples, 0.0, groups) <= 0.975


def test_each_prompt_as_its_own_group_is_the_same_as_no_groups():
    values = torch.from_numpy(np.random.default_rng(0).normal(size=20))
    alone = statistics.estimate(values, seed=4)
    assert statistics.estimate(values, groups=[f"{n:02d}" for n in range(20)], seed=4) == alone


def test_bounds_agree_with_students_on_many_normal_values(vector):
    values = np.random.default_rng(0).normal(size=400)
    found = statistics.estimate(torch.from_numpy(values), resamples=20_000)
    low, high = stats.t.interval(0.95, 399, values.mean(), stats.sem(values))
    assert_close(vector(found.low, found.high), vector(low, high), rtol=0, atol=0.01)


def test_three_prompts_have_students_bounds(vector):
    found = statistics.estimate(vector(1.0, 2.0, 4.0))
    low, high = stats.t.interval(0.95, 2, 7 / 3, stats.sem([1, 2, 4]))
    assert_close(vector(found.value, found.low, found.high), vector(7 / 3, low, high))


def test_a_wider_level_has_wider_bounds():
    values = torch.from_numpy(np.random.default_rng(0).normal(size=16))
    narrow, wide = (statistics.estimate(values, level=level) for level in (0.8, 0.99))
    assert wide.low < narrow.low < narrow.high < wide.high


def test_bounds_move_and_scale_with_the_values():
    values = torch.from_numpy(np.random.default_rng(0).normal(size=(5, 16)))
    plain, moved = statistics.bounds(values), statistics.bounds(7 - 3 * values)
    scaled = [7 - 3 * one for one in (plain.mean, plain.high, plain.low)]
    # A negative scale swaps the bounds; the order statistics taken are symmetric.
    assert_close(list(moved), scaled)


def test_a_cell_has_the_bounds_it_would_have_alone(vector):
    values = torch.from_numpy(np.random.default_rng(0).normal(size=(3, 700, 12)))
    together = statistics.bounds(values, seed=2)
    alone = statistics.estimate(values[2, 650], seed=2)
    found = [one[2, 650].item() for one in together]
    assert_close(vector(*found), vector(alone.value, alone.low, alone.high), rtol=1e-12, atol=0)
    assert together.mean.shape == (3, 700)


def test_equal_values_have_their_value_as_both_bounds():
    values = torch.full((2, 16), 0.1)
    values[1] = 0
    found = statistics.bounds(values)
    for one in found:
        assert_close(one, values[:, 0].double(), rtol=0, atol=0)


def test_one_prompt_that_makes_the_whole_effect_leaves_finite_bounds():
    values = torch.zeros(3, 16)
    values[0, 3] = 2.0
    values[1] = 1e-6 * torch.arange(16)
    values[1, 3] = 2.0
    values[2, :2] = torch.tensor([5.0, -5.0])
    found = statistics.bounds(torch.cat([values, -values]))
    assert torch.isfinite(torch.stack(found)).all()
    assert (found.low <= found.mean).all() and (found.mean <= found.high).all()
    assert found.high.max() < 10 and found.low.min() > -10


def test_no_cells_and_no_layers_are_allowed():
    assert statistics.bounds(torch.zeros(0, 8)).low.shape == (0,)
    assert statistics.permutation_test(torch.zeros(0, 8)).p.shape == (0,)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (torch.ones(1), "at least 2 prompts, got 1"),
        (torch.ones(3, 0), "at least 2 prompts, got 0"),
        (torch.tensor([[1.0, 2.0], [3.0, math.nan]]), r"nan at cell \(1,\), prompt 1"),
        (torch.tensor([1.0, math.inf]), "inf at prompt 1"),
    ],
)
def test_values_without_bounds_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        statistics.bounds(values)
    with pytest.raises(ValueError, match=message):
        statistics.permutation_test(values)


def test_groups_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="3 groups for 4 prompts"):
        statistics.estimate(torch.arange(4.0), groups=["a", "b", "c"])
    with pytest.raises(ValueError, match="at least 2 groups, got 1"):
        statistics.estimate(torch.arange(4.0), groups=["a"] * 4)


def test_too_few_resamples_for_the_level_are_refused():
    with pytest.raises(ValueError, match="take at least 40"):
        statistics.estimate(torch.arange(4.0), resamples=20)
    with pytest.raises(ValueError, match="not between 0 and 1"):
        statistics.estimate(torch.arange(4.0), level=95.0)
