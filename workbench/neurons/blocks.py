"""Rows in pieces that caches hold, and the extremes of short stretches of them."""

from collections.abc import Iterator
from itertools import pairwise

import torch
from jaxtyping import Float, Int
from torch import Tensor

BLOCK = 16  # positions
_PIECE = 128  # positions; a power of two
_TOKENS = 512  # of several rows in a piece


def by_block(
    activation: Float[Tensor, "row pos neuron"], lengths: Int[Tensor, " row"]
) -> tuple[Float[Tensor, "row block neuron"], Float[Tensor, "row block neuron"]]:
    """Largest and smallest of each row's blocks, without first token and padding.

    Block n begins at position 16 n. Where nothing is left they are infinite.
    """
    rows, width, neurons = activation.shape
    shape = rows, -(-width // BLOCK), neurons
    largest = activation.new_full(shape, -torch.inf)
    smallest = activation.new_full(shape, torch.inf)
    for some, start, end in pieces(lengths):
        whole = -(-start // BLOCK) * BLOCK  # where whole blocks begin, and end
        last = max(whole, end - end % BLOCK)
        for low, high in ((start, min(whole, end)), (last, end)):
            if low < high:
                part = activation[some, low:high]
                largest[some, low // BLOCK] = part.amax(1)
                smallest[some, low // BLOCK] = part.amin(1)
        if whole < last:
            part = activation[some, whole:last].unflatten(1, (-1, BLOCK))
            to = slice(whole // BLOCK, last // BLOCK)
            largest[some, to], smallest[some, to] = part.amax(2), part.amin(2)
    return largest, smallest


def pieces(lengths: Int[Tensor, " row"]) -> Iterator[tuple[slice, int, int]]:
    """Which positions of which rows to look at together: all but first tokens and padding.

    As (rows, start, end), row after row: of one row at most 128 positions, and of several rows of
    one length at most 512 tokens.
    """
    for first, behind in runs(lengths):
        size = int(lengths[first])
        step = max(1, _TOKENS // size)
        for row in range(first, behind, step):
            rows = slice(row, min(row + step, behind))
            for start in range(0, size, _PIECE):
                if max(start, 1) < min(start + _PIECE, size):
                    yield rows, max(start, 1), min(start + _PIECE, size)


def runs(of: Int[Tensor, " row"]) -> list[tuple[int, int]]:
    """Where stretches of equal numbers start and end."""
    changes = (of[1:] != of[:-1]).nonzero()[:, 0] + 1
    return list(pairwise([0, *changes.tolist(), len(of)]))
