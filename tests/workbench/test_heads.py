import dataclasses

import pytest
import torch
from torch.testing import assert_close

from hooks import Site, capture, edits, intervening
from workbench import effects, heads, metrics, models, tasks


@pytest.fixture(scope="module")
def model():
    return models.load("tiny-gqa")


@pytest.fixture(scope="module")
def task(model):
    return tasks.ioi(model, prompts=6, seed=0, corruption="third")


@pytest.fixture(scope="module")
def found(model, task):
    return heads.ablate_each(model, task, metric=metrics.logit_diff)


def test_an_effect_is_a_change_from_the_baseline_of_the_same_prompt(model, task, found):
    plain = metrics.logit_diff(model(task.clean), task)
    with intervening(model, {Site("z", 1): edits.zero(heads=[3])}):
        ablated = metrics.logit_diff(model(task.clean), task)
    assert_close(found.baseline, plain, rtol=1e-5, atol=1e-5)
    assert_close(found.per_prompt[1, 3], ablated - plain, rtol=1e-5, atol=1e-5)
    assert_close(found.effect, found.per_prompt.mean(-1), rtol=1e-5, atol=1e-6)


def test_effects_do_not_depend_on_batch_size_or_the_order_of_prompts(model, task, found):
    small = heads.ablate_each(model, task, metric=metrics.logit_diff, batch_size=2)
    assert_close(small.per_prompt, found.per_prompt, rtol=1e-5, atol=1e-5)
    order = torch.tensor([3, 1, 5, 0, 4, 2])
    turned = heads.ablate_each(model, task[order], metric=metrics.logit_diff)
    assert_close(turned.per_prompt, found.per_prompt[..., order], rtol=1e-5, atol=1e-5)


def test_zeroing_a_head_is_cutting_its_columns_of_the_output_matrix(model, task, found):
    weight = model.blocks[0].attn.o.weight
    before, width = weight.detach().clone(), model.cfg.d_head
    try:
        weight.data[:, width : 2 * width] = 0
        cut = effects.measure(model, task, metric=metrics.logit_diff)
    finally:
        weight.data.copy_(before)
    assert_close(found.per_prompt[0, 1], cut - found.baseline, rtol=1e-4, atol=1e-5)


def test_mean_ablation_writes_the_mean_over_the_corrupt_prompts_without_first_tokens(model, task):
    found = heads.ablate_each(model, task, metric=metrics.logit_diff, ablation="mean")
    rows = []
    for row in range(len(task)):
        alone = task.corrupt[row : row + 1]
        rows.append(capture(model, alone, [Site("z", 1)])[Site("z", 1)][0, 1:, 2])
    mean = torch.cat(rows).mean(0)
    wide = torch.zeros(4, model.cfg.d_head)
    wide[2] = mean
    with intervening(model, {Site("z", 1): edits.mean(wide, heads=[2])}):
        expected = metrics.logit_diff(model(task.clean), task) - found.baseline
    assert_close(found.per_prompt[1, 2], expected, rtol=1e-4, atol=1e-5)


def by_hand(effect, p) -> heads.HeadEffects:
    effect, p = torch.tensor(effect), torch.tensor(p)
    return heads.HeadEffects(
        effect=effect, low=effect - 0.1, high=effect + 0.1, p=p,
        per_prompt=effect[..., None].expand(*effect.shape, 4).contiguous(),
        baseline=torch.full((4,), 2.0), metric="logit_diff", unit="nats", ablation="zero",
        task="by hand", task_digest="", model="a model", model_digest="",
    )  # fmt: skip


def test_the_most_helpful_head_is_the_one_whose_loss_costs_most():
    result = by_hand([[0.0, -1.0], [-3.0, 2.0]], [[1.0, 0.01], [0.01, 0.01]])
    assert result.most_helpful(2) == [(1, 0), (0, 1)]
    assert result.least_helpful(2) == [(1, 1), (0, 0)]
    assert result.significant() == [(1, 0), (1, 1), (0, 1)]
    assert "3 change logit_diff" in result.sentence()
    assert "2 help, 1 get in the way" in result.sentence()
    assert "head 1.0: -3.00 nats [-3.10, -2.90]" in result.sentence()
    cells = result.table(2).splitlines()[1].split()
    assert cells == ["1.0", "-3.000", "[-3.100,", "-2.900]", "0.0100", "*"]


def test_a_task_that_is_not_solved_is_said_so(found):
    assert found.caveat.startswith("Caveat:")
    assert found.caveat in found.sentence()


def test_one_prompt_is_refused_before_any_work(model, task):
    with pytest.raises(ValueError, match="bounds and tests need at least two"):
        heads.ablate_each(model, task[0], metric=metrics.logit_diff)


def test_an_unknown_ablation_is_refused(model, task):
    with pytest.raises(Exception, match=r"no ablation 'median'|Type-check"):
        heads.ablate_each(model, task, metric=metrics.logit_diff, ablation="median")


def test_a_model_comes_out_of_a_study_as_it_went_in(model, task):
    from workbench.models.bridge import digest

    weights, state = digest(model.original_model), torch.get_rng_state()
    before = model(task.clean)
    heads.ablate_each(model, task[:2], metric=metrics.logit_diff, ablation="mean")
    assert digest(model.original_model) == weights
    assert torch.get_rng_state().equal(state)
    assert_close(model(task.clean), before, rtol=0, atol=0)


def test_the_same_seed_gives_the_same_bits(model, task, found):
    again = heads.ablate_each(model, task, metric=metrics.logit_diff)
    for field in dataclasses.fields(found):
        value, other = getattr(found, field.name), getattr(again, field.name)
        assert value.equal(other) if isinstance(value, torch.Tensor) else value == other


def test_a_head_that_does_nothing_has_no_effect_and_no_significance(model, task):
    weight = model.blocks[1].attn.o.weight
    before, width = weight.detach().clone(), model.cfg.d_head
    try:
        weight.data[:, :width] = 0
        found = heads.ablate_each(model, task, metric=metrics.logit_diff)
    finally:
        weight.data.copy_(before)
    assert found.per_prompt[1, 0].abs().max() == 0
    assert found.low[1, 0] == found.high[1, 0] == 0
    assert found.p[1, 0] == 1
