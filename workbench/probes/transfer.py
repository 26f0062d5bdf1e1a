"""Does a probe that was trained on one set read another?"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float
from torch import Tensor

from workbench import statistics
from workbench.probes.examples import Examples
from workbench.probes.fitting import fit, fit_each, held_out_scores
from workbench.probes.probe import LinearProbe, decided
from workbench.probes.splits import k_fold
from workbench.results import Result


@dataclass(frozen=True, eq=False)
class Transfer(Result):
    """Accuracy of probes trained on one set (rows) and tested on another (columns).

    On the diagonal, the held-out accuracy within the set. `chance` is the share of the commonest
    class; below it a probe reads the opposite. Bounds are over the groups of the tested set, and
    do not know of what chance there is in training. `cosine` is that of the two probes'
    directions, for two classes; NaN for more.
    """

    accuracy: Float[Tensor, "trained tested"] = field(metadata={"means": "accuracy"})
    low: Float[Tensor, "trained tested"] = field(metadata={"means": "lower 95 % bound"})
    high: Float[Tensor, "trained tested"] = field(metadata={"means": "upper 95 % bound"})
    cosine: Float[Tensor, "trained tested"] = field(metadata={"means": "cosine of directions"})
    chance: Float[Tensor, " tested"] = field(metadata={"means": "share of the commonest class"})
    sets: list[str] = field(metadata={"axis": "tested"})
    layer: int
    l2: float
    task: str
    model: str
    model_digest: str

    def transfers(self) -> list[tuple[str, str]]:
        """The pairs of different sets (trained, tested) whose lower bound is above chance."""
        return [
            (one, other)
            for i, one in enumerate(self.sets)
            for j, other in enumerate(self.sets)
            if i != j and self.low[i, j] > self.chance[j]
        ]

    def sentence(self) -> str:
        """What was found, in one sentence."""
        count = len(self.sets)
        apart = ~torch.eye(count, dtype=torch.bool)
        return (
            f"Of {count * (count - 1)} pairs of sets at layer {self.layer} of {self.model}, a "
            f"probe trained on the one reads the other above chance in {len(self.transfers())} "
            f"(95 % bounds). Mean accuracy {float(self.accuracy.diagonal().mean()):.2f} within "
            f"sets, {float(self.accuracy[apart].mean()):.2f} across."
        )

    def headline(self) -> dict[str, float]:
        """Mean accuracy within and across, and how many pairs transfer."""
        apart = ~torch.eye(len(self.sets), dtype=torch.bool)
        return {
            "within": float(self.accuracy.diagonal().mean()),
            "across": float(self.accuracy[apart].mean()),
            "transfers": len(self.transfers()),
        }


def transfer(
    sets: Mapping[str, Examples], *, layer: int, l2: float = 1e-2, folds: int = 5, seed: int = 0
) -> Transfer:
    """Train a logistic probe on each set, test it on every other (Marks & Tegmark 2023)."""
    if len(sets) < 2:
        raise ValueError(f"{len(sets)} set: transfer needs at least two")
    there = {name: _at(one, layer, name) for name, one in sets.items()}
    _check_alike(there)
    fits = {name: fit(one.x[0], one.y, l2=l2) for name, one in there.items()}
    cells = [
        [
            _within(one, l2, folds, seed) if name == other else _judged(fits[name], there[other])
            for other in there
        ]
        for name, one in there.items()
    ]
    columns = list(there.values())
    bounds = [
        [
            statistics.bounds(right, groups=one.groups, seed=seed)
            for right, one in zip(row, columns, strict=True)
        ]
        for row in cells
    ]
    mean, low, high = (
        torch.tensor([[float(one[part]) for one in row] for row in bounds]) for part in range(3)
    )
    counts = [torch.bincount(one.y) for one in columns]
    first = columns[0]
    return Transfer(
        accuracy=mean,
        low=low,
        high=high,
        cosine=_cosines(list(fits.values())),
        chance=torch.tensor([float(one.max() / one.sum()) for one in counts]),
        sets=list(there),
        layer=layer,
        l2=l2,
        task=" and ".join(there),
        model=first.model,
        model_digest=first.model_digest,
    )


def _at(examples: Examples, layer: int, name: str) -> Examples:
    examples.check_one_position("transfer")
    if layer not in examples.layers:
        have = ", ".join(map(str, examples.layers))
        raise ValueError(f"set {name!r} has no layer {layer}; it has {have}")
    row = examples.layers.index(layer)
    return replace(examples, x=examples.x[row : row + 1], layers=(layer,))


def _check_alike(sets: Mapping[str, Examples]) -> None:
    (name, first), *others = sets.items()
    for other, one in others:
        if one.classes != first.classes or one.x.shape[2] != first.x.shape[2]:
            raise ValueError(
                f"{other!r} has {one.classes} classes in {one.x.shape[2]} dimensions, {name!r} "
                f"{first.classes} in {first.x.shape[2]}: a probe of one cannot read the other"
            )


def _judged(probe: LinearProbe, examples: Examples) -> Tensor:
    return probe.predict(examples.x[0]) == examples.y


def _within(examples: Examples, l2: float, folds: int, seed: int) -> Tensor:
    """Which examples are told right by the probe of the other folds; all are fitted at once."""
    splits = k_fold(examples, folds, seed=seed)
    fits = fit_each(examples, splits, l2=(l2,))
    scores = held_out_scores(fits, examples, splits)[0, 0, 0]
    return decided(scores, examples.classes) == examples.y


def _cosines(fits: list[LinearProbe]) -> Float[Tensor, "trained tested"]:
    if fits[0].classes != 2:
        return torch.full((len(fits), len(fits)), torch.nan)
    directions = torch.stack([one.direction for one in fits]).float()
    return directions @ directions.T
