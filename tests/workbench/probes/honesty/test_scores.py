"""Scores of a probe, by hand."""

import pytest
import torch

from workbench import probes
from workbench.probes import scores


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
