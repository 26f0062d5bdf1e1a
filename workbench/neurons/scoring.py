"""How well a simulation predicts a neuron: at every token, for whole pieces, for marks in them.

Correlation is the score of Bills et al. (2023). Detection and fuzzing ask what delphi asks (Paulo
et al. 2024), and are areas under the curve here, for which no threshold is chosen.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from workbench.statistics import auroc

PIECE = 16
"""Tokens of a piece of text that is judged as a whole."""

FIRES = 0.2
"""A neuron fires above this share of its largest activation."""


def firing(truth: Float[Tensor, " token"]) -> Bool[Tensor, " token"]:
    """Where a neuron fires."""
    return (truth > FIRES * float(truth.max())) & (truth > 0)


def correlation(one: Float[Tensor, " token"], other: Float[Tensor, " token"]) -> float:
    """Pearson's; 0 where one of the two is constant, which predicts nothing."""
    a, b = one.double() - one.double().mean(), other.double() - other.double().mean()
    size = float(a.norm() * b.norm())
    return float(a @ b) / size if size > 1e-12 else 0.0


def pieces(
    row: Int[Tensor, " token"], position: Int[Tensor, " token"]
) -> tuple[Int[Tensor, " token"], int]:
    """Which piece of its row each token is in, numbered over all rows, and how many there are."""
    place = torch.stack([row, (position - 1) // PIECE], dim=1)
    kinds, inverse = place.unique(dim=0, return_inverse=True)
    return inverse, len(kinds)


def detection(
    simulated: Float[Tensor, " token"],
    truth: Float[Tensor, " token"],
    piece: Int[Tensor, " token"],
    count: int,
) -> float:
    """The chance that a piece where the neuron fires is put above one where it does not.

    A piece is judged by the largest activation that is simulated in it. NaN: there are not both.
    """
    fires = torch.zeros(count).index_add(0, piece, firing(truth).float()) > 0
    if not bool(fires.any()) or bool(fires.all()):
        return float("nan")
    most = torch.full((count,), -torch.inf, dtype=simulated.dtype)
    return auroc(most.scatter_reduce(0, piece, simulated, "amax"), fires)


def fuzzing(
    simulated: Float[Tensor, " token"],
    truth: Float[Tensor, " token"],
    piece: Int[Tensor, " token"],
    *,
    generator: torch.Generator,
) -> float:
    """The chance that right marks in a piece are put above wrong ones.

    In every piece where the neuron fires, the tokens where it does are marked; and once more as
    many others, drawn at random. Marks are judged by the mean that is simulated at them. NaN:
    there is no piece with both.
    """
    fires = firing(truth)
    right, wrong = [], []
    for one in piece[fires].unique().tolist():
        here = (piece == one).nonzero()[:, 0]
        marked, free = here[fires[here]], here[~fires[here]]
        if not len(free):
            continue
        drawn = free[torch.randperm(len(free), generator=generator)[: len(marked)]]
        right.append(simulated[marked].mean())
        wrong.append(simulated[drawn].mean())
    if not right:
        return float("nan")
    members = torch.arange(2 * len(right)) < len(right)
    return auroc(torch.stack([*right, *wrong]), members)
