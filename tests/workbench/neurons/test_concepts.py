"""Few neurons that know a concept: groups on one side alone, nulls that are calibrated."""

import dataclasses

import pytest
import torch
from transformer_lens.tools.analysis.sparse_probing import sweep_sparse_probe

from hooks import Site
from workbench import metrics, neurons, tasks
from workbench.neurons import concepts, sparse


def test_one_neuron_is_enough_for_what_one_neuron_says():
    drawn = torch.Generator().manual_seed(0)
    labels = torch.arange(80) % 2 == 0
    x = torch.randn(80, 50, generator=drawn)
    x[:, 7] += 4 * labels
    train = sparse.halves(labels, torch.arange(80), seed=0)
    chosen, weights, accuracy, null = sparse.sparse_probes(
        x, labels, groups=torch.arange(80), train=train, ks=(1, 3), shuffles=20, seed=0
    )
    assert int(chosen[0]) == 7
    assert float(accuracy[0]) > 0.9
    assert weights[0] > 0
    assert float(null.mean()) == pytest.approx(0.5, abs=0.08)
    assert float(null.max()) < float(accuracy[0])


def test_sparse_probes_agree_with_those_of_transformer_lens():
    drawn = torch.Generator().manual_seed(1)
    labels = torch.arange(120) % 2 == 0
    x = torch.randn(120, 40, generator=drawn)
    x[:, 3] += 2.5 * labels
    x[:, 9] -= 1.5 * labels
    theirs = sweep_sparse_probe(x, labels, ks=[1, 2], preprocess="standardize").results[-1]
    train = torch.zeros(120, dtype=torch.bool)
    train[theirs.train_indices] = True
    chosen, _, accuracy, _ = sparse.sparse_probes(
        x, labels, groups=torch.arange(120), train=train, ks=(1, 2), shuffles=2, seed=0
    )
    assert (
        chosen.sort().values.tolist() == theirs.selected_features.sort().values.tolist() == [3, 9]
    )
    found = theirs.metrics
    recall = found.true_positives / (found.true_positives + found.false_negatives)
    other = found.true_negatives / (found.true_negatives + found.false_positives)
    assert float(accuracy[1]) == pytest.approx((recall + other) / 2, abs=0.06)  # other penalties


def test_a_logistic_fit_cannot_be_improved():
    drawn = torch.Generator().manual_seed(2)
    x = torch.randn(60, 3, generator=drawn).double()
    labels = torch.rand(60, generator=drawn) < torch.sigmoid(2 * x[:, 0].float())
    weights = sparse.logistic(x, labels).requires_grad_(True)
    y, share = labels.double(), labels.double().mean()
    balance = torch.where(labels, 0.5 / share, 0.5 / (1 - share)) / len(y)
    loss = torch.nn.functional.binary_cross_entropy_with_logits(
        x @ weights[:-1] + weights[-1], y, weight=balance, reduction="sum"
    )
    loss = loss + 0.5e-2 * weights[:-1].square().sum()
    (slope,) = torch.autograd.grad(loss, weights)
    assert float(slope.abs().max()) < 1e-6


def by_noun(seed, *, nouns=24, each=4, features=60):
    """Prompts that are all but equal where the noun is the same, and labels drawn by noun."""
    drawn = torch.Generator().manual_seed(seed)
    groups = torch.arange(nouns).repeat_interleave(each)
    x = torch.randn(nouns, features, generator=drawn)[groups]
    x = x + 0.01 * torch.randn(x.shape, generator=drawn)
    labels = (torch.randperm(nouns, generator=drawn) % 2 == 0)[groups]
    return x, labels, groups


def p_of(x, labels, groups, seed, shuffles=39):
    train = sparse.halves(labels, groups, seed=seed)
    _, _, accuracy, null = sparse.sparse_probes(
        x, labels, groups=groups, train=train, ks=(2,), shuffles=shuffles, seed=seed
    )
    return float((1 + (null >= accuracy[:, None]).sum(1)) / (1 + shuffles))


def test_labels_drawn_by_noun_are_found_as_often_as_chance_says(most_by_chance):
    found = sum(p_of(*by_noun(seed), seed) <= 0.05 for seed in range(40))
    assert found <= most_by_chance(40)
    x, labels, groups = by_noun(0)
    x[:, 5] += 4 * labels
    assert p_of(x, labels, groups, 0) <= 0.05  # and what is there is found


