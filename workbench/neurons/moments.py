"""Sums of powers of what flows by, in float64, the same bits however the corpus is batched.

Every row of the corpus is summed by itself, in pieces of fixed place, and pieces are added in the
order of the corpus. Neurons whose mean is many times their deviation have powers of what is left
when a number near that mean is taken away, else their variance would be a difference of two equal
numbers (Chan, Golub & LeVeque 1983).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.neurons.blocks import pieces

POWERS = 5
"""|x|, then y, y^2, y^3, y^4, where y is x without the neuron's `usual` activation."""

FAR = 8.0
"""So many deviations the mean must lie from 0 for a neuron to be counted from its mean."""


def spans(length: int) -> list[tuple[int, int]]:
    """Positions 1, 2-3, 4-7, ... as (start, end), the last one cut at `length`."""
    found, start = [], 1
    while start < length:
        found.append((start, min(2 * start, length)))
        start *= 2
    return found


def usual(
    activation: Float[Tensor, "row pos neuron"], lengths: Int[Tensor, " row"]
) -> Float[Tensor, " neuron"]:
    """The mean, by every eighth token of a first few rows, of neurons far from 0; 0 for others."""
    kept = [activation[rows, start:end].flatten(0, 1) for rows, start, end in pieces(lengths)]
    if not kept:
        return torch.zeros(activation.shape[-1], dtype=torch.float64)
    x = torch.cat(kept)[::8].float()
    variance, mean = torch.var_mean(x, dim=0, correction=0)
    near = torch.where(variance == 0, x[0], mean)  # of equal numbers, exactly that number
    return torch.where(mean.abs() > FAR * variance.sqrt(), near, 0.0).double()


@dataclass(frozen=True, eq=False)
class Sums:
    """What has been added up so far for one layer: changed in place, row after row."""

    powers: Float[Tensor, "power neuron"]
    by_span: Float[Tensor, "span neuron"]
    first: Float[Tensor, "part neuron"]  # of rows' first tokens: sum, sum of squares, largest size
    usual: Float[Tensor, " neuron"]
    far: Int[Tensor, " chosen"]  # the neurons whose usual activation is not 0

    @classmethod
    def empty(
        cls, neurons: int, length: int, usual: Float[Tensor, " neuron"] | None = None
    ) -> "Sums":
        """Nothing yet."""
        double = torch.float64
        usual = torch.zeros(neurons, dtype=double) if usual is None else usual
        return cls(
            torch.zeros(POWERS, neurons, dtype=double),
            torch.zeros(len(spans(length)), neurons, dtype=double),
            torch.zeros(3, neurons, dtype=double), usual, usual.nonzero()[:, 0],
        )  # fmt: skip

    def add(
        self, activation: Float[Tensor, "row pos neuron"], lengths: Int[Tensor, " row"]
    ) -> None:
        """The rows of one batch, in their order."""
        for first in activation[:, 0].double():
            self.first[0] += first
            self.first[1] += first * first
        torch.maximum(self.first[2], activation[:, 0].double().abs().amax(0), out=self.first[2])
        for rows, start, end in pieces(lengths):
            self._piece(activation[rows, start:end], start)

    def _piece(self, part: Float[Tensor, "row pos neuron"], start: int) -> None:
        """The positions of some rows from `start` on."""
        count = part.shape[1]
        within = [(0, count)]  # all but a row's first piece lie in one span
        if start == 1:
            within = [(low - 1, high - 1) for low, high in spans(count + 1)]
        x = part.to(torch.float64, copy=True)
        square = x.abs()
        size = square.sum(1)
        if len(self.far):
            x[..., self.far] -= self.usual[self.far]
        torch.mul(x, x, out=square)  # in place of |x|, so that all of it stays in the cache
        by_span = torch.stack([x[:, low:high].sum(1) for low, high in within], 1)
        sums = [size, by_span.sum(1), square.sum(1), x.mul_(square).sum(1)]
        powers = torch.stack([*sums, square.mul_(square).sum(1)], 1)
        span = start.bit_length() - 1
        for row in range(len(part)):
            self.powers.add_(powers[row])
            self.by_span[span : span + len(within)] += by_span[row]
