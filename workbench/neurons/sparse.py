"""k-sparse probes that never see a group on both sides, and what shuffled labels give.

Of the ways to choose neurons in Gurnee et al. (2023) the difference of the classes' means, over the
deviation here; then a logistic probe on the k chosen ones.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from workbench.statistics import derive

_RIDGE, _STEPS = 1e-2, 30


def units(labels: Bool[Tensor, " batch"], groups: Int[Tensor, " batch"]) -> Int[Tensor, " batch"]:
    """What exchanges its label as a whole: a group, or the part of it that has one label."""
    both = torch.stack([groups, labels.long()], dim=1)
    return both.unique(dim=0, return_inverse=True)[1]


def halves(
    labels: Bool[Tensor, " batch"], groups: Int[Tensor, " batch"], *, seed: int
) -> Bool[Tensor, " batch"]:
    """True for a random half of the groups, which probes are fitted on.

    Groups of one label, of the other and of both are halved each by themselves.
    """
    member = groups.unique(return_inverse=True)[1]
    size = member.bincount()
    share = torch.zeros(len(size)).index_add(0, member, labels.float()) / size
    kind = (share > 0).long() + (share == 1).long()
    draws = derive(seed, "halves")
    shuffled = [(kind == one).nonzero()[:, 0] for one in (1, 2, 0)]
    dealt = torch.cat([one[torch.randperm(len(one), generator=draws)] for one in shuffled])
    fit = torch.zeros(len(size), dtype=torch.bool)
    fit[dealt[::2]] = True
    train = fit[member]
    for side, what in ((train, "fitting"), (~train, "judging")):
        for label in (True, False):
            if int((labels[side] == label).sum()) < 2:
                there = len(groups[labels == label].unique())
                raise ValueError(
                    f"{int((labels == label).sum())} prompts in {there} groups are labelled "
                    f"{label}, and no group may be on both sides: the half for {what} has fewer "
                    "than 2 of them; give more groups of that label"
                )
    return train


def separation(
    x: Float[Tensor, "batch feature"], labels: Bool[Tensor, " batch"]
) -> Float[Tensor, " feature"]:
    """Difference of the classes' means over the standard deviation; 0 where nothing varies."""
    x = x.double()
    spread = x.std(0, unbiased=False)
    difference = x[labels].mean(0) - x[~labels].mean(0)
    return torch.where(spread > 1e-9, difference / spread.clamp(min=1e-9), 0.0)


def sparse_probes(
    x: Float[Tensor, "batch feature"],
    labels: Bool[Tensor, " batch"],
    *,
    groups: Int[Tensor, " batch"],
    train: Bool[Tensor, " batch"],
    ks: Sequence[int],
    shuffles: int,
    seed: int,
) -> tuple[Int[Tensor, " cell"], Float[Tensor, " cell"], Float[Tensor, " k"], Tensor]:
    """Chosen features and weights of the largest k, held-out accuracy of each k, and its null."""
    fit, held = x[train], x[~train]
    member = units(labels, groups)[train].unique(return_inverse=True)[1]
    of_unit = torch.zeros(int(member.max()) + 1, dtype=torch.bool)
    of_unit[member] = labels[train]
    right = labels[train]
    accuracy, chosen, weights = _judged(fit, right, held, labels[~train], ks)
    null = torch.empty(len(ks), shuffles)
    for turn in range(shuffles):
        order = torch.randperm(len(of_unit), generator=derive(seed, "shuffle", str(turn)))
        null[:, turn] = _judged(fit, of_unit[order][member], held, labels[~train], ks)[0]
    return chosen, weights, accuracy, null


def _judged(
    fit: Tensor, right: Tensor, held: Tensor, truth: Tensor, ks: Sequence[int]
) -> tuple[Tensor, Tensor, Tensor]:
    order = (-separation(fit, right).abs()).argsort(stable=True)[: max(ks)]
    mean, spread = fit[:, order].double().mean(0), fit[:, order].double().std(0).clamp(min=1e-9)
    here, there = ((part[:, order].double() - mean) / spread for part in (fit, held))
    scores, weights = [], torch.zeros(len(order))
    for k in ks:
        solved = logistic(here[:, :k], right)
        said = there[:, :k] @ solved[:-1] + solved[-1] > 0
        scores.append(((said & truth).sum() / truth.sum()
                       + (~said & ~truth).sum() / (~truth).sum()) / 2)  # fmt: skip
        weights = solved[:-1].float()
    return torch.stack(scores).float(), order[: max(ks)], weights


def logistic(
    x: Float[Tensor, "batch feature"], labels: Bool[Tensor, " batch"]
) -> Float[Tensor, " weight"]:
    """A ridge-penalised logistic fit with both classes counting alike (Newton); bias last."""
    design = torch.cat([x, torch.ones(len(x), 1, dtype=x.dtype)], dim=1)
    y = labels.double()
    share = torch.where(labels, 0.5 / y.mean(), 0.5 / (1 - y).mean()) / len(y)
    penalty = _RIDGE * torch.ones(design.shape[1], dtype=x.dtype)
    penalty[-1] = 1e-9
    weights = torch.zeros(design.shape[1], dtype=x.dtype)
    for _ in range(_STEPS):
        chance = torch.sigmoid(design @ weights)
        slope = design.T @ (share * (chance - y)) + penalty * weights
        curve = (design * (share * chance * (1 - chance))[:, None]).T @ design + penalty.diag()
        step = torch.linalg.solve(curve, slope)
        weights = weights - step
        if float(step.abs().max()) < 1e-10:
            break
    return weights
