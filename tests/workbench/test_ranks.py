import pytest
import torch
from scipy import stats

from workbench.statistics import auroc, rank_correlation


def test_the_area_is_the_share_of_pairs_in_order_ties_counting_half():
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        scores = torch.randint(4, (12,), generator=generator).float()
        inside = torch.rand(12, generator=generator) < 0.4
        inside[:2] = torch.tensor([True, False])
        won = [
            float(one > other) + 0.5 * float(one == other)
            for one in scores[inside]
            for other in scores[~inside]
        ]
        assert auroc(scores, inside) == pytest.approx(sum(won) / len(won))


def test_constant_scores_have_no_order():
    assert auroc(torch.ones(5), torch.tensor([True, False, False, True, False])) == 0.5


def test_an_order_needs_members_and_others():
    with pytest.raises(ValueError, match="2 members of 2: an order"):
        auroc(torch.ones(2), torch.tensor([True, True]))
    with pytest.raises(ValueError, match="NaN has no place in an order"):
        auroc(torch.tensor([1.0, torch.nan]), torch.tensor([True, False]))


def test_rank_correlation_is_that_of_scipy():
    generator = torch.Generator().manual_seed(0)
    for _ in range(10):
        one, other = torch.randint(6, (2, 15), generator=generator).float()
        expected = stats.spearmanr(one.numpy(), other.numpy()).statistic
        assert rank_correlation(one, other) == pytest.approx(float(expected))


def test_what_is_constant_correlates_with_nothing():
    assert torch.tensor(rank_correlation(torch.ones(3), torch.arange(3))).isnan()
    with pytest.raises(ValueError, match="give two or more of each"):
        rank_correlation(torch.ones(1), torch.ones(1))
