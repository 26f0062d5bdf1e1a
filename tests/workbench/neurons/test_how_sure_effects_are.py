"""Bounds and corrected p-values of what neurons do, on planted neurons and against scipy."""

import itertools

import numpy as np
import pytest
import torch
from scipy import stats

from hooks import Site, capture
from workbench import metrics, models, neurons, tasks
from workbench.models.planted.detectors import COST
from workbench.neurons import direct

PROMPTS = 12
SMALLEST = 2 / 2**PROMPTS
"""The p of an effect that is the same in all prompts: two of all sign flips get as far."""


@pytest.fixture(scope="module")
def model():
    return models.load("planted/neurons")


@pytest.fixture(scope="module")
def truth(model):
    return {name: some[0] for name, some in models.planted.truth(model).neurons.items()}


@pytest.fixture(scope="module")
def task(model):
    return tasks.planted(model, prompts=PROMPTS, seed=0)


@pytest.fixture
def few(small):
    """So few prompts that bounds are Student's."""
    return tasks.ioi(small, prompts=6, seed=0)[:3]


def students(values):
    """Low and high by scipy."""
    values = np.asarray(values, dtype=float)
    return stats.t.interval(0.95, len(values) - 1, values.mean(), stats.sem(values))


def test_the_costly_neuron_is_significant_and_the_dead_one_is_not(model, task, truth):
    some = [truth["costly"], truth["dead"]]
    found = neurons.ablate_each(model, task, some, metric=metrics.logit_diff)
    assert found.p.tolist() == pytest.approx([SMALLEST, 1.0])
    for bound in (found.low, found.high):
        assert bound.tolist() == pytest.approx([-COST, 0.0], abs=1e-4)
    assert found.headline()["significant"] == 1


def test_every_screened_neuron_has_bounds_and_a_p_and_only_what_was_planted_is_sure(
    model, task, truth
):
    count = model.cfg.n_layers * model.cfg.d_mlp
    found = neurons.screen(model, task, metric=metrics.logit_diff, n=count // 2)
    place = {neurons.Neuron(*one): at for at, one in enumerate(found.chosen.tolist())}
    assert len(place) == count
    costly, dead = (place[truth[name]] for name in ("costly", "dead"))
    assert float(found.exact.p[costly]) <= 0.01
    assert float(found.exact.p[dead]) == 1
    for bound in (found.exact.low, found.exact.high):
        assert float(bound[costly]) == pytest.approx(-COST, abs=1e-4)
        assert float(bound[dead]) == 0


def test_a_direct_effect_that_is_the_same_in_all_prompts_is_bounded_by_itself(model, task, truth):
    found = neurons.direct_effects(model, task)
    for bound in (found.low, found.high):
        assert float(bound[truth["costly"]]) == pytest.approx(COST, abs=1e-4)
        assert float(bound[truth["dead"]]) == 0


def test_bounds_of_three_prompts_are_students(small, few):
    found = neurons.ablate_each(small, few, [(0, 3), (1, 5)], metric=metrics.logit_diff)
    for cell, values in enumerate(found.per_prompt):
        low, high = students(values)
        assert low < float(found.effect[cell]) < high
        assert float(found.low[cell]) == pytest.approx(low, rel=1e-4, abs=1e-6)
        assert float(found.high[cell]) == pytest.approx(high, rel=1e-4, abs=1e-6)


def test_p_is_the_share_of_sign_flips_in_which_any_cell_gets_as_far(small):
    task = tasks.ioi(small, prompts=6, seed=0)
    some = [(0, 3), (1, 5), (1, 9), (0, 40)]
    found = neurons.ablate_each(small, task, some, metric=metrics.logit_diff)
    values = found.per_prompt.double().numpy()
    flips = np.array(list(itertools.product((1, -1), repeat=6)))
    reached = np.abs(flips @ values.T) / np.sqrt((values**2).sum(1))
    expected = (reached.max(1)[:, None] >= reached[0] - 1e-9).mean(0)
    assert found.p.tolist() == pytest.approx(expected.tolist())
    assert len(set(found.p.tolist())) > 1


def by_hand(model, task, one):
    """What a neuron wrote into each prompt's logit difference, the norm's scale as it was."""
    site = Site("neuron", one.layer)
    seen = capture(model, task.clean, [site, Site("final")], positions=task.clean.last)
    out = model.blocks[one.layer].mlp.W_out[one.neuron].detach()
    wrote, final = seen[site][:, 0, one.neuron, None] * out, seen[Site("final")][:, 0]
    if model.cfg.normalization_type == "LN":
        wrote, final = (x - x.mean(-1, keepdim=True) for x in (wrote, final))
    scale = (final.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    logits = (wrote / scale * model.ln_final.weight.detach()) @ model.unembed.W_U.detach()
    return (logits.gather(1, task.answer) - logits.gather(1, task.foil))[:, 0]


def test_direct_effects_have_students_bounds_for_the_strongest_alone(small, few, monkeypatch):
    monkeypatch.setattr(direct, "_FEW", 5)
    found = neurons.direct_effects(small, few)
    top = found.strongest(5)
    bounded = {neurons.Neuron(*one) for one in (~found.low.isnan()).nonzero().tolist()}
    assert bounded == set(top)
    assert found.high.isnan().equal(found.low.isnan())
    for one in top:
        low, high = students(by_hand(small, few, one))
        assert float(found.low[one]) == pytest.approx(low, rel=1e-3, abs=1e-5)
        assert float(found.high[one]) == pytest.approx(high, rel=1e-3, abs=1e-5)


def test_a_screen_is_exact_where_it_says_and_its_agreement_is_spearmans(small):
    task = tasks.ioi(small, prompts=6, seed=0)
    found = neurons.screen(small, task, metric=metrics.logit_diff, n=6)
    assert found.top == 6
    chosen = [neurons.Neuron(*one) for one in found.chosen.tolist()]
    assert len(set(chosen)) == 12
    exact = neurons.ablate_each(
        small, task, chosen, metric=metrics.logit_diff, ablation="counterfactual"
    )
    for name in ("effect", "low", "high", "p"):
        torch.testing.assert_close(
            getattr(found.exact, name), getattr(exact, name), atol=1e-5, rtol=1e-4
        )
    guess = np.array([float(found.estimate[one]) for one in chosen])
    assert np.abs(guess[:6]).min() >= float(found.estimate.abs().flatten().sort().values[-6])
    for some, got in ((slice(None), found.agreement), (slice(6), found.agreement_top)):
        expected = stats.spearmanr(guess[some], exact.effect.numpy()[some]).statistic
        assert got == pytest.approx(expected, abs=1e-6)
