"""How few neurons are enough (Gurnee et al. 2023)? Chosen in training, or noise looks a finding."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.probes.examples import Examples
from workbench.probes.fitting import check_labels, fit
from workbench.probes.probe import LinearProbe, check_rows, class_count
from workbench.probes.splits import Splits, checked


@dataclass(frozen=True, eq=False)
class SparseProbes:
    """Probes of `k` neurons each: which were chosen, and the share of held-out answers right."""

    neurons: Int[Tensor, "layer fold k"]
    probes: list[list[LinearProbe]]
    accuracy: Float[Tensor, "layer fold"]


def strongest_neurons(
    x: Float[Tensor, "example neuron"], y: Int[Tensor, " example"], k: int
) -> Int[Tensor, " k"]:
    """The neurons whose class means lie furthest apart, in units of their own deviation."""
    check_rows(x, y)
    class_count(y)
    if not 1 <= k <= x.shape[1]:
        raise ValueError(f"k = {k} of {x.shape[1]} neurons: take 1 to {x.shape[1]}")
    hot = torch.nn.functional.one_hot(y).to(x)
    means = (hot.T @ x) / hot.sum(dim=0)[:, None]
    share = (hot.sum(dim=0) / len(x))[:, None]
    between = (share * (means - x.mean(dim=0)).square()).sum(dim=0)
    within = x.var(dim=0, correction=0) - between
    worth = torch.where(between > 0, between / within.clamp(min=1e-30), 0.0)
    return worth.argsort(descending=True, stable=True)[:k]


def fit_sparse(examples: Examples, splits: Splits, *, k: int, l2: float = 1e-3) -> SparseProbes:
    """For every layer and fold, choose `k` neurons on the training part, fit them, judge them.

    A probe has zeros in the place of all other neurons.
    """
    check_labels(examples, examples.y[None])
    checked(examples, splits)
    chosen, made, right = [], [], []
    for x in examples.x:
        mine: list[LinearProbe] = []
        for train, test in splits:
            neurons = strongest_neurons(x[train], examples.y[train], k)
            small = fit(x[train][:, neurons], examples.y[train], l2=l2)
            weight = x.new_zeros(len(small.weight), x.shape[1])
            weight[:, neurons] = small.weight
            kind = f"{k} neurons, {small.kind}"
            probe = LinearProbe(weight, small.bias, small.classes, kind, small.gradient)
            chosen.append(neurons)
            mine.append(probe)
            right.append((probe.predict(x[test]) == examples.y[test]).double().mean())
        made.append(mine)
    shape = (len(examples.x), len(splits))
    neurons = torch.stack(chosen).unflatten(0, shape)
    return SparseProbes(neurons, made, torch.stack(right).unflatten(0, shape))
