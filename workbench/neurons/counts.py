"""Histograms of every neuron, exact: how many activations lie in each of 64 bins.

A neuron's bins are equally wide, from minus to plus a power of two, so that finding the bin of an
activation is arithmetic without rounding. A bin holds what lies above its lower edge, up to and
with its upper edge; zero is an edge, so the upper half counts exactly the positive ones. What lies
beyond the ends is in the first and the last bin.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.neurons.blocks import pieces

BINS = 64


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
    base = torch.arange(neurons, dtype=torch.int32) * BINS + BINS // 2 - 1
    for rows, start, end in pieces(lengths):
        place = activation[rows, start:end] * per_width
        index = place.ceil_().clamp_(1 - BINS // 2, BINS // 2).int().add_(base)
        counts += index.flatten().bincount(minlength=neurons * BINS).reshape(-1, BINS)
