"""The prompts that planted models were made for, judged without any model."""

import pytest
import torch

from workbench import models, tasks
from workbench.models.planted import vocabulary


@pytest.fixture(scope="module")
def gates() -> models.Model:
    return models.load("planted/or")


@pytest.fixture(scope="module")
def program() -> models.Model:
    return models.load("planted/brackets")


def said(model, prompts) -> list[list[str]]:
    return [[word.strip() for word in row[1:]] for row in models.words(model, prompts)]


def at(model, tokens, positions) -> list[str]:
    said = models.words(model, tokens[torch.arange(len(tokens)), positions])
    return [word.strip() for word in said]


def test_each_planted_model_is_given_the_prompts_it_was_made_for(gates, program):
    pair = models.load("planted/induction-pair")
    for model, name in ((gates, "gate"), (program, "brackets"), (pair, "induction")):
        task = tasks.planted(model, prompts=6, seed=3)
        assert task.name == name and len(task) == 6
        assert task.digest == getattr(tasks, name)(model, prompts=6, seed=3).digest
        assert task.digest != tasks.planted(model, prompts=6, seed=4).digest
        assert tasks.solved(model, task).accuracy.value == 1


def test_both_words_of_a_gate_are_on_in_clean_and_off_in_corrupt_prompts(gates):
    task = tasks.gate(gates, prompts=40, seed=0)
    for role, on, off in (
        ("FIRST", vocabulary.FIRST_ON, vocabulary.FIRST_OFF),
        ("SECOND", vocabulary.SECOND_ON, vocabulary.SECOND_OFF),
    ):
        assert set(at(gates, task.clean.tokens, task.positions[role])) == set(on)
        assert set(at(gates, task.corrupt.tokens, task.positions[role])) == set(off)
    assert set(at(gates, task.clean.tokens, task.positions["END"])) == {"so"}
    changed = (task.clean.tokens != task.corrupt.tokens).sum(dim=1)
    assert changed.tolist() == [2] * 40


def test_the_words_of_a_gate_stand_anywhere_and_in_either_order(gates):
    task = tasks.gate(gates, prompts=40, seed=0)
    first, second = task.positions["FIRST"], task.positions["SECOND"]
    assert len(set(first.tolist())) > 4 and len(set(task.clean.lengths.tolist())) > 3
    assert 5 < int((first < second).sum()) < 35


def depths(brackets: list[str]) -> list[int]:
    total, found = 0, []
    for bracket in brackets[:-1]:
        total += {"(": 1, ")": -1}[bracket]
        found.append(total)
    return found


def test_clean_brackets_are_balanced_and_corrupt_ones_fail_as_their_group_says(program):
    task = tasks.brackets(program, prompts=40, seed=0)
    rows = zip(said(program, task.clean), said(program, task.corrupt), strict=True)
    for number, (clean, corrupt) in enumerate(rows):
        assert clean[-1] == corrupt[-1] == "?"
        assert min(depths(clean)) >= 0 and depths(clean)[-1] == 0
        found = depths(corrupt)
        if task.templates[task.group[number]] == "order":
            assert min(found) < 0 and found[-1] == 0
        else:
            assert min(found) >= 0 and found[-1] == 2
        flip = int(task.positions["FLIP"][number]) - 1
        assert clean[:flip] == corrupt[:flip] and clean[flip] != corrupt[flip]
    assert task.group.bincount().tolist() == [20, 20]
    assert len({" ".join(row) for row in said(program, task.clean)}) == 40


def test_a_model_without_these_words_is_told_so(tiny):
    with pytest.raises(ValueError, match=r"gate|brackets"):
        tasks.brackets(tiny, prompts=2, seed=0)
