"""What is judged is never learned from, nor chosen by: by fits, and by what chooses for them."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from workbench import probes


def _generator(seed=0):
    return torch.Generator().manual_seed(seed)


def _paired(noisy):
    """Sixty groups of two examples, and a split by hand that judges one of a pair."""
    examples = noisy(layers=1)
    pairs = torch.arange(120) // 2
    train = torch.ones(1, 120, dtype=torch.bool)
    train[0, 31] = False
    given = probes.examples(examples.x, examples.y, groups=pairs, types=pairs)
    return given, probes.Splits(train, ~train, "by hand")


FITS = {
    "logistic": probes.fit_each,
    "ridge": lambda e, s: probes.fit_formula(e, s, formula="ridge"),
    "lda": lambda e, s: probes.fit_formula(e, s, formula="lda"),
    "networks": lambda e, s: probes.fit_networks(e, s, generator=_generator(), steps=2),
    "sparse": lambda e, s: probes.fit_sparse(e, s, k=2),
    "nested": lambda e, s: probes.nested(
        e, probes.Splits(torch.cat([s.train, ~s.train]), torch.cat([s.test, ~s.test]), s.how),
        l2=(1e-2,), seed=0,
    ),
    "information": probes.usable_information,
    "random directions": lambda e, s: probes.random_directions(
        e, s, count=2, generator=_generator()
    ),
    "learning curve": lambda e, s: probes.learning_curve(
        e, s, sizes=(119,), generator=_generator()
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", FITS)
def test_every_fit_refuses_a_split_that_leaks_with_its_group_and_rows(noisy, kind):
    examples, splits = _paired(noisy)
    with pytest.raises(
        ValueError,
        match=r"group 15 is on both sides \(example 31 is judged by a probe that learned from "
        r"example 30\)",
    ):
        FITS[kind](examples, splits)


def test_scores_are_refused_to_splits_that_leak_that_overlap_or_that_are_others(noisy):
    examples, leaking = _paired(noisy)
    splits = probes.k_fold(examples, 3, seed=0)
    fits = probes.fit_each(examples, splits, l2=(1e-2,))
    with pytest.raises(ValueError, match="group 15 is on both sides"):
        probes.held_out_scores(fits, examples, leaking)
    with pytest.raises(ValueError, match="1 layers and 3 folds for 1 layers and 4 folds"):
        probes.held_out_scores(fits, examples, probes.k_fold(examples, 4, seed=0))
    two = [splits, probes.k_fold(examples, 3, seed=1)]
    twice = probes.Splits(*(torch.cat([getattr(o, s) for o in two]) for s in ("train", "test")), "")
    with pytest.raises(ValueError, match="is judged in 2 folds"):
        probes.held_out_scores(probes.fit_each(examples, twice, l2=(1e-2,)), examples, twice)


def test_a_label_set_without_a_class_in_a_training_part_is_refused_by_its_row(noisy):
    examples = noisy(layers=1)
    splits = probes.k_fold(examples, 3, seed=0)
    rare = torch.zeros(120, dtype=torch.long)
    rare[splits.test[1].nonzero()[0]] = 1
    sets = torch.stack([examples.y, rare])
    message = r"fold 1: label set 1, class 1 \(first in example \d+\) is not in the training part"
    for fitted in (
        lambda: probes.fit_each(examples, splits, label_sets=sets),
        lambda: probes.nested(examples, splits, l2=(1e-2,), seed=0, label_sets=sets),
        lambda: probes.fit_networks(
            examples, splits, generator=_generator(), label_sets=sets, steps=2
        ),
    ):
        with pytest.raises(ValueError, match=message):
            fitted()


def test_standardisation_of_a_network_is_learned_on_the_training_part_alone(noisy):
    examples = noisy(layers=1)
    splits = probes.k_fold(examples, 3, seed=0)
    x = examples.x.clone()
    x[:, splits.test[0]] = 1000 * x[:, splits.test[0]] + 77
    one, other = (
        probes.fit_networks(e, splits, generator=_generator(), hidden=4, steps=20)[0][0][0]
        for e in (examples, examples.seen_as(x))
    )
    assert_close(one.mean, examples.x[0, splits.train[0]].mean(0))
    assert_close(one.deviation, examples.x[0, splits.train[0]].std(0, correction=0))
    for name in ("mean", "deviation", "inner", "outer", "outer_bias"):
        assert_close(getattr(other, name), getattr(one, name))


@pytest.mark.slow
def test_the_best_layer_of_noise_is_worth_a_half_when_chosen_in_training_and_not_when_by_the_test():
    chosen, best = [], []
    for seed in range(4):
        x = torch.randn(12, 80, 8, generator=_generator(seed))
        found = probes.study(
            probes.examples(x, torch.arange(80) % 2), task="noise", folds=4, l2=(1e-1,),
            repeats=1, shuffles=1, seed=seed,
        )  # fmt: skip
        chosen.append(found.chosen)
        best.append(float(found.accuracy.max()))
    # 320 answers: 0.05 is 1.8 standard errors; the best of twelve layers is 1.6 above the mean.
    assert np.mean(chosen) == pytest.approx(0.5, abs=0.05)
    assert np.mean(best) > 0.55


def test_the_best_strength_on_noise_is_worth_a_half_when_chosen_in_training_and_not_by_the_test():
    chosen, best = [], []
    grid = tuple(10.0**power for power in range(-3, 3))
    y = torch.arange(60) % 2
    for seed in range(8):
        examples = probes.examples(torch.randn(60, 30, generator=_generator(seed)), y)
        splits = probes.k_fold(examples, 10, seed=seed)
        nested = probes.nested(examples, splits, l2=grid, seed=seed).scores[0, 0, :, 0]
        chosen.append(float(((nested > 0) == (y == 1)).double().mean()))
        fits = probes.fit_each(examples, splits, l2=grid)
        each = (probes.held_out_scores(fits, examples, splits)[0, 0, :, :, 0] > 0) == (y == 1)
        by_fold = torch.stack([each[:, test].double().mean(dim=1).max() for test in splits.test])
        best.append(float(by_fold.mean()))
    assert np.mean(chosen) == pytest.approx(0.5, abs=0.05)
    assert np.mean(best) > 0.55
