"""Each batched fit is what another library gives on the same rows."""

import numpy as np
import pytest
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import Ridge
from torch.testing import assert_close
from transformer_lens.tools.analysis import fit_sparse_probe

from workbench import probes


def _generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("classes", [2, 3])
def test_every_ridge_of_layer_and_fold_is_scikit_learns(noisy, classes):
    examples = noisy(layers=2, classes=classes)
    splits = probes.k_fold(examples, 3, seed=0)
    fits = probes.fit_formula(examples, splits, formula="ridge", l2=(1e-2, 1.0))
    for layer, x in enumerate(examples.x.double().numpy()):
        for fold, (train, test) in enumerate(splits):
            inside, hot = x[train], np.eye(classes)[examples.y[train]]
            mean, deviation = inside.mean(axis=0), inside.std(axis=0)
            for place, l2 in enumerate(fits.l2):
                theirs = Ridge(alpha=l2 * len(inside)).fit((inside - mean) / deviation, hot)
                wanted = theirs.predict((x[test] - mean) / deviation)
                wanted = wanted[:, 1:] - 0.5 if classes == 2 else wanted
                probe = fits.probe(layer, fold=fold, l2=place)
                found = probe.scores(examples.x[layer, test])
                assert_close(found, torch.from_numpy(wanted).float(), rtol=1e-4, atol=1e-4)


def test_ridges_on_numbers_of_every_layer_and_fold_are_scikit_learns():
    generator = _generator()
    x = torch.randn(2, 60, 8, generator=generator)
    number = x[1] @ torch.randn(8, generator=generator) + torch.randn(60, generator=generator)
    examples = probes.examples(x, number)
    splits = probes.k_fold(examples, 3, seed=0)
    fits = probes.fit_formula(examples, splits, formula="ridge", l2=(1e-2, 1.0))
    scores = probes.held_out_scores(fits, examples, splits)[:, 0, ..., 0]
    for layer, one in enumerate(x.double().numpy()):
        for train, test in splits:
            mean, deviation = one[train].mean(axis=0), one[train].std(axis=0)
            for place, l2 in enumerate(fits.l2):
                theirs = Ridge(alpha=l2 * int(train.sum()))
                theirs.fit((one[train] - mean) / deviation, number[train])
                wanted = torch.from_numpy(theirs.predict((one[test] - mean) / deviation)).float()
                assert_close(scores[layer, place, test], wanted, rtol=1e-4, atol=1e-4)
    # A layer without a sign of the number is no better than its mean.
    assert (
        probes.explained(scores[0, 0], number) < 0.1 < 0.7 < probes.explained(scores[1, 0], number)
    )


@pytest.mark.parametrize("classes", [2, 3])
def test_every_discriminant_of_layer_and_fold_is_scikit_learns(noisy, classes):
    examples = noisy(layers=2, classes=classes)
    splits = probes.k_fold(examples, 3, seed=0)
    fits = probes.fit_formula(examples, splits, formula="lda")
    for layer, x in enumerate(examples.x.double().numpy()):
        for fold, (train, test) in enumerate(splits):
            theirs = LinearDiscriminantAnalysis(solver="lsqr").fit(x[train], examples.y[train])
            wanted = theirs.decision_function(x[test]).reshape(int(test.sum()), -1)
            found = fits.probe(layer, fold=fold).scores(examples.x[layer, test])
            assert_close(found, torch.from_numpy(wanted).float(), rtol=1e-3, atol=1e-3)
            shares = theirs.predict_proba(x[test])
            ours = fits.probe(layer, fold=fold).log_probabilities(examples.x[layer, test]).exp()
            assert_close(ours, torch.from_numpy(shares).float(), rtol=1e-3, atol=1e-4)


def test_the_chosen_neurons_and_their_probe_are_those_of_transformer_lens():
    generator = _generator()
    y = torch.arange(120) % 2
    x = torch.randn(120, 20, generator=generator, dtype=torch.float64)
    x[:, [3, 7, 11]] += torch.tensor([1.5, 1.0, 0.8]) * y[:, None]
    options = {
        "k": 3, "preprocess": "standardize", "std_floor": 0, "class_weight": None,
        "l2_strength": 1e-2,
    }  # fmt: skip
    learned = fit_sparse_probe(x, y, **options).train_indices
    x = x / x[learned].std(dim=0, correction=0)  # theirs are chosen by the difference of means
    theirs = fit_sparse_probe(x, y, **options)
    train = torch.zeros(1, 120, dtype=torch.bool)
    train[0, learned] = True
    splits = probes.Splits(train, ~train, "theirs")
    found = probes.fit_sparse(probes.examples(x, y), splits, k=3, l2=1e-2)
    assert found.neurons[0, 0].tolist() == theirs.selected_features.tolist()
    weight = found.probes[0][0].weight[0, theirs.selected_features]
    assert_close(weight * theirs.preprocess_scale, theirs.coefficients, rtol=1e-4, atol=1e-6)
    assert found.accuracy[0, 0] == pytest.approx(theirs.metrics.accuracy)
