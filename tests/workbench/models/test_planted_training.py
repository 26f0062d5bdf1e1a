"""Induction that is trained: the recipe, the cache, and the numbers that come out of it."""

import dataclasses
from itertools import combinations, pairwise
from math import factorial, log

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

from hooks import Site, capture, edits, intervening
from hooks.conformance import check_model
from workbench import metrics, models, tasks
from workbench.models import planted
from workbench.models.bridge import digest
from workbench.models.planted import trained, vocabulary


@pytest.fixture
def hasty(monkeypatch, tmp_path):
    """Recipes of three steps, of which nothing is expected, and a cache of their own."""
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))
    short = {name: dataclasses.replace(one, steps=3) for name, one in trained.RECIPES.items()}
    monkeypatch.setattr(trained, "RECIPES", short)
    monkeypatch.setattr(trained, "_LEARNED", 100.0)
    return tmp_path


def test_prompts_repeat_a_segment_whose_length_differs_from_prompt_to_prompt():
    tokens, told = trained.repeats(200, torch.Generator().manual_seed(0))
    periods = set()
    for row, known in zip(tokens[:, 1:].tolist(), told[:, :-1].tolist(), strict=True):
        period = row[1:].index(row[0]) + 1
        assert row == (row[:period] * len(row))[: len(row)]
        assert len(set(row[:period])) == period
        assert sum(known) == len(row) - 1 - period
        periods.add(period)
    assert periods == set(range(6, 17))
    special = len(vocabulary.SPECIAL)
    assert set(tokens[:, 1:].unique().tolist()) == set(range(special, special + 40))
    assert (tokens[:, 0] == 0).all()


def test_what_a_model_is_trained_on_is_told_by_the_prompt_itself():
    tokens, told = trained.repeats(20, torch.Generator().manual_seed(0))
    for row, known in zip(tokens.tolist(), told.tolist(), strict=True):
        pairs = list(pairwise(row))
        assert known[:-1] == [pair in pairs[:at] for at, pair in enumerate(pairs)]


@pytest.mark.parametrize("name", trained.RECIPES)
def test_the_same_seed_trains_the_same_bits_and_another_one_others(hasty, name):
    recipe = trained.RECIPES[name]
    found = [digest(trained.train(recipe, seed=seed, name=name)[0]) for seed in (0, 0, 1)]
    assert found[0] == found[1] != found[2]


def test_one_head_of_a_layer_is_silent_for_each_prompt_while_a_recipe_says_so():
    recipe = trained.Recipe(4, 1, silenced=1.0)
    model = trained._untrained(recipe)
    trained._initialise(model, torch.Generator().manual_seed(0))
    tokens, _ = trained.repeats(6, torch.Generator().manual_seed(1))
    seen = []
    output = model.layers[1].attn.o
    with trained._silenced(model, recipe, torch.Generator().manual_seed(2)):
        watch = output.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
        model(tokens)
        watch.remove()
    z = seen[0].unflatten(-1, (4, -1))
    silent = (z == 0).all(dim=-1).all(dim=1)
    assert silent.sum(dim=1).tolist() == [1] * 6
    assert len(set(silent.float().argmax(dim=1).tolist())) > 1
    assert not output._forward_pre_hooks


def test_a_model_is_trained_once_and_then_read_from_the_cache(hasty, monkeypatch):
    first = planted.load("planted/induction-2/5")
    monkeypatch.setattr(trained, "train", None)
    again = planted.load("planted/induction-2/5")
    assert again.origin == first.origin
    assert first.origin.source == "trained here, seed 5"
    tokens = torch.arange(3, 13)[None]
    assert_close(again(tokens), first(tokens), rtol=0, atol=0)


def test_weights_that_changed_in_the_cache_are_refused(hasty):
    planted.load("planted/induction-1")
    (kept,) = hasty.rglob("model.safetensors")
    state = load_file(kept)
    state["head.weight"][0, 0] += 1
    save_file(state, kept)
    with pytest.raises(OSError, match="are not those that were written there"):
        planted.load("planted/induction-1")


