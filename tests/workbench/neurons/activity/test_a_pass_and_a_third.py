"""Statistics and traces in one pass and a third are those of two passes."""

from dataclasses import fields

import pytest
import torch
from torch.testing import assert_close

from workbench import neurons


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_statistics_and_traces_are_those_of_passes_of_their_own(small, corpus, size):
    seen, traced = neurons.activity_and_traces(small, corpus, n=7, batch_size=size)
    alone = neurons.activity(small, corpus, batch_size=size)
    for one in fields(alone):
        if isinstance(getattr(alone, one.name), torch.Tensor):
            assert_close(getattr(seen, one.name), getattr(alone, one.name), rtol=0, atol=0,
                         equal_nan=True)  # fmt: skip
    again = neurons.traces(small, corpus, traced.neurons)
    assert_close(traced.value, again.value)
    for name in ("token", "before", "after", "row", "position", "document"):
        assert getattr(traced, name).equal(getattr(again, name))
    assert traced.corpus == corpus.digest


def test_neurons_are_chosen_by_the_first_third_of_the_rows(small, corpus):
    _, traced = neurons.activity_and_traces(small, corpus, n=7, batch_size=2)
    third = 8
    while third < len(corpus) / 3:
        third += 2
    assert third < len(corpus)  # else nothing would be saved
    assert traced.neurons == neurons.activity(small, corpus.chosen(range(third))).sparsest(7)
