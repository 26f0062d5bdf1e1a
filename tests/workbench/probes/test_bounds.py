"""Bounds of every kind of result are those of the numbers that it keeps, by another route."""

import pytest
import torch
from scipy import stats
from torch.testing import assert_close

from hooks import Prompts, Site
from workbench import metrics, probes, statistics, tasks

SITE = Site("resid_post", 0)
FEW = probes.Placebos(count=19)


def _bounded(values, low, high, seed=0, groups=None):
    wanted = statistics.bounds(values, seed=seed, groups=groups)
    assert_close(torch.as_tensor(low).double(), wanted.low, rtol=1e-4, atol=1e-6)
    assert_close(torch.as_tensor(high).double(), wanted.high, rtol=1e-4, atol=1e-6)
    assert (wanted.low < wanted.high).any()


def _vector():
    return torch.randn(32, generator=torch.Generator().manual_seed(0))


def test_of_what_a_push_and_an_erasure_do(tiny):
    task = tasks.agreement(tiny, prompts=8, seed=0)
    found = probes.use(
        tiny, task, probes.Push(_vector()), site=SITE, metric=metrics.logit_diff, against=FEW,
        seed=4,
    )  # fmt: skip
    _bounded(found.per_prompt, found.low, found.high, seed=4)
    y = [int(task.templates[group].endswith("plural")) for group in task.group]
    groups = torch.arange(8) // 2
    examples = probes.features(tiny, task.clean, y, groups=groups)
    erased = probes.amnesic(tiny, task, examples, metric=metrics.logit_diff, against=FEW, seed=4)
    _bounded(erased.per_prompt, erased.low, erased.high, seed=4)
    assert (erased.accuracy_low <= erased.accuracy).all()
    assert (erased.accuracy_low < erased.accuracy_high).any()


def test_of_a_concept_s_sensitivity(tiny):
    task = tasks.agreement(tiny, prompts=8, seed=0)
    generator = torch.Generator().manual_seed(0)
    concept, others = (
        Prompts.of(torch.randint(5, 200, (n, 4), generator=generator)) for n in (6, 12)
    )
    found = probes.tcav(
        tiny, task, concept, others, metric=metrics.logit_diff, random_concepts=19, seed=4
    )
    assert_close(found.sensitivity, found.per_prompt.mean(dim=1))
    _bounded(found.per_prompt, found.low, found.high, seed=4)
    assert_close(found.score, (found.per_prompt > 0).float().mean(dim=1))


def test_of_a_steering_curve_and_of_a_study_that_is_steered(planted):
    found = probes.steer(
        planted.model, planted.task, _vector(), site=SITE, metric=metrics.logit_diff,
        corpus=planted.task.clean, strengths=(1.0,), seed=4,
    )  # fmt: skip
    effect = _pushed(planted, planted.task, _vector())
    _bounded(effect[None], found.low, found.high, seed=4)
    examples = probes.features(planted.model, planted.task.clean, planted.number)
    study = probes.study(examples, task="a bit", folds=4, l2=(1e-1,), repeats=1, shuffles=1)
    task, learned = planted.task[torch.arange(20)], examples[torch.arange(20, 40)]
    steered = probes.steered(
        study, planted.model, task, learned, metric=metrics.logit_diff,
        positions=task.positions["noun"], layers=(0,), seed=4,
    )  # fmt: skip
    x, y = learned.x[0], learned.y
    effect = _pushed(planted, task, x[y == 1].mean(0) - x[y == 0].mean(0))
    _bounded(effect[None], steered.steer_low[:1], steered.steer_high[:1], seed=4)


def _pushed(planted, task, vector):
    """What adding the vector does to each prompt, as the model is linear."""
    read = planted.read[task.answer[:, 0]] - planted.read[task.foil[:, 0]]
    return read @ vector


@pytest.mark.parametrize("grouped", [False, True])
def test_of_transfer_between_sets(noisy, grouped):
    one, other = (noisy(layers=1, count=80, seed=seed) for seed in (0, 1))
    groups = torch.arange(80) // (4 if grouped else 1)
    sets = {
        name: probes.examples(examples.x, examples.y, groups=groups)
        for name, examples in (("one", one), ("other", other))
    }
    found = probes.transfer(sets, layer=0)
    right = probes.fit(one.x[0], one.y, l2=1e-2).predict(other.x[0]) == other.y
    if grouped:
        _bounded(right, found.low[0, 1], found.high[0, 1], groups=groups)
    else:
        ci = stats.binomtest(int(right.sum()), 80).proportion_ci(0.95, method="exact")
        assert float(found.low[0, 1]) == pytest.approx(ci.low, abs=1e-5)
        assert float(found.high[0, 1]) == pytest.approx(ci.high, abs=1e-5)


def test_of_minimal_pairs(tiny):
    pairs = tasks.grammar(tiny, prompts=12, seed=0)
    found = probes.minimal_pairs(tiny, pairs)
    for one in range(len(found.phenomena)):
        mine = found.difference[found.member == one]
        if (mine == 0).any():
            continue
        test = stats.binomtest(int((mine > 0).sum()), len(mine))
        ci = test.proportion_ci(0.95, method="exact")
        assert float(found.low[one]) == pytest.approx(ci.low, abs=1e-5)
        assert float(found.high[one]) == pytest.approx(ci.high, abs=1e-5)
        assert float(found.p[one]) >= test.pvalue - 1e-6
