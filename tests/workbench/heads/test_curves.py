"""Pruning curves: their ends, their order, and what is refused."""

import dataclasses

import pytest
import torch
from torch.testing import assert_close

from hooks import Site, edits, intervening
from workbench import effects, heads, metrics, models, results, tasks

LOGIT = metrics.logit_diff


@pytest.fixture(scope="module")
def planted(loaded):
    model, task, _ = loaded("duplicate", prompts=8)
    order = heads.ablate_each(model, task, metric=LOGIT).least_helpful(model.cfg.n_heads * 2)
    orders = {"importance": order, "reverse": order[::-1]}
    return model, task, heads.curve(model, task, orders, removal="zero", text=task.clean)


def area(found, order, measure="logit_diff") -> float:
    return float(found.area[found.measures.index(measure), found.orders.index(order)])


def test_importance_is_no_worse_than_chance_and_that_no_worse_than_the_reverse(planted):
    _, _, found = planted
    assert found.orders == ["importance", "reverse", "random"]
    for measure in ("logit_diff", "accuracy"):
        by = [area(found, one, measure) for one in ("importance", "random", "reverse")]
        assert by[0] >= by[1] >= by[2]
    assert area(found, "importance") > area(found, "random") > area(found, "reverse")
    assert found.best("logit_diff") == "importance"


def test_removing_none_is_the_model_and_removing_all_the_model_without_attention(planted):
    model, task, found = planted
    plain = effects.measure(model, task, metric=LOGIT).mean()
    everything = {Site("attn_out", layer): edits.zero() for layer in range(model.cfg.n_layers)}
    with intervening(model, everything):
        without = metrics.mean_logprob(model(task.clean), task).mean()
    text = found.measures.index("mean_logprob of text")
    assert found.removed.tolist()[0] == 0 and found.removed.tolist()[-1] == 12
    for row in range(len(found.orders)):
        assert_close(found.value[0, row, 0], plain, atol=1e-5, rtol=1e-5)
        assert_close(found.value[text, row, -1], without, atol=1e-5, rtol=1e-5)
    assert found.change[:, :, 0].abs().max() == 0
    assert (found.draw[0, :, 0] - plain).abs().max() < 1e-5
    assert len(found.draw[0]) == 5


def test_a_point_of_a_curve_is_one_run_with_those_heads_ablated(tiny_gqa):
    task = tasks.ioi(tiny_gqa, prompts=4, seed=0, corruption="third")
    order = [(1, 2), (0, 0), (1, 0), (0, 3)]
    found = heads.curve(tiny_gqa, task, {"mine": order}, removal="zero", shares=(0.375,), draws=2)
    assert found.removed.tolist() == [0, 3]
    with intervening(
        tiny_gqa, {Site("z", 0): edits.zero(heads=[0]), Site("z", 1): edits.zero(heads=[0, 2])}
    ):
        expected = LOGIT(tiny_gqa(task.clean), task).mean()
    assert_close(found.value[0, 0, 1], expected, atol=1e-5, rtol=1e-4)
    change = expected - found.value[0, 0, 0]
    assert_close(found.area[0, 0], change / 2, atol=1e-5, rtol=1e-4)  # a triangle


def test_models_that_are_pruned_for_real_give_the_same_curve(loaded):
    """Pruned here by a copy whose output matrices have zeros, so that no edit is involved."""
    model, task, _ = loaded("duplicate", prompts=8)
    order = [(layer, head) for layer in (1, 0) for head in range(6)]

    def prune(_, some):
        copy = models.load("planted/duplicate")
        for layer, head in some:
            weight = copy.blocks[layer].attn.W_O
            weight[head] = 0
        return copy

    # W_O is a view into the module's own matrix, or nothing would have been pruned.
    assert_close(prune(model, [(1, 0)]).blocks[1].attn.W_O[0].abs().max(), torch.tensor(0.0))
    how = {"shares": (0.25, 0.5), "draws": 2}
    edited = heads.curve(model, task, {"mine": order}, removal="zero", **how)
    pruned = heads.curve(model, task, {"mine": order}, removal=prune, **how)
    assert pruned.value[0, 0, -1] < pruned.value[0, 0, 0] - 1
    assert_close(pruned.value, edited.value, atol=1e-4, rtol=1e-4)
    assert (pruned.removal, edited.removal) == ("pruned", "zero ablation")


def by_hand(change_low) -> heads.PruningCurve:
    low = torch.tensor(change_low)[None, None]
    size = low.shape[-1]
    fields = dict.fromkeys(
        ("value", "low", "high", "change", "change_low", "change_high"), low
    ) | dict.fromkeys(("area", "area_low", "area_high"), torch.zeros(1, 1))
    return heads.PruningCurve(
        **fields, draw=torch.zeros(1, 0, size), removed=torch.arange(size),
        share=torch.linspace(0, 1, size), measures=["loss"], units=["nats"], orders=["mine"],
        removal="by hand", task="", task_digest="", model="", model_digest="",
    )  # fmt: skip


