import math

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch.testing import assert_close

from workbench import probes
from workbench.probes.fitting import product
from workbench.probes.logistic import solve


@pytest.mark.parametrize("classes", [2, 3])
def test_every_fit_is_as_good_as_scipys_on_the_same_rows(noisy, reference, classes):
    examples = noisy(classes=classes)
    splits = probes.k_fold(examples, 3, seed=0)
    # Two classes as a softmax have half the weight in each of two rows: half the penalty.
    l2 = (1e-3, 1e-2, 1e-1, 1.0)
    fits = probes.fit_each(examples, splits, l2=l2)
    for layer, x in enumerate(examples.x):
        for fold, (train, test) in enumerate(splits):
            for place, strength in enumerate(l2):
                softmax = strength * (2 if classes == 2 else 1)
                loss, weight, bias = reference(x[train], examples.y[train], softmax)
                assert float(fits.loss[layer, fold, 0, place]) <= loss * (1 + 1e-6)
                assert float(fits.loss[layer, fold, 0, place]) >= loss * (1 - 1e-6)
                theirs = np.argmax(x[test].double().numpy() @ weight.T + bias, axis=1)
                ours = fits.probe(layer, fold=fold, l2=place).predict(x[test]).numpy()
                assert (ours == theirs).mean() > 0.995


@pytest.mark.parametrize("classes", [2, 4])
def test_each_fit_equals_scikit_learns(noisy, classes):
    examples = noisy(classes=classes)
    splits = probes.k_fold(examples, 3, seed=0)
    fits = probes.fit_each(examples, splits, l2=(1e-3, 1e-1))
    for layer, x in enumerate(examples.x):
        for fold, (train, test) in enumerate(splits):
            inside = x[train].double()
            mean, deviation = inside.mean(0), inside.std(0, correction=0)
            for place, l2 in enumerate(fits.l2):
                theirs = LogisticRegression(
                    C=1 / (l2 * int(train.sum())), tol=1e-10, max_iter=10000
                ).fit(((inside - mean) / deviation).numpy(), examples.y[train].numpy())
                chance = theirs.predict_proba(((inside - mean) / deviation).numpy())
                right = chance[np.arange(len(chance)), examples.y[train].numpy()]
                loss = -np.log(right).mean() + l2 / 2 * (theirs.coef_**2).sum()
                assert float(fits.loss[layer, fold, 0, place]) <= loss * (1 + 1e-4)
                guess = theirs.predict(((x[test].double() - mean) / deviation).numpy())
                ours = fits.probe(layer, fold=fold, l2=place).predict(x[test]).numpy()
                assert (ours == guess).mean() >= 0.995


@pytest.mark.parametrize("classes", [2, 3])
def test_the_fitted_probe_cannot_be_improved(noisy, classes):
    examples = noisy(layers=1, classes=classes)
    x, y = examples.x[0].double(), examples.y
    probe = probes.fit(x, y, l2=1e-2, tolerance=1e-9)
    deviation = x.std(0, correction=0)

    def objective(weight, bias):
        chance = (x @ weight.T + bias) if classes > 2 else None
        if classes == 2:
            score = (x @ weight.T + bias)[:, 0]
            loss = torch.nn.functional.softplus(torch.where(y == 1, -score, score)).mean()
        else:
            loss = torch.nn.functional.cross_entropy(chance, y)
        return loss + 1e-2 / 2 * (weight * deviation).square().sum()

    best = objective(probe.weight, probe.bias)
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        for size in (1e-4, 1e-2):
            weight = torch.randn(probe.weight.shape, generator=generator, dtype=torch.float64)
            bias = torch.randn(probe.bias.shape, generator=generator, dtype=torch.float64)
            assert objective(probe.weight + size * weight, probe.bias + size * bias) > best


def test_many_problems_at_once_are_each_what_they_are_alone(noisy):
    examples = noisy(layers=1)
    splits = probes.k_fold(examples, 4, seed=1)
    generator = torch.Generator().manual_seed(0)
    shuffled = torch.stack(
        [examples.y[torch.randperm(len(examples), generator=generator)] for _ in range(3)]
    )
    fits = probes.fit_each(examples, splits, l2=(1e-3, 1e-2, 1.0), label_sets=shuffled)
    for fold, (train, _) in enumerate(splits):
        for labels in range(3):
            alone = probes.fit(examples.x[0][train], shuffled[labels][train], l2=1e-2)
            together = fits.probe(0, fold=fold, labels=labels, l2=1)
            assert_close(together.weight, alone.weight, rtol=1e-3, atol=1e-5)


def test_a_rotation_of_white_data_rotates_the_probe(noisy):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(200, 8, generator=generator, dtype=torch.float64)
    x = x - x.mean(0)
    x = x @ torch.linalg.inv(torch.linalg.cholesky(x.T @ x / len(x)).T)
    y = (x[:, 0] + torch.randn(200, generator=generator) > 0).long()
    turn = torch.linalg.qr(torch.randn(8, 8, generator=generator, dtype=torch.float64))[0]
    plain, turned = (probes.fit(one, y, l2=1e-2, tolerance=1e-10) for one in (x, x @ turn))
    assert_close(turned.weight, plain.weight @ turn, rtol=1e-7, atol=1e-8)


