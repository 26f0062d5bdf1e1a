"""An atlas says what the analyses say that it is made of, each called on its own."""

import pytest
import torch

from workbench import corpora, neurons

PAGES, EXACT, ROWS = 5, 3, 4
FIRST = 8  # of 12 rows: the first batch


@pytest.fixture(scope="module", params=["tiny", "tiny-gqa"])
def model(request, small_models):
    return small_models[request.param]


@pytest.fixture(scope="module")
def text(model):
    return corpora.passages(model, length=20, most_tokens=240)


@pytest.fixture(scope="module")
def book(model, text):
    return neurons.atlas(model, text, n=PAGES, exact=EXACT, rows=ROWS, seed=2)


def test_what_it_says_of_all_neurons_is_what_activity_says(model, text, book):
    seen = neurons.activity(model, text)
    for name in ("positive", "sparsity", "positional", "largest", "first_largest"):
        torch.testing.assert_close(getattr(book, name), getattr(seen, name).float())
    first = neurons.activity(model, text.chosen(range(FIRST)))
    assert book.neurons == first.sparsest(PAGES)
    assert book.dead == len(seen.dead)
    for at, one in enumerate(book.neurons):
        assert book.histogram[at].equal(seen.histogram[one])
        assert float(book.reach[at]) == float(seen.reach[one])
        assert book.contexts[at] == seen.examples(model, text, one, n=8)


def test_what_chosen_neurons_fire_at_is_what_triggers_say(model, text, book):
    fires = neurons.triggers(model, text, book.neurons)
    torch.testing.assert_close(book.kinds, fires.kinds)
    torch.testing.assert_close(book.selectivity, fires.selectivity)
    assert book.tokens == [fires.words(model, one, n=8) for one in book.neurons]


def test_what_they_write_is_what_their_weights_say(model, book):
    written = neurons.writes(model, k=8)
    for at, one in enumerate(book.neurons):
        said = written.words(model, one, n=8)
        assert book.promoted[at] == said["promoted"]
        assert book.suppressed[at] == said["suppressed"]


def test_explanations_and_their_scores_are_those_of_explain(model, text, book):
    said = neurons.explain(model, text, book.neurons, seed=2)
    assert book.explanation == said.explanation
    for name in ("score", "null", "detection", "fuzzing"):
        torch.testing.assert_close(getattr(book, name), getattr(said, name).float(), equal_nan=True)


def test_losses_are_those_of_mean_ablation_on_the_first_rows(model, text, book):
    few = text.chosen(range(ROWS))
    cost = neurons.ablate_each(model, few, book.neurons[:EXACT], ablation="mean", seed=2)
    for name, expected in (("", cost.effect), ("_low", cost.low), ("_high", cost.high)):
        got = getattr(book, f"loss{name}")
        torch.testing.assert_close(got[:EXACT], expected)
        assert got[EXACT:].isnan().all()
    assert (book.loss_low < book.loss)[:EXACT].all()
    assert (book.loss < book.loss_high)[:EXACT].all()
    assert float(book.loss[:EXACT].abs().min()) > 0
