import dataclasses

import pytest
import torch
from torch.testing import assert_close

from hooks import Site, capture, edits, intervening
from workbench import effects, heads, metrics, models, plots, results, tasks


@pytest.fixture(scope="module")
def model():
    return models.load("tiny-gqa")


@pytest.fixture(scope="module")
def task(model):
    return tasks.ioi(model, prompts=5, seed=0, corruption="third")


@pytest.fixture(scope="module")
def slopes(model, task):
    return heads.mask_gradients(model, task, metric=metrics.logit_diff)


def measured(model, task, edit):
    with intervening(model, edit):
        return metrics.logit_diff(model(task.clean), task)


def test_counterfactual_ablation_writes_what_the_pair_of_each_prompt_has(model, task):
    found = heads.ablate_each(model, task, metric=metrics.logit_diff, ablation="counterfactual")
    for row in range(len(task)):
        one, site = task[row], Site("z", 1)
        other = capture(model, one.corrupt, [site])[site]
        edit = {site: edits.replace(other, heads=[2])}
        expected = measured(model, one, edit) - found.baseline[row]
        assert_close(found.per_prompt[1, 2, row], expected[0], rtol=1e-4, atol=1e-5)
    assert found.way == "counterfactual ablation"


def test_resampling_writes_what_some_corrupt_prompt_has(model, task):
    found = heads.ablate_each(model, task, metric=metrics.logit_diff, ablation="resample", seed=3)
    site, own = Site("z", 0), []
    for row in range(len(task)):
        one, possible = task[row], []
        for other in range(len(task)):
            if task.corrupt.lengths[other] >= one.clean.lengths[0]:
                value = capture(model, task.corrupt[other], [site])[site]
                value = value[:, : int(one.clean.lengths[0])]
                possible.append(
                    float(measured(model, one, {site: edits.replace(value, heads=[1])}))
                )
        seen = float(found.per_prompt[0, 1, row] + found.baseline[row])
        assert min(abs(seen - value) for value in possible) < 1e-5
        own.append(seen)
    other = heads.ablate_each(model, task, metric=metrics.logit_diff, ablation="resample", seed=4)
    assert not other.per_prompt.equal(found.per_prompt)


def test_a_source_of_ones_own_says_the_same_as_its_name(model, task):
    for kind in ("zero", "mean", "counterfactual"):
        named, own = (
            heads.ablate_each(model, task, metric=metrics.logit_diff, ablation=one)
            for one in (kind, effects.Source(kind))
        )
        assert named.per_prompt.equal(own.per_prompt) and named.ablation == own.ablation


@pytest.mark.parametrize("name", ["backup", "or", "and", "induction-pair-gqa"])
def test_single_ablations_of_planted_models_cost_what_was_planted(name):
    model = models.load(f"planted/{name}")
    task, truth = tasks.planted(model, prompts=4, seed=0), models.planted.truth(model)
    kinds = {"zero": "zero", "mean": "mean", "noising": "counterfactual"}
    found = {
        how: heads.ablate_each(model, task, metric=metrics.logit_diff, ablation=kind)
        for how, kind in kinds.items()
    }
    checked = 0
    for known in truth.known:
        if len(known.heads) == 1 and known.how in found:
            one = found[known.how]
            left = one.per_prompt[known.heads[0]] + one.baseline
            assert known.low <= float(left.min()) and float(left.max()) <= known.high
            checked += 1
    assert checked >= 6
    for head in truth.irrelevant:
        assert all(float(one.per_prompt[head].abs().max()) < 1e-4 for one in found.values())


def test_a_mask_gradient_is_the_derivative_of_the_metric_by_a_mask(model, task, slopes):
    # Another route: the mask itself is the parameter that autograd differentiates by.
    for layer in range(2):
        mask = torch.ones(4, requires_grad=True)

        def masked(z, mask=mask):
            return z * mask[:, None]

        with torch.enable_grad():
            values = measured(model, task, {Site("z", layer): masked})
            for row in range(len(task)):
                (slope,) = torch.autograd.grad(values[row], mask, retain_graph=True)
                assert_close(slopes.per_prompt[layer, :, row], slope, rtol=1e-4, atol=1e-6)


def test_a_mask_gradient_is_what_a_small_step_of_the_mask_changes(model, task, slopes):
    step = 1e-2
    for head in ((0, 1), (1, 3)):
        up, down = (
            measured(model, task, {Site("z", head[0]): edits.scale(1 + one, heads=[head[1]])})
            for one in (step, -step)
        )
        assert_close(slopes.per_prompt[head], (up - down) / (2 * step), rtol=2e-2, atol=1e-4)


@pytest.mark.parametrize("ablation", ["mean", "counterfactual"])
def test_a_mask_may_mix_with_what_else_stands_in_the_heads_place(model, task, ablation):
    found = heads.mask_gradients(model, task, metric=metrics.logit_diff, ablation=ablation)
    site, step, sides = Site("z", 1), 2e-2, []
    value = effects.values(model, task, [site], source=ablation)[site]
    for sign in (1, -1):

        def mixed(z, sign=sign):
            share = torch.ones(4)
            share[2] += sign * step
            return value + share[:, None] * (z - value)

        sides.append(measured(model, task, {site: mixed}))
    assert_close(found.per_prompt[1, 2], (sides[0] - sides[1]) / (2 * step), rtol=2e-2, atol=2e-4)