def test_units_of_the_activations_do_not_matter(noisy):
    examples = noisy(layers=1)
    x = examples.x[0]
    scale = torch.logspace(-3, 3, x.shape[1])
    plain = probes.fit(x, examples.y)
    scaled = probes.fit(x * scale + 5 * scale, examples.y)
    assert_close(scaled.scores(x * scale + 5 * scale), plain.scores(x), rtol=1e-3, atol=1e-3)


def test_a_planted_direction_is_found():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4000, 20, generator=generator)
    direction = torch.randn(20, generator=generator)
    direction = direction / direction.norm()
    y = (x @ direction + 0.1 * torch.randn(4000, generator=generator) > 0).long()
    probe = probes.fit(x, y, l2=1e-3)
    assert float(probe.direction @ direction) > 0.99


def test_a_fit_that_does_not_get_there_says_so(noisy):
    examples = noisy(layers=1)
    splits = probes.k_fold(examples, 3, seed=0)
    problems = product(splits, examples.y[None], (1e-4,), 2)
    with pytest.raises(RuntimeError, match=r"stopped at a relative gradient .* asked for 1\.0e-10"):
        solve(examples.x[0], problems, tolerance=1e-10, most=2)


def test_no_regularisation_is_refused(noisy):
    examples = noisy(layers=1)
    with pytest.raises(ValueError, match="l2 is positive"):
        probes.fit(examples.x[0], examples.y, l2=0.0)


def test_a_constant_activation_and_a_rank_deficient_layer_are_no_trouble():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(30, 3, generator=generator) @ torch.randn(3, 50, generator=generator)
    x[:, 7] = 4.0
    y = (torch.arange(30) % 2).long()
    probe = probes.fit(x, y)
    assert probe.gradient <= 1e-6
    assert_close(probe.weight[0, 7], torch.tensor(0.0))


def test_labels_that_nothing_speaks_for_have_the_zero_probe():
    x = torch.eye(2).repeat(10, 1)
    y = torch.tensor([0, 0, 1, 1]).repeat(5)
    probe = probes.fit(x, y, l2=1e-3)
    assert_close(probe.weight, torch.zeros(1, 2), atol=1e-6, rtol=0)


def test_an_activation_that_hardly_varies_in_a_part_does_not_stop_the_fit():
    x = torch.randn(60, 8, generator=torch.Generator().manual_seed(0))
    x[:20, :4] *= 300  # nearly all of their variance lies outside the part
    examples = probes.examples(x, torch.arange(60) % 2)
    train = torch.arange(60)[None] >= 20
    fits = probes.fit_each(examples, probes.Splits(train, ~train, "by hand"), l2=(1e-4, 1e-2, 1.0))
    assert fits.gradient.max() <= 1e-6
    alone = probes.fit(x[20:], examples.y[20:], l2=1e-2)
    assert_close(fits.probe(0, l2=1).weight, alone.weight, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("method", ["leace", "mean"])
@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_where_only_rounding_speaks_for_the_labels_the_fit_is_the_zero_probe_and_says_so(
    method, offset
):
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(400) % 2
    x = torch.randn(400, 40, generator=generator) + offset
    x = x + y[:, None] * torch.randn(40, generator=generator)
    erased = probes.eraser(x, y, method=method, shrinkage=0.1)(x)
    assert bool((erased != erased[0]).any())
    problems = product(_whole(400), y[None], (1e-5, 1e-3), 2)
    found = solve(erased, problems)
    assert found.iterations == 0
    assert_close(found.loss, torch.full((2,), math.log(2)).double())
    probe = probes.fit(erased, y)
    assert not probe.weight.any() and probe.gradient == 0.0
    assert probe.kind.endswith("zero: nothing but rounding speaks for the labels")
    assert "zero" not in probes.fit(x, y).kind


def test_a_weak_sign_above_rounding_is_still_fitted_to_the_optimum(reference):
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(200) % 2
    x = torch.randn(200, 4, generator=generator)
    x = probes.leace(probes.moments(x, y))(x) + 1e-4 * y[:, None]
    probe = probes.fit(x, y, l2=1e-3, tolerance=1e-8)
    weight = reference(x, y, 2e-3)[1]  # in each of two rows
    assert_close(probe.weight[0].double(), torch.from_numpy(weight[1] - weight[0]), rtol=0.01,
                 atol=1e-6)  # fmt: skip


@pytest.mark.parametrize("l2", [1e-6, 1e-8])
@pytest.mark.parametrize("sign", [1e-5, 1.0])
def test_a_small_l2_beside_a_wide_spectrum_does_not_stall_the_fit(l2, sign):
    # Fewer examples than dimensions: a step in float32 would be rounding, uphill as often as not.
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(100) % 2
    spectrum = torch.logspace(0, -4, 300)[:, None]
    x = torch.randn(100, 300, generator=generator) @ (
        torch.randn(300, 300, generator=generator) * spectrum
    )
    x = probes.eraser(x, y, method="mean", shrinkage=0.1)(x)
    x = x + sign * y[:, None] * x.std(0) * torch.randn(300, generator=generator)
    found = solve(x, product(_whole(100), y[None], (l2,), 2), most=200)
    assert float(found.gradient) <= 1e-6


def _whole(count):
    train = torch.ones(1, count, dtype=torch.bool)
    return probes.Splits(train, train, "no split")
