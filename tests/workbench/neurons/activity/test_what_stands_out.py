"""First tokens apart; neurons that are outlying there, and extreme elsewhere."""

import dataclasses

import torch

from workbench import neurons
from workbench.neurons.states import LayerState


def of_layer(seen, x):
    """`seen` with every layer as if `x` had flowed by, all else as it is."""
    lengths = torch.full((len(x),), x.shape[1])
    state = LayerState.begun(x[:8], lengths[:8], length=x.shape[1], k=4)
    state.add(x, lengths, 0, torch.arange(len(x)))
    top, bottom = state.top, state.bottom
    layers = len(seen.mean)
    return dataclasses.replace(
        seen, histogram=state.counts.expand(layers, -1, -1), reach=state.reach.expand(layers, -1),
        top=top.value.expand(layers, -1, -1), bottom=bottom.value.expand(layers, -1, -1),
        first_size=x[:, 0].double().square().mean(0).sqrt().expand(layers, -1),
        tokens=x[:, 1:, 0].numel(),
    )  # fmt: skip


def test_first_tokens_are_reported_apart(small, corpus, seen, everything):
    first = everything(small, corpus)[:, :, 0].double()
    torch.testing.assert_close(seen.first_mean, first.mean(1), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(seen.first_largest, first.abs().amax(1), rtol=1e-5, atol=1e-6)
    assert (seen.top_position != 0).all()


def test_what_is_ordinary_is_the_size_that_few_tokens_go_beyond(seen):
    drawn = torch.Generator().manual_seed(3)
    x = torch.randn(100, 41, seen.mean.shape[1], generator=drawn)
    found = of_layer(seen, x)
    sizes = x[:, 1:].abs().flatten(0, 1).sort(dim=0, descending=True).values
    assert (found.ordinary[0] >= sizes[4]).all()  # 4 of 4,000 may be larger
    assert (found.ordinary[0] <= sizes[4] + found.reach[0] / 32).all()
    few = of_layer(seen, x[:20])  # fewer than 1,000
    assert few.ordinary.equal(few.largest.double())


def test_one_other_token_that_is_taken_for_a_first_one_hides_nothing(seen):
    x = torch.randn(40, 51, seen.mean.shape[1], generator=torch.Generator().manual_seed(4))
    x[:, 0, 3], x[33, 1, 3] = 300.0, 290.0
    found = of_layer(seen, x)
    assert float(found.largest[1, 3]) == 290.0
    assert found.outlying_first == [(layer, 3) for layer in range(len(seen.mean))]
    few = of_layer(seen, x[30:40])  # too few to tell it from others
    assert few.outlying_first == []


def test_a_neuron_that_one_token_drives_far_beyond_all_others_is_extreme(seen):
    few = seen.top.clone()
    few[1, 3, 0] = 60 * seen.deviation[1, 3]
    found = dataclasses.replace(seen, top=few)
    assert seen.extreme == []
    assert found.extreme == [neurons.Neuron(1, 3)]
    assert (
        "1 reach 50 standard deviations at other tokens, most of all 1.3 (60)" in found.sentence()
    )
