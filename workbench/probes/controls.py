"""Labels that say nothing, and features that should not be enough: what a score is held against."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.probes.examples import Examples
from workbench.probes.splits import Splits, checked


def shuffled_labels(
    examples: Examples, *, count: int, generator: torch.Generator
) -> Int[Tensor, "labels example"]:
    """The labels in random order, `count` times: nothing can be read off but how often each is.

    Where every group has one label, the labels of whole groups change places.
    """
    y, member = examples.y, examples.groups.unique(return_inverse=True)[1]
    groups = int(member.max()) + 1
    own = torch.zeros(groups, dtype=y.dtype, device=y.device).scatter(0, member, y)
    whole = groups > 1 and bool((own[member] == y).all())
    size = groups if whole else len(y)
    for_each = own if whole else y
    made = []
    for _ in range(count):
        order = torch.randperm(size, generator=generator).to(y.device)
        made.append(for_each[order][member] if whole else for_each[order])
    return torch.stack(made) if made else y.new_zeros(0, len(y))


def control_labels(
    examples: Examples, *, count: int, generator: torch.Generator
) -> Int[Tensor, "labels example"]:
    """The control task of Hewitt & Liang (2019): every type has a label of its own at random.

    Drawn from how often labels are; a draw in which a label is in too few groups for folds (fewer
    than 8, or than the task's own rarest) is drawn again.
    """
    if examples.types is None:
        raise ValueError(
            "a control task labels types (words, subjects) at random, and these examples have no "
            "types: give them with types="
        )
    y, member = examples.y, examples.types.unique(return_inverse=True)[1]
    kinds, classes = int(member.max()) + 1, examples.classes
    if kinds < classes:
        raise ValueError(f"{kinds} types cannot carry {classes} labels: a control task needs more")
    share = y.bincount(minlength=classes).float().cpu()
    enough = min(8, _spread(examples, y, classes))
    made: list[Tensor] = []
    for _ in range(1000 * max(count, 1)):
        if len(made) == count:
            break
        drawn = torch.multinomial(share, kinds, replacement=True, generator=generator)
        labels = drawn.to(y.device)[member]
        if _spread(examples, labels, classes) >= enough:
            made.append(labels)
    if len(made) < count:
        raise ValueError(f"{kinds} types are too few to carry all {classes} labels by chance")
    return torch.stack(made) if made else y.new_zeros(0, len(y))


def _spread(examples: Examples, labels: Int[Tensor, " example"], classes: int) -> int:
    """In how many groups the rarest label is."""
    return min(len(examples.groups[labels == one].unique()) for one in range(classes))


def control_ceiling(examples: Examples, splits: Splits) -> float:
    """The share of judged examples whose type was seen in training: all a control can reach."""
    if examples.types is None:
        raise ValueError("without types there is no control task: give them with types=")
    seen = torch.cat(
        [torch.isin(examples.types[test], examples.types[train]) for train, test in splits]
    )
    return float(seen.double().mean())


def one_hot(values: Int[Tensor, " example"]) -> Float[Tensor, "1 example value"]:
    """A feature for each value: what a probe can know from it alone, such as from the token."""
    member = values.unique(return_inverse=True)[1]
    return torch.nn.functional.one_hot(member).float()[None]


def majority_guess(examples: Examples, splits: Splits) -> Int[Tensor, "fold example"]:
    """For every fold, the most frequent label of its training part."""
    most = [
        examples.y[train].bincount(minlength=examples.classes).argmax() for train in splits.train
    ]
    return torch.stack(most)[:, None].expand(len(splits), len(examples))


def random_directions(
    examples: Examples, splits: Splits, *, count: int, generator: torch.Generator
) -> Float[Tensor, "layer direction"]:
    """Accuracy of reading the label off a random direction, by the nearest class mean on it.

    Directions are drawn in activations that are standardised by the training part.
    """
    checked(examples, splits)
    layers, _, width = examples.x.shape
    drawn = torch.randn(width, count, generator=generator).to(examples.x)
    right = torch.zeros(layers, count, dtype=torch.float64, device=examples.x.device)
    judged = 0
    for train, test in splits:
        hot = torch.nn.functional.one_hot(examples.y[train], examples.classes).to(examples.x)
        for layer, x in enumerate(examples.x):
            mean, deviation = x[train].mean(dim=0), x[train].std(dim=0, correction=0)
            unit = torch.where(deviation > 1e-6 * mean.abs() + 1e-30, 1 / deviation, 0.0)
            inside, outside = (((x[part] - mean) * unit) @ drawn for part in (train, test))
            centre = (hot.T @ inside) / hot.sum(dim=0)[:, None]
            guess = (outside[:, None] - centre).abs().argmin(dim=1)
            right[layer] += (guess == examples.y[test][:, None]).double().sum(dim=0)
        judged += int(test.sum())
    return right / judged
