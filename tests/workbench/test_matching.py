import pytest
import torch
from torch.testing import assert_close

from workbench import statistics


def test_rows_that_go_with_their_own_columns_have_the_smallest_p():
    scores = torch.stack([torch.eye(8), torch.eye(8).roll(1, 0), torch.ones(8, 8)]).double()
    found = statistics.matching_test(scores, permutations=999)
    assert found.p[0] == found.corrected[0] == 1 / 1000
    assert found.corrected[1] > 0.5
    assert found.corrected[2] == 1.0  # a column that all rows like says nothing


def test_all_orders_of_three_are_met_as_often_as_they_should_be():
    found = statistics.matching_test(torch.eye(3).double()[None], permutations=20_000)
    assert_close(found.p, torch.tensor([1 / 6]).double(), rtol=0.05, atol=0.0)


def test_columns_stay_in_their_group():
    # Within groups of one there is nothing to shuffle.
    found = statistics.matching_test(torch.eye(4).double()[None], groups=[0, 1, 2, 3])
    assert found.p == 1.0


def test_it_errs_as_often_as_it_should():
    generator = torch.Generator().manual_seed(0)
    wrong = 0
    for at in range(200):
        scores = torch.rand(5, 12, 12, generator=generator, dtype=torch.double) ** 3
        p = statistics.matching_test(scores, seed=at, permutations=399).corrected
        wrong += bool((p <= 0.05).any())
    assert 2 <= wrong <= 20  # of 200 at 5 %: outside with a chance of 0.3 %


def test_scores_that_are_not_square_are_refused():
    with pytest.raises(ValueError, match="rows and columns are the same"):
        statistics.matching_test(torch.zeros(2, 3, 4).double())
