"""Every fit refuses what cannot be fitted, and names the row."""

import pytest
import torch

from workbench import probes

X = torch.randn(12, 3, generator=torch.Generator().manual_seed(0))
Y = torch.arange(12) % 2
SPOILT = X.index_fill(0, torch.tensor(5), torch.nan)
PAIR = [torch.tensor([-1, 0, 0, 0])] * 3


def _attention(x, y):
    mask = torch.ones(len(x), 2, dtype=torch.bool)
    generator = torch.Generator().manual_seed(0)
    return probes.fit_attention(x[:, None].repeat(1, 2, 1), y, mask, generator=generator, steps=2)


FITS = {
    "logistic": probes.fit,
    "ridge": lambda x, y: probes.fit_ridge(x, y.float()),
    "moments": lambda x, y: probes.Moments.of(x, y, classes=2),
    "attention": _attention,
    "erasure": probes.moments,
}


@pytest.mark.parametrize("kind", FITS)
def test_a_row_that_is_no_number_is_named(kind):
    with pytest.raises(ValueError, match=r"NaN or Inf in .*(example|sequence) 5"):
        FITS[kind](SPOILT, Y)


@pytest.mark.parametrize("kind", FITS)
def test_labels_of_another_length_are_refused_by_the_first_row_without_one(kind, unchecked_types):
    with pytest.raises(ValueError, match=r"7 (y|labels) for 12 (examples|sequences)"):
        FITS[kind](X, Y[:7])


@pytest.mark.parametrize("kind", ["logistic", "attention", "erasure"])
def test_one_class_alone_is_refused(kind):
    with pytest.raises(ValueError, match=r"only class 0|two classes"):
        FITS[kind](X, Y * 0)
    with pytest.raises(ValueError, match="class 1 has no example"):
        probes.probe_of(probes.Moments.of(X, Y * 0, classes=2), "lda")


@pytest.mark.parametrize("fitted", [probes.fit_ccs, probes.fit_crc])
def test_a_pair_that_is_no_number_is_named_by_its_side(fitted):
    how = {"generator": torch.Generator().manual_seed(0)} if fitted is probes.fit_ccs else {}
    with pytest.raises(ValueError, match="NaN or Inf in statement 5"):
        fitted(SPOILT, X, **how)
    with pytest.raises(ValueError, match="NaN or Inf in negation 5"):
        fitted(X, SPOILT, **how)


def test_a_word_that_is_no_number_is_named_with_its_sentence():
    generator = torch.Generator().manual_seed(0)
    sentences = list(SPOILT.split(4))
    with pytest.raises(ValueError, match="NaN or Inf in sentence 1, word 1"):
        probes.fit_distance(sentences, PAIR, generator=generator, steps=2)


def test_a_number_to_be_predicted_that_is_none_is_named():
    with pytest.raises(ValueError, match="NaN or Inf in the label of example 3"):
        probes.fit_ridge(X, Y.float().index_fill(0, torch.tensor(3), torch.inf))


def test_more_folds_than_examples_are_refused():
    with pytest.raises(ValueError, match="12 groups among 12 examples for 20 folds"):
        probes.k_fold(probes.examples(X, Y), 20, seed=0)
