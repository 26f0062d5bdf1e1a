"""Moments, histograms and what position explains, against all activations kept whole."""

import numpy as np
import pytest
import torch
from scipy import stats

from workbench import corpora, neurons
from workbench.neurons import moments, streaming
from workbench.neurons.states import LayerState


def test_moments_are_those_of_all_activations_at_once(small, corpus, seen, everything, real):
    x = real(corpus, everything(small, corpus))[0].double().numpy()
    assert seen.tokens == x.shape[1]
    for found, expected in (
        (seen.mean, x.mean(1)),
        (seen.deviation, x.std(1)),
        (seen.size, np.abs(x).mean(1)),
        (seen.skewness, stats.skew(x, axis=1)),
        (seen.kurtosis, stats.kurtosis(x, axis=1, fisher=False)),
        (seen.sparsity, 1 - np.abs(x).mean(1) ** 2 / (x**2).mean(1)),
    ):
        # The two passes over the model differ in rounding where its batches do.
        assert np.allclose(found.numpy(), expected, rtol=2e-5, atol=1e-6)


def test_moments_of_the_same_numbers_agree_to_nine_digits():
    x = 3 + torch.randn(13, 300, 6, generator=torch.Generator().manual_seed(0))
    lengths = torch.tensor([300, 300, 1, 7, 128, 128, 128, 2, 129, 256, 257, 24, 300])
    state = LayerState.begun(x, lengths, length=300, k=3)
    state.add(x, lengths, 0, torch.arange(13))
    kept = torch.cat([x[row, 1:n] for row, n in enumerate(lengths.tolist())]).double()
    torch.testing.assert_close(state.sums.powers[0], kept.abs().sum(0), rtol=1e-12, atol=0)
    for power in range(1, 5):
        torch.testing.assert_close(
            state.sums.powers[power], (kept**power).sum(0), rtol=1e-12, atol=0
        )
    for span, (start, end) in enumerate([(2**n, 2 ** (n + 1)) for n in range(9)]):
        inside = [x[row, start : min(n, end)] for row, n in enumerate(lengths.tolist())]
        expected = torch.cat(inside).double().sum(0)
        torch.testing.assert_close(state.sums.by_span[span], expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("mean", [0.0, 3.0, 100.0, -1000.0])
def test_moments_far_from_zero_agree_to_nine_digits_too(tiny, monkeypatch, mean):
    corpus = corpora.passages(tiny, length=16)
    drawn = torch.Generator().manual_seed(0)
    x = torch.randn(len(corpus), 16, tiny.cfg.d_mlp, generator=drawn).exp()
    x = x.double() + mean * x.std()

    def visit(model, batch, wanted, show):
        at = visit.row
        visit.row += len(batch)
        for site in wanted:
            show(site, x[at : visit.row, : batch.tokens.shape[1]])

    visit.row = 0
    monkeypatch.setattr(streaming, "visit", visit)
    seen = neurons.activity(tiny, corpus, k=1)
    inside = corpus.rows.mask.bool().clone()
    inside[:, 0] = False
    kept = x[:, : inside.shape[1]][inside].numpy()
    spans = np.floor(np.log2(inside.nonzero()[:, 1].numpy())).astype(int)
    means = np.stack([kept[spans == one].mean(0) for one in range(spans.max() + 1)])
    weight = np.array([(spans == one).mean() for one in range(spans.max() + 1)])
    between = (weight[:, None] * (means - kept.mean(0)) ** 2).sum(0)
    for found, expected in (
        (seen.mean, kept.mean(0)), (seen.deviation, kept.std(0)),
        (seen.skewness, stats.skew(kept)), (seen.kurtosis, stats.kurtosis(kept, fisher=False)),
        (seen.positional, between / kept.var(0)), (seen.by_span, means.T),
        (seen.size, np.abs(kept).mean(0)),
    ):  # fmt: skip
        assert np.allclose(found[0].numpy(), expected, rtol=1e-9, atol=0)


def test_what_is_always_the_same_has_no_spread_wherever_it_lies():
    x = torch.full((3, 5, 2), 0.1)
    usual = moments.usual(x, torch.tensor([5, 5, 2]))
    assert usual.tolist() == [float(torch.tensor(0.1))] * 2
    sums = moments.Sums.empty(2, 5, usual)
    sums.add(x, torch.tensor([5, 5, 2]))
    assert (sums.powers[1:] == 0).all()
    assert moments.usual(x, torch.tensor([1, 1, 1])).tolist() == [0, 0]


def test_histograms_count_every_activation_in_its_bin(small, corpus, seen, everything, real):
    x = real(corpus, everything(small, corpus))[0]
    for layer in range(x.shape[0]):
        for neuron in range(0, x.shape[2], 7):
            edges = seen.edges((layer, neuron)).double().numpy()
            place = np.searchsorted(edges, x[layer, :, neuron].double().numpy(), side="left") - 1
            expected = np.bincount(np.clip(place, 0, 63), minlength=64)
            found = seen.histogram[layer, neuron].numpy()
            assert abs(found - expected).sum() <= 2  # one activation rounds across an edge
    assert (seen.histogram.sum(-1) == seen.tokens).all()


def test_the_upper_half_of_a_histogram_is_what_is_above_zero_exactly():
    x = torch.tensor([0.0, -0.0, 1e-30, -1e-30, 5.0, -5.0, 0.25, 0.25]).reshape(1, 8, 1)
    state = LayerState.begun(torch.full((1, 2, 1), 0.25), torch.tensor([2]), length=9, k=2)
    state.add(torch.cat([x[:, :1], x], 1)[:, :9], torch.tensor([9]), 0, torch.arange(1))
    assert state.reach.tolist() == [1.0]
    assert int(state.counts[0, 32:].sum()) == 4
    edges = np.linspace(-1, 1, 65)
    assert int(state.counts[0, 39]) == 2
    assert edges[39] < 0.25 <= edges[40]  # a bin holds its upper edge
    assert int(state.counts[0, 63]) == int(state.counts[0, 0]) == 1  # what lies beyond the ends


def test_histograms_of_the_same_numbers_are_exact():
    x = torch.randn(7, 50, 200, generator=torch.Generator().manual_seed(2))
    lengths = torch.tensor([50, 50, 1, 17, 33, 2, 50])
    small = x.clamp(-0.7, 0.7)[:2]  # so that some lie beyond the ends
    state = LayerState.begun(small, lengths[:2], length=50, k=1)
    state.add(x, lengths, 0, torch.arange(7))
    kept = torch.cat([x[row, 1:n] for row, n in enumerate(lengths.tolist())]).double().numpy()
    edges = np.linspace(-1, 1, 65) * float(state.reach[0])
    place = np.clip(np.searchsorted(edges, kept, side="left") - 1, 0, 63)
    for neuron in range(200):
        expected = np.bincount(place[:, neuron], minlength=64)
        assert state.counts[neuron].tolist() == expected.tolist()


def test_what_position_explains_is_the_variance_between_its_spans(
    small, corpus, seen, everything, real
):
    x, _, positions = real(corpus, everything(small, corpus))
    x, span = x.double().numpy(), np.floor(np.log2(positions.numpy())).astype(int)
    there = range(span.max() + 1)
    means = np.stack([x[:, span == one].mean(1) for one in there], -1)
    weight = np.array([(span == one).mean() for one in there])
    between = (weight * (means - x.mean(1)[..., None]) ** 2).sum(-1)
    assert np.allclose(seen.by_span.numpy(), means, rtol=2e-5, atol=1e-6)
    assert np.allclose(seen.positional.numpy(), between / x.var(1), rtol=1e-3, atol=1e-5)
    assert seen.positional.max() > 0.05


def test_what_is_not_finite_is_an_error_that_names_the_layer():
    state = LayerState.begun(torch.ones(1, 2, 2), torch.tensor([2]), length=4, k=1, name="neuron 3")
    x = torch.zeros(1, 4, 2)
    x[0, 2, 1] = torch.nan
    with pytest.raises(FloatingPointError, match="neuron 3"):
        state.add(x, torch.tensor([4]), 0, torch.tensor([0]))
    x[0, 2, 1], x[0, 3, 0] = 0, torch.nan
    state.add(x, torch.tensor([3]), 0, torch.tensor([0]))  # padding may hold anything
