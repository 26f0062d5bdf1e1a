"""The k largest (or smallest) activations of every neuron, of distinct documents or rows.

Kept as rows go by. Of equal activations the earlier one in the corpus comes first. A document
counts once, with its most extreme token; first tokens of rows do not count.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

Apart = Literal["documents", "rows"]
"""What counts once among the examples of a neuron."""

NONE = -1
"""Stands for an example that there is not, where there are fewer than k."""


@dataclass(eq=False)
class Extremes:
    """The k largest so far of one layer, largest first; changed in place, batch after batch."""

    value: Float[Tensor, "neuron rank"]
    row: Int[Tensor, "neuron rank"]
    position: Int[Tensor, "neuron rank"]
    unit: Int[Tensor, "neuron rank"]  # the document, or the row where those are kept apart

    @classmethod
    def empty(cls, neurons: int, k: int) -> "Extremes":
        """Nothing yet."""
        none = torch.full((neurons, k), NONE, dtype=torch.long)
        return cls(torch.full((neurons, k), -torch.inf), none, none.clone(), none.clone())

    def add(
        self,
        activation: Float[Tensor, "row pos neuron"],
        largest: Float[Tensor, "row neuron"],
        *,
        first: int,
        unit: Int[Tensor, " row"],
        sign: float = 1.0,
    ) -> None:
        """Rows from number `first` on; `largest` is `sign` times each row's most extreme one."""
        least = self.value[:, -1]
        moved = (largest > least).any(dim=0).nonzero()[:, 0]
        if not len(moved):
            return
        value = torch.cat([self.value[moved], largest[:, moved].T], dim=1)
        count = len(largest)
        numbers = torch.arange(first, first + count).expand(len(moved), -1)
        row = torch.cat([self.row[moved], numbers], dim=1)
        units = torch.cat([self.unit[moved], unit.expand(len(moved), -1)], dim=1)
        position = torch.cat(
            [self.position[moved], torch.full((len(moved), count), NONE, dtype=torch.long)], dim=1
        )
        # Stable, and what is held stands before what is new: so the earlier of equals is first.
        order = value.argsort(dim=1, descending=True, stable=True)
        value, row, units, position = (
            one.gather(1, order) for one in (value, row, units, position)
        )
        k = self.value.shape[1]
        keep = _first_of_units(units, value, k)
        value, row, units, position = (one.gather(1, keep) for one in (value, row, units, position))
        new = ((position == NONE) & (row != NONE)).nonzero()
        if len(new):
            neuron, rank = new[:, 0], new[:, 1]
            held = activation[row[neuron, rank] - first, :, moved[neuron]]
            hit = held * sign == value[neuron, rank][:, None]
            hit[:, 0] = False
            position[neuron, rank] = hit.long().argmax(dim=1)
        self.value[moved], self.row[moved] = value, row
        self.unit[moved], self.position[moved] = units, position


def _first_of_units(
    units: Int[Tensor, "neuron held"], value: Float[Tensor, "neuron held"], k: int
) -> Int[Tensor, "neuron rank"]:
    """Places of the first k entries of distinct units, in order; what is missing comes last."""
    there = value != -torch.inf
    width = units.shape[1]
    # Sorted by unit, stably, the first of each run is the most extreme one of its unit.
    by_unit = units.argsort(dim=1, stable=True)
    ordered = units.gather(1, by_unit)
    again = torch.zeros_like(ordered, dtype=torch.bool)
    again[:, 1:] = ordered[:, 1:] == ordered[:, :-1]
    repeated = torch.zeros_like(again).scatter_(1, by_unit, again)
    places = torch.arange(width).expand_as(units)
    # What is missing comes before what is repeated: there is always enough of it.
    rank = places + width * (~there).long() + 2 * width * (repeated & there).long()
    return rank.argsort(dim=1, stable=True)[:, :k]
