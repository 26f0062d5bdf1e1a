"""Sums of powers of what flows by, in float64, the same bits however the corpus is batched.

Every row of the corpus is summed by itself, in blocks of fixed place, and blocks are added in the
order of the corpus.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

_BLOCK = 64  # positions; so many of one layer's neurons stay in the processor's cache

POWERS = 5
"""|x|, x, x^2, x^3, x^4."""


def spans(length: int) -> list[tuple[int, int]]:
    """Positions 1, 2-3, 4-7, ... as (start, end), the last one cut at `length`."""
    found, start = [], 1
    while start < length:
        found.append((start, min(2 * start, length)))
        start *= 2
    return found


@dataclass(frozen=True, eq=False)
class Sums:
    """What has been added up so far for one layer: changed in place, row after row."""

    powers: Float[Tensor, "power neuron"]
    by_span: Float[Tensor, "span neuron"]
    first: Float[Tensor, "part neuron"]  # of rows' first tokens: sum, sum of squares, largest size

    @classmethod
    def empty(cls, neurons: int, length: int) -> "Sums":
        """Nothing yet."""
        double = torch.float64
        return cls(
            torch.zeros(POWERS, neurons, dtype=double),
            torch.zeros(len(spans(length)), neurons, dtype=double),
            torch.zeros(3, neurons, dtype=double),
        )

    def add(
        self, activation: Float[Tensor, "row pos neuron"], lengths: Int[Tensor, " row"], length: int
    ) -> None:
        """The rows of one batch, in their order."""
        for row, size in enumerate(lengths.tolist()):
            first = activation[row, 0].double()
            self.first[0] += first
            self.first[1] += first * first
            torch.maximum(self.first[2], first.abs(), out=self.first[2])
            for start in range(0, size, _BLOCK):
                self._block(activation[row, max(start, 1) : min(start + _BLOCK, size)], start)

    def _block(self, part: Float[Tensor, "pos neuron"], start: int) -> None:
        """The positions of one row from `start` on, first tokens left out."""
        if not len(part):
            return
        x = part.to(torch.float64, copy=True)
        square = x * x
        powers = self.powers
        powers[0] += x.abs().sum(0)
        if start:  # a block lies in one span
            total = x.sum(0)
            self.by_span[start.bit_length() - 1] += total
        else:
            total = torch.zeros_like(powers[1])
            for span, (low, high) in enumerate(spans(len(part) + 1)):
                inside = x[low - 1 : high - 1].sum(0)
                self.by_span[span] += inside
                total += inside
        powers[1] += total
        powers[2] += square.sum(0)
        powers[3] += x.mul_(square).sum(0)
        powers[4] += square.mul_(square).sum(0)
