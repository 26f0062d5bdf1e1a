"""Pairs, sets and backups, where the truth was planted or is a theorem."""

import dataclasses

import pytest
import torch
from torch.testing import assert_close

from hooks import Site, edits, intervening
from workbench import heads, metrics, results, tasks
from workbench.models import twins

LOGIT = metrics.logit_diff


def pairs(model, task, some, **how):
    how = {"metric": LOGIT, "ablation": "zero"} | how
    return heads.redundancy(model, task, some, **how)


# By hand


def test_an_or_costs_everything_together_and_nothing_alone(loaded):
    model, task, truth = loaded("or")
    found = pairs(model, task, truth.heads)
    assert_close(found.alone, torch.zeros(2), atol=1e-4, rtol=0)
    assert_close(found.interaction[0, 1], torch.tensor(-8.0), atol=1e-4, rtol=0)
    assert found.significant() == [tuple(truth.heads)]
    assert_close(found.overlap()[0, 1], torch.tensor(1.0), atol=1e-4, rtol=0)


def test_an_and_is_lost_with_either_head_so_that_the_other_has_nothing_left_to_lose(loaded):
    model, task, truth = loaded("and")
    found = pairs(model, task, truth.heads)
    assert_close(found.alone, torch.full((2,), -8.0), atol=1e-4, rtol=0)
    assert_close(found.interaction[0, 1], torch.tensor(8.0), atol=1e-4, rtol=0)
    assert found.significant() == []
    assert found.overlap()[0, 1] == 0
    assert "1 work in series" in found.sentence()


@pytest.mark.parametrize("ablation", ["zero", "mean", "counterfactual"])
def test_copies_whose_outputs_add_up_have_no_interaction(loaded, ablation):
    model, task, truth = loaded("duplicate")
    found = pairs(model, task, truth.roles["induction"], ablation=ablation)
    off = ~torch.eye(3, dtype=torch.bool)
    assert_close(found.alone, torch.full((3,), -4.0), atol=1e-4, rtol=0)
    assert_close(found.interaction[off], torch.zeros(6), atol=1e-4, rtol=0)


def test_heads_of_one_layer_only_add_up_in_a_model_without_anything_after_them():
    """A theorem: the last layer's heads enter the logits linearly where there is no norm or MLP."""
    model, _ = twins.make("native, attention only", seed=3)
    tokens = torch.randint(5, 60, (4, 9), generator=torch.Generator().manual_seed(0))
    task = by_tokens(tokens)
    last = [(model.cfg.n_layers - 1, head) for head in range(4)]
    found = pairs(model, task, last)
    off = ~torch.eye(4, dtype=torch.bool)
    assert found.alone.abs().max() > 1e-3
    assert_close(found.interaction[off], torch.zeros(12), atol=1e-5, rtol=0)
    earlier = pairs(model, task, [(0, 0), last[0]])
    assert earlier.interaction[0, 1].abs() > 1e-5


def by_tokens(tokens):
    from hooks import Prompts

    prompts = Prompts(tokens, torch.full((len(tokens),), tokens.shape[1]))
    ids = torch.arange(len(tokens))[:, None]
    return tasks.Task("by hand", prompts, prompts, ids + 5, ids + 25, {}, ids[:, 0])


def test_an_interaction_is_what_three_runs_of_the_model_say(tiny_gqa):
    task = tasks.ioi(tiny_gqa, prompts=4, seed=0, corruption="third")
    found = pairs(tiny_gqa, task, [(0, 1), (1, 3)])

    def run(writes):
        with intervening(tiny_gqa, writes):
            return LOGIT(tiny_gqa(task.clean), task)

    one, other = {Site("z", 0): edits.zero(heads=[1])}, {Site("z", 1): edits.zero(heads=[3])}
    plain = LOGIT(tiny_gqa(task.clean), task)
    expected = run(one | other) - run(one) - run(other) + plain
    assert_close(found.interaction[0, 1], expected.mean(), atol=1e-5, rtol=1e-4)
    assert_close(found.pairs_per_prompt[0, 1], run(one | other) - plain, atol=1e-5, rtol=1e-4)
    assert found.interaction.isnan().sum() == 2


