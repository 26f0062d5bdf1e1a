"""Held-out answers whose settings were chosen inside the training part, for many label sets."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.probes.examples import Examples
from workbench.probes.fitting import check_labels, product
from workbench.probes.logistic import Problems, solve
from workbench.probes.scores import bits
from workbench.probes.splits import Splits, inner
from workbench.statistics import Randomness


@dataclass(frozen=True, eq=False)
class Nested:
    """Scores of every example by a probe that never saw it, nor was chosen by it.

    l2       what was chosen for each fold
    inside   mean bits of a label inside the training part, at the chosen l2: to choose layers by
    """

    scores: Float[Tensor, "layer labels example class"]
    l2: Float[Tensor, "layer labels fold"]
    inside: Float[Tensor, "layer labels fold"]


def nested(
    examples: Examples,
    splits: Splits,
    *,
    l2: Sequence[float],
    seed: Randomness,
    label_sets: Int[Tensor, "labels example"] | None = None,
    tolerance: float = 1e-5,
) -> Nested:
    """For every layer, label set and fold: choose l2 in the training part, fit it whole, judge.

    The choice is by log-loss on a quarter of the training part's groups, held out.
    """
    sets = examples.y[None] if label_sets is None else label_sets
    classes, fold = check_labels(examples, sets), splits.fold
    if bool((fold < 0).any()):
        row = int((fold < 0).nonzero()[0])
        raise ValueError(f"example {row} is judged in no fold: leave it out, or take k_fold")
    trials = inner(examples, splits, seed=seed)
    _check_sets(sets, (splits, trials), classes)
    problems = product(trials, sets, l2, classes)
    strengths = torch.tensor(list(l2), dtype=torch.float64, device=sets.device)
    scores, chosen, inside = [], [], []
    for x in examples.x:
        cost = _inside(x, problems, trials, tolerance)
        best = cost.min(dim=-1)
        picked = strengths[best.indices]
        scores.append(_outside(x, splits, sets, picked, tolerance=tolerance, classes=classes))
        chosen.append(strengths[best.indices].T)
        inside.append(best.values.T)
    return Nested(torch.stack(scores), torch.stack(chosen), torch.stack(inside))


def _inside(
    x: Float[Tensor, "example d_model"], problems: Problems, trials: Splits, tolerance: float
) -> Float[Tensor, "fold labels l2"]:
    """Mean bits of the labels that were held out inside the training parts."""
    found = solve(x, problems, tolerance=max(tolerance, 1e-4))
    shape = (len(trials), len(problems.label_sets), -1)
    weight, bias = found.weight.reshape(*shape, *found.weight.shape[1:]), found.bias
    bias = bias.reshape(*shape, bias.shape[-1])
    cost = []
    for fold, (_, held) in enumerate(trials):
        scores = x[held] @ weight[fold].movedim(-1, -2) + bias[fold][..., None, :]
        cost.append(
            torch.stack(
                [
                    bits(one, y[held]).mean(dim=-1)
                    for one, y in zip(scores, problems.label_sets, strict=True)
                ]
            )
        )
    return torch.stack(cost)


def _outside(
    x: Float[Tensor, "example d_model"],
    splits: Splits,
    sets: Int[Tensor, "labels example"],
    l2: Float[Tensor, "fold labels"],
    *,
    tolerance: float,
    classes: int,
) -> Float[Tensor, "labels example class"]:
    """The scores of every example in the fold that judges it."""
    device, counts = x.device, (len(splits), len(sets))
    fold, labels = torch.cartesian_prod(*(torch.arange(n, device=device) for n in counts)).T
    problems = Problems(splits.train, sets, fold, labels, l2.flatten(), classes)
    found = solve(x, problems, tolerance=tolerance)
    weight, bias = found.weight.unflatten(0, counts), found.bias.unflatten(0, counts)
    scores = x.new_full((len(sets), len(x), weight.shape[2]), torch.nan)
    for place, (_, test) in enumerate(splits):
        scores[:, test] = x[test] @ weight[place].movedim(-1, -2) + bias[place][:, None]
    return scores


def _check_sets(
    sets: Int[Tensor, "labels example"], splits: tuple[Splits, ...], classes: int
) -> None:
    for train in torch.cat([one.train for one in splits]):
        for row, labels in enumerate(sets):
            if len(labels[train].unique()) < classes:
                raise ValueError(
                    f"label set {row} lacks a class in one of the parts to learn from: there are "
                    f"too few examples of it for {len(splits[0])} folds; take fewer, or add some"
                )
