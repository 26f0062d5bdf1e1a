import dataclasses

import pytest
import torch
from torch.testing import assert_close

from hooks import Site, edits, intervening
from workbench import effects, heads, metrics, models, plots, results, tasks
from workbench.heads import hard_concrete
from workbench.heads.ablating import ablating
from workbench.heads.descent import Gated

FAST = heads.Descent(steps=40, rate=0.3, prompts=8)


@pytest.fixture(scope="module")
def model():
    return models.load("tiny-gqa")


@pytest.fixture(scope="module")
def task(model):
    return tasks.ioi(model, prompts=4, seed=0, corruption="third")


def test_the_chance_of_an_open_gate_is_what_drawing_many_gives():
    log_alpha = torch.tensor([0.3, -2.0, 4.0])
    uniform = torch.rand(200_000, 3, generator=torch.Generator().manual_seed(0))
    drawn = hard_concrete.drawn(log_alpha.expand_as(uniform), uniform)
    chance = hard_concrete.open_chance(log_alpha)
    assert float(chance[0]) == pytest.approx(0.86973, abs=1e-5)  # sigmoid(0.3 + 2/3 log 11)
    assert_close((drawn > 0).float().mean(0), chance, rtol=0, atol=3e-3)
    assert float(drawn.min()) == 0 and float(drawn.max()) == 1


def test_gates_by_hand():
    half = torch.tensor([0.5])
    assert_close(hard_concrete.drawn(torch.zeros(1), half), half)  # the middle of -0.1 and 1.1
    assert_close(hard_concrete.settled(torch.zeros(1)), half)
    assert hard_concrete.settled(torch.tensor([9.0, -9.0])).tolist() == [1, 0]


@pytest.mark.parametrize("ablation", ["zero", "mean", "counterfactual"])
def test_open_gates_change_nothing_and_shut_ones_ablate_every_head(model, task, ablation):
    how = ablating(model, task, ablation)
    gated = Gated(model, task, metrics.logit_diff, how)
    plain = effects.measure(model, task, metric=metrics.logit_diff)
    cell = how.cell([(layer, head) for layer in range(2) for head in range(4)])
    off = effects.measure(model, task, metric=metrics.logit_diff, edits=cell)
    assert_close(gated.measured(torch.ones(2, 4)), plain, rtol=1e-4, atol=1e-5)
    assert_close(gated.measured(torch.zeros(2, 4), batch_size=3), off, rtol=1e-4, atol=1e-5)
    one = torch.ones(2, 4)
    one[1, 2] = 0
    expected = effects.measure(model, task, metric=metrics.logit_diff, edits=how.cell([(1, 2)]))
    assert_close(gated.measured(one), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("ablation", ["zero", "counterfactual"])
def test_slopes_of_gates_are_what_small_steps_change(model, task, ablation):
    gated = Gated(model, task, metrics.logit_diff, ablating(model, task, ablation))
    gates = torch.rand(2, 4, generator=torch.Generator().manual_seed(0))
    rows = torch.tensor([2, 0, 3])
    value, slope = gated.slopes(gates.expand(3, 2, 4), rows)
    assert_close(value, gated.measured(gates)[rows], rtol=1e-4, atol=1e-5)
    step = 2e-2
    for layer, head in ((0, 0), (0, 3), (1, 1)):
        sides = []
        for sign in (1, -1):
            moved = gates.clone()
            moved[layer, head] += sign * step
            sides.append(gated.measured(moved)[rows])
        expected = (sides[0] - sides[1]) / (2 * step)
        assert_close(slope[:, layer, head], expected, rtol=2e-2, atol=2e-4)


def test_gates_of_one_prompt_do_not_reach_another(model, task):
    gated = Gated(model, task, metrics.logit_diff, ablating(model, task, "zero"))
    gates = torch.rand(4, 2, 4, generator=torch.Generator().manual_seed(0))
    value, _ = gated.slopes(gates, torch.arange(4))
    for row in range(4):
        with intervening(
            model,
            {
                Site("z", layer): [
                    edits.scale(float(gates[row, layer, h]), heads=[h]) for h in range(4)
                ]
                for layer in range(2)
            },
        ):
            alone = metrics.logit_diff(model(task.clean), task)[row]
        assert_close(value[row], alone, rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def planted():
    model = models.load("planted/and")
    task, truth = tasks.planted(model, prompts=6, seed=0), models.planted.truth(model)
    return heads.learn_gates(model, task, metric=metrics.logit_diff, seeds=2, descent=FAST), truth


def test_learned_gates_keep_the_heads_of_the_mechanism_and_shut_the_others(planted):
    found, truth = planted
    for seed in range(2):
        assert set(found.open(seed)) == set(truth.heads)
    assert set(found.ranked()[:2]) == set(truth.heads)
    assert all(float(found.score[head]) < 0.1 for head in truth.irrelevant)
    assert_close(found.gated, found.baseline.expand(2, -1), rtol=1e-3, atol=1e-2)
    assert_close(found.expected, found.chance.sum((1, 2)))
    assert (found.loss[:, -1] < found.loss[:, 0]).all() and found.loss.shape == (2, 40)
    assert "2 of 8 heads" in found.sentence() and "2 in all of them" in found.sentence()


def test_a_price_above_what_heads_are_worth_shuts_all_of_them():
    model = models.load("planted/and")
    task = tasks.planted(model, prompts=6, seed=0)
    found = heads.learn_gates(
        model, task, metric=metrics.logit_diff, penalty=50.0, seeds=1,
        descent=heads.Descent(steps=30, rate=0.6),
    )  # fmt: skip
    assert found.open(0) == []


def test_gates_are_the_same_from_the_same_seed_and_stored_and_drawn(model, task, tmp_path):
    short = heads.Descent(steps=3, prompts=2)
    one, again, other = (
        heads.learn_gates(model, task, metric=metrics.logit_diff, seeds=2, descent=short, seed=seed)
        for seed in (0, 0, 1)
    )
    for field in dataclasses.fields(one):
        value, same = getattr(one, field.name), getattr(again, field.name)
        assert value.equal(same) if isinstance(value, torch.Tensor) else value == same
    assert not one.chance.equal(other.chance)
    assert not one.chance[0].equal(one.chance[1])
    results.save(one, tmp_path / "gates.nc")
    loaded = results.load(heads.HeadGates, tmp_path / "gates.nc")
    assert results.digest(loaded) == results.digest(one)
    assert plots.png(one)[:4] == b"\x89PNG" and len(one.table(2).splitlines()) == 3


def test_learning_leaves_the_model_as_it_was(model, task, unharmed):
    with unharmed(model):
        heads.learn_gates(
            model, task, metric=metrics.logit_diff, seeds=1, descent=heads.Descent(steps=2)
        )


def test_learning_that_cannot_be_is_refused(model, task):
    with pytest.raises(ValueError, match="each must be above zero"):
        heads.Descent(steps=0)
    with pytest.raises(ValueError, match="a price of at least 0"):
        heads.learn_gates(model, task, metric=metrics.logit_diff, penalty=-1.0)
    with pytest.raises(ValueError, match="no gradient"):
        heads.learn_gates(model, task, metric=metrics.accuracy, seeds=1)
