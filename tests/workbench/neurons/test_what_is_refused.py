"""Wrong requests about neurons: what was asked, what there is."""

import pytest
import torch

from workbench import corpora, neurons


@pytest.fixture(scope="module")
def text(tiny):
    return corpora.passages(tiny, length=16, most_tokens=200)


def test_numbers_that_cannot_be_are_named(tiny, text):
    for ask, error in (
        (lambda: neurons.writes(tiny, k=10**6), r"k=1000000: the vocabulary has \d+ tokens"),
        (lambda: neurons.writes(tiny, k=0), "k=0: the vocabulary"),
        (lambda: neurons.activity(tiny, text, batch_size=0), "batch_size=0"),
        (lambda: neurons.traces(tiny, text, [(0, 1)], batch_size=0), "batch_size=0"),
        (lambda: neurons.explain(tiny, text, [(0, 1), (0, 2)], others=0), "others=0"),
        (lambda: text.at_most(3), "at most 3 tokens: the first row alone has 16"),
    ):
        with pytest.raises(ValueError, match=error):
            ask()


def test_one_row_cannot_explain_and_judge(tiny):
    one = corpora.text(tiny, ["the and of was here by"], length=16)
    with pytest.raises(ValueError, match="has one row of more than one token"):
        neurons.explain(tiny, one, [(0, 1)])


def test_documents_that_are_left_of_more_are_halved_too(tiny):
    whole = corpora.passages(tiny, length=16)
    even = whole.chosen((whole.document % 2 == 0).nonzero()[:, 0].tolist())
    assert torch.isfinite(neurons.explain(tiny, even, [(0, 1)]).score).all()
    one, other = even.halves()
    assert not set(one.document.tolist()) & set(other.document.tolist())


def test_an_explainer_that_says_nothing_is_named(tiny, text, unchecked_types):
    def silent(_):
        return None

    with pytest.raises(TypeError, match="the explainer silent gave None"):
        neurons.explain(tiny, text, [(0, 1)], explainer=silent)


@pytest.mark.parametrize("said", ["It fires at cats.", "fires at [1]", 'fires at {"a": "x"}'])
def test_rules_that_cannot_be_followed_are_quoted(said):
    with pytest.raises(ValueError, match="follow_rules reads what by_rules says, found "):
        neurons.follow_rules(said, ["a", "b"])
