"""Heads that are left are as alike, and stand in for each other, as with the others zeroed."""

import itertools

import matplotlib.pyplot as plt
import pytest
from torch.testing import assert_close

from hooks import Site, capture, edits, intervening
from workbench import heads, metrics, plots

METRIC = metrics.logit_diff


def test_similarity_of_the_heads_left_is_as_with_the_others_zeroed(case):
    found = heads.similarity(case.pruned, case.task, tokens=64)
    with case.zeroed():
        expected = heads.similarity(case.model, case.task, heads=case.left, tokens=64)
    assert found.heads == case.left
    assert found.names == [f"{layer}.{head}" for layer, head in case.left]
    assert found.group == expected.group
    for name in ("divergence", "divergence_first", "cka", "writes", "values", "queries", "keys"):
        here, there = getattr(found, name), getattr(expected, name)
        assert_close(here, there, rtol=1e-3, atol=2e-3, equal_nan=True, msg=name)


def test_a_fit_from_another_head_is_as_with_the_others_zeroed(made):
    case = made("Llama")
    some = [(0, 2), (0, 3), (1, 3)]
    found = heads.substitute(case.pruned, case.task, heads=some, metric=METRIC)
    # The exact route of the whole model runs no edits of ours, so the fit is put to work by hand.
    fit_on, measured_on = case.task[list(range(0, 12, 2))], case.task[list(range(1, 12, 2))]

    def z(task, head, first=1):
        with case.zeroed():
            seen = capture(case.model, task.clean, [Site("z", head[0])])
        return seen[Site("z", head[0])][:, :, head[1]], task.clean.mask.bool()

    value, mask = z(fit_on, (1, 3))
    mask = mask.clone()
    mask[:, 0] = False
    mean = value[mask].mean(0)
    now, _ = z(measured_on, (1, 3))
    with case.zeroed():
        whole = capture(case.model, measured_on.clean, [Site("z", 1)])[Site("z", 1)].clone()
        base = METRIC(case.model(measured_on.clean), measured_on)
    whole[:, :, 3] = mean
    whole[:, 0, 3] = now[:, 0]
    with case.zeroed(), intervening(case.model, {Site("z", 1): edits.replace(whole, heads=[3])}):
        expected = METRIC(case.model(measured_on.clean), measured_on) - base
    assert float(found.by_mean[2]) == pytest.approx(float(expected.mean()), rel=1e-3, abs=1e-4)
    assert found.effect.diagonal().abs().max() < found.by_mean.abs().max() * 0.1 + 1e-3


def test_pairs_cost_what_they_cost_with_the_others_zeroed(case):
    some = case.left[-3:]
    found = heads.redundancy(case.pruned, case.task, some, metric=METRIC, ablation="zero")
    with case.zeroed():
        base = METRIC(case.model(case.task.clean), case.task)
        for a, b in itertools.combinations(range(3), 2):
            cell = heads.ablating(case.model, case.task, "zero").cell([some[a], some[b]])
            with intervening(case.model, cell):
                both = METRIC(case.model(case.task.clean), case.task) - base
            assert_close(found.both[a, b], both.mean(), rtol=1e-3, atol=1e-4)
    assert found.heads == some
    grouped = heads.cluster_redundant(found, resamples=5)
    assert sorted(itertools.chain(*grouped.groups())) == sorted(some)
    together = heads.interaction(case.pruned, case.task, [some], metric=METRIC, ablation="zero")
    assert together.sets == ["+".join(f"{layer}.{head}" for layer, head in some)]


def test_the_search_for_backups_is_among_the_heads_that_are_left(case):
    found = heads.backups(case.pruned, case.task, case.left[0], metric=METRIC, most=1)
    gone = case.missing.clone()
    gone[case.left[0]] = True
    assert found.map[0].isnan().equal(gone)
    plt.close(plots.draw(found))


@pytest.mark.parametrize("at", ["last", "all"])
def test_what_comes_back_is_as_with_the_others_zeroed(case, at):
    some = case.left[:2]
    found = heads.self_repair(case.pruned, case.task, some, ablation="zero", at=at)
    with case.zeroed():
        expected = heads.self_repair(case.model, case.task, some, ablation="zero", at=at)
    for name in ("direct_per_prompt", "total_per_prompt", "share_per_prompt", "by_mlp"):
        assert_close(getattr(found, name), getattr(expected, name), rtol=1e-3, atol=1e-3, msg=name)
    case.same(found.by_head, expected.by_head, atol=1e-3)
    helpers = found.strongest_helpers(some[0], 99)
    assert {head for head, _ in helpers} == set(case.left)
    assert [much for _, much in helpers] == sorted((much for _, much in helpers), reverse=True)
    plt.close(plots.draw(found))


def test_candidates_and_the_whole_study_are_of_the_heads_that_are_left(case):
    found = heads.study_redundancy(
        case.pruned, case.task, extent=heads.Extent(candidates=3, repaired=1, draws=2)
    )
    assert found.candidates[:3] == found.alone.most_helpful(3)
    assert len(found.reasons) == len(found.candidates)
    assert set(found.candidates) <= set(case.left)
    case.nan_where_gone(found.alone.effect)
    assert "nan" not in found.sentence()
    figure = plots.draw(found)
    assert figure.axes[0].images[0].get_array().mask.sum() == len(case.gone)
    plt.close(figure)
