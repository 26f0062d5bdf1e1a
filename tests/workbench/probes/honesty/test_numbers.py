"""The numbers of a study and of a judgement, by another route."""

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.metrics import balanced_accuracy_score, roc_auc_score
from sklearn.neighbors import NearestCentroid
from torch.testing import assert_close

from workbench import probes, statistics
from workbench.probes.study import bounded
from workbench.statistics import derive


def _generator(seed=0):
    return torch.Generator().manual_seed(seed)


def _uneven(*, count=150, layers=2):
    """Three of ten are of class 1, told from the others with errors; groups of three."""
    generator = _generator()
    groups = torch.arange(count) // 3
    y = (torch.arange(count) % 10 < 3).long()
    x = torch.randn(layers, count, 6, generator=generator)
    x[1:, :, 0] += 1.5 * y
    return probes.examples(x, y, groups=groups)


@pytest.fixture(scope="module")
def found():
    """A study, its splits, and the scores of its probes, fitted once more without choosing."""
    examples = _uneven()
    study = probes.study(
        examples, task="uneven", folds=4, l2=(1e-2,), repeats=2, shuffles=1, seed=3
    )
    every = [probes.k_fold(examples, 4, seed=derive(3, "folds", str(n))) for n in (0, 1)]
    scores = torch.stack([
        probes.held_out_scores(probes.fit_each(examples, one, l2=(1e-2,)), examples, one)[:, 0, 0]
        for one in every
    ])[..., 0]  # fmt: skip
    return examples, study, every, scores


def test_order_and_balance_of_a_study_are_scikit_learns(found):
    examples, study, _, scores = found
    y, mean = examples.y.numpy(), scores.mean(dim=0).numpy()
    auroc = [roc_auc_score(y, one) for one in mean]
    balanced = [balanced_accuracy_score(y, one > 0) for one in mean]
    assert study.auroc.tolist() == pytest.approx(auroc, abs=1e-3)
    assert study.balanced.tolist() == pytest.approx(balanced, abs=0.01)
    assert study.auroc[1] > 0.75 and abs(study.balanced[1] - study.accuracy[1]) > 0.02


def test_information_of_a_study_is_what_labels_cost_less_what_they_cost_with_activations(found):
    examples, study, every, scores = found
    y = examples.y.numpy()
    cost = np.logaddexp(0, -scores.numpy() * (2 * y - 1)).mean(axis=0) / np.log(2)
    before = np.zeros(len(y))
    for train, test in every[0]:
        share = y[train.numpy()].mean()
        before[test] = -np.log2(np.where(y[test.numpy()] == 1, share, 1 - share))
    wanted = before.mean() - cost.mean(axis=1)
    assert study.information.tolist() == pytest.approx(wanted.tolist(), abs=2e-3)
    assert study.information[1] > 0.05 > study.information[0]


def test_bounds_of_a_study_are_those_of_its_groups_widened_by_what_its_folds_differ_by(found):
    examples, study, _, scores = found
    right = (scores > 0) == (examples.y == 1)
    assert_close(study.accuracy, right.float().mean(dim=(0, 2)), atol=0.01, rtol=0)
    mean, low, high = statistics.bounds(right.double().mean(0), groups=examples.groups, seed=3)
    # Student's t of one degree of freedom, over the two repeats.
    extra = stats.t.ppf(0.975, 1) * right.double().mean(dim=2).std(dim=0) / 2**0.5
    wanted = mean - ((mean - low) ** 2 + extra**2) ** 0.5
    assert_close(study.low.double(), wanted.clamp(min=0), atol=0.02, rtol=0)
    assert_close(
        study.high.double(), (mean + ((high - mean) ** 2 + extra**2) ** 0.5).clamp(max=1),
        atol=0.02, rtol=0,
    )  # fmt: skip
    assert ((study.high - study.low) > 0.05).all()


