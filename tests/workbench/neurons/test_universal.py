"""Counterparts in another model, against correlations by numpy and a rotation of our own."""

import dataclasses

import numpy as np
import pytest
import torch

from workbench import corpora, neurons
from workbench.statistics import derive

SEED = 3


@pytest.fixture(scope="module")
def text(tiny):
    return corpora.passages(tiny, length=16, most_tokens=300)


@pytest.fixture(scope="module")
def both(tiny, tiny_gqa, text, everything):
    """(layer, token, neuron) of two models, without rows' first tokens."""
    inside = text.rows.mask.bool().clone()
    inside[:, 0] = False
    return [everything(model, text)[:, inside].double().numpy() for model in (tiny, tiny_gqa)]


@pytest.fixture(scope="module")
def found(tiny, tiny_gqa, text):
    return neurons.universal(tiny, tiny_gqa, text, seed=SEED)


def correlations(one, other):
    """Of each neuron of one layer with each of another."""
    width = one.shape[1]
    return np.corrcoef(one.T, other.T)[:width, width:]


def test_the_best_correlation_and_whose_it_is_are_those_of_numpy(both, found):
    mine, theirs = both
    for layer in range(2):
        size = np.abs([correlations(mine[layer], other) for other in theirs])
        assert np.allclose(found.correlation[layer].numpy(), size.max((0, 2)), atol=1e-4)
        for neuron, (where, number) in enumerate(found.match[layer].tolist()):
            assert size[where, neuron, number] == pytest.approx(size[:, neuron].max(), abs=1e-4)


def test_the_baseline_is_the_best_correlation_with_the_others_layers_rotated(both, found):
    mine, theirs = both
    turned = []
    for layer, other in enumerate(theirs):
        normal = torch.randn(64, 64, generator=derive(SEED, "rotation", str(layer)))
        basis = np.linalg.qr(normal.numpy().astype(float)).Q
        turned.append((other - other.mean(0)) / other.std(0) @ basis)
    for layer in range(2):
        size = np.abs([correlations(mine[layer], other) for other in turned])
        assert np.allclose(found.baseline[layer].numpy(), size.max((0, 2)), atol=1e-4)
    torch.testing.assert_close(found.excess, found.correlation - found.baseline)


def test_a_rotation_takes_away_that_a_model_is_its_own_counterpart(tiny, text):
    same = neurons.universal(tiny, tiny, text, seed=SEED)
    torch.testing.assert_close(same.correlation, torch.ones(2, 64), atol=1e-4, rtol=0)
    assert float(same.baseline.max()) < 0.95
    assert not same.baseline.equal(neurons.universal(tiny, tiny, text, seed=4).baseline)


def test_neurons_are_universal_that_are_more_than_half_above_the_baseline(found):
    excess = torch.zeros(1, 64)
    excess[0, [2, 7, 9]] = torch.tensor([0.75, 0.875, 0.5])
    part = dataclasses.replace(
        found, correlation=excess + 0.125, baseline=torch.full((1, 64), 0.125),
        match=found.match[1:], layers=[1],
    )  # fmt: skip
    assert part.universal == [(1, 7), (1, 2)]
    assert part.headline()["universal"] == 2 / 64
