"""What others' explanations score: each correlation again by numpy, on the documents held out."""

import math
from itertools import combinations

import numpy as np
import pytest

from workbench import corpora, neurons

SOME = [(0, 1), (0, 2), (1, 4), (1, 9), (0, 30)]


@pytest.fixture(scope="module")
def text(tiny):
    return corpora.passages(tiny, length=16, most_tokens=300)


def simulator(said, tokens):
    """Something of its own for every explanation, which is a letter."""
    return [math.sin(ord(said) * (1 + at) * len(token)) for at, token in enumerate(tokens)]


def explained(model, text, letters, **how):
    told = iter(letters)
    return neurons.explain(
        model, text, SOME[: len(letters)], explainer=lambda _: next(told), simulator=simulator,
        **how,
    )  # fmt: skip


@pytest.fixture(scope="module")
def scores(tiny, text, everything):
    """`scores(letters)`: (neuron, explanation) correlations on every other document."""
    held = [row for row in range(len(text)) if int(text.document[row]) % 2]
    whole, ends = everything(tiny, text).double().numpy(), text.rows.lengths.tolist()
    truth = {
        (layer, neuron): np.concatenate([whole[layer, row, 1 : ends[row], neuron] for row in held])
        for layer, neuron in SOME
    }

    def of(letters):
        guesses = [
            np.concatenate([simulator(said, text.words(tiny, row))[1:] for row in held])
            for said in letters
        ]
        return np.array(
            [[np.corrcoef(truth[one], guess)[0, 1] for guess in guesses]
             for one in SOME[: len(letters)]]
        )  # fmt: skip

    return of


def test_the_null_is_the_mean_score_of_the_other_neurons_explanations(tiny, text, scores):
    found, expected = explained(tiny, text, "abc"), scores("abc")
    assert found.score.tolist() == pytest.approx(np.diag(expected).tolist(), abs=1e-5)
    others = [np.delete(row, at).mean() for at, row in enumerate(expected)]
    assert found.null.tolist() == pytest.approx(others, abs=1e-5)


def test_so_many_other_explanations_make_the_null_as_were_asked_for(tiny, text, scores):
    expected = scores("abcde")
    for count in (1, 2, 4):
        found = explained(tiny, text, "abcde", others=count)
        for at, row in enumerate(expected):
            means = [np.mean(some) for some in combinations(np.delete(row, at), count)]
            assert min(abs(float(found.null[at]) - mean) for mean in means) < 1e-5


def test_an_explanation_that_says_the_same_is_no_other(tiny, text, scores):
    found, expected = explained(tiny, text, "aab"), scores("aab")
    assert found.null.tolist() == pytest.approx(
        [expected[0, 2], expected[1, 2], expected[2, 0]], abs=1e-5
    )
    same = explained(tiny, text, "aaa")
    assert same.null.isnan().all() and not same.score.isnan().any()
