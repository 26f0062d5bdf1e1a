"""Sums of powers of what flows by, in float64, the same bits however the corpus is batched.

Every row of the corpus is summed in pieces of fixed place: positions 1, 2-3, 4-7, 8-15 and so on
(none longer than 32), each by itself, and pieces are added in the order of the corpus.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

_LONGEST = 32  # positions; so many neurons of one piece stay in the processor's cache
_AT_ONCE = 64  # tokens

POWERS = 5
"""|x|, x, x^2, x^3, x^4."""


@dataclass(frozen=True)
class Piece:
    """Positions `start` to `end` (not included) of every row, and the span they belong to."""

    start: int
    end: int
    span: int


def spans(length: int) -> list[tuple[int, int]]:
    """Positions 1, 2-3, 4-7, ... as (start, end), the last one cut at `length`."""
    found, start = [], 1
    while start < length:
        found.append((start, min(2 * start, length)))
        start *= 2
    return found


def pieces(length: int) -> list[Piece]:
    """The spans, cut so that none is longer than what is summed at once."""
    return [
        Piece(at, min(at + _LONGEST, end), number)
        for number, (start, end) in enumerate(spans(length))
        for at in range(start, end, _LONGEST)
    ]


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
        plan, sizes = pieces(length), lengths.tolist()
        whole = [self._whole(activation, sizes, piece) for piece in plan]
        for row, size in enumerate(sizes):
            first = activation[row, 0].double()
            self.first[0] += first
            self.first[1] += first * first
            torch.maximum(self.first[2], first.abs(), out=self.first[2])
            for piece, done in zip(plan, whole, strict=True):
                if piece.start >= size:
                    break
                found = done.get(row)
                if found is None:
                    found = _powers(activation[row : row + 1, piece.start : size])[:, 0]
                self.powers.add_(found)
                self.by_span[piece.span] += found[1]

    @staticmethod
    def _whole(
        activation: Float[Tensor, "row pos neuron"], sizes: list[int], piece: Piece
    ) -> dict[int, Float[Tensor, "power neuron"]]:
        """The sums of all rows that reach to the end of the piece."""
        rows = [row for row, size in enumerate(sizes) if size >= piece.end]
        together, found = max(1, _AT_ONCE // (piece.end - piece.start)), {}
        for at in range(0, len(rows), together):
            some = rows[at : at + together]
            near = some[-1] - some[0] == len(some) - 1
            index = slice(some[0], some[-1] + 1) if near else some
            sums = _powers(activation[index, piece.start : piece.end])
            found |= {row: sums[:, number] for number, row in enumerate(some)}
        return found


def _powers(part: Float[Tensor, "row pos neuron"]) -> Float[Tensor, "power row neuron"]:
    x = part.double()
    square = x * x
    cube = square * x
    return torch.stack([x.abs().sum(1), x.sum(1), square.sum(1), cube.sum(1), cube.mul_(x).sum(1)])
