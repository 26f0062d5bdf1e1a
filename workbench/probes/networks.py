"""Probes with a hidden layer, and probes that choose where in a sequence to look."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from workbench.probes.examples import Examples
from workbench.probes.fitting import check_labels
from workbench.probes.probe import Probe, check_rows, class_count, decided
from workbench.probes.splits import Splits, checked
from workbench.probes.training import trained


@dataclass(frozen=True, eq=False)
class NetworkProbe(Probe):
    """One hidden layer of rectified units over standardised activations."""

    inner: Float[Tensor, "d_model hidden"]
    inner_bias: Float[Tensor, " hidden"]
    outer: Float[Tensor, "hidden class"]
    outer_bias: Float[Tensor, " class"]
    mean: Float[Tensor, " d_model"]
    deviation: Float[Tensor, " d_model"]
    classes: int
    kind: str
    gradient: float

    def scores(self, x: Float[Tensor, "example d_model"]) -> Float[Tensor, "example class"]:
        """A score for each class."""
        moved = (x - self.mean) / self.deviation
        hidden = (moved @ self.inner + self.inner_bias).relu()
        return hidden @ self.outer + self.outer_bias


@dataclass(frozen=True, eq=False)
class AttentionProbe:
    """Looks at a whole sequence: a softmax over positions, then a linear probe of what it saw."""

    query: Float[Tensor, " d_model"]
    weight: Float[Tensor, "class d_model"]
    bias: Float[Tensor, " class"]
    mean: Float[Tensor, " d_model"]
    deviation: Float[Tensor, " d_model"]
    classes: int
    gradient: float
    kind: str = "attention"

    def pattern(
        self, x: Float[Tensor, "example pos d_model"], mask: Bool[Tensor, "example pos"]
    ) -> Float[Tensor, "example pos"]:
        """Where it looks; sums to one over the real positions."""
        moved = (x - self.mean) / self.deviation
        return (moved @ self.query).masked_fill(~mask, -torch.inf).softmax(dim=-1)

    def scores(
        self, x: Float[Tensor, "example pos d_model"], mask: Bool[Tensor, "example pos"]
    ) -> Float[Tensor, "example class"]:
        """A score for each class."""
        x = torch.where(mask[..., None], x, self.mean)  # NaN in padding must not spread
        seen = (self.pattern(x, mask)[..., None] * ((x - self.mean) / self.deviation)).sum(dim=1)
        return seen @ self.weight.T + self.bias

    def predict(
        self, x: Float[Tensor, "example pos d_model"], mask: Bool[Tensor, "example pos"]
    ) -> Int[Tensor, " example"]:
        """The class of each sequence."""
        return decided(self.scores(x, mask), self.classes)


def fit_networks(
    examples: Examples,
    splits: Splits,
    *,
    generator: torch.Generator,
    hidden: int = 32,
    l2: float = 1e-3,
    label_sets: Int[Tensor, "labels example"] | None = None,
    steps: int = 600,
    rate: float = 0.02,
) -> list[list[list[NetworkProbe]]]:
    """A network for every layer, fold and label set, in that nesting; a layer's as one problem.

    One hidden layer, as Hewitt & Liang (2019) compare with linear probes.
    """
    sets = examples.y[None] if label_sets is None else label_sets
    classes = check_labels(examples, sets)
    checked(examples, splits, sets)
    return [
        _networks(x, splits, sets, classes, generator=generator, hidden=hidden, l2=l2, steps=steps,
                  rate=rate)
        for x in examples.x
    ]  # fmt: skip


def _networks(
    x: Float[Tensor, "example d_model"],
    splits: Splits,
    sets: Int[Tensor, "labels example"],
    classes: int,
    *,
    generator: torch.Generator,
    hidden: int,
    l2: float,
    steps: int,
    rate: float,
) -> list[list[NetworkProbe]]:
    folds, count, width = len(splits), len(sets), x.shape[-1]
    stats = [standard(x[train]) for train, _ in splits]
    moved = torch.stack([(x - mean) / deviation for mean, deviation in stats])
    moved = moved.repeat_interleave(count, dim=0)
    share = (splits.train / splits.train.sum(dim=1, keepdim=True)).to(x)
    share = share.repeat_interleave(count, dim=0)
    target = sets.repeat(folds, 1)
    sizes = [(width, hidden), (hidden,), (hidden, classes), (classes,)]
    spreads = [(2 / width) ** 0.5, 0.0, hidden**-0.5, 0.0]
    weights = [
        (spread * torch.randn(folds * count, *size, generator=generator)).to(x).requires_grad_()
        for size, spread in zip(sizes, spreads, strict=True)
    ]

    def loss() -> Float[Tensor, " problem"]:
        inner, inner_bias, outer, outer_bias = weights
        active = torch.baddbmm(inner_bias[:, None], moved, inner).relu()
        chance = torch.baddbmm(outer_bias[:, None], active, outer).log_softmax(dim=-1)
        each = -chance.gather(-1, target[..., None])[..., 0]
        size = inner.square().sum(dim=(1, 2)) + outer.square().sum(dim=(1, 2))
        return (each * share).sum(dim=1) + l2 / 2 * size

    left = trained(weights, loss, steps=steps, rate=rate).tolist()
    kind = f"network of {hidden} hidden units"
    made = []
    for at in range(folds * count):
        inner, inner_bias, outer, outer_bias = (one.detach()[at] for one in weights)
        mean, deviation = stats[at // count]
        made.append(
            NetworkProbe(
                inner, inner_bias, outer, outer_bias, mean, deviation, classes, kind, left[at]
            )
        )
    return [made[fold * count : (fold + 1) * count] for fold in range(folds)]


def fit_attention(
    x: Float[Tensor, "example pos d_model"],
    y: Int[Tensor, " example"],
    mask: Bool[Tensor, "example pos"],
    *,
    generator: torch.Generator,
    l2: float = 1e-3,
    steps: int = 600,
    rate: float = 0.02,
) -> AttentionProbe:
    """A probe of whole sequences; `mask` is False where there is padding.

    Where to look is learned, as in the pooling of Tenney et al. (2019).
    """
    empty = ~mask.any(dim=1)
    if bool(empty.any()):
        raise ValueError(f"sequence {int(empty.nonzero()[0])} has no real position: leave it out")
    if len(y) != len(x):
        raise ValueError(f"{len(y)} labels for {len(x)} sequences: give each its own")
    # Padding may hold anything.
    check_rows(torch.where(mask[..., None], x, 0), y, each="sequence")
    classes, width = class_count(y), x.shape[-1]
    mean, deviation = standard(x[mask])
    moved = torch.where(mask[..., None], (x - mean) / deviation, 0.0)
    query = (0.01 * torch.randn(1, width, generator=generator)).to(x).requires_grad_()
    weight, bias = x.new_zeros(1, classes, width), x.new_zeros(1, classes)
    weights = [query, weight.requires_grad_(), bias.requires_grad_()]

    def loss() -> Float[Tensor, " problem"]:
        pattern = (moved @ weights[0][0]).masked_fill(~mask, -torch.inf).softmax(dim=-1)
        seen = (pattern[..., None] * moved).sum(dim=1)
        scores = seen @ weights[1][0].T + weights[2][0]
        size = weights[0].square().sum() + weights[1].square().sum()
        return (torch.nn.functional.cross_entropy(scores, y) + l2 / 2 * size)[None]

    left = trained(weights, loss, steps=steps, rate=rate)
    query, weight, bias = (one.detach()[0] for one in weights)
    return AttentionProbe(query, weight, bias, mean, deviation, classes, float(left[0]))


def standard(
    x: Float[Tensor, "example d_model"],
) -> tuple[Float[Tensor, " d_model"], Float[Tensor, " d_model"]]:
    """Mean and deviation of every column, 1 where it is constant."""
    mean, deviation = x.mean(dim=0), x.std(dim=0, correction=0)
    return mean, torch.where(deviation > 1e-6 * mean.abs(), deviation.clamp(min=1e-30), 1.0)
