"""Statements with labels: balanced, so that nothing but what they are about tells the label."""

import pytest
import torch

from workbench import models, tasks, words
from workbench.tasks.statements import TRUTH


def _texts(model, prompts):
    return ["".join(one) for one in models.words(model, prompts)]


def _crossed(labelled, values):
    """How often each value is found with each label."""
    found = torch.zeros(int(values.max()) + 1, len(labelled.labels), dtype=torch.long)
    found.index_put_((values, labelled.y), torch.ones(len(labelled), dtype=torch.long), True)
    return found


def test_a_statement_is_called_true_where_its_city_is_the_country_s_capital(tiny):
    found = tasks.truth(tiny, subjects=8, seed=0)
    assert found.labels == ("false", "true")
    for text, label in zip(_texts(tiny, found.prompts), found.y.tolist(), strict=True):
        named = [country for country in words.CAPITALS if country in text]
        assert len(named) == 1
        assert (words.CAPITALS[named[0]] in text) == (label == 1)


def test_countries_cities_and_templates_say_nothing_about_the_truth(tiny):
    found = tasks.truth(tiny, subjects=8, seed=3)
    assert len(found) == 8 * len(TRUTH) * 2
    for values in (found.group, found.kind):
        assert _crossed(found, values).unique(dim=1).shape[1] == 1  # as many true as false
    texts = _texts(tiny, found.prompts)
    cities = sorted(set(words.CAPITALS.values()))
    place = torch.tensor([next(n for n, city in enumerate(cities) if city in one) for one in texts])
    counts = _crossed(found, place)
    assert counts[:, 0].equal(counts[:, 1])


def test_the_label_is_about_the_full_stop(tiny):
    found = tasks.truth(tiny, subjects=4, seed=0)
    pieces = models.words(tiny, found.prompts)
    assert {row[at] for row, at in zip(pieces, found.position.tolist(), strict=True)} == {"."}


def test_only_the_templates_that_were_asked_for_are_used(tiny):
    every = tasks.truth(tiny, subjects=4, seed=0)
    one = tasks.truth(tiny, subjects=4, seed=0, templates=["named"])
    assert len(every) == 4 * len(one)
    assert all("has a capital city named" in text for text in _texts(tiny, one.prompts))
    with pytest.raises(ValueError, match="no template 'nemed'; there are capital, city"):
        tasks.truth(tiny, subjects=4, seed=0, templates=["nemed"])
    with pytest.raises(ValueError, match="1 subjects: a false statement needs another country"):
        tasks.truth(tiny, subjects=1, seed=0)


def test_the_subject_s_number_is_not_told_by_the_word_it_is_read_at(tiny):
    found = tasks.number(tiny, nouns=6, seed=0)
    assert found.labels == ("plural", "singular")
    for values in (found.group, found.kind):
        counts = _crossed(found, values)
        assert counts[:, 0].equal(counts[:, 1])
    for text, label in zip(_texts(tiny, found.prompts), found.y.tolist(), strict=True):
        said = text.split()
        subject = said[2] if said[0] == "When" else said[1]
        assert (subject in words.NOUNS) == (found.labels[label] == "singular")


def test_parts_of_speech_are_at_their_words_and_sentences_are_groups(tiny):
    found = tasks.part_of_speech(tiny, sentences=5, seed=0)
    assert len(found) == 5 * 12 and int(found.group.max()) == 4
    pieces = models.words(tiny, found.prompts)
    for row, at, label in zip(pieces, found.position.tolist(), found.y.tolist(), strict=True):
        word = row[at].strip()
        assert (word in words.NOUNS) == (found.labels[label] == "NOUN")
        assert (word in words.NAMES) == (found.labels[label] == "NAME")


@pytest.mark.parametrize(
    "make",
    [
        lambda model, seed: tasks.truth(model, subjects=4, seed=seed),
        lambda model, seed: tasks.number(model, nouns=4, seed=seed),
        lambda model, seed: tasks.part_of_speech(model, sentences=4, seed=seed),
    ],
)
def test_the_same_seed_gives_the_same_prompts_and_another_gives_others(tiny, make):
    assert make(tiny, 0).digest == make(tiny, 0).digest != make(tiny, 1).digest


def test_a_verdict_is_asked_for_after_a_true_and_a_false_statement(tiny):
    task = tasks.verdicts(tiny, subjects=5, seed=0, said=(" happy", " sad"))
    assert len(task) == 10 and task.templates == ("true", "false")
    clean, corrupt = _texts(tiny, task.clean), _texts(tiny, task.corrupt)
    pieces = models.words(tiny, task.clean)
    for row, (text, other) in enumerate(zip(clean, corrupt, strict=True)):
        country = next(one for one in words.CAPITALS if text.startswith(one))
        true = words.CAPITALS[country] in text
        assert true == (task.templates[task.group[row]] == "true")
        assert (words.CAPITALS[country] in other) != true
        assert pieces[row][int(task.positions["statement"][row])] == "."
    assert task.clean.lengths.equal(task.corrupt.lengths)
    with pytest.raises(ValueError, match="no template 'other'"):
        tasks.verdicts(tiny, subjects=5, seed=0, template="other")


def test_the_full_stop_of_a_verdict_is_that_of_the_bare_statement(small):
    # What was learned at a statement's end is found there again, whatever follows.
    task = tasks.verdicts(small, subjects=3, seed=0, said=(" happy", " sad"))
    bare = tasks.truth(small, subjects=40, seed=0, templates=["named"])
    known = {tuple(row[:n]) for row, n in zip(
        bare.prompts.tokens.tolist(), bare.prompts.lengths.tolist(), strict=True
    )}  # fmt: skip
    true = (task.group == 0).nonzero()[:, 0].tolist()
    for row in true:
        assert (
            tuple(task.clean.tokens[row, : task.positions["statement"][row] + 1].tolist()) in known
        )
