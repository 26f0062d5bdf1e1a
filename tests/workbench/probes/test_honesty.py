import itertools

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from hooks import Prompts
from workbench import models, plots, probes, results
from workbench.probes import scores


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


def _labelled(noise, *, count=2000, classes=3, width=16):
    generator = _generator()
    y = torch.randint(classes, (count,), generator=generator)
    centres = 4 * torch.randn(classes, width, generator=generator)
    x = centres[y] + 0.3 * torch.randn(count, width, generator=generator)
    flipped = torch.rand(count, generator=generator) < noise
    y = torch.where(flipped, torch.randint(classes, (count,), generator=generator), y)
    return probes.examples(x, y)


def test_the_online_code_is_shorter_the_less_noise_there_is_in_the_labels():
    short = [
        float(probes.online_code(_labelled(noise), generator=_generator()).compression[0, 0])
        for noise in (0.0, 0.1, 0.3, 0.6)
    ]
    assert short[0] >= 30
    assert all(one > other for one, other in itertools.pairwise(short))


def test_the_online_code_never_makes_shuffled_labels_shorter():
    examples = _labelled(0.0)
    shuffled = probes.shuffled_labels(examples, count=3, generator=_generator())
    for l2 in (1.0, 0.1, 0.01):
        code = probes.online_code(examples, generator=_generator(), label_sets=shuffled, l2=(l2,))
        assert ((code.bits / code.uniform >= 0.99) & (code.bits / code.uniform <= 1.2)).all()


@pytest.mark.slow
def test_the_variational_code_orders_labels_as_the_online_code_does():
    bits = []
    for noise in (0.0, 0.3):
        examples = _labelled(noise, count=600)
        code = probes.variational_code(examples, generator=_generator(), steps=600)
        bits.append(float(code.compression[0, 0]))
    shuffled = probes.shuffled_labels(examples, count=1, generator=_generator())
    code = probes.variational_code(examples, generator=_generator(), label_sets=shuffled, steps=600)
    assert bits[0] > bits[1] > 1.2
    assert float(code.compression[0, 0]) < 1.1


def test_usable_information_is_what_a_clean_label_holds_and_noise_does_not():
    examples = _labelled(0.0, count=600, classes=2)
    splits = probes.k_fold(examples, 4, seed=0)
    assert float(probes.usable_information(examples, splits, l2=1e-3).mean()) > 0.95
    noise = examples.seen_as(torch.randn(1, 600, 5, generator=_generator()))
    assert abs(float(probes.usable_information(noise, splits, l2=1.0).mean())) < 0.02


def test_what_is_known_already_adds_no_information():
    examples = _labelled(0.1, count=600, classes=2)
    splits = probes.k_fold(examples, 4, seed=0)
    copy = probes.conditional_information(examples, examples, splits)
    noise = examples.seen_as(torch.randn(1, 600, 4, generator=_generator()))
    beside = probes.conditional_information(noise, examples, splits)
    fresh = probes.conditional_information(examples, noise, splits)
    assert abs(float(copy.mean())) < 0.02
    assert abs(float(beside.mean())) < 0.02
    assert float(fresh.mean()) > 0.4


def test_accuracy_grows_with_examples_and_ends_at_the_whole_fit(noisy):
    examples = noisy(layers=2, count=200)
    splits = probes.k_fold(examples, 4, seed=0)
    curve = probes.learning_curve(examples, splits, sizes=(20, 150), generator=_generator())
    whole = probes.fit_each(examples, splits, l2=(1e-2,))
    rates = torch.stack([
        (whole.probe(1, fold=n).predict(examples.x[1][test]) == examples.y[test]).double().mean()
        for n, (_, test) in enumerate(splits)
    ])  # fmt: skip
    assert_close(curve.per_fold[1, 1], rates)
    assert curve.accuracy[1, 1] >= curve.accuracy[1, 0]
    with pytest.raises(ValueError, match="151 examples to learn from, but a fold has only 150"):
        probes.learning_curve(examples, splits, sizes=(151,), generator=_generator())


def test_constant_scores_have_no_order_whatever_theirs_is():
    y = torch.tensor([0, 1, 1, 0, 1])
    assert scores.auroc(torch.zeros(5, 1), y) == 0.5
    assert scores.auroc(torch.zeros(5, 3), torch.tensor([0, 1, 2, 0, 1])) == 0.5