def test_a_model_that_did_not_learn_is_refused_and_not_kept(hasty, monkeypatch):
    monkeypatch.setattr(trained, "_LEARNED", 0.1)
    with pytest.raises(RuntimeError, match=r"planted/induction-1 did not learn.*another seed"):
        planted.load("planted/induction-1")
    assert not list(hasty.rglob("model.safetensors"))


def test_training_leaves_the_global_random_state_alone(hasty):
    before = torch.get_rng_state()
    planted.load("planted/induction-4-gqa")
    assert torch.get_rng_state().equal(before)


# The numbers; each model takes some seconds the first time


def loss(model, task, gone) -> float:
    """Nats at the last word when these heads are zero; log 40 = 3.69 is knowing nothing."""
    sites: dict[Site, list[int]] = {}
    for layer, head in gone:
        sites.setdefault(Site("z", layer), []).append(head)
    writes = {site: edits.zero(heads=some) for site, some in sites.items()}
    with torch.no_grad():
        if not writes:
            return -float(metrics.answer_logprob(model(task.clean), task).mean())
        with intervening(model, writes):
            return -float(metrics.answer_logprob(model(task.clean), task).mean())


def learned(name: str):
    model = models.load(f"planted/{name}")
    return model, tasks.planted(model, prompts=64, seed=0), planted.truth(model)


@pytest.mark.slow
@pytest.mark.parametrize("name", trained.RECIPES)
def test_every_known_number_holds_on_average(name):
    model, task, truth = learned(name)
    assert tasks.solved(model, task).accuracy.value == 1
    for known in truth.known:
        assert known.how in ("zero", "noising") and known.metric == "answer_logprob"
        assert known.low <= -loss(model, task, known.heads) <= known.high, known


@pytest.mark.slow
@pytest.mark.parametrize("name", trained.RECIPES)
def test_a_trained_model_keeps_the_promises_of_its_architecture(name):
    model, _, _ = learned(name)
    assert check_model(model).passed


@pytest.mark.slow
@pytest.mark.parametrize("name", trained.RECIPES)
def test_the_second_layer_attends_to_what_followed_the_last_word_before(name):
    model, task, _ = learned(name)
    seen = capture(model, task.clean, [Site("pattern", 1)])[Site("pattern", 1)]
    rows = torch.arange(len(task))
    score = seen[rows, :, task.positions["END"], task.positions["PREVIOUS"]].mean(dim=0)
    assert float(score.min()) > 0.7


@pytest.mark.slow
def test_with_one_head_a_layer_each_is_needed():
    model, task, _ = learned("induction-1")
    assert loss(model, task, ()) < 0.01
    for head in ((0, 0), (1, 0)):
        assert loss(model, task, (head,)) >= 3.69


@pytest.mark.slow
def test_with_two_heads_a_layer_they_share_the_work():
    model, task, _ = learned("induction-2")
    costs = [loss(model, task, ((1, head),)) - loss(model, task, ()) for head in (0, 1)]
    assert all(0.05 < cost < 1 for cost in costs)
    assert loss(model, task, ((1, 0), (1, 1))) >= 3.69


@pytest.mark.slow
@pytest.mark.parametrize("name", ["induction-4", "induction-4-gqa"])
def test_with_four_heads_a_layer_none_is_needed_and_all_are(name):
    """Shapley values by enumeration: near equal, and their sum is what the layer is worth."""
    model, task, truth = learned(name)
    every = truth.roles["induction"]
    plain = loss(model, task, ())
    costs = {
        frozenset(gone): loss(model, task, gone) - plain
        for size in range(5)
        for gone in combinations(every, size)
    }
    alone = [costs[frozenset({head})] for head in every]
    together = costs[frozenset(every)]
    assert max(alone) <= 0.2 and together >= log(40)
    assert together / sum(alone) > 10  # far more than the sum of its members

    def shapley(head) -> float:
        total = 0.0
        for gone in costs:
            if head not in gone:
                weight = factorial(len(gone)) * factorial(3 - len(gone)) / factorial(4)
                total += weight * (costs[gone | {head}] - costs[gone])
        return total

    values = [shapley(head) for head in every]
    assert sum(values) == pytest.approx(together, abs=1e-4)
    assert min(values) > together / 8
