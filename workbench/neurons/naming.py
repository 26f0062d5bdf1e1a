"""What a neuron is called."""

from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

Neurons = Literal["neuron", "neuron_pre", "neuron_up"]
"""Where neurons are looked at: what they give; before the non-linearity; what that multiplies."""

End = Literal["top", "bottom"]
"""Which end of a neuron is looked at: its largest activations or its smallest."""


class Neuron(NamedTuple):
    """One neuron of an MLP, both numbers counted from 0. Written "5.312": layer 5, neuron 312."""

    layer: int
    neuron: int

    def __str__(self) -> str:
        return f"{self.layer}.{self.neuron}"


def in_order(score: Float[Tensor, "layer neuron"], n: int | None = None) -> list[Neuron]:
    """The `n` neurons of highest score, or all; of equals the lower one first, none that is NaN."""
    flat, width = score.flatten(), score.shape[1]
    order = (-flat).argsort(stable=True)
    order = order[~flat[order].isnan()][:n]
    return [Neuron(*divmod(index, width)) for index in order.tolist()]


def by_layer(neurons: list[Neuron] | tuple[Neuron, ...]) -> dict[int, list[int]]:
    """The neurons of each layer, in order, each once."""
    found: dict[int, list[int]] = {}
    for layer, neuron in sorted(set(neurons)):
        found.setdefault(layer, []).append(neuron)
    return found


def at(score: Float[Tensor, "layer neuron"], neurons: list[Neuron]) -> Float[Tensor, " chosen"]:
    """The scores of some neurons."""
    where = torch.tensor(neurons, dtype=torch.long).reshape(-1, 2)
    return score[where[:, 0], where[:, 1]]
