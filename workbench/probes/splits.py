"""Which examples a probe learns from and which it is judged by: groups never on both sides."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from workbench.probes.examples import Examples
from workbench.statistics import Randomness
from workbench.statistics.randomness import numpy_generator


@dataclass(frozen=True, eq=False)
class Splits:
    """For every fold, the examples to learn from and those to judge by; `how` says it in words."""

    train: Bool[Tensor, "fold example"]
    test: Bool[Tensor, "fold example"]
    how: str

    def __len__(self) -> int:
        return len(self.train)

    def __iter__(self) -> Iterator[tuple[Bool[Tensor, " example"], Bool[Tensor, " example"]]]:
        return iter(zip(self.train, self.test, strict=True))

    @property
    def fold(self) -> Int[Tensor, " example"]:
        """The fold in which each example is judged, -1 where in none; refused where in two."""
        often = self.test.sum(dim=0)
        if bool((often > 1).any()):
            row = int((often > 1).nonzero()[0])
            raise ValueError(
                f"example {row} is judged in {int(often[row])} folds: test parts must not overlap"
            )
        return torch.where(often > 0, self.test.long().argmax(dim=0), -1)


def k_fold(examples: Examples, k: int = 5, *, seed: Randomness) -> Splits:
    """Every example is judged once. Whole groups are kept together, classes spread evenly.

    Groups are dealt out in random order, large ones first, each to the fold that is left most
    even by it (as scikit-learn's StratifiedGroupKFold does).
    """
    member = _members(examples)
    groups = int(member.max()) + 1
    if k < 2:
        raise ValueError(f"{k} folds leave nothing to judge by: take 2 or more")
    if groups < k:
        raise ValueError(
            f"{groups} groups among {len(examples)} examples for {k} folds: a fold needs a group "
            "of its own; take fewer folds or add groups"
        )
    table = _class_table(examples, member, groups)
    order = numpy_generator(seed).permutation(groups)
    order = order[np.argsort(-table.sum(1)[order], kind="stable")]
    share = np.maximum(table.sum(0), 1)
    filled, place = np.zeros((k, table.shape[1])), np.zeros(groups, dtype=np.int64)
    for group in order:
        uneven = ((2 * filled + table[group]) * table[group] / share**2).sum(1)
        small = np.flatnonzero(uneven <= uneven.min() + 1e-12)
        place[group] = small[np.argmin(filled[small].sum(1))]
        filled[place[group]] += table[group]
    fold = torch.from_numpy(place[member]).to(examples.y.device)
    test = fold == torch.arange(k, device=fold.device)[:, None]
    whole = groups == len(examples)
    how = f"{k} folds of {'examples' if whole else f'{groups} groups kept whole'}, stratified"
    return checked(examples, Splits(~test, test, how))


def repeated_k_fold(examples: Examples, k: int = 5, *, seeds: Sequence[Randomness]) -> Splits:
    """`k_fold` drawn anew with each of the seeds, one after the other: fitted in one call."""
    return joined([k_fold(examples, k, seed=seed) for seed in seeds])


def joined(every: Sequence[Splits]) -> Splits:
    """The folds of several splits of the same examples, in order."""
    if not every:
        raise ValueError("no splits were given: join one or more")
    train, test = (torch.cat([getattr(one, side) for one in every]) for side in ("train", "test"))
    how = every[0].how if len(every) == 1 else f"{every[0].how}, drawn {len(every)} times"
    return Splits(train, test, how)


def held_out(examples: Examples, groups: Sequence[int] | None = None) -> Splits:
    """One fold for each group (or each that is named), judged by a probe that never saw it."""
    there = examples.groups.unique().tolist()
    named = there if groups is None else list(groups)
    missing = [one for one in named if one not in there]
    if missing:
        raise ValueError(f"there is no group {missing[0]}; there are {there}")
    if len(there) < 2:
        raise ValueError("there is one group: nothing is left to learn from when it is held out")
    test = torch.stack([examples.groups == one for one in named])
    return checked(examples, Splits(~test, test, f"{len(named)} groups, each held out in turn"))


def inner(examples: Examples, splits: Splits, *, seed: Randomness, k: int = 4) -> Splits:
    """For every fold, a split of its training part alone: to choose settings by."""
    train, test = torch.zeros_like(splits.train), torch.zeros_like(splits.test)
    generator = numpy_generator(seed)
    for fold, (learn, _) in enumerate(splits):
        rows = learn.nonzero()[:, 0]
        part = examples[rows]
        folds = min(k, len(part.groups.unique()))
        if folds < 2:
            raise ValueError(
                f"the training part of fold {fold} is one group: nothing to choose settings by"
            )
        first = k_fold(part, folds, seed=generator)
        train[fold, rows], test[fold, rows] = first.train[0], first.test[0]
    return checked(examples, Splits(train, test, f"inside {splits.how}"))


def checked(
    examples: Examples, splits: Splits, label_sets: Int[Tensor, "labels example"] | None = None
) -> Splits:
    """The same splits, refused where a group is on both sides or a training part lacks a class.

    The classes are those of `label_sets`, or else of the examples' own labels.
    """
    check_apart(examples, splits)
    for side, what in ((splits.train, "learn from"), (splits.test, "judge")):
        empty = ~side.any(dim=1)
        if bool(empty.any()):
            raise ValueError(f"fold {int(empty.nonzero()[0])} has nothing to {what}")
    if label_sets is not None:
        _check_classes(splits, label_sets, "label set {row}, ")
    elif examples.classes > 1:
        _check_classes(splits, examples.y[None], "")
    return splits


def check_apart(examples: Examples, splits: Splits) -> None:
    """Refused, with group and rows: a group that is both learned from and judged in a fold."""
    if splits.train.shape != splits.test.shape or splits.train.shape[1] != len(examples):
        raise ValueError(
            f"splits of {splits.train.shape[1]} and {splits.test.shape[1]} examples for "
            f"{len(examples)}: make them from the same examples"
        )
    names, member = examples.groups.unique(return_inverse=True)
    learned, judged = (
        torch.zeros(len(side), len(names), device=side.device).index_add_(1, member, side.float())
        for side in (splits.train, splits.test)
    )
    both = ((learned > 0) & (judged > 0)).nonzero()
    if len(both):
        fold, group = both[0].tolist()
        sides = (one[fold] & (member == group) for one in (splits.train, splits.test))
        first, second = (int(one.nonzero()[0]) for one in sides)
        raise ValueError(
            f"fold {fold}: group {int(names[group])} is on both sides (example {second} is judged "
            f"by a probe that learned from example {first}): split by group, with k_fold or "
            "held_out"
        )


def _check_classes(splits: Splits, sets: Int[Tensor, "labels example"], which: str) -> None:
    for number in range(int(sets.max()) + 1):
        has = sets == number
        absent = (splits.train.double() @ has.T.double() == 0).nonzero()
        if len(absent):
            fold, row = absent[0].tolist()
            first = int(has[row].nonzero()[0])
            raise ValueError(
                f"fold {fold}: {which.format(row=row)}class {number} (first in example {first}) is "
                "not in the training part: take fewer folds, or groups that hold more than one "
                "class"
            )


def _members(examples: Examples) -> np.ndarray:
    return np.unique(examples.groups.cpu().numpy(), return_inverse=True)[1].reshape(-1)


def _class_table(examples: Examples, member: np.ndarray, groups: int) -> np.ndarray:
    """How many examples of each class (of any number) each group has."""
    count = examples.classes
    y = np.zeros(len(examples), dtype=int) if count == 1 else examples.y.cpu().numpy()
    table = np.zeros((groups, count))
    np.add.at(table, (member, y), 1)
    return table
