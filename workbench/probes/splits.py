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


def checked(examples: Examples, splits: Splits) -> Splits:
    """The same splits, refused where a group is on both sides or a training part lacks a class."""
    if splits.train.shape != splits.test.shape or splits.train.shape[1] != len(examples):
        raise ValueError(
            f"splits of {splits.train.shape[1]} and {splits.test.shape[1]} examples for "
            f"{len(examples)}: make them from the same examples"
        )
    count = examples.classes
    for fold, (train, test) in enumerate(splits):
        shared = set(examples.groups[train].tolist()) & set(examples.groups[test].tolist())
        if shared:
            one = min(shared)
            row = int(((examples.groups == one) & test).nonzero()[0])
            raise ValueError(
                f"fold {fold}: group {one} is on both sides (example {row} is judged by a probe "
                "that learned from its group): split by group, with k_fold or held_out"
            )
        if not bool(test.any()) or not bool(train.any()):
            raise ValueError(
                f"fold {fold} has nothing to {'learn from' if test.any() else 'judge'}"
            )
        if count > 1:
            there = examples.y[train].unique().tolist()
            absent = [one for one in range(count) if one not in there]
            if absent:
                row = int((examples.y == absent[0]).nonzero()[0])
                raise ValueError(
                    f"fold {fold}: class {absent[0]} (first in example {row}) is not in the "
                    "training part: take fewer folds, or groups that hold more than one class"
                )
    return splits


def _members(examples: Examples) -> np.ndarray:
    return np.unique(examples.groups.cpu().numpy(), return_inverse=True)[1].reshape(-1)


def _class_table(examples: Examples, member: np.ndarray, groups: int) -> np.ndarray:
    """How many examples of each class (of any number) each group has."""
    count = examples.classes
    y = np.zeros(len(examples), dtype=int) if count == 1 else examples.y.cpu().numpy()
    table = np.zeros((groups, count))
    np.add.at(table, (member, y), 1)
    return table
