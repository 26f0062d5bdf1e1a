"""P-values are exact, and hold over all cells."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch.testing import assert_close

from workbench import statistics


def test_four_positive_values_reach_two_of_sixteen_flips(vector):
    found = statistics.permutation_test(vector(1.0, 2.0, 3.0, 5.0))
    assert found.p.item() == found.corrected.item() == 2 / 16
    assert (found.method, found.permutations) == ("exact", 16)


def test_equal_values_reach_two_of_two_to_the_n_flips():
    assert statistics.permutation_test(torch.full((10,), -0.1)).p.item() == 2 / 1024


def test_cells_of_zeros_have_p_one_and_do_not_disturb_the_others(vector):
    values = torch.stack([torch.zeros(8), torch.arange(1.0, 9)])
    found = statistics.permutation_test(values)
    assert_close(found.p, vector(1, 2 / 256))
    assert_close(found.corrected, vector(1, 2 / 256))


def test_the_exact_test_agrees_with_scipy():
    values = np.random.default_rng(0).normal(0.4, 1.0, size=(6, 9))
    found = statistics.permutation_test(torch.from_numpy(values))
    for row, p in zip(values, found.p.tolist(), strict=True):
        expected = stats.permutation_test((row,), np.mean, permutation_type="samples")
        assert_close(p, float(expected.pvalue))


def test_the_largest_t_over_cells_gives_the_corrected_p_by_hand(vector):
    values = torch.tensor([[1.0, 2.0, 3.0], [1.0, 1.5, -1.0]], dtype=torch.float64)
    flips = [[a, b, c] for a in (1, -1) for b in (1, -1) for c in (1, -1)]
    t = [
        [abs(stats.ttest_1samp(row * np.array(flip), 0)[0]) for row in values.numpy()]
        for flip in flips
    ]
    largest = np.array(t).max(1)
    expected = [(largest >= seen - 1e-9).mean() for seen in t[0]]
    assert_close(statistics.permutation_test(values).corrected, vector(*expected))


def test_sampled_flips_agree_with_exact_ones():
    values = torch.from_numpy(np.random.default_rng(0).normal(0.5, 1.0, size=(20, 12)))
    exact = statistics.permutation_test(values, permutations=4096)
    sampled = statistics.permutation_test(values, permutations=4000)
    assert (exact.method, sampled.method) == ("exact", "sampled")
    assert_close(sampled.p, exact.p, rtol=0, atol=0.03)
    assert_close(sampled.corrected, exact.corrected, rtol=0, atol=0.03)


def test_a_sampled_p_is_never_zero():
    found = statistics.permutation_test(torch.full((40,), 3.0), permutations=999)
    assert found.p.item() == 1 / 1000


def test_null_cells_are_called_at_the_stated_rate():
    values = torch.from_numpy(np.random.default_rng(0).normal(size=(4000, 16)))
    p = torch.cat(
        [
            statistics.permutation_test(block, permutations=999, seed=n).p
            for n, block in enumerate(values.split(40))
        ]
    )
    assert 0.04 <= (p <= 0.05).double().mean().item() <= 0.06


def test_a_family_of_270_null_cells_has_a_hit_at_the_stated_rate():
    generator = np.random.default_rng(0)
    hits = []
    for seed in range(500):
        shared = generator.normal(size=(1, 16))  # heads see the same prompts: correlated cells
        values = torch.from_numpy(0.5 * shared + generator.normal(size=(270, 16)))
        corrected = statistics.permutation_test(values, permutations=199, seed=seed).corrected
        hits.append(corrected.min().item() <= 0.05)
    assert 0.03 <= np.mean(hits) <= 0.07


def test_planted_effects_are_found_among_270_cells():
    values = np.random.default_rng(0).normal(size=(270, 32))
    values[[3, 100]] += 1.5
    values[200] -= 1.5
    corrected = statistics.permutation_test(torch.from_numpy(values)).corrected
    assert (corrected < 0.05).nonzero().flatten().tolist() == [3, 100, 200]


def test_groups_are_flipped_whole():
    values = torch.arange(1.0, 9)
    found = statistics.permutation_test(values, groups=["a", "a", "b", "b", "c", "c", "d", "d"])
    assert found.p.item() == 2 / 16


def test_corrected_is_never_below_alone():
    found = statistics.permutation_test(
        torch.from_numpy(np.random.default_rng(0).normal(size=(9, 20)))
    )
    assert (found.corrected >= found.p).all()


def test_benjamini_hochberg_by_hand_and_by_scipy():
    p = torch.tensor([[0.01, 0.04], [0.03, 0.5]], dtype=torch.float64)
    adjusted = statistics.benjamini_hochberg(p)
    third = 0.04 * 4 / 3
    assert_close(adjusted, torch.tensor([[0.04, third], [third, 0.5]], dtype=torch.float64))
    many = np.random.default_rng(0).random(50)
    expected = torch.from_numpy(stats.false_discovery_control(many))
    assert_close(statistics.benjamini_hochberg(torch.from_numpy(many)), expected)


def test_what_is_no_p_value_is_refused():
    with pytest.raises(ValueError, match=r"lie in \[0, 1\]"):
        statistics.benjamini_hochberg(torch.tensor([0.5, math.nan]))
