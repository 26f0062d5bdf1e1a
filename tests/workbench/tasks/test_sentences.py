"""Sentences of our own: pairs, feelings, and tasks put together."""

import pytest
import torch

from workbench import models, tasks


def test_each_pair_of_grammar_differs_in_one_word_or_two_and_none_is_there_twice(tiny):
    found = tasks.grammar(tiny, prompts=20, seed=0)
    assert len(found.phenomena) == 6
    assert torch.bincount(found.group).tolist() == [20] * 6
    assert found.good.lengths.equal(found.bad.lengths)
    different = (found.good.tokens != found.bad.tokens).sum(dim=1)
    # Words that the tiny model does not know are one and the same token.
    assert int(different.max()) <= 2


def test_feelings_are_left_open_in_the_prompts(tiny):
    task = tasks.feelings(tiny, prompts=9, seed=0)
    text = "".join("".join(row) for row in models.words(tiny, task.clean))
    assert "happy" not in text and "sad" not in text
    assert len(task.templates) == 3
    assert (task.clean.tokens != task.corrupt.tokens).sum(dim=1).tolist() == [1] * 9


def test_sentences_of_a_feeling_are_all_different_and_plain_ones_have_its_frames():
    pleasant = tasks.feeling_sentences("pleasant", count=40, seed=0)
    plain = tasks.feeling_sentences("neutral", count=160, seed=0)
    assert len(set(pleasant)) == 40 and len(set(plain)) == 160
    assert not set(pleasant) & set(plain)
    assert pleasant == tasks.feeling_sentences("pleasant", count=40, seed=0)
    with pytest.raises(ValueError, match="1000 pleasant sentences: there are 1 to"):
        tasks.feeling_sentences("pleasant", count=1000, seed=0)


def test_joined_tasks_have_each_prompt_as_it_was(tiny):
    parts = [
        tasks.agreement(tiny, prompts=5, seed=0),
        tasks.agreement(tiny, prompts=7, seed=1, attractor="same"),
    ]
    found = tasks.joined("both", parts)
    assert len(found) == 12
    for at, (part, row) in ((2, (parts[0], 2)), (9, (parts[1], 4))):
        assert models.words(tiny, found.clean[at]) == models.words(tiny, part.clean[row])
        assert found.answer[at].equal(part.answer[row])
        assert found.positions["subject"][at] == part.positions["subject"][row]
        assert found.templates[found.group[at]] == part.templates[part.group[row]]
    with pytest.raises(ValueError, match="no tasks were given"):
        tasks.joined("none", [])
