"""IOI, induction, greater-than and agreement are what their names say."""

import pytest
import torch

from workbench import models, tasks


def at(model, task, role) -> list[str]:
    rows = torch.arange(len(task))
    return models.words(model, task.clean.tokens[rows, task.positions[role]])


def test_ioi_names_stand_where_the_roles_say(model):
    task = tasks.ioi(model, prompts=24, seed=0)
    answer, foil = (models.words(model, ids[:, 0]) for ids in (task.answer, task.foil))
    assert at(model, task, "IO") == answer
    assert at(model, task, "S1") == foil
    assert at(model, task, "S2") == foil
    assert at(model, task, "END") == [" to"] * 24
    assert task.positions["S1+1"].equal(task.positions["S1"] + 1)
    assert (task.positions["S2"] > task.positions["S1+1"]).all()


def test_ioi_groups_are_six_templates_in_two_orders(tiny):
    task = tasks.ioi(tiny, prompts=24, seed=0)
    assert len(task.templates) == 12
    for row, group in enumerate(task.group.tolist()):
        first = task.positions["IO"][row] < task.positions["S1"][row]
        assert task.templates[group].endswith("ABBA" if first else "BABA")


def test_swapped_ioi_differs_in_the_second_subject_alone(tiny):
    task = tasks.ioi(tiny, prompts=24, seed=0, corruption="swap")
    rows = torch.arange(24)
    expected = task.clean.tokens.clone()
    expected[rows, task.positions["S2"]] = task.answer[:, 0]
    assert task.corrupt.tokens.equal(expected)


def test_third_names_occur_nowhere_else(tiny):
    task = tasks.ioi(tiny, prompts=24, seed=0, corruption="third")
    rows = torch.arange(24)
    places = [task.positions[role] for role in ("IO", "S1", "S2")]
    names = torch.stack([task.corrupt.tokens[rows, place] for place in places], dim=1)
    for row in range(24):
        assert len({*names[row].tolist(), int(task.answer[row]), int(task.foil[row])}) == 5
    same = task.clean.tokens == task.corrupt.tokens
    assert ((~same).sum(dim=1) == 3).all()


def test_both_corruptions_have_the_same_clean_prompts(tiny):
    swap, third = (tasks.ioi(tiny, prompts=9, seed=2, corruption=how) for how in ("swap", "third"))
    assert swap.clean.tokens.equal(third.clean.tokens)


def test_an_unknown_corruption_is_refused(tiny, unchecked_types):
    with pytest.raises(ValueError, match="corruption 'noise' is not known: take \"swap\" or"):
        tasks.ioi(tiny, prompts=4, seed=0, corruption="noise")


def test_induction_says_the_beginning_of_a_segment_again(model):
    task = tasks.induction(model, prompts=30, seed=0, period=(5, 9))
    for row in range(30):
        ids = task.clean.tokens[row, : task.clean.lengths[row]].tolist()
        end, previous = len(ids) - 1, int(task.positions["PREVIOUS"][row])
        period = ids.index(ids[0], 1)
        assert 5 <= period <= 9
        assert ids[period:] == ids[: len(ids) - period]
        assert len(set(ids[:period])) == period
        assert previous == int(task.positions["EARLIER"][row]) + 1 == end - period + 1
        assert ids[previous] == int(task.answer[row, 0])
        assert ids[previous - 1] == ids[end]


def test_the_period_and_the_place_of_the_answer_are_random(tiny):
    task = tasks.induction(tiny, prompts=60, seed=0, period=(5, 9))
    periods = task.positions["END"] - task.positions["EARLIER"]
    assert set(periods.tolist()) == {5, 6, 7, 8, 9}
    assert len(set(task.positions["PREVIOUS"].tolist())) > 3


