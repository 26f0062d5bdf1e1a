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
    "ridge of classes": probes.fit_ridge,
    "moments": lambda x, y: probes.Moments.of(x, y, classes=2),
    "attention": _attention,
    "erasure": probes.moments,
    "eraser, inlp": lambda x, y: probes.eraser(x, y, method="inlp"),
    "eraser, mean": lambda x, y: probes.eraser(x, y, method="mean"),
    "inlp": probes.inlp,
    "least squares": probes.least_squares_accuracy,
    "neurons": lambda x, y: probes.strongest_neurons(x, y, 2),
    "accuracy": lambda x, y: probes.accuracy(probes.fit(X, Y), x, y),
    "judgement": lambda x, y: probes.judge(probes.fit(X, Y), x, y),
}


@pytest.mark.parametrize("kind", FITS)
def test_a_row_that_is_no_number_is_named(kind):
    with pytest.raises(ValueError, match=r"NaN or Inf in .*(example|sequence) 5"):
        FITS[kind](SPOILT, Y)


@pytest.mark.parametrize("kind", FITS)
def test_labels_of_another_length_are_refused_by_the_first_row_without_one(kind, unchecked_types):
    with pytest.raises(ValueError, match=r"7 (y|labels) for 12 (examples|sequences)"):
        FITS[kind](X, Y[:7])


ONE_CLASS = ["logistic", "ridge of classes", "attention", "erasure", "eraser, inlp", "inlp"]


@pytest.mark.parametrize("kind", [*ONE_CLASS, "eraser, mean", "least squares", "neurons"])
def test_one_class_alone_is_refused(kind):
    with pytest.raises(ValueError, match=r"only class 0|two classes"):
        FITS[kind](X, Y * 0)


def test_one_class_alone_has_no_difference_of_means():
    with pytest.raises(ValueError, match="class 1 has no example"):
        probes.probe_of(probes.Moments.of(X, Y * 0, classes=2), "lda")


@pytest.mark.parametrize("kind", ["moments", "accuracy", "judgement"])
def test_a_label_that_is_none_of_the_classes_is_named_by_its_row(kind):
    with pytest.raises(ValueError, match="example 4 has the label 3, but 2 classes are"):
        FITS[kind](X, Y.index_fill(0, torch.tensor(4), 3))


@pytest.mark.parametrize("kind", ["ridge", "moments", "erasure", "accuracy", "judgement"])
def test_no_example_at_all_is_refused(kind):
    with pytest.raises(ValueError, match="there is no example"):
        FITS[kind](X[:0], Y[:0])


def test_numbers_are_not_taken_for_classes_nor_probes_of_numbers_for_right_or_wrong(
    unchecked_types,
):
    with pytest.raises(ValueError, match="the labels are numbers, not 2 classes"):
        probes.Moments.of(X, Y.float(), classes=2)
    with pytest.raises(ValueError, match="labels are numbers, not classes"):
        probes.inlp(X, Y.float())
    with pytest.raises(ValueError, match="a probe of numbers is not right or wrong"):
        probes.accuracy(probes.fit_ridge(X, Y.float()), X, Y)


def test_groups_and_numbers_of_another_length_are_refused(unchecked_types):
    with pytest.raises(ValueError, match=r"7 groups for 12 examples.* row 7"):
        probes.accuracy(probes.fit(X, Y), X, Y, groups=Y[:7])
    with pytest.raises(ValueError, match="7 labels for 12 examples"):
        probes.explained(Y.float(), Y[:7].float())
    with pytest.raises(ValueError, match="7 labels for 12 pairs"):
        probes.turned(probes.fit_crc(X, -X), X, -X, Y[:7])


def test_a_concept_whose_examples_cannot_be_told_apart_or_are_no_numbers_is_refused(
    unchecked_types,
):
    with pytest.raises(ValueError, match="NaN or Inf in concept example 5"):
        probes.concept_direction(SPOILT, X)
    with pytest.raises(ValueError, match="NaN or Inf in other example 5"):
        probes.concept_direction(X, SPOILT)
    with pytest.raises(ValueError, match="0 examples of the concept in 3 dimensions, 12 others"):
        probes.concept_direction(X[:0], X)
    with pytest.raises(ValueError, match="nothing tells the concept's examples from the others"):
        probes.concept_direction(torch.ones(4, 3), torch.ones(5, 3))


def test_a_projection_needs_rounds_and_a_ridge():
    with pytest.raises(ValueError, match=r"0 rounds with a ridge of 0.001"):
        probes.inlp(X, Y, rounds=0)


@pytest.mark.parametrize("positions", [{}, {"a": 1, "b": torch.tensor([1, 2])}])
def test_positions_of_another_number_of_prompts_are_refused(tiny, prompts, positions):
    with pytest.raises(ValueError, match=r"no position is named|2 positions for 3 prompts"):
        probes.features(tiny, prompts, [0, 1, 0], positions=positions)


def test_a_pattern_has_no_vector_at_a_position(tiny, prompts):
    with pytest.raises(ValueError, match="pattern is batch x head x query x key"):
        probes.features(tiny, prompts, [0, 1, 0], stream="pattern")


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
