"""What a pruned model saves and loses is what was measured of it."""

import pytest
import torch
from torch.testing import assert_close

from hooks import intervening
from workbench import corpora, effects, heads, metrics, plots, results, tasks
from workbench.models import surgery


@pytest.fixture(scope="module")
def study(tiny_gqa):
    task = tasks.ioi(tiny_gqa, prompts=4, seed=0, corruption="third")
    text = corpora.prose(tiny_gqa, passages=8)
    everyone = [(layer, head) for layer in range(2) for head in range(4)]
    orders = {"first": everyone, "last": everyone[::-1]}
    found = heads.study_pruning(
        tiny_gqa, task, orders, text=text[:4], over=text[4:], shares=(0.25, 0.5), draws=2,
        allowed=1e6,
    )  # fmt: skip
    return found, tiny_gqa, task, text


def test_the_largest_share_below_the_allowed_loss_goes_in_the_best_order(study):
    found, *_ = study
    assert found.within == "yes" and len(found.removed) == 4
    there = found.curve
    areas = there.area[there.measures.index(found.measure)].tolist()
    assert found.order in ("first", "last")
    assert areas[there.orders.index(found.order)] == max(areas[:2])
    assert found.removed == ([(0, 0), (0, 1), (0, 2), (0, 3)] if found.order == "first" else
                             [(1, 3), (1, 2), (1, 1), (1, 0)])  # fmt: skip


def test_the_pruned_model_gives_what_the_ablated_one_gives(study):
    found, model, task, text = study
    assert found.missed < 1e-4
    small = heads.prune(model, found.removed, replace="mean", over=text[4:])
    source = effects.Source("mean", over=text[4:])
    edits = heads.ablating(model, task, source).cell(found.removed)
    with torch.no_grad(), intervening(model, edits):
        expected = metrics.logit_diff(model(task.clean), task)
    with torch.no_grad():
        assert_close(metrics.logit_diff(small(task.clean), task), expected, atol=1e-4, rtol=1e-4)


def test_parameters_are_counted_before_and_after(study):
    found, model, *_ = study
    before, after = found.costs.parameters.tolist()
    cfg = model.cfg
    # all four query heads and both key-value heads of one layer
    matrices = 2 * 4 * cfg.d_head * cfg.d_model + 2 * 2 * cfg.d_head * cfg.d_model
    assert before - after == matrices  # the norm before them goes, their mean comes as a bias
    without_means = surgery.parameters(heads.prune(model, found.removed))
    assert before - without_means == matrices + cfg.d_model


def test_where_nothing_is_cheap_enough_the_smallest_share_goes_and_it_is_said(study):
    _, model, task, text = study
    everyone = [(layer, head) for layer in range(2) for head in range(4)]
    found = heads.study_pruning(
        model, task, {"first": everyone}, text=text[:4], shares=(0.25, 0.5), draws=0, allowed=0.0
    )
    assert found.within == "no" and len(found.removed) == 2
    assert "No share that was measured costs less than 0 nats" in found.sentence()


def test_it_is_drawn_and_comes_back_from_disk(study, tmp_path):
    found, *_ = study
    assert len(plots.draw(found).axes) == len(found.curve.measures) + 1
    results.save(found, tmp_path / "study.nc")
    again = results.load(heads.PruningStudy, tmp_path / "study.nc")
    assert results.digest(again) == results.digest(found)
    assert again.sentence() == found.sentence() and again.table() == found.table()
