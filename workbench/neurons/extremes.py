"""The k largest (or smallest) activations of every neuron, of distinct documents or rows.

Kept as rows go by. Of equal activations the earlier one in the corpus comes first. A document
counts once, with its most extreme token; first tokens of rows do not count.

Each is kept as one integer that sorts as they do: the bits of the activation above, and below them
how far from the end its token is.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from workbench.neurons.blocks import BLOCK, runs

Apart = Literal["documents", "rows"]
"""What counts once among the examples of a neuron."""

NONE = -1
"""Stands for an example that there is not, where there are fewer than k."""

_LAST = 2**32 - 1  # token; what the lower half of an integer holds


class Ranked(NamedTuple):
    """The most extreme activations, most extreme first; infinite where there is none."""

    value: Float[Tensor, "neuron rank"]
    row: Int[Tensor, "neuron rank"]
    position: Int[Tensor, "neuron rank"]


@dataclass(eq=False)
class Extremes:
    """The k largest of `sign` times the activations so far of one layer; changed in place."""

    held: Int[Tensor, "neuron rank"]  # of documents (or rows) that are over, largest first
    best: Int[Tensor, " neuron"]  # of the last one, whose rows may go on
    unit: int  # the last one
    length: int  # of rows
    sign: float

    @classmethod
    def empty(cls, neurons: int, k: int, *, length: int, sign: float = 1.0) -> "Extremes":
        """Nothing yet."""
        held = _NOTHING.repeat(neurons, k)
        return cls(held, held[:, 0].clone(), NONE, length, sign)

    def ranked(self) -> Ranked:
        """What has been found so far."""
        keys = _inserted(self.held, self.best)
        value, token = _value(keys), _LAST - (keys & _LAST)
        missing = value == -torch.inf
        row, position = token // self.length, token % self.length
        return Ranked(
            value * self.sign, row.masked_fill(missing, NONE), position.masked_fill(missing, NONE)
        )

    def add(
        self,
        activation: Float[Tensor, "row pos neuron"],
        most: Float[Tensor, "row block neuron"],
        lengths: Int[Tensor, " row"],
        *,
        first: int,
        unit: Int[Tensor, " row"],
    ) -> None:
        """Rows from number `first` on; `most` is the most extreme activation in each block.

        Rows of one unit follow each other.
        """
        if (first + len(unit)) * self.length > _LAST:
            raise OverflowError(f"more than {_LAST:,} tokens: split the corpus")
        most = most * self.sign if self.sign != 1 else most
        units, blocks = runs(unit), most.shape[1]
        found = [most[start:end].flatten(0, 1).max(dim=0) for start, end in units]  # the first one
        value = torch.stack([one.values for one in found])
        at = torch.stack([one.indices for one in found])
        at += torch.tensor([start * blocks for start, _ in units])[:, None]
        goes_on = self.unit == int(unit[0])
        least = self.held[:, -1].repeat(len(units), 1)
        if goes_on:
            least[0] = torch.maximum(least[0], self.best)
        # A later token loses against an equal one, so only what is larger can matter.
        better = _keys(value, torch.tensor(_LAST)) > least
        keys = _NOTHING.expand_as(least).clone()
        if bool(better.any()):
            token = self._located(activation, value, at, better, lengths, blocks=blocks)
            keys[better] = _keys(value[better], token + first * self.length)
        for number, key in enumerate(keys):
            if number or not goes_on:
                self.held, self.best = _inserted(self.held, self.best), key
            else:
                self.best = torch.maximum(self.best, key)
        self.unit = int(unit[-1])

    def _located(
        self,
        activation: Float[Tensor, "row pos neuron"],
        value: Float[Tensor, "unit neuron"],
        at: Int[Tensor, "unit neuron"],
        wanted: Bool[Tensor, "unit neuron"],
        lengths: Int[Tensor, " row"],
        *,
        blocks: int,
    ) -> Int[Tensor, " wanted"]:
        """Which tokens of the batch the wanted values are first at."""
        neuron = wanted.nonzero()[:, 1]
        row, block = at[wanted] // blocks, at[wanted] % blocks
        position = (block[:, None] * BLOCK + torch.arange(BLOCK)).clamp(min=1)
        position = position.minimum(lengths[row, None] - 1)
        inside = activation[row[:, None], position, neuron[:, None]] * self.sign
        place = (inside == value[wanted][:, None]).int().argmax(dim=1)  # the first one
        return row * self.length + position.gather(1, place[:, None])[:, 0]


def _inserted(
    held: Int[Tensor, "neuron rank"], key: Int[Tensor, " neuron"]
) -> Int[Tensor, "neuron rank"]:
    """One more among each neuron's, which are in order and stay so; the last one drops out."""
    moved = torch.maximum(held, key[:, None])
    moved[:, 1:] = torch.maximum(held[:, 1:], torch.minimum(held[:, :-1], key[:, None]))
    return moved


def _keys(value: Float[Tensor, "..."], token: Int[Tensor, "..."]) -> Int[Tensor, "..."]:
    """Integers that sort by value and, where values are equal, from the last token to the first."""
    bits = (value + 0.0).view(torch.int32)  # minus zero is zero
    return (_flipped(bits).long() << 32) | (_LAST - token)


def _value(keys: Int[Tensor, "..."]) -> Float[Tensor, "..."]:
    return _flipped((keys >> 32).int()).view(torch.float32)


def _flipped(bits: Int[Tensor, "..."]) -> Int[Tensor, "..."]:
    """The bits of negative numbers sort the other way round; done twice, it is undone."""
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


_NOTHING = _keys(torch.tensor(-torch.inf), torch.tensor(_LAST))
"""Sorts after every activation."""
