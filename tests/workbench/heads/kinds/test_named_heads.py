"""Which heads are named, and that no others are."""

import dataclasses

import pytest
import torch
from torch.testing import assert_close

from workbench import heads, models, tasks
from workbench.heads.kinds import attending
from workbench.models import tiny as recipe
from workbench.models import twins
from workbench.models.bridge import wrap

PAIRS = [
    "planted/induction-pair", "planted/induction-pair-gpt2", "planted/induction-pair-llama",
    "planted/induction-pair-gqa", "planted/induction-pair/3",
]  # fmt: skip


@pytest.mark.parametrize("name", PAIRS)
def test_planted_heads_are_named_and_no_others(name):
    model = models.load(name)
    roles = models.planted.truth(model).roles
    found = heads.types(model, tasks.planted(model, prompts=12, seed=1), prompts=8)
    assert found.of("previous token") == list(roles["previous token"])
    assert found.of("induction") == list(roles["induction"])
    assert found.of("copying") == list(roles["induction"])
    assert found.of("positive OV") == list(roles["induction"])
    for type in ("duplicate token", "fixed offset", "copy-suppressing", "negative OV"):
        assert found.of(type) == []


def test_every_copy_of_an_induction_head_is_named():
    model = models.load("planted/duplicate")
    roles = models.planted.truth(model).roles
    found = heads.types(model, tasks.planted(model, prompts=12, seed=1), prompts=8)
    alike = {*roles["induction"], *roles["same pattern"]}
    assert set(found.of("induction")) == alike
    assert found.of("fixed offset") == list(roles["same output"])
    assert int(found.offset[roles["same output"][0]]) == 0
    assert set(found.of("copying")) == {*roles["induction"], *roles["same output"]}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["planted/induction-1", "planted/induction-4"])
def test_heads_that_learned_induction_are_named(name):
    model = models.load(name)
    roles = models.planted.truth(model).roles
    found = heads.types(model, tasks.planted(model, prompts=16, seed=1), prompts=16)
    assert set(found.of("induction")) == set(roles["induction"])
    if "previous token" in roles:
        assert found.of("previous token") == list(roles["previous token"])


def remade(seed):
    """The tiny model with other random weights."""
    ours = recipe.tokenizer()
    with torch.random.fork_rng(devices=[]):
        made = recipe._gpt2(len(ours)) if seed % 2 else recipe._llama(len(ours))
    recipe.fill(made, torch.Generator().manual_seed(seed))
    return wrap(made, ours, name=f"random {seed}")


@pytest.mark.slow
def test_random_weights_have_heads_of_no_type(most_by_chance):
    named, drawn, sure, natural = 0, 0, {}, dict.fromkeys(attending.THRESHOLDS, 0)
    for seed in range(100, 140):
        model = remade(seed)
        found = heads.types(model, tasks.ioi(model, prompts=12, seed=seed), prompts=12, seed=seed)
        named += any(found.named().values())
        for at, type in enumerate(found.types):
            sure[type] = sure.get(type, 0) + bool((found.p[at] <= 0.05).any())
        ats = [found.types.index(type) for type in natural]
        drawn += bool((found.p[ats] <= 0.05).any())  # corrected for all these types together
        for type, at in zip(natural, ats, strict=True):
            natural[type] += bool((found.natural_p[at] <= 0.05).any())
    # 40 models at 5 % each: more than 5 have a chance of 1.4 %
    assert named <= 5
    # Of the p-values alone: the families whose null holds for random weights.
    assert sum(sure[type] for type in ("copying", "copy-suppressing")) <= 10
    assert sum(sure[type] for type in ("name mover", "negative name mover")) <= 8
    assert sum(sure[type] for type in ("positive OV", "negative OV")) <= 8
    assert sure["S-inhibition"] <= 6
    assert max(drawn, *natural.values()) <= most_by_chance(40), (drawn, natural)


def test_a_random_model_has_heads_of_no_type():
    for seed in (1, 2, 3, 4):
        model = remade(seed)
        found = heads.types(model, tasks.ioi(model, prompts=8, seed=0), prompts=8)
        assert not any(found.named().values())


def test_a_small_effect_is_not_named_however_sure(found):
    at = found.types.index("induction")
    p, effect = torch.zeros_like(found.p), found.effect.clone()
    effect[at] = 0.29
    effect[at, 1, 2] = 0.31
    sure = dataclasses.replace(found, p=p, effect=effect)
    assert sure.of("induction") == [(1, 2)]
    assert dataclasses.replace(sure, p=p + 0.06).of("induction") == []


def test_a_head_that_looks_back_on_random_tokens_alone_is_not_named(found):
    at = found.types.index("previous token")
    ones, zeros = torch.ones_like(found.p), torch.zeros_like(found.p)
    both = dataclasses.replace(found, p=zeros, effect=ones, natural=ones, natural_p=zeros)
    assert len(both.of("previous token")) == 8
    natural = ones.clone()
    natural[at, 0] = 0.1
    assert len(dataclasses.replace(both, natural=natural).of("previous token")) == 4


def test_both_types_of_one_test_have_opposite_effects(found):
    a, b = (found.types.index(type) for type in ("name mover", "negative name mover"))
    assert_close(found.effect[a], -found.effect[b])
    assert_close(found.low[a], -found.high[b])
    assert ((found.p[a] == 1) | (found.p[b] == 1)).all()


@pytest.mark.parametrize("architecture", ["GPT-2", "Llama", "GPT-NeoX", "Qwen 3", "Gemma 3"])
def test_every_architecture_is_asked_what_it_can_be(architecture):
    model, _ = twins.make(architecture)
    found = heads.types(model, tasks.induction(model, prompts=4, seed=0, period=(5, 8)), prompts=4,
                        period=(5, 8))  # fmt: skip
    assert found.effect.shape[1:] == (model.cfg.n_layers, model.cfg.n_heads)
    assert not any(found.of(type) for type in attending.THRESHOLDS)
    assert ("copying" in found.left_out) == (architecture == "Gemma 3")


def test_prompts_too_short_to_repeat_anything_are_left_out(model):
    """Of the drawn prompts one has six tokens and a period of five: no token is said twice."""
    repeats = tasks.induction(model, prompts=16, seed=0, period=(5, 8))
    known = attending.attention(
        model, repeats.clean[:8], ["induction", "duplicate token"], batch_size=8
    )
    held = ~known.score[1].isnan().any(dim=0)
    assert int(held.sum()) == 7
    found = heads.types(model, repeats, prompts=8, period=(5, 8))
    expected = known.score[0][:, held].mean(1).reshape(2, 4)
    assert_close(found.score[found.types.index("induction")], expected.float())


@pytest.mark.slow
def test_the_default_model_has_the_heads_that_move_names(default_model):
    task = tasks.ioi(default_model, prompts=32, seed=0)
    found = heads.types(default_model, task)
    assert set(found.of("induction")) >= {(18, 6), (17, 3), (17, 4), (17, 5)}
    assert set(found.of("previous token")) >= {(16, 0), (11, 1)}
    assert found.of("name mover")[:3] == [(23, 0), (23, 1), (23, 2)]
    assert found.of("negative name mover") == [(24, 4)]
    assert (24, 4) in found.of("copy-suppressing")
    assert found.of("S-inhibition")[0] == (20, 0)
    assert not found.caveat
