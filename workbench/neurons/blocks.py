"""Rows of one length together, and the extremes of short stretches of them."""

from itertools import pairwise

import torch
from jaxtyping import Float, Int
from torch import Tensor

BLOCK = 16  # positions


def by_block(
    activation: Float[Tensor, "row pos neuron"], lengths: Int[Tensor, " row"]
) -> tuple[Float[Tensor, "row block neuron"], Float[Tensor, "row block neuron"]]:
    """Largest and smallest of each row's blocks, without first token and padding.

    Block n begins at position 1 + 16 n. Where nothing is left they are infinite.
    """
    rows, width, neurons = activation.shape
    shape = rows, max(1, -(-(width - 1) // BLOCK)), neurons
    largest = activation.new_full(shape, -torch.inf)
    smallest = activation.new_full(shape, torch.inf)
    for some, size in together(lengths):
        whole = (size - 1) // BLOCK
        end = 1 + whole * BLOCK
        if whole:
            part = activation[some, 1:end].unflatten(1, (whole, BLOCK))
            largest[some, :whole], smallest[some, :whole] = part.amax(2), part.amin(2)
        if end < size:
            part = activation[some, end:size]
            largest[some, whole], smallest[some, whole] = part.amax(1), part.amin(1)
    return largest, smallest


def together(lengths: Int[Tensor, " row"]) -> list[tuple[slice, int]]:
    """Neighbouring rows of one length, and that length."""
    return [(slice(start, end), int(lengths[start])) for start, end in runs(lengths)]


def runs(of: Int[Tensor, " row"]) -> list[tuple[int, int]]:
    """Where stretches of equal numbers start and end."""
    changes = (of[1:] != of[:-1]).nonzero()[:, 0] + 1
    return list(pairwise([0, *changes.tolist(), len(of)]))
