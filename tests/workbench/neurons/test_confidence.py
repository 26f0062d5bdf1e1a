"""Entropy and token-frequency neurons: every number again, by numpy, from weights."""

from collections import Counter

import numpy as np
import pytest
import torch
from scipy import special, stats

from hooks import Site, capture
from workbench import corpora, models, neurons

WORDS = "the and of was here by near there".split()


def some_text(model):
    """Documents of 5 to 10 words, some of which are there far more often than others."""
    drawn = torch.rand(6, 10, generator=torch.Generator().manual_seed(0)).square() * len(WORDS)
    rows = [row[: 5 + length] for length, row in enumerate(drawn.int().tolist())]
    return corpora.text(model, [" ".join(WORDS[at] for at in row) for row in rows])


@pytest.fixture
def text(small):
    return some_text(small)


def weights_of(model):
    """Output weights of all neurons, the last norm's weight and the unembedding."""
    out = torch.stack([block.mlp.W_out for block in model.blocks])
    parts = (out, model.ln_final.weight, model.unembed.W_U)
    return [part.detach().double().numpy() for part in parts]


def log_counts(corpus):
    """Tokens of a corpus and the logarithms of how often they are there."""
    rows = zip(corpus.rows.tokens.tolist(), corpus.rows.lengths.tolist(), strict=True)
    count = Counter(token for row, length in rows for token in row[:length])
    return list(count), np.log(list(count.values()))


def entropy(logits):
    return special.entr(special.softmax(logits, axis=-1)).sum(-1)


def test_what_is_said_of_weights_is_what_numpy_says(small, text):
    found = neurons.confidence(small, text, n=2)
    out, weight, unembed = weights_of(small)
    tokens, often = log_counts(text)
    assert len(set(often.tolist())) > 3
    centres = small.cfg.normalization_type == "LN"
    for layer, neuron in ((0, 0), (0, 17), (1, 5), (1, 63)):
        wrote = out[layer, neuron]
        length = np.linalg.norm(wrote)
        cosines = wrote @ unembed / np.linalg.norm(unembed, axis=0) / length
        logits = ((wrote - wrote.mean() if centres else wrote) * weight) @ unembed
        expected = {
            "length": length, "variance": cosines.var(),
            "frequency": stats.pearsonr(logits[tokens], often).statistic,
        }  # fmt: skip
        for name, value in expected.items():
            got = float(getattr(found, name)[layer, neuron])
            assert got == pytest.approx(value, rel=1e-3, abs=1e-5), name


def test_entropies_change_as_they_do_by_hand_with_and_without_the_norms_scale(small, text):
    found = neurons.confidence(small, text, n=4)
    out, weight, unembed = weights_of(small)
    last = small.cfg.n_layers - 1
    assert [one.layer for one in found.neurons] == [last] * 4
    centres = small.cfg.normalization_type == "LN"
    bias = small.ln_final.bias.detach().double().numpy() if centres else 0.0

    def centred(x):
        return x - x.mean(-1, keepdims=True) if centres else x

    def scale(x):
        return np.sqrt((centred(x) ** 2).mean(-1, keepdims=True))

    def entropies(x, held):
        return entropy((centred(x) / held * weight + bias) @ unembed)

    rows, site = text.rows, Site("neuron", last)
    seen = capture(small, rows, [site])[site].double().numpy()
    at_last = capture(small, rows, [Site("final")], positions=rows.last)
    final = at_last[Site("final")][:, 0].double().numpy()
    inside = rows.mask.bool().clone()
    inside[:, 0] = False
    before = entropies(final, scale(final))
    for cell, (_, neuron) in enumerate(found.neurons):
        mean = seen[..., neuron][inside.numpy()].mean()
        change = mean - seen[range(len(rows)), rows.last.tolist(), neuron]
        after = final + change[:, None] * out[last, neuron]
        for got, held in ((found.total, scale(after)), (found.frozen, scale(final))):
            expected = np.abs(entropies(after, held) - before).mean()
            assert float(got[cell]) == pytest.approx(expected, rel=1e-3, abs=1e-6)
    assert not torch.allclose(found.total, found.frozen, rtol=1e-3)


def test_what_is_written_where_nothing_is_read_acts_through_the_norm_alone():
    model = models.load("tiny-gqa")
    with torch.no_grad():
        model.unembed.W_U[0] = 0
        model.blocks[1].mlp.W_out[5] = 0
        model.blocks[1].mlp.W_out[5, 0] = 3
    found = neurons.confidence(model, some_text(model), n=3)
    assert found.neurons[0] == (1, 5)
    assert float(found.null[1, 5]) == pytest.approx(1.0)
    assert float(found.variance[1, 5]) == pytest.approx(0.0, abs=1e-12)
    assert float(found.frequency[1, 5]) == 0
    assert float(found.frozen[0]) < 1e-5
    assert float(found.total[0]) > 1e-3
    assert float(found.frozen[1:].min()) > 1e-3


def test_neurons_that_write_the_log_frequency_and_its_opposite_are_the_strongest():
    model = models.load("tiny-gqa")
    text = some_text(model)
    tokens, often = log_counts(text)
    _, weight, unembed = weights_of(model)
    wanted = np.linalg.lstsq((weight[:, None] * unembed)[:, tokens].T, often, rcond=None)[0]
    with torch.no_grad():
        model.blocks[0].mlp.W_out[3] = torch.from_numpy(wanted).float()
        model.blocks[1].mlp.W_out[4] = torch.from_numpy(-wanted).float()
    found = neurons.confidence(model, text, n=1)
    assert sorted(found.frequent(2)) == [(0, 3), (1, 4)]
    assert float(found.frequency[0, 3]) == pytest.approx(1.0, abs=1e-4)
    assert float(found.frequency[1, 4]) == pytest.approx(-1.0, abs=1e-4)
