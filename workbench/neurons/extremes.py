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
        """Rows from number `first` on; `largest` is `sign` times each row's most extreme one.

        Rows of one unit follow each other, so only the first unit can have been here before.
        """
        value, row, units = _by_unit(largest, unit, first)
        self._settle(value[0], units[0])
        moved = (value > self.value[:, -1]).any(dim=0).nonzero()[:, 0]
        if not len(moved):
            return
        count = len(value)
        held = torch.cat([self.value[moved], value[:, moved].T], dim=1)
        rows = torch.cat([self.row[moved], row[:, moved].T], dim=1)
        every = torch.cat([self.unit[moved], units.expand(len(moved), -1)], dim=1)
        fresh = torch.full((len(moved), count), NONE, dtype=torch.long)
        positions = torch.cat([self.position[moved], fresh], dim=1)
        # Stable, and what is held stands before what is new: so the earlier of equals is first.
        order = held.argsort(dim=1, descending=True, stable=True)[:, : self.value.shape[1]]
        held, rows, every, positions = (
            one.gather(1, order) for one in (held, rows, every, positions)
        )
        missing = held == -torch.inf
        rows, every = rows.masked_fill(missing, NONE), every.masked_fill(missing, NONE)
        positions = positions.masked_fill(missing, NONE)
        new = (positions == NONE) & ~missing
        _locate(positions, new, rows - first, held * sign, moved, activation=activation)
        self.value[moved], self.row[moved] = held, rows
        self.unit[moved], self.position[moved] = every, positions

    def _settle(self, value: Float[Tensor, " neuron"], unit: Int[Tensor, ""]) -> None:
        """Where the first unit is held already, only the better one of both stays."""
        same = self.unit == unit
        has = same.any(dim=1)
        if not bool(has.any()):
            return
        held = torch.where(same, self.value, -torch.inf).amax(dim=1)
        better = value > held
        value[has & ~better] = -torch.inf
        gone = same & better[:, None]
        self.value[gone] = -torch.inf
        # What was dropped goes to the end, so that the last one is the least again.
        rows = gone.any(dim=1).nonzero()[:, 0]
        order = self.value[rows].argsort(dim=1, descending=True, stable=True)
        for name in ("value", "row", "position", "unit"):
            mine = getattr(self, name)
            mine[rows] = mine[rows].gather(1, order)
        empty = self.value == -torch.inf
        for name in ("row", "position", "unit"):
            getattr(self, name)[empty] = NONE


def _by_unit(
    largest: Float[Tensor, "row neuron"], unit: Int[Tensor, " row"], first: int
) -> tuple[Float[Tensor, "unit neuron"], Int[Tensor, "unit neuron"], Int[Tensor, " unit"]]:
    """The most extreme value of each unit of a batch, the earliest row that has it, the units."""
    values, rows, units = [], [], []
    for at, name in enumerate(unit.tolist()):
        here = torch.full(largest.shape[1:], first + at)
        if units and units[-1] == name:
            better = largest[at] > values[-1]
            values[-1] = torch.where(better, largest[at], values[-1])
            rows[-1] = torch.where(better, here, rows[-1])
        else:
            values.append(largest[at].clone())
            rows.append(here)
            units.append(name)
    return torch.stack(values), torch.stack(rows), torch.tensor(units)


def _locate(
    positions: Int[Tensor, "moved rank"],
    new: Tensor,
    row: Int[Tensor, "moved rank"],
    value: Float[Tensor, "moved rank"],
    moved: Int[Tensor, " moved"],
    *,
    activation: Float[Tensor, "row pos neuron"],
) -> None:
    """Fill in where in its row each new value first stands, first tokens left out."""
    neuron, rank = new.nonzero(as_tuple=True)
    wanted = row[neuron, rank]
    size = activation.shape[1]
    weights = torch.arange(size - 1, 0, -1, dtype=torch.int16, device=activation.device)[:, None]
    for at in wanted.unique().tolist():
        some = wanted == at
        chosen, place = neuron[some], rank[some]
        hit = activation[at, 1:].index_select(1, moved[chosen]) == value[chosen, place]
        positions[chosen, place] = size - (hit * weights).amax(dim=0).long()
