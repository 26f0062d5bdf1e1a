"""What holds for every task that is drawn."""

import pytest
import torch

from workbench import models, tasks

DRAWN = {
    "induction": tasks.induction,
    "ioi": tasks.ioi,
    "greater_than": tasks.greater_than,
    "agreement": tasks.agreement,
    "capitals": tasks.capitals,
    "hypernymy": tasks.hypernymy,
    "gender": tasks.gender,
}


ROLES = {
    "induction": {"EARLIER", "PREVIOUS", "END"},
    "ioi": {"IO", "S1", "S1+1", "S2", "END"},
    "greater_than": {"event", "YY", "END"},
    "agreement": {"subject", "attractor", "END"},
    "capitals": {"country", "END"},
    "hypernymy": {"member", "END"},
    "gender": {"name", "END"},
}


every_task = pytest.mark.parametrize("name", DRAWN)


def text(model, tokens) -> str:
    return "".join(models.words(model, tokens))


@every_task
def test_a_task_has_the_prompts_and_roles_that_were_asked_for(model, name):
    task = DRAWN[name](model, prompts=20, seed=0)
    assert task.name == name
    assert len(task) == 20
    assert set(task.positions) == ROLES[name]
    assert task.clean.lengths.equal(task.corrupt.lengths)
    assert task.positions["END"].equal(task.clean.last)


@every_task
def test_clean_prompts_are_distinct_and_differ_from_their_corrupt_ones(model, name):
    task = DRAWN[name](model, prompts=40, seed=0)
    clean = [text(model, row) for row in task.clean.tokens]
    corrupt = [text(model, row) for row in task.corrupt.tokens]
    assert len(set(clean)) == 40
    assert all(one != other for one, other in zip(clean, corrupt, strict=True))


@every_task
def test_no_prompt_holds_a_token_that_the_tokenizer_does_not_know(small, name):
    task = DRAWN[name](small, prompts=60, seed=3)
    for prompts in (task.clean, task.corrupt):
        real = prompts.tokens[prompts.mask.bool()]
        assert small.tokenizer.unk_token_id not in real.tolist()


@every_task
def test_no_answer_is_a_foil(model, name):
    task = DRAWN[name](model, prompts=40, seed=1)
    for answer, foil in zip(task.answer.tolist(), task.foil.tolist(), strict=True):
        assert not {one for one in answer if one >= 0} & {one for one in foil if one >= 0}


@every_task
def test_the_same_seed_gives_the_same_bits_and_another_seed_others(tiny, name):
    one, again, other = (DRAWN[name](tiny, prompts=12, seed=seed) for seed in (5, 5, 6))
    assert one.digest == again.digest
    assert one.templates == again.templates
    assert one.digest != other.digest


@every_task
def test_drawing_leaves_the_global_random_state_alone(tiny, name):
    before = torch.get_rng_state()
    DRAWN[name](tiny, prompts=4, seed=0)
    assert torch.equal(torch.get_rng_state(), before)


@every_task
def test_templates_take_turns(tiny, name):
    task = DRAWN[name](tiny, prompts=60, seed=0)
    counts = torch.bincount(task.group, minlength=len(task.templates))
    assert counts.max() - counts.min() <= 1


@every_task
def test_a_task_of_no_prompts_is_refused(tiny, name):
    with pytest.raises(ValueError, match="0 prompts were asked for: a task has at least 1"):
        DRAWN[name](tiny, prompts=0, seed=0)


def test_prompts_repeat_only_when_the_pool_is_used_up(tiny):
    # 24 names in 3 templates are 72 prompts.
    task = tasks.gender(tiny, prompts=100, seed=0)
    assert len({text(tiny, row) for row in task.clean.tokens}) > 65


@pytest.mark.parametrize(
    ("name", "role"), [("capitals", "country"), ("hypernymy", "member"), ("gender", "name")]
)
def test_the_foil_is_what_the_corrupt_prompt_asks_for(model, name, role):
    from workbench import words

    known = dict(words.CAPITALS)
    known |= {member: kind for kind, members in words.KINDS.items() for member in members}
    known |= {**dict.fromkeys(words.WOMEN, "she"), **dict.fromkeys(words.MEN, "he")}
    task = DRAWN[name](model, prompts=30, seed=0)
    rows = torch.arange(30)
    for prompts, ids in ((task.clean, task.answer), (task.corrupt, task.foil)):
        asked = models.words(model, prompts.tokens[rows, task.positions[role]])
        assert [f" {known[one.strip()]}" for one in asked] == models.words(model, ids[:, 0])


def test_no_word_is_of_two_kinds():
    from workbench import words

    members = [member for kind in words.KINDS.values() for member in kind]
    assert len(members) == len(set(members))
    assert not set(members) & set(words.KINDS)


class Letters:
    """A tokenizer that spells: no word but "a" is one token."""

    is_fast = False
    unk_token_id = None
    all_special_ids = ()

    def __call__(self, text, **_):
        return {"input_ids": [ord(letter) for letter in text]}

    def decode(self, ids, **_):
        return "".join(map(chr, ids))


class Spelling:
    tokenizer = Letters()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ioi", "0 of 67 names are single tokens for this tokenizer, at least 5 are needed"),
        ("capitals", "0 of 28 countries are single tokens for this tokenizer, at least 2"),
        ("agreement", r"0 of 36 nouns \(singular and plural\) are single tokens"),
        ("greater_than", "0 of 10 events are single tokens for this tokenizer, at least 1"),
    ],
)
def test_too_few_usable_words_are_counted(name, message):
    with pytest.raises(ValueError, match=message):
        DRAWN[name](Spelling(), prompts=4, seed=0)


def test_a_model_without_tokenizer_is_told_so():
    class Bare:
        tokenizer = None

    with pytest.raises(ValueError, match=r"no tokenizer.*models.wrap, or take tasks.induction"):
        tasks.ioi(Bare(), prompts=4, seed=0)