def made(per_prompt) -> heads.MaskGradients:
    slopes, nothing = torch.tensor(per_prompt), torch.zeros(2, 2)
    plain = heads.MaskGradients(
        nothing, nothing, nothing, slopes, "signed", "", "zero", "logit_diff", "nats",
        "by hand", "", "a model", "",
    )  # fmt: skip
    return plain.signed()


def test_what_helps_some_prompts_and_hurts_others_counts_without_its_sign_only(slopes):
    signed = slopes.signed()
    assert_close(slopes.importance, slopes.per_prompt.abs().mean(-1), rtol=1e-5, atol=1e-6)
    assert_close(signed.importance, slopes.per_prompt.mean(-1), rtol=1e-5, atol=1e-6)
    assert (slopes.low <= slopes.importance).all() and (slopes.importance <= slopes.high).all()
    assert slopes.way == "mask gradient" and signed.way == "signed mask gradient"
    found = made([[[2.0, -2.0], [1.0, 1.0]], [[0.0, 0.0], [-3.0, -1.0]]])
    assert found.importance.tolist() == [[0, 1], [0, -2]]
    assert found.ranked() == [(0, 1), (0, 0), (1, 0), (1, 1)]


def test_importance_of_a_layer_has_length_one_after_scaling(slopes):
    scaled = slopes.per_layer()
    assert_close(scaled.importance.square().sum(1), torch.ones(2), rtol=1e-5, atol=1e-6)
    for layer in range(2):
        ratio = scaled.importance[layer] / slopes.importance[layer]
        assert_close(ratio, ratio[:1].expand(4), rtol=1e-5, atol=1e-6)
    assert scaled.way == "mask gradient, per layer"


def test_a_head_that_is_gone_is_in_no_order_and_spoils_no_other():
    gone = float("nan")
    found = made([[[2.0, 1.0], [gone, gone]], [[0.0, 0.0], [3.0, 1.0]]])
    assert found.importance[0, 1].isnan() and found.low[0, 1].isnan()
    assert found.importance[1, 1] == 2
    assert found.ranked() == [(1, 1), (0, 0), (1, 0)]
    assert found.per_layer().importance[0, 0] == 1
    assert "of 3 of" in found.sentence()


def test_a_mask_gradient_is_blind_to_heads_of_which_any_one_suffices():
    model = models.load("planted/redundant")
    task, truth = tasks.planted(model, prompts=4, seed=0), models.planted.truth(model)
    found = heads.mask_gradients(model, task, metric=metrics.logit_diff)
    assert all(float(found.importance[head]) < 1e-5 for head in truth.roles["induction"])
    assert all(float(found.importance[head]) < 1e-5 for head in truth.irrelevant)


def test_a_mask_gradient_of_heads_that_add_up_is_what_each_adds():
    model = models.load("planted/duplicate")
    task, truth = tasks.planted(model, prompts=4, seed=0), models.planted.truth(model)
    found = heads.mask_gradients(model, task, metric=metrics.logit_diff)
    for head in truth.roles["induction"]:  # four nats each, by the wiring
        assert float(found.importance[head]) == pytest.approx(4, abs=1e-3)
        assert float(found.signed().importance[head]) == pytest.approx(4, abs=1e-3)


def test_results_of_importance_are_stored_and_drawn(slopes, tmp_path):
    results.save(slopes, tmp_path / "slopes.nc")
    again = results.load(heads.MaskGradients, tmp_path / "slopes.nc")
    assert results.digest(again) == results.digest(slopes)
    assert plots.png(slopes)[:4] == b"\x89PNG"
    lines = slopes.table(3).splitlines()
    assert len(lines) == 4 and lines[1].startswith(f"{slopes.ranked()[0][0]}.")
    assert {"importance", "low", "high"} <= set(slopes.headline())


def test_the_same_seed_gives_the_same_bits(model, task, slopes):
    again = heads.mask_gradients(model, task, metric=metrics.logit_diff)
    for field in dataclasses.fields(slopes):
        value, other = getattr(slopes, field.name), getattr(again, field.name)
        assert value.equal(other) if isinstance(value, torch.Tensor) else value == other


def test_one_prompt_is_refused(model, task):
    with pytest.raises(ValueError, match="bounds need at least two"):
        heads.mask_gradients(model, task[0], metric=metrics.logit_diff)


@pytest.mark.slow
def test_of_four_learned_induction_heads_each_alone_costs_little_and_all_together_everything():
    model = models.load("planted/induction-4")
    task = tasks.planted(model, prompts=32, seed=0)
    alone = heads.ablate_each(model, task, metric=metrics.answer_logprob)
    slope = heads.mask_gradients(model, task, metric=metrics.answer_logprob)
    assert float(alone.effect.min()) > -0.2 and float(slope.importance.max()) < 0.2
    with intervening(model, {Site("z", 1): edits.zero()}):
        off = effects.measure(model, task, metric=metrics.answer_logprob)
    assert float(alone.baseline.mean() - off.mean()) >= 3.69  # the log of 40 words
