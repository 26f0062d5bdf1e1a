"""From examples to logistic probes (Alain & Bengio 2016): one, or one for every layer and fold."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from workbench.probes.examples import Examples
from workbench.probes.logistic import Problems, solve
from workbench.probes.probe import LinearProbe, class_count
from workbench.probes.splits import Splits, check_apart, checked

L2 = tuple(10.0**power for power in range(-4, 2))
"""From hardly any regularisation of standardised activations to almost nothing else."""


@dataclass(frozen=True, eq=False)
class Fits:
    """A logistic probe for every layer, fold, label set and regularisation.

    gradient   of the objective where the fit stopped, relative to that of the zero probe; 0 with
               the zero probe itself, where no more than rounding speaks for the labels
    """

    weight: Float[Tensor, "layer fold labels l2 class d_model"]
    bias: Float[Tensor, "layer fold labels l2 class"]
    loss: Float[Tensor, "layer fold labels l2"]
    gradient: Float[Tensor, "layer fold labels l2"]
    l2: tuple[float, ...]
    classes: int

    def probe(self, layer: int, *, fold: int = 0, labels: int = 0, l2: int = 0) -> LinearProbe:
        """One of them; all by their place, `l2` among those that were fitted."""
        at = (layer, fold, labels, l2)
        kind = f"logistic, l2 {self.l2[l2]:g}"
        if not bool(self.weight[at].any()):
            kind += ", zero: nothing but rounding speaks for the labels"
        return LinearProbe(
            self.weight[at], self.bias[at], self.classes, kind, float(self.gradient[at])
        )


def fit(
    x: Float[Tensor, "example d_model"],
    y: Shaped[Tensor, " example"],
    *,
    l2: float = 1e-3,
    tolerance: float = 1e-6,
) -> LinearProbe:
    """The logistic probe of these examples, at the optimum.

    Minimises the mean of -log p(y | x) + l2 / 2 * |weight|^2 on standardised activations, to a
    gradient of `tolerance` relative to that of the zero probe; the bias is not penalised. Where
    nothing but rounding speaks for the labels, it is the zero probe, and its `kind` says so.
    """
    whole = torch.ones(1, len(x), dtype=torch.bool, device=x.device)
    everything = Splits(whole, whole, "no split")
    groups = torch.arange(len(x), device=x.device)
    given = Examples(x[None], y.long() if y.dtype == torch.bool else y, groups)
    check_labels(given, given.y[None])
    return _fitted(given, everything, given.y[None], l2=(l2,), tolerance=tolerance).probe(0)


def fit_each(
    examples: Examples,
    splits: Splits,
    *,
    l2: Sequence[float] = L2,
    label_sets: Int[Tensor, "labels example"] | None = None,
    tolerance: float = 1e-6,
) -> Fits:
    """Fit every layer, fold, label set (the examples' own) and regularisation, at the optimum.

    Each is what `fit` gives on the fold's training part alone, standardised there; a layer's
    problems are solved as rows of one iteration, on the device of the activations. Splits with a
    group on both sides are refused.
    """
    sets = examples.y[None] if label_sets is None else label_sets
    check_labels(examples, sets)
    return _fitted(examples, checked(examples, splits, sets), sets, l2=l2, tolerance=tolerance)


def _fitted(
    examples: Examples,
    splits: Splits,
    sets: Int[Tensor, "labels example"],
    *,
    l2: Sequence[float],
    tolerance: float,
) -> Fits:
    classes = class_count(sets[0])
    problems = product(splits, sets, l2, classes)
    shape = (len(splits), len(sets), len(l2))
    found = [solve(x, problems, tolerance=tolerance) for x in examples.x]
    return Fits(
        weight=torch.stack([one.weight.unflatten(0, shape) for one in found]),
        bias=torch.stack([one.bias.unflatten(0, shape) for one in found]),
        loss=torch.stack([one.loss.unflatten(0, shape) for one in found]),
        gradient=torch.stack([one.gradient.unflatten(0, shape) for one in found]),
        l2=tuple(l2),
        classes=classes,
    )


def held_out_scores(
    fits: Fits, examples: Examples, splits: Splits
) -> Float[Tensor, "layer labels l2 example class"]:
    """The scores of every example by the probes of the fold in which it is judged; NaN in none."""
    layers, folds, labels, l2, classes, _ = fits.weight.shape
    check_apart(examples, splits)
    if len(splits) != folds or len(examples.x) != layers:
        raise ValueError(
            f"probes of {layers} layers and {folds} folds for {len(examples.x)} layers and "
            f"{len(splits)} folds: give the examples and the splits that they were fitted with"
        )
    _ = splits.fold  # raises where an example is judged twice
    scores = examples.x.new_full((layers, labels, l2, len(examples), classes), torch.nan)
    for layer, x in enumerate(examples.x):
        for fold, (_, test) in enumerate(splits):
            weight, bias = fits.weight[layer, fold], fits.bias[layer, fold]
            found = x[test] @ weight.flatten(0, 2).T + bias.flatten()
            scores[layer][:, :, test] = found.unflatten(1, (labels, l2, classes)).movedim(0, 2)
    return scores


def product(
    splits: Splits, label_sets: Int[Tensor, "labels example"], l2: Sequence[float], classes: int
) -> Problems:
    """Every fold with every label set and every regularisation."""
    device = label_sets.device
    counts = (len(splits), len(label_sets), len(l2))
    fold, labels, place = torch.cartesian_prod(
        *(torch.arange(count, device=device) for count in counts)
    ).T
    strengths = torch.tensor(list(l2), dtype=torch.float64, device=device)
    return Problems(splits.train, label_sets, fold, labels, strengths[place], classes)


def check_labels(examples: Examples, label_sets: Int[Tensor, "labels example"]) -> int:
    """How many classes all sets have; an error where they differ from the examples' own."""
    if label_sets.shape[-1] != len(examples):
        raise ValueError(
            f"{label_sets.shape[-1]} labels for {len(examples)} examples: give each its own"
        )
    if label_sets.is_floating_point():
        raise ValueError("labels are numbers, not classes: fit_ridge predicts numbers")
    counts = [class_count(one) for one in label_sets]
    if len(set(counts)) > 1:
        row = next(row for row, count in enumerate(counts) if count != counts[0])
        raise ValueError(
            f"label set {row} has {counts[row]} classes, set 0 has {counts[0]}: all need as many"
        )
    return counts[0]
