"""Nothing that is counted depends on how the corpus was batched."""

from dataclasses import fields

import pytest
import torch

from workbench import neurons
from workbench.neurons.states import LayerState


@pytest.mark.parametrize("size", [1, 3, 100])
def test_nothing_depends_on_the_size_of_batches(size):
    drawn = torch.Generator().manual_seed(1)
    x = torch.randn(11, 300, 150, generator=drawn).mul(4).round().div(3)  # with ties
    lengths = torch.randint(1, 301, (11,), generator=drawn)
    lengths[5:8] = 40  # rows of one length are summed together
    document = torch.tensor([0, 0, 1, 2, 2, 2, 3, 4, 5, 5, 6])

    def run(step):
        state = LayerState.begun(x[:2, : lengths[:2].max()], lengths[:2], length=300, k=5)
        for at in range(0, 11, step):
            rows = slice(at, at + step)
            width = int(lengths[rows].max())  # a batch is as wide as its longest row
            state.add(x[rows, :width], lengths[rows], at, document[rows])
        return state

    one, other = run(2), run(size)
    assert one.sums.powers.equal(other.sums.powers)
    assert one.sums.by_span.equal(other.sums.by_span)
    assert one.sums.first.equal(other.sums.first)
    assert one.counts.equal(other.counts)
    for end in ("top", "bottom"):
        for here, there in zip(getattr(one, end), getattr(other, end), strict=True):
            assert here.equal(there)


def test_the_whole_result_is_the_same_for_any_batch_size(small, corpus, seen):
    other = neurons.activity(small, corpus, k=4, batch_size=17)
    assert seen.histogram.sum() == other.histogram.sum()
    for one in fields(seen):
        value = getattr(seen, one.name)
        if isinstance(value, torch.Tensor) and value.is_floating_point():
            torch.testing.assert_close(value, getattr(other, one.name), equal_nan=True)