# Planted: what single ablation misses


def test_a_backup_is_missed_by_single_ablation_and_found_by_pairs(loaded):
    model, task, truth = loaded("backup", prompts=12)
    backup, first = truth.roles["backup"][0], truth.roles["first"][0]
    alone = heads.ablate_each(model, task, metric=LOGIT)
    assert first not in alone.significant() and backup not in alone.significant()
    found = pairs(model, task, [*truth.irrelevant[:3], backup, first])
    assert found.significant() == [(backup, first)]
    assert_close(found.interaction[found.at(backup, first)], torch.tensor(-8.0), atol=1e-3, rtol=0)


@pytest.mark.parametrize("ablation", ["zero", "mean"])
def test_the_search_finds_the_backup_and_stops(loaded, ablation):
    model, task, truth = loaded("backup", prompts=12)
    first = truth.roles["first"][0]
    found = heads.backups(model, task, first, metric=LOGIT, ablation=ablation)
    assert found.found() == list(truth.roles["backup"])
    assert found.accepted.tolist() == [True, False]
    assert_close(found.growth[0], torch.tensor(-8.0), atol=1e-3, rtol=0)
    assert abs(found.before) < 1e-3
    assert found.map[0][first].isnan()


def test_no_backup_is_found_where_there_is_none(loaded):
    model, task, truth = loaded("duplicate", prompts=12)
    found = heads.backups(model, task, truth.roles["induction"][0], metric=LOGIT, ablation="zero")
    assert found.found() == []
    assert "no other head is shown to take over" in found.sentence()


def test_heads_of_which_any_one_suffices_show_only_when_all_are_gone(loaded):
    model, task, truth = loaded("redundant")
    four = truth.roles["induction"]
    found = heads.interaction(
        model, task, [four[:2], four[:3], four], metric=LOGIT, ablation="zero"
    )
    assert_close(found.effect, torch.tensor([0.0, 0.0, -8.0]), atol=1e-4, rtol=0)
    assert_close(found.interaction, torch.tensor([0.0, 0.0, -8.0]), atol=1e-4, rtol=0)


@pytest.mark.slow
def test_four_trained_heads_cost_next_to_nothing_one_by_one_and_everything_together(loaded):
    """Any one at most 0.2 nats, all four at least log V = 3.69: far more than their sum."""
    model, task, truth = loaded("induction-4", prompts=16)
    four = truth.roles["induction"]
    logprob = metrics.answer_logprob
    alone = heads.ablate_each(model, task, metric=logprob)
    assert all(alone.effect[one] >= -0.2 for one in four)
    found = heads.interaction(model, task, [four], metric=logprob, ablation="zero")
    assert found.effect[0] <= -3.69
    assert found.ratio[0] > 10
    search = heads.backups(model, task, four[0], metric=logprob, ablation="zero")
    assert set(search.found()) == set(four[1:])


# Statistics


@pytest.mark.slow
def test_models_without_meaning_show_pairs_and_backups_no_more_often_than_the_level_says():
    """24 random models: wrong about any pair in at most 5 % of them; 5 or more has p < 0.01."""
    wrong = backed = 0
    for seed in range(24):
        model, _ = twins.make("native, attention only", seed=seed)
        generator = torch.Generator().manual_seed(seed)
        tokens = torch.randint(5, 60, (16, 8), generator=generator)
        answers = torch.stack([torch.randperm(55, generator=generator)[:2] + 5 for _ in range(16)])
        task = dataclasses.replace(by_tokens(tokens), answer=answers[:, :1], foil=answers[:, 1:])
        found = pairs(model, task, [(0, 0), (0, 1), (1, 2), (1, 3)])
        wrong += bool((found.p <= 0.05).any())
        search = heads.backups(model, task, (0, 0), metric=LOGIT, ablation="zero", most=1)
        backed += len(search.found())
    assert wrong <= 4
    assert backed <= 4


