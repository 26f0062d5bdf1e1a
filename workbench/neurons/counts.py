"""Histograms of every neuron, exact: how many activations lie in each of 64 bins.

A neuron's bins are equally wide, from minus to plus a power of two, so that finding the bin of an
activation is arithmetic without rounding. A bin holds what lies above its lower edge, up to and
with its upper edge; zero is an edge, so the upper half counts exactly the positive ones. What lies
beyond the ends is in the first and the last bin.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

BINS = 64
_AT_ONCE = 256  # tokens


def reach(largest: Float[Tensor, " neuron"]) -> Float[Tensor, " neuron"]:
    """The power of two that is at least twice the largest size seen in a first few rows.

    Neurons that were silent there get the layer's own.
    """
    whole = float(largest.max()) or 1.0
    _, exponent = torch.frexp(torch.where(largest > 0, largest, whole).float())
    return torch.ldexp(torch.ones_like(exponent, dtype=torch.float32), exponent + 1)


def edges(reach: Float[Tensor, "..."]) -> Float[Tensor, "... edge"]:
    """The edges of the bins, from below; the outermost ones are not really there."""
    return reach[..., None] * torch.linspace(-1, 1, BINS + 1, device=reach.device)


def add(
    counts: Int[Tensor, "neuron bin"],
    activation: Float[Tensor, "row pos neuron"],
    lengths: Int[Tensor, " row"],
    per_width: Float[Tensor, " neuron"],
) -> None:
    """Count the rows of one batch, but for first tokens and padding; `per_width` is 1 / width."""
    neurons = len(per_width)
    base = (torch.arange(neurons, device=activation.device) * BINS + BINS // 2 - 1).int()
    sizes = lengths.tolist()
    for rows in _together(sizes):
        size = sizes[rows.start]
        if size < 2:
            continue
        place = activation[rows, 1:size].float() * per_width
        index = place.ceil_().clamp_(1 - BINS // 2, BINS // 2).int().add_(base)
        counts += index.flatten().bincount(minlength=neurons * BINS).reshape(neurons, BINS)


def _together(sizes: list[int]) -> list[slice]:
    """Neighbouring rows of one length, about as many as are quickest to count at once."""
    found: list[slice] = []
    for row, size in enumerate(sizes):
        last = found[-1] if found else None
        fits = last is not None and (last.stop - last.start + 1) * size <= _AT_ONCE
        if last is not None and fits and sizes[last.start] == size:
            found[-1] = slice(last.start, row + 1)
        else:
            found.append(slice(row, row + 1))
    return found
