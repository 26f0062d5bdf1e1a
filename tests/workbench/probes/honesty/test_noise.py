"""Noise is not taken for knowledge: splits, groups, controls."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from hooks import Prompts
from workbench import probes


def _generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_neurons_chosen_before_the_split_make_a_finding_of_noise_and_after_it_do_not():
    generator = _generator()
    nested, before = [], []
    for seed in range(6):
        x, y = torch.randn(100, 5000, generator=generator), torch.arange(100) % 2
        examples = probes.examples(x, y)
        splits = probes.k_fold(examples, 5, seed=seed)
        nested.append(float(probes.fit_sparse(examples, splits, k=10, l2=0.1).accuracy.mean()))
        chosen = probes.strongest_neurons(x, y, 10)
        small = probes.examples(x[:, chosen], y)
        before.append(float(probes.fit_sparse(small, splits, k=10, l2=0.1).accuracy.mean()))
    assert np.mean(before) == pytest.approx(0.82, abs=0.06)
    assert np.mean(nested) == pytest.approx(0.50, abs=0.06)


def test_standardisation_is_learned_on_the_training_part_alone(noisy):
    examples = noisy(layers=1)
    splits = probes.k_fold(examples, 3, seed=0)
    x = examples.x.clone()
    x[:, splits.test[0]] *= 1000  # what is judged must not reach the probe
    plain = probes.fit_each(examples, splits, l2=(1e-2,)).probe(0, fold=0)
    other = probes.fit_each(examples.seen_as(x), splits, l2=(1e-2,)).probe(0, fold=0)
    assert_close(other.weight, plain.weight, rtol=1e-3, atol=1e-4)


def test_regularisation_is_chosen_without_the_labels_that_are_judged(noisy):
    examples = noisy(layers=1)
    splits = probes.k_fold(examples, 3, seed=0)
    spoilt = examples.y.clone()
    spoilt[splits.test[0]] = 1 - spoilt[splits.test[0]]
    grid = (1e-4, 1e-2, 1.0)
    one, other = (
        probes.nested(examples.labelled(y), splits, l2=grid, seed=0) for y in (examples.y, spoilt)
    )
    assert one.l2[0, 0, 0] == other.l2[0, 0, 0]
    judged = splits.test[0]
    assert_close(one.scores[0, 0, judged], other.scores[0, 0, judged])


def test_shuffled_labels_are_within_two_errors_of_chance_in_nineteen_of_twenty_runs():
    # One held-out half a run: answers of several folds share their probes and vary more.
    generator, inside = _generator(), []
    x, y = torch.randn(400, 10, generator=generator), torch.arange(400) % 2
    examples = probes.examples(x, y)
    splits = probes.k_fold(examples, 2, seed=0)
    shuffled = probes.shuffled_labels(examples, count=200, generator=generator)
    fits = probes.fit_each(examples, splits, l2=(1e-1,), label_sets=shuffled)
    found = probes.held_out_scores(fits, examples, splits)[0, :, 0, :, 0]
    test = splits.test[0]
    rates = ((found > 0) == (shuffled == 1))[:, test].double().mean(dim=1)
    share = shuffled[:, test].double().mean(dim=1)
    chance = (found[:, test] > 0).double().mean(dim=1)
    expected = share * chance + (1 - share) * (1 - chance)
    inside = (rates - expected).abs() <= 2 * (0.25 / int(test.sum())) ** 0.5
    assert inside.double().mean() >= 0.95


def test_a_group_on_both_sides_is_refused_by_its_example(noisy):
    examples = noisy(layers=1)
    same = probes.examples(examples.x, examples.y, groups=torch.arange(120) // 2)
    train = torch.ones(1, 120, dtype=torch.bool)
    train[0, 31] = False
    with pytest.raises(ValueError, match=r"group 15 is on both sides \(example 31"):
        probes.splits.checked(same, probes.Splits(train, ~train, "by hand"))


def test_folds_keep_groups_whole_and_classes_even():
    generator = _generator()
    groups = torch.randint(30, (300,), generator=generator)
    y = torch.randint(3, (300,), generator=generator)
    examples = probes.examples(torch.randn(300, 2, generator=generator), y, groups=groups)
    splits = probes.k_fold(examples, 5, seed=0)
    assert splits.test.sum(dim=0).eq(1).all()
    for train, test in splits:
        assert not set(groups[train].tolist()) & set(groups[test].tolist())
        share = y[test].bincount(minlength=3) / test.sum()
        assert (share - y.bincount() / 300).abs().max() < 0.12


def test_a_held_out_template_is_never_learned_from():
    y, groups = torch.arange(12) % 2, torch.arange(12) // 4
    examples = probes.examples(torch.randn(12, 2, generator=_generator()), y, groups=groups)
    splits = probes.held_out(examples)
    assert [sorted(groups[test].unique().tolist()) for test in splits.test] == [[0], [1], [2]]
    with pytest.raises(ValueError, match="there is no group 7"):
        probes.held_out(examples, [7])


def test_a_repeated_prompt_makes_noise_look_like_knowledge_unless_it_is_grouped():
    generator = _generator()
    x, y = torch.randn(60, 100, generator=generator), torch.randint(2, (60,), generator=generator)
    twice, again = x.repeat(2, 1), y.repeat(2)
    kept = torch.arange(60).repeat(2)
    rates = []
    for groups in (None, kept):
        examples = probes.examples(twice, again, groups=groups)
        splits = probes.k_fold(examples, 5, seed=0)
        found = probes.nested(examples, splits, l2=(1e-3,), seed=0).scores[0, 0, :, 0]
        rates.append(float(((found > 0) == (again == 1)).double().mean()))
    assert rates[0] > 0.8
    assert rates[1] < 0.65


def test_a_label_that_stands_in_the_position_is_called_no_finding(tiny):
    tokens = torch.randint(5, 200, (60, 6), generator=_generator())
    y = torch.arange(60) % 2
    examples = probes.features(tiny, Prompts.of(tokens), y, positions=2 + 2 * y)
    found = probes.study(examples, task="parity", l2=(1e-2,), repeats=1, shuffles=19)
    assert found.baselines == ["position alone"]
    assert found.baseline.min() == 1.0
    assert "position alone (100.0%): no claim about the model" in found.sentence()


def test_a_control_task_is_memorised_by_a_network_but_not_by_a_line_in_few_dimensions():
    # 60 types in 8 dimensions: a line cannot carry 60 random labels, a wide network can.
    generator = _generator()
    types = torch.arange(600) % 60
    homes = torch.randn(60, 8, generator=generator)
    x = homes[types] + 0.05 * torch.randn(600, 8, generator=generator)
    task = (homes[:, 0] > 0).long()[types]
    examples = probes.examples(x, task, types=types)
    control = probes.control_labels(examples, count=1, generator=generator)
    assert all(len(control[0][types == one].unique()) == 1 for one in range(60))
    assert probes.control_ceiling(examples, probes.k_fold(examples, 2, seed=0)) == 1.0
    splits = probes.k_fold(examples, 2, seed=0)
    sets = torch.cat([task[None], control])
    test = splits.test[0]
    linear = probes.fit_each(examples, splits, l2=(1e-3,), label_sets=sets)
    networks = probes.fit_networks(
        examples, splits, generator=generator, hidden=64, l2=1e-4, label_sets=sets, steps=400
    )[0][0]
    line = [linear.probe(0, labels=n).predict(x[test]) == sets[n][test] for n in (0, 1)]
    net = [networks[n].predict(x[test]) == sets[n][test] for n in (0, 1)]
    line, net = ([float(one.double().mean()) for one in each] for each in (line, net))
    assert net[1] > 0.95 > line[1] + 0.1
    assert line[0] - line[1] > net[0] - net[1] + 0.1  # selectivity: the line's is larger


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda x, y: (x, y[:-1].tolist()), r"11 y for 12 examples.* row 11"),
        (lambda x, y: (x, y * 0), "only class 0 among"),
        (lambda x, y: (x, y * 2), "there is no 1, and example 1 has 2"),
        (lambda x, y: (x.index_fill(0, torch.tensor(5), torch.nan), y), "example 5"),
    ],
)
def test_what_cannot_be_fitted_is_refused_by_its_row(spoil, message):
    x, y = spoil(torch.randn(12, 3, generator=_generator()), torch.arange(12) % 2)
    with pytest.raises(ValueError, match=message):
        probes.k_fold(probes.examples(x, y), 3, seed=0)


def test_more_folds_than_groups_are_refused():
    x, y = torch.randn(12, 3, generator=_generator()), torch.arange(12) % 2
    examples = probes.examples(x, y, groups=torch.arange(12) // 4)
    with pytest.raises(ValueError, match="3 groups among 12 examples for 5 folds"):
        probes.k_fold(examples, 5, seed=0)
    rare = probes.examples(x, torch.tensor([1] + [0] * 11))
    with pytest.raises(ValueError, match=r"class 1 \(first in example 0\) is not in the training"):
        probes.k_fold(rare, 3, seed=0)