def test_the_largest_share_is_the_last_before_the_first_that_may_cost_too_much():
    found = by_hand([0.0, -0.05, -0.2, -0.05, -0.3])
    assert found.largest(0.1, measure="loss", order="mine") == 0.25
    assert found.largest(0.25, measure="loss", order="mine") == 0.75
    assert found.largest(1.0, measure="loss", order="mine") == 1
    assert found.largest(0.01, measure="loss", order="mine") == 0
    with pytest.raises(KeyError, match="no order 'yours'; there are mine"):
        found.largest(0.1, measure="loss", order="yours")
    with pytest.raises(KeyError, match="no measure 'quality'; there are loss"):
        found.best("quality")


def test_an_order_is_filled_up_with_what_is_not_in_it():
    assert heads.followed_by([(1, 1)], [(0, 0), (1, 1), (0, 1)]) == [(1, 1), (0, 0), (0, 1)]


def test_the_same_seed_gives_the_same_bits_and_it_comes_back_from_disk(tiny, tmp_path):
    task = tasks.ioi(tiny, prompts=4, seed=0)
    one, again = (
        heads.curve(tiny, task, {}, text=task.clean, shares=(0.5,), draws=2) for _ in range(2)
    )
    assert results.digest(one) == results.digest(again)
    results.save(one, tmp_path / "result.nc")
    back = results.load(heads.PruningCurve, tmp_path / "result.nc")
    assert back.sentence() == one.sentence() and back.headline() == one.headline()
    other = heads.curve(tiny, task, {}, text=task.clean, shares=(0.5,), draws=2, seed=1)
    assert not other.draw.equal(one.draw)
    assert "removed" in one.table("logit_diff")


@pytest.mark.parametrize(
    ("orders", "how", "message"),
    [
        ({"mine": [(0, 0), (0, 0)]}, {}, "order 'mine': head 0.0 was given twice"),
        ({"mine": [(0, 77)]}, {}, "order 'mine': there is no head 0.77"),
        ({"mine": [(0, 0)]}, {}, "order 'mine' has 1 heads, but 8 are to be removed"),
        ({"random": [(0, 0)]}, {}, "is drawn here"),
        ({}, {"draws": 0}, "no order was given"),
        ({}, {"shares": (0.5, 1.5)}, "lie between 0 and 1"),
        ({}, {"shares": (0.01,)}, "are no curve"),
    ],
)
def test_orders_that_make_no_curve_are_refused(tiny_gqa, orders, how, message):
    task = tasks.ioi(tiny_gqa, prompts=4, seed=0)
    with pytest.raises(ValueError, match=message):
        heads.curve(tiny_gqa, task, orders, **how)


def test_bounds_hold_the_value(planted):
    _, _, found = planted
    assert (found.low <= found.value + 1e-6).all() and (found.value <= found.high + 1e-6).all()
    assert dataclasses.asdict(found)["share"][-1] == 1


def test_what_is_to_be_kept_goes_last_and_all_else_as_before():
    assert heads.keeping([(0, 1), (0, 0)], [(0, 0), (1, 1), (0, 1)]) == [(1, 1), (0, 0), (0, 1)]


def test_shares_of_right_answers_have_bounds_between_none_and_all(tiny_gqa):
    task = tasks.ioi(tiny_gqa, prompts=4, seed=0)
    found = heads.curve(tiny_gqa, task, {}, measures=[metrics.accuracy], shares=(0.25, 1.0))
    assert found.low.min() >= 0 and found.high.max() <= 1


def test_one_of_each_cluster_outlives_importance_where_two_stand_in_for_each_other(loaded):
    """The first head and its backup both cost nothing alone, so importance removes both."""
    model, task, truth = loaded("backup", prompts=12)
    order = heads.ablate_each(model, task, metric=LOGIT).least_helpful(12)
    pairs = heads.redundancy(model, task, truth.heads, metric=LOGIT, ablation="zero")
    clusters = heads.cluster_redundant(pairs, resamples=5)
    assert clusters.kept() == [truth.roles["first"][0]]
    orders = {"importance": order, "one of each": heads.keeping(clusters.kept(), order)}
    found = heads.curve(model, task, orders, removal="zero", draws=0, measures=[LOGIT])
    assert area(found, "one of each") > area(found, "importance")
    assert found.largest(0.1, measure="logit_diff", order="one of each") > found.largest(
        0.1, measure="logit_diff", order="importance"
    )


def test_prose_is_read_as_far_as_it_goes(tiny):
    from workbench import corpora

    assert len(corpora.prose(tiny, passages=3)) == 3
    with pytest.raises(ValueError, match="17 passages were asked for, there are 1 to 16"):
        corpora.prose(tiny, passages=17)