def test_corrupt_induction_repeats_nothing_and_knows_neither_answer_nor_foil(tiny):
    task = tasks.induction(tiny, prompts=30, seed=0)
    for row in range(30):
        length = int(task.clean.lengths[row])
        clean = task.clean.tokens[row, :length].tolist()
        corrupt = task.corrupt.tokens[row, :length].tolist()
        period = clean.index(clean[0], 1)
        assert corrupt[period:] == clean[period:]
        assert len(set(corrupt)) == length
        assert int(task.answer[row]) not in corrupt
        assert int(task.foil[row]) not in corrupt
        assert int(task.foil[row]) in clean[:period]


def test_induction_uses_no_special_token(small):
    task = tasks.induction(small, prompts=100, seed=0)  # 777 tokens: each is drawn several times
    ids = {*task.clean.tokens[task.clean.mask.bool()].tolist(), *task.foil[:, 0].tolist()}
    assert len(ids) > 500
    assert not set(small.tokenizer.all_special_ids) & ids


def test_an_unknown_attractor_is_refused(tiny, unchecked_types):
    with pytest.raises(ValueError, match='attractor \'no\' is not known: take "other" or "same"'):
        tasks.agreement(tiny, prompts=4, seed=0, attractor="no")


@pytest.mark.parametrize("period", [(3, 9), (9, 8)])
def test_a_period_that_cannot_be_is_refused(tiny, period):
    with pytest.raises(ValueError, match=r"must be \(shortest, longest\) with 4 <= shortest"):
        tasks.induction(tiny, prompts=2, seed=0, period=period)


def test_a_period_too_long_for_the_model_is_refused(tiny):
    with pytest.raises(ValueError, match="up to 600 tokens, the model takes 256"):
        tasks.induction(tiny, prompts=2, seed=0, period=(4, 300))


def test_the_tens_digit_of_the_year_decides(model):
    task = tasks.greater_than(model, prompts=30, seed=0)
    for row, digit in enumerate(at(model, task, "YY")):
        answer = models.words(model, task.answer[row][task.answer[row] >= 0])
        foil = models.words(model, task.foil[row][task.foil[row] >= 0])
        assert answer == [str(one) for one in range(int(digit) + 1, 10)]
        assert foil == [str(one) for one in range(int(digit))]


def test_the_corrupt_year_has_a_tens_digit_of_zero_and_all_else_is_the_same(model):
    task = tasks.greater_than(model, prompts=30, seed=0)
    rows = torch.arange(30)
    corrupt = task.corrupt.tokens[rows, task.positions["YY"]]
    assert models.words(model, corrupt) == ["0"] * 30
    assert ((task.clean.tokens != task.corrupt.tokens).sum(dim=1) == 1).all()


def test_a_year_ends_in_the_century_it_began_in(tiny):
    task = tasks.greater_than(tiny, prompts=10, seed=0)
    for row in models.words(tiny, task.clean):
        digits = "".join(one for one in row if one.isdigit())
        assert len(digits) == 6
        assert digits[:2] == digits[4:]


def test_agreement_changes_the_subject_and_keeps_the_attractor(model):
    task = tasks.agreement(model, prompts=30, seed=0)
    changed = (task.clean.tokens != task.corrupt.tokens).nonzero()
    assert changed[:, 1].equal(task.positions["subject"])
    assert task.positions["attractor"].equal(task.clean.last)


def test_verbs_agree_with_the_subject_and_not_with_the_attractor(tiny):
    from workbench import words

    plurals = {f" {one}" for one in (*words.NOUNS.values(), *words.VERBS.values())}
    for attractor, opposite in (("other", True), ("same", False)):
        task = tasks.agreement(tiny, prompts=30, seed=0, attractor=attractor)
        answers = models.words(tiny, task.answer[:, 0])
        subjects, near = at(tiny, task, "subject"), at(tiny, task, "attractor")
        for answer, subject, beside in zip(answers, subjects, near, strict=True):
            assert (answer in plurals) == (subject in plurals)
            assert ((beside in plurals) != (subject in plurals)) == opposite
