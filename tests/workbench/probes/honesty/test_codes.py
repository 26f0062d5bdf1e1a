"""How much is known: code lengths, usable information, learning curves."""

import itertools

import pytest
import torch
from torch.testing import assert_close

from workbench import probes


def _generator(seed=0):
    return torch.Generator().manual_seed(seed)


def _labelled(noise, *, count=2000, classes=3, width=16):
    generator = _generator()
    y = torch.randint(classes, (count,), generator=generator)
    centres = 4 * torch.randn(classes, width, generator=generator)
    x = centres[y] + 0.3 * torch.randn(count, width, generator=generator)
    flipped = torch.rand(count, generator=generator) < noise
    y = torch.where(flipped, torch.randint(classes, (count,), generator=generator), y)
    return probes.examples(x, y)


def test_the_online_code_is_shorter_the_less_noise_there_is_in_the_labels():
    short = [
        float(probes.online_code(_labelled(noise), generator=_generator()).compression[0, 0])
        for noise in (0.0, 0.1, 0.3, 0.6)
    ]
    assert short[0] >= 30
    assert all(one > other for one, other in itertools.pairwise(short))


def test_the_online_code_never_makes_shuffled_labels_shorter():
    examples = _labelled(0.0)
    shuffled = probes.shuffled_labels(examples, count=3, generator=_generator())
    for l2 in (1.0, 0.1, 0.01):
        code = probes.online_code(examples, generator=_generator(), label_sets=shuffled, l2=(l2,))
        assert ((code.bits / code.uniform >= 0.99) & (code.bits / code.uniform <= 1.2)).all()
        if l2 == 1.0:  # so stiff a probe hardly moves from the uniform code
            assert ((code.bits / code.uniform - 1).abs() < 0.02).all()


@pytest.mark.slow
def test_the_variational_code_orders_labels_as_the_online_code_does():
    bits = []
    for noise in (0.0, 0.3):
        examples = _labelled(noise, count=600)
        code = probes.variational_code(examples, generator=_generator(), steps=600)
        bits.append(float(code.compression[0, 0]))
    shuffled = probes.shuffled_labels(examples, count=1, generator=_generator())
    code = probes.variational_code(examples, generator=_generator(), label_sets=shuffled, steps=600)
    assert bits[0] > bits[1] > 1.2
    assert float(code.compression[0, 0]) < 1.1


def test_usable_information_is_what_a_clean_label_holds_and_noise_does_not():
    examples = _labelled(0.0, count=600, classes=2)
    splits = probes.k_fold(examples, 4, seed=0)
    assert float(probes.usable_information(examples, splits, l2=1e-3).mean()) > 0.95
    noise = examples.seen_as(torch.randn(1, 600, 5, generator=_generator()))
    assert abs(float(probes.usable_information(noise, splits, l2=1.0).mean())) < 0.02


def test_what_is_known_already_adds_no_information():
    examples = _labelled(0.1, count=600, classes=2)
    splits = probes.k_fold(examples, 4, seed=0)
    copy = probes.conditional_information(examples, examples, splits)
    noise = examples.seen_as(torch.randn(1, 600, 4, generator=_generator()))
    beside = probes.conditional_information(noise, examples, splits)
    fresh = probes.conditional_information(examples, noise, splits)
    assert abs(float(copy.mean())) < 0.02
    assert abs(float(beside.mean())) < 0.02
    assert float(fresh.mean()) > 0.4


def test_accuracy_grows_with_examples_and_ends_at_the_whole_fit(noisy):
    examples = noisy(layers=2, count=200)
    splits = probes.k_fold(examples, 4, seed=0)
    curve = probes.learning_curve(examples, splits, sizes=(20, 150), generator=_generator())
    whole = probes.fit_each(examples, splits, l2=(1e-2,))
    rates = torch.stack([
        (whole.probe(1, fold=n).predict(examples.x[1][test]) == examples.y[test]).double().mean()
        for n, (_, test) in enumerate(splits)
    ])  # fmt: skip
    assert_close(curve.per_fold[1, 1], rates)
    assert curve.accuracy[1, 1] >= curve.accuracy[1, 0]
    with pytest.raises(ValueError, match="151 examples to learn from, but a fold has only 150"):
        probes.learning_curve(examples, splits, sizes=(151,), generator=_generator())