def test_calibration_by_hand():
    # Confidence 0.8 twice, one of them right: |0.5 - 0.8|. Confidence 0.6 once, right: 0.4.
    odds = torch.logit(torch.tensor([0.8, 0.8, 0.6]))[:, None]
    found = scores.calibration_error(odds, torch.tensor([1, 0, 1]))
    assert found == pytest.approx((2 * 0.3 + 0.4) / 3, abs=1e-6)


def test_balanced_accuracy_does_not_reward_the_frequent_class():
    y = torch.tensor([0] * 9 + [1])
    assert scores.balanced_accuracy(torch.full((10, 1), -1.0), y) == 0.5


def test_bounds_of_a_judgement_cover_and_use_the_groups(noisy):
    examples = noisy(layers=1, count=200)
    probe = probes.fit(examples.x[0][:100], examples.y[:100], l2=1e-2)
    x, y = examples.x[0][100:], examples.y[100:]
    alone = probes.judge(probe, x, y, resamples=100)
    assert alone.accuracy.low < alone.accuracy.value < alone.accuracy.high
    assert alone.auroc.low <= alone.auroc.value <= alone.auroc.high
    assert alone.accuracy.n == 100
    paired = probes.judge(probe, x, y, groups=torch.arange(100) // 2, resamples=100)
    assert paired.accuracy.n == 50


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


def test_features_are_what_was_captured_at_each_position(tiny, prompts):
    from hooks import Site, capture

    y, at = torch.tensor([0, 1, 0]), torch.tensor([6, 2, 1])
    found = probes.features(tiny, prompts, y, positions=at, layers=[1, 0])
    seen = capture(tiny, prompts, [Site("resid_post", 1)])[Site("resid_post", 1)]
    assert found.layers == (1, 0)
    assert_close(found.x[0], seen[torch.arange(3), at])
    heads = probes.features(tiny, prompts, y, stream="z", layers=[0])
    assert heads.x.shape == (1, 3, 32)


def test_features_from_a_store_are_those_of_the_pass(tiny, prompts, tmp_path):
    from hooks import Site, sites, store

    held = store.write(tiny, [prompts], sites.all(tiny, "resid_post"), tmp_path, key="three")
    rows = torch.tensor([0, 4, 9])
    found = probes.from_store(held, rows, ["a", "b", "a"])
    assert found.y.tolist() == [0, 1, 0]
    taken = held.take(rows)
    assert_close(found.x[1], taken[Site("resid_post", 1)])
    assert found.groups.equal(taken.document)


@pytest.mark.slow
def test_a_study_of_a_model_without_knowledge_finds_nothing():
    # Check 30: random labels on a random model, nested and corrected.
    found = 0
    tiny = models.load("tiny")
    tokens = torch.randint(5, 200, (80, 4), generator=_generator())
    for seed in range(10):
        y = torch.randint(2, (80,), generator=_generator(seed + 1))
        examples = probes.features(tiny, Prompts.of(tokens), y)
        one = probes.study(
            examples, task="noise", folds=4, l2=(1e-1,), repeats=1, shuffles=19, seed=seed
        )
        found += bool(one.significant())
        assert one.significant() or "not significant" in one.sentence()
    assert found <= 2  # 0.05 a study


def test_a_study_finds_what_was_planted_where_it_was_planted(noisy, tmp_path):
    generator = _generator()
    types = torch.randint(20, (240,), generator=generator)
    y = types % 2
    x = torch.randn(3, 240, 16, generator=generator)
    x[2, :, 0] += 6.0 * y
    x[2] += torch.randn(20, 16, generator=generator)[types] / 4
    examples = probes.examples(x, y, types=types)
    found = probes.study(examples, task="parity", l2=(1e-2, 1e-1), repeats=2, shuffles=19)
    assert found.significant() == [2]
    assert found.best == 2
    assert found.chosen > 0.95
    assert found.low[2] <= found.accuracy[2] <= found.high[2]
    assert found.selectivity is not None and found.selectivity[2] > 0.2
    assert found.compression[2] > 2 > found.compression[0]
    assert abs(float(found.shuffled.mean()) - 0.5) < 0.08
    assert_close(found.correct.mean(dim=1), found.accuracy, atol=1e-6, rtol=0)
    assert len(found.table().splitlines()) == 4
    results.save(found, tmp_path / "study.nc")
    again = results.load(probes.ProbeStudy, tmp_path / "study.nc")
    assert results.digest(again) == results.digest(found)
    assert len(plots.png(found)) > 10_000
    assert found.headline()["best_layer"] == 2
