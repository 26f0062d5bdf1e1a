"""What position explains: means by span, and which neurons count as positional."""

import dataclasses

import pytest
import torch

from workbench import corpora, neurons
from workbench.neurons import streaming

WORDS = "the and of was here by near there".split()


def test_means_by_span_are_those_of_a_loop_over_rows_of_different_lengths(small, everything):
    texts = [" ".join((WORDS * 3)[-length:]) for length in (3, 20, 9, 2, 14)]
    corpus = corpora.text(small, texts, length=12)
    lengths = corpus.rows.lengths.tolist()
    assert len(set(lengths)) > 3
    seen = neurons.activity(small, corpus, k=1, batch_size=2)
    whole = everything(small, corpus).double()
    spans = [range(1, 2), range(2, 4), range(4, 8), range(8, 12)]
    assert seen.by_span.shape[-1] == len(spans)
    for span, places in enumerate(spans):
        inside = [whole[:, row, at] for row, n in enumerate(lengths) for at in places if at < n]
        expected = torch.stack(inside).mean(0)
        torch.testing.assert_close(seen.by_span[..., span], expected, rtol=1e-4, atol=1e-5)


@pytest.fixture
def seen(tiny, monkeypatch):
    """Every layer with four neurons: position alone, row alone, and two of about half of both."""
    corpus = corpora.text(tiny, [" ".join(WORDS * 2)] * 4, length=16)
    assert corpus.rows.lengths.tolist() == [16] * 4
    span = torch.arange(16.0).clamp(min=1).log2().floor().expand(4, -1)
    row = torch.tensor([1.0, 1.0, -1.0, -1.0])[:, None].expand(-1, 16)
    half = float(span[:, 1:].var(correction=0)) ** 0.5
    x = torch.stack([span, row, span + 0.98 * half * row, span + 1.02 * half * row], dim=-1)

    def visit(model, batch, wanted, show):
        assert len(batch) == 4
        for site in wanted:
            show(site, x)

    monkeypatch.setattr(streaming, "visit", visit)
    return neurons.activity(tiny, corpus, k=1)


def test_position_explains_the_variance_that_it_was_made_to_explain(seen):
    expected = torch.tensor([1.0, 0.0, 1 / (1 + 0.98**2), 1 / (1 + 1.02**2)]).double()
    torch.testing.assert_close(seen.positional, expected.expand(2, -1), rtol=1e-6, atol=1e-9)


def test_neurons_that_position_explains_by_half_or_more_are_positional_strongest_first(seen):
    found = [(0, 0), (1, 0), (0, 2), (1, 2)]
    assert seen.most_positional() == found
    assert seen.most_positional(3) == found[:3]
    assert seen.most_positional(8) == found
    assert seen.headline()["positional"] == 4
    assert " 4 are positional," in seen.sentence()
    share = torch.tensor([[0.5, 0.4999, 0.7, 0.0], [0.6, 0.1, 0.5, 0.49]]).double()
    other = dataclasses.replace(seen, positional=share)
    assert other.most_positional() == [(0, 2), (1, 0), (0, 0), (1, 2)]
