"""Bounds of shares."""

import numpy as np
import pytest
import torch
from scipy import stats
from torch.testing import assert_close

from workbench import statistics


@pytest.mark.parametrize("hits", [0, 1, 9, 15, 16])
def test_the_bounds_of_a_share_are_clopper_and_pearsons(hits, vector):
    found = statistics.proportion(torch.tensor([True] * hits + [False] * (16 - hits)))
    expected = stats.binomtest(hits, 16).proportion_ci(method="exact")
    assert_close(vector(found.low, found.high), vector(expected.low, expected.high))
    assert found.value == hits / 16 and found.n == 16


def test_an_accuracy_handed_to_estimate_is_read_as_a_share():
    perfect = torch.ones(16)
    assert statistics.estimate(perfect) == statistics.proportion(perfect)
    assert statistics.estimate(perfect).low < 0.8
    assert statistics.estimate(torch.zeros(16) > 1) == statistics.proportion(torch.zeros(16))


def test_shares_cover_with_and_without_groups(coverage):
    generator = np.random.default_rng(0)
    alone = generator.random((1000, 20)) < 0.8
    assert 0.95 <= coverage(alone, 0.8) <= 0.99
    chance = generator.beta(4, 1, size=(1000, 12, 1))
    grouped = (generator.random((1000, 12, 6)) < chance).reshape(1000, 72)
    groups = [group for group in range(12) for _ in range(6)]
    assert 0.93 <= coverage(grouped, 0.8, groups) <= 0.985
    assert coverage(grouped, 0.8) < 0.9


def test_groups_that_agree_count_once():
    answers = torch.tensor([1.0, 1.0, 1.0, 1.0, 0.0, 0.0])
    found = statistics.proportion(torch.ones(6), groups=["a", "a", "b", "b", "c", "c"])
    assert_close(found.low, 0.025 ** (1 / 3))  # 3 of 3, by hand
    assert found.n == 3
    grouped = statistics.proportion(answers, groups=[0, 0, 1, 1, 2, 2])
    assert grouped.low < statistics.proportion(answers).low


def test_a_share_of_other_values_is_refused(vector):
    with pytest.raises(ValueError, match=r"found 0\.5"):
        statistics.proportion(vector(0, 1, 0.5))
