"""How much of the label a linear probe can use, in bits; and how much with more to learn from."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.probes.examples import Examples
from workbench.probes.fitting import fit_each, held_out_scores
from workbench.probes.probe import decided
from workbench.probes.scores import bits
from workbench.probes.splits import Splits, checked


@dataclass(frozen=True, eq=False)
class Curve:
    """The share of right answers on the judged examples, by how many were learned from."""

    accuracy: Float[Tensor, "layer size"]
    per_fold: Float[Tensor, "layer size fold"]
    sizes: tuple[int, ...]


def usable_information(
    examples: Examples, splits: Splits, *, l2: float = 1e-2
) -> Float[Tensor, "layer example"]:
    """V-information of every judged example, for logistic probes (Xu et al. 2020), in bits.

    What naming the label costs by its frequency in training, less what it costs with the
    activations. The mean over examples is I(X -> Y): zero where a probe is of no help, below
    where what it learned misleads. Examples that no fold judges are NaN.
    """
    fits = fit_each(examples, splits, l2=(l2,))
    with_x = bits(held_out_scores(fits, examples, splits)[:, 0, 0], examples.y)
    return without(examples, splits) - with_x


def conditional_information(
    examples: Examples, given: Examples, splits: Splits, *, l2: float = 1e-2
) -> Float[Tensor, "layer example"]:
    """What the activations add to what `given` already says (Hewitt et al. 2021), in bits.

    A probe of both, less one of `given` with zeros in place of the activations. `given` has one
    layer, or as many.
    """
    if given.x.shape[1] != len(examples) or given.x.shape[0] not in (1, len(examples.x)):
        raise ValueError(
            f"given has {tuple(given.x.shape[:2])} layers and examples, asked about "
            f"{tuple(examples.x.shape[:2])}: the same examples, in one layer or as many"
        )
    before = given.x.expand(len(examples.x), -1, -1).to(examples.x)
    both = replace(examples, x=torch.cat([before, examples.x], dim=-1))
    blank = replace(examples, x=torch.cat([before, torch.zeros_like(examples.x)], dim=-1))
    found = [usable_information(one, splits, l2=l2) for one in (both, blank)]
    return found[0] - found[1]


def without(examples: Examples, splits: Splits) -> Float[Tensor, " example"]:
    """The bits of every judged label by how often it is in training; NaN where none judges it."""
    cost = torch.full((len(examples),), torch.nan, dtype=torch.float64, device=examples.y.device)
    for train, test in splits:
        share = examples.y[train].bincount(minlength=examples.classes).double()
        cost[test] = -(share / share.sum()).log2()[examples.y[test]]
    return cost


def learning_curve(
    examples: Examples,
    splits: Splits,
    *,
    sizes: Sequence[int],
    generator: torch.Generator,
    l2: float = 1e-2,
) -> Curve:
    """Accuracy by how many examples were learned from (Talmor et al. 2020), each size in the next.

    Every fold's training part is put into random order, whole groups together, and cut.
    """
    least = int(splits.train.sum(dim=1).min())
    too_many = [size for size in sizes if size > least]
    if too_many:
        raise ValueError(f"{too_many[0]} examples to learn from, but a fold has only {least}")
    member = examples.groups.unique(return_inverse=True)[1]
    train, test = [], []
    for learn, judged in splits:
        place = torch.randperm(int(member.max()) + 1, generator=generator).to(member.device)
        order = torch.where(learn, place[member], len(examples)).argsort(stable=True)
        for size in sizes:
            part = torch.zeros_like(learn)
            part[order[:size]] = True
            train.append(part)
            test.append(judged)
    cut = checked(examples, Splits(torch.stack(train), torch.stack(test), "cut"))
    fits = fit_each(examples, cut, l2=(l2,))
    right = torch.stack([_right(fits.weight[:, n, 0, 0], fits.bias[:, n, 0, 0], examples, judged)
                         for n, (_, judged) in enumerate(cut)], dim=-1)  # fmt: skip
    per_fold = right.unflatten(-1, (len(splits), len(sizes))).movedim(-1, -2)
    return Curve(per_fold.mean(dim=-1), per_fold, tuple(sizes))


def _right(
    weight: Float[Tensor, "layer class d_model"],
    bias: Float[Tensor, "layer class"],
    examples: Examples,
    rows: Int[Tensor, " example"] | Tensor,
) -> Float[Tensor, " layer"]:
    scores = examples.x[:, rows] @ weight.movedim(-1, -2) + bias[:, None]
    guess = decided(scores, examples.classes)
    return (guess == examples.y[rows]).double().mean(dim=-1)