def test_the_prompts_that_choose_a_backup_do_not_judge_it(tiny):
    task = tasks.ioi(tiny, prompts=12, seed=0, corruption="third")
    found = heads.backups(tiny, task, (0, 0), metric=LOGIT, most=1)
    chosen = found.heads[0]
    assert found.growth_per_prompt.shape == (1, 6)
    assert found.map[0][chosen] == found.map[0].nan_to_num(nan=torch.inf).min()
    assert not torch.isclose(found.growth[0], found.map[0][chosen], rtol=1e-3)


def test_the_same_seed_gives_the_same_bits_and_a_result_comes_back_from_disk(tiny, tmp_path):
    task = tasks.ioi(tiny, prompts=12, seed=0, corruption="third")
    some = [(0, 0), (1, 1), (1, 2)]
    for make in (
        lambda: pairs(tiny, task, some, ablation="mean"),
        lambda: heads.interaction(tiny, task, [some, some[:2]], metric=LOGIT),
        lambda: heads.backups(tiny, task, (0, 0), metric=LOGIT, among=some[1:]),
    ):
        one = make()
        assert results.digest(one) == results.digest(make())
        results.save(one, tmp_path / "result.nc")
        again = results.load(type(one), tmp_path / "result.nc")
        assert again.sentence() == one.sentence() and again.headline() == one.headline()


# Choosing, and what is refused


def test_candidates_are_the_costliest_their_like_and_their_kind():
    of = [(0, 0), (0, 1), (1, 0), (1, 1)]
    similarity = torch.tensor([[1, 0.1, 0.9, 0], [0.1, 1, 0, 0.2], [0.9, 0, 1, 0], [0, 0.2, 0, 1]])
    found = heads.candidates(
        [(0, 0), (0, 1)], n=1, alike={"induction": [(0, 0), (1, 1)]}, similarity=similarity, of=of
    )
    assert found.heads == [(0, 0), (1, 1), (1, 0)]
    assert found.reasons == ["costs most alone", "induction", "most similar to 0.0"]
    with pytest.raises(ValueError, match=r"a similarity of \(4, 4\) for 3 heads"):
        heads.candidates(of, n=1, similarity=similarity, of=of[:3])
    with pytest.raises(ValueError, match="ask for 1 to 4"):
        heads.candidates(of, n=5)


def test_overlap_is_counted_in_the_direction_of_the_pair(loaded):
    """Two heads that get in the way and stand in for each other: both > sum, not below it."""
    model, task, truth = loaded("or")
    found = pairs(model, task, truth.heads)
    turned = dataclasses.replace(found, pairs_per_prompt=-found.pairs_per_prompt)
    assert_close(turned.overlap(), found.overlap())


@pytest.mark.parametrize(
    ("some", "message"),
    [
        ([(0, 1), (0, 1)], "head 0.1 was given twice"),
        ([(0, 1), (7, 0)], "there is no head 7.0: layers are 0 to"),
        ([(0, 1), (0, 99)], "there is no head 0.99"),
        ([(0, 1)], "1 heads were given: this takes at least 2"),
    ],
)
def test_heads_that_cannot_be_are_named(tiny, some, message):
    task = tasks.ioi(tiny, prompts=4, seed=0)
    with pytest.raises(ValueError, match=message):
        pairs(tiny, task, some)
    with pytest.raises(ValueError, match=message):
        heads.interaction(tiny, task, [some], metric=LOGIT)


def test_too_few_prompts_are_refused(tiny):
    task = tasks.ioi(tiny, prompts=4, seed=0)
    with pytest.raises(ValueError, match="need 12 or more"):
        heads.backups(tiny, task, (0, 0), metric=LOGIT)
    with pytest.raises(ValueError, match="at least two"):
        pairs(tiny, task[0], [(0, 0), (0, 1)])
    with pytest.raises(KeyError, match=r"head 1.1 was not among"):
        pairs(tiny, task, [(0, 0), (0, 1)]).at((0, 0), (1, 1))
