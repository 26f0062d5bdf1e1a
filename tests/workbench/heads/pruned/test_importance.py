"""Heads that are left matter as they do with the others zeroed."""

import matplotlib.pyplot as plt
import pytest
import torch
from torch.testing import assert_close

from hooks import Site, edits, intervening
from workbench import heads, metrics, plots

METRIC = metrics.logit_diff
BRIEF = heads.Descent(steps=3, rate=0.3, prompts=4)


def test_mask_gradients_are_as_with_the_others_zeroed(case):
    found = heads.mask_gradients(case.pruned, case.task, metric=METRIC)
    with case.zeroed():
        expected = heads.mask_gradients(case.model, case.task, metric=METRIC)
    case.same(found.importance, expected.importance)
    assert_close(
        found.per_prompt[~case.missing], expected.per_prompt[~case.missing], rtol=1e-3, atol=1e-4
    )
    assert set(found.ranked()) == set(case.left)
    case.nan_where_gone(found.per_layer().importance)


@pytest.mark.parametrize("ablation", ["zero", "mean"])
def test_learned_gates_are_of_the_heads_that_are_left(case, ablation):
    found = heads.learn_gates(
        case.pruned, case.task, metric=METRIC, ablation=ablation, seeds=2, descent=BRIEF
    )
    case.nan_where_gone(found.chance)
    case.nan_where_gone(found.gate)
    assert_close(found.expected, found.chance.nansum(dim=(1, 2)))
    assert set(found.ranked()) == set(case.left) >= set(found.open())
    assert f"of {len(case.left)} heads" in found.sentence()


def test_gates_weigh_only_the_heads_that_are_left(made):
    """The price at the first step is that of the heads there, each as open as all start."""
    case = made("GPT-2")
    descent = heads.Descent(steps=1, rate=1e-9, prompts=99)
    losses = [
        heads.learn_gates(
            case.pruned, case.task, metric=METRIC, seeds=1, penalty=price, descent=descent
        )
        for price in (0.0, 1.0)
    ]
    each = float(losses[0].chance.nanmean())
    added = float(losses[1].loss[0, 0] - losses[0].loss[0, 0])
    assert added == pytest.approx(len(case.left) * each, rel=1e-4)


def test_gates_change_a_pruned_model_as_they_do_the_whole_one(made):
    case = made("Llama")
    gates = torch.rand(2, 4, generator=torch.Generator().manual_seed(0))
    from workbench.heads.ablating import ablating
    from workbench.heads.descent import Gated

    small = Gated(case.pruned, case.task, METRIC, ablating(case.pruned, case.task, "zero"))
    whole = Gated(case.model, case.task, METRIC, ablating(case.model, case.task, "zero"))
    shut = gates.masked_fill(case.missing, 0.0)
    rows = torch.arange(len(case.task))
    assert_close(small.measured(gates), whole.measured(shut), rtol=1e-4, atol=1e-4)
    found, expected = (
        one.slopes(some.expand(len(rows), 2, 4), rows)[1]
        for one, some in ((small, gates), (whole, shut))
    )
    assert_close(found[:, ~case.missing], expected[:, ~case.missing], rtol=1e-3, atol=1e-4)
    assert not found[:, case.missing].any()


def test_causal_gating_gives_no_role_to_a_head_that_is_gone(case):
    found = heads.causal_gating(case.pruned, case.task, metric=METRIC, seeds=2, descent=BRIEF)
    case.nan_where_gone(found.opened)
    case.nan_where_gone(found.shut)
    case.nan_where_gone(found.stability)
    assert (found.roles == -1).equal(case.missing.expand(found.roles.shape))
    assert {*found.necessary(0.0), *found.sufficient(), *found.interfering(1.0)} <= set(case.left)
    assert "nan" not in found.sentence() + found.table()


def test_shares_of_all_heads_are_those_of_the_whole_model_under_the_same_zeros(made):
    case = made("Llama")
    found = heads.exact_shapley(case.pruned, case.task, metric=METRIC)
    case.nan_where_gone(found.value)
    case.nan_where_gone(found.per_prompt.mean(-1))
    for head in case.left:
        ablated = [one for one in case.gone if one[0] == head[0]] + [head]
        by_layer = [other[1] for other in ablated]
        with case.zeroed():
            base = METRIC(case.model(case.task.clean), case.task)
            with intervening(case.model, {Site("z", head[0]): edits.zero(heads=by_layer)}):
                without = METRIC(case.model(case.task.clean), case.task)
        expected = float((base - without).mean())
        assert float(found.alone[head]) == pytest.approx(expected, rel=1e-3, abs=1e-4)
    sampled = heads.shapley(case.pruned, case.task, metric=METRIC, orders=4)
    assert set(sampled.ranked()) == set(case.left)
    assert_close(sampled.total, found.total)


def test_all_measures_of_importance_agree_on_which_heads_there_are(case):
    effort = heads.Effort(seeds=1, descent=BRIEF, players=2, orders=4)
    found = heads.importance(
        case.pruned, case.task, metric=METRIC, ablations=("zero", "mean"), effort=effort
    )
    for one in found[:-1]:
        case.nan_where_gone(one.score)
    together = heads.agreement(found, top=2)
    assert set(together.ranked()) == set(case.left)
    assert int(together.heads[0, 1]) == len(case.left)
    case.nan_where_gone(together.spread)
    assert f"of {len(case.left)} heads" in together.sentence() and "nan" not in together.table()
    plt.close(plots.draw(together))
    for one in found:
        plt.close(plots.draw(one))


@pytest.mark.parametrize("removal", ["zero", "pruned"])
def test_curves_are_over_the_heads_that_are_left(case, removal):
    found = heads.curve(
        case.pruned, case.task, {"as they come": case.left}, measures=(METRIC,), draws=2,
        removal=heads.prune if removal == "pruned" else "zero", shares=(0.2, 0.7),
    )  # fmt: skip
    size = len(case.left)
    assert found.removed.tolist() == sorted({0, round(0.2 * size), round(0.7 * size)})
    with case.zeroed():
        cell = heads.ablating(case.model, case.task, "zero").cell(case.left[: round(0.7 * size)])
        with intervening(case.model, cell):
            expected = METRIC(case.model(case.task.clean), case.task).mean()
    assert_close(found.value[0, 0, -1], expected, rtol=1e-3, atol=1e-3)
    assert f"Removing heads of {case.pruned.origin.name}" in found.sentence()
