"""Held-out answers whose settings were chosen inside the training part, for many label sets."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.probes.examples import Examples
from workbench.probes.fitting import check_labels, product
from workbench.probes.logistic import Problems, solve
from workbench.probes.scores import bits
from workbench.probes.splits import Splits, checked, inner, joined
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

    The choice is by log-loss on a quarter of the training part's groups, held out (nested
    cross-validation: Cawley & Talbot 2010).
    """
    return nested_each(
        examples, [splits], l2=l2, seeds=[seed], label_sets=label_sets, tolerance=tolerance
    )[0]


def nested_each(
    examples: Examples,
    every: Sequence[Splits],
    *,
    l2: Sequence[float],
    seeds: Sequence[Randomness],
    label_sets: Int[Tensor, "labels example"] | None = None,
    tolerance: float = 1e-5,
) -> list[Nested]:
    """`nested` for splits that were drawn several times, a layer's problems of all solved as one.

    `seeds` has one for each, from which its choice is drawn.
    """
    sets = examples.y[None] if label_sets is None else label_sets
    classes = check_labels(examples, sets)
    for splits in every:
        _check_all_judged(splits)
    whole = checked(examples, joined(every), sets)
    drawn = [inner(examples, one, seed=seed) for one, seed in zip(every, seeds, strict=True)]
    trials = checked(examples, joined(drawn), sets)
    problems = product(trials, sets, l2, classes)
    strengths = torch.tensor(list(l2), dtype=torch.float64, device=sets.device)
    sizes = [len(one) for one in every]
    found: list[list[_Layer]] = []
    for x in examples.x:
        cost = _inside(x, problems, trials, tolerance)
        best = cost.min(dim=-1)
        picked = strengths[best.indices]
        scores = _outside(x, whole, sets, picked, tolerance=tolerance, classes=classes)
        found.append([
            _Layer(_gathered(part, one), l2.T, inside.T)
            for one, part, l2, inside in zip(
                every, scores.split(sizes), picked.split(sizes), best.values.split(sizes),
                strict=True,
            )
        ])  # fmt: skip
    return [
        Nested(*(torch.stack(part) for part in zip(*layers, strict=True)))
        for layers in zip(*found, strict=True)
    ]


class _Layer(NamedTuple):
    """What a layer gives for one of the splits, in the order of `Nested`."""

    scores: Float[Tensor, "labels example class"]
    l2: Float[Tensor, "labels fold"]
    inside: Float[Tensor, "labels fold"]


def _check_all_judged(splits: Splits) -> None:
    fold = splits.fold
    if bool((fold < 0).any()):
        row = int((fold < 0).nonzero()[0])
        raise ValueError(f"example {row} is judged in no fold: leave it out, or take k_fold")


def _gathered(
    scores: Float[Tensor, "fold labels example class"], splits: Splits
) -> Float[Tensor, "labels example class"]:
    """Of every example, those of the fold in which it is judged."""
    return scores.movedim(0, 2)[:, torch.arange(scores.shape[2], device=scores.device), splits.fold]


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
) -> Float[Tensor, "fold labels example class"]:
    """The scores of every example by every fold's probe, also of those it learned from."""
    device, counts = x.device, (len(splits), len(sets))
    fold, labels = torch.cartesian_prod(*(torch.arange(n, device=device) for n in counts)).T
    problems = Problems(splits.train, sets, fold, labels, l2.flatten(), classes)
    found = solve(x, problems, tolerance=tolerance)
    weight, bias = found.weight.unflatten(0, counts), found.bias.unflatten(0, counts)
    return x @ weight.movedim(-1, -2) + bias[:, :, None]