def test_no_group_is_on_both_sides_and_both_labels_are():
    _, labels, groups = by_noun(3)
    mixed = labels.clone()
    mixed[::8] = ~mixed[::8]  # some nouns have both
    for some in (labels, mixed):
        train = sparse.halves(some, groups, seed=1)
        assert not set(groups[train].tolist()) & set(groups[~train].tolist())
        assert len(groups[train].unique()) == 12
        for side in (train, ~train):
            assert some[side].any() and not some[side].all()


def test_a_unit_is_a_group_or_its_part_of_one_label():
    labels = torch.tensor([True, True, False, False, True])
    assert sparse.units(labels, torch.tensor([7, 7, 7, 2, 2])).tolist() == [3, 3, 2, 0, 1]


def test_what_cannot_be_split_is_refused():
    labels = torch.tensor([True] * 6 + [False] * 6)
    groups = torch.tensor([0] * 6 + [1, 1, 2, 2, 3, 3])
    with pytest.raises(ValueError, match=r"6 prompts in 1 groups are labelled True, .* judging"):
        sparse.halves(labels, groups, seed=0)
    with pytest.raises(ValueError, match="0 prompts in 0 groups are labelled False"):
        sparse.halves(torch.ones(8, dtype=torch.bool), torch.arange(8), seed=0)


@pytest.fixture
def agreement(tiny):
    return tasks.agreement(tiny, prompts=40, seed=0)


@pytest.fixture
def plural(agreement):
    return torch.tensor([agreement.templates[g].endswith("plural") for g in agreement.group])


def test_prompts_that_read_the_same_up_to_their_position_are_one_group(tiny, agreement, plural):
    at = agreement.positions["subject"]
    groups = concepts.same_until(agreement.clean, at)
    tokens = agreement.clean.tokens
    starts = [tuple(tokens[row, : int(at[row]) + 1].tolist()) for row in range(40)]
    for row in range(40):
        same = [starts[row] == other for other in starts]
        assert (groups == groups[row]).tolist() == same
    found = neurons.find_concept(tiny, agreement, plural, positions=at, shuffles=3)
    assert found.groups == len(set(starts)) < 40
    assert f"(of {found.groups})" in found.sentence()


def test_wrong_arguments_are_named(tiny, agreement, plural, unchecked_types):
    def ask(labels=plural, **how):
        return neurons.find_concept(tiny, agreement, labels, **how)

    at = agreement.positions["subject"].clone()
    at[3] = 99
    for how, error in (
        ({"labels": plural[:5]}, r"labels of shape \(5,\) for 40 prompts"),
        ({"groups": torch.arange(39)}, r"groups of shape \(39,\) for 40"),
        ({"positions": at}, r"position 99 of prompt 3, which has \d+ tokens"),
        ({"ks": ()}, r"ks=\(\)"),
        ({"ks": (0, 1)}, r"ks=\(0, 1\)"),
        ({"ks": (4, 2)}, r"ks=\(4, 2\)"),
        ({"ks": (1, 10**6)}, r"the model has \d+ neurons"),
        ({"shuffles": 0}, "shuffles=0"),
        ({"labels": torch.ones(40, dtype=torch.bool)}, "0 prompts in 0 groups"),
    ):
        with pytest.raises(ValueError, match=error):
            ask(**how)


def test_what_is_not_finite_is_named_by_prompt_and_neuron(tiny, agreement, plural, monkeypatch):
    read = concepts.capture

    def broken(*given, **named):
        seen = read(*given, **named)
        seen[Site("neuron", 1)][2, 0, 7] = torch.nan
        return seen

    monkeypatch.setattr(concepts, "capture", broken)
    with pytest.raises(FloatingPointError, match=r"neuron 1\.7 at prompt 2 of agreement"):
        neurons.find_concept(tiny, agreement, plural)


def test_neurons_found_on_another_task_are_refused(tiny, agreement, plural):
    found = neurons.find_concept(tiny, agreement, plural, shuffles=2)
    other = dataclasses.replace(found, task_digest="another")
    with pytest.raises(ValueError, match="was found on agreement, not on this"):
        neurons.study_concept(tiny, agreement, other, metric=metrics.logit_diff)
