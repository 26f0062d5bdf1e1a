"""Sums of powers of what flows by, in float64, the same bits however the corpus is batched.

Every row of the corpus is summed by itself, in blocks of fixed place, and blocks are added in the
order of the corpus.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.neurons.blocks import together

_BLOCK = 128  # positions; a power of two, so that each block but the first lies in one span
_AT_ONCE = 256  # tokens; so many of one layer's neurons stay in the processor's cache

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
        for first in activation[:, 0].double():
            self.first[0] += first
            self.first[1] += first * first
        torch.maximum(self.first[2], activation[:, 0].double().abs().amax(0), out=self.first[2])
        for rows, size in together(lengths):
            step = max(1, _AT_ONCE // size)
            for row in range(rows.start, rows.stop, step):
                some = activation[row : min(row + step, rows.stop), :size]
                for start in range(0, size, _BLOCK):
                    self._block(some[:, max(start, 1) : start + _BLOCK], start)

    def _block(self, part: Float[Tensor, "row pos neuron"], start: int) -> None:
        """The positions of some rows from `start` on, first tokens left out."""
        count = part.shape[1]
        if not count:
            return
        within = [(0, count)]  # all but a row's first block lie in one span
        if not start:
            within = [(low - 1, high - 1) for low, high in spans(count + 1)]
        x = part.to(torch.float64, copy=True)
        square = x.abs()
        size = square.sum(1)
        torch.mul(x, x, out=square)  # in place of |x|, so that all of it stays in the cache
        by_span = torch.stack([x[:, low:high].sum(1) for low, high in within], 1)
        sums = [size, by_span.sum(1), square.sum(1), x.mul_(square).sum(1)]
        powers = torch.stack([*sums, square.mul_(square).sum(1)], 1)
        span = max(start.bit_length() - 1, 0)
        for row in range(len(part)):
            self.powers.add_(powers[row])
            self.by_span[span : span + len(within)] += by_span[row]