def test_bounds_widen_with_the_spread_of_repeats_by_students_t():
    generator = _generator()
    base = (torch.rand(200, generator=generator) < 0.5).double()
    examples = probes.examples(torch.zeros(200, 1), torch.arange(200) % 2)
    values = torch.stack([base * 0.9 + shift for shift in (0.0, 0.02, 0.04)])[:, None]
    plain = statistics.bounds(values.mean(dim=0), seed=0)
    mean, low, high = bounded(values, examples, seed=0)
    # Standard deviation 0.02 over three repeats; Student's t of 2 degrees of freedom is 4.303.
    extra = 4.303 * 0.02 / 3**0.5
    assert_close(mean, plain.mean.float())
    wanted = ((plain.mean - plain.low) ** 2 + extra**2) ** 0.5
    assert_close((mean - low).double(), wanted, rtol=1e-3, atol=1e-4)
    wanted = ((plain.high - plain.mean) ** 2 + extra**2) ** 0.5
    assert_close((high - mean).double(), wanted, rtol=1e-3, atol=1e-4)


def test_copies_of_an_example_in_one_group_make_no_bound_narrower():
    generator = _generator()
    values = torch.rand(1, 1, 60, generator=generator)
    one = probes.examples(torch.zeros(60, 1), torch.arange(60) % 2)
    copies = values.repeat_interleave(4, dim=2)
    groups = torch.arange(60).repeat_interleave(4)
    many = probes.examples(torch.zeros(240, 1), torch.arange(240) % 2, groups=groups)
    loose = probes.examples(torch.zeros(240, 1), torch.arange(240) % 2)
    assert_close(bounded(copies, many, 0), bounded(values, one, 0))
    widths = [float(high - low) for _, low, high in (bounded(copies, e, 0) for e in (many, loose))]
    assert widths[0] == pytest.approx(2 * widths[1], rel=0.1)  # a quarter of the units


def test_random_directions_are_read_by_scikit_learns_nearest_centroid():
    examples = _uneven()
    splits = probes.k_fold(examples, 3, seed=0)
    ours = probes.random_directions(examples, splits, count=3, generator=_generator(7))
    drawn = torch.randn(6, 3, generator=_generator(7)).numpy()
    for layer, x in enumerate(examples.x.numpy()):
        right = np.zeros(3)
        for train, test in splits:
            mean, deviation = x[train].mean(axis=0), x[train].std(axis=0)
            seen = ((x - mean) / deviation) @ drawn
            for at in range(3):
                theirs = NearestCentroid().fit(seen[train, at : at + 1], examples.y[train])
                guess = theirs.predict(seen[test, at : at + 1])
                right[at] += (guess == examples.y[test].numpy()).sum()
        assert ours[layer].tolist() == pytest.approx((right / len(examples)).tolist())


def test_a_study_holds_the_mean_over_twenty_random_directions(found):
    examples, study, every, _ = found
    drawn = probes.random_directions(
        examples, every[0], count=20, generator=derive(3, "directions")
    )
    assert_close(study.random_direction, drawn.mean(dim=1).float())


def test_bounds_of_a_judgement_are_as_wide_as_the_binomial_says_and_wider_in_groups():
    generator = _generator()
    y = torch.arange(400) % 2
    scores = torch.where(torch.rand(400, generator=generator) < 0.8, 1.0, -1.0) * (2.0 * y - 1)
    probe = probes.LinearProbe(torch.ones(1, 1), torch.zeros(1), 2, "identity")
    one = probes.judge(probe, scores[:, None], y)
    # Shares of two halves, each with a variance of p (1 - p) / 200; their mean.
    rate = one.balanced.value
    width = 2 * 1.96 * (rate * (1 - rate) / 400) ** 0.5
    assert one.balanced.high - one.balanced.low == pytest.approx(width, rel=0.2)
    # Of two scores for each class, the area is the balanced accuracy.
    assert one.auroc.value == pytest.approx(rate, abs=1e-6)
    assert one.auroc.high - one.auroc.low == pytest.approx(width, rel=0.2)
    copies = torch.arange(200).repeat_interleave(4)
    many = probes.judge(probe, scores[copies, None], y[copies], groups=copies)
    loose = probes.judge(probe, scores[copies, None], y[copies])
    for name in ("accuracy", "balanced", "auroc", "calibration", "bits"):
        grouped, each = (getattr(found, name) for found in (many, loose))
        assert grouped.high - grouped.low > 1.6 * (each.high - each.low) > 0
