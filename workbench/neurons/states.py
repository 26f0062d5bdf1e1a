"""What is kept of one layer's neurons while rows go by, added to by all cores at once."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.neurons import counts, moments
from workbench.neurons.blocks import by_block
from workbench.neurons.extremes import Extremes, Ranked

Of = TypeVar("Of")
Found = TypeVar("Found")

_TOGETHER = 256  # neurons that one core looks at together; see `pieces`


@dataclass(eq=False)
class LayerState:
    """All that is kept of one layer: of each few neurons by themselves."""

    parts: list["_Part"]
    columns: list[slice]

    @classmethod
    def begun(
        cls,
        activation: Float[Tensor, "row pos neuron"],
        lengths: Int[Tensor, " row"],
        *,
        length: int,
        k: int,
        name: str = "a layer",
    ) -> "LayerState":
        """Nothing yet; a first few rows say how wide histograms are and where moments begin.

        length  of the corpus's rows
        k       how many of the largest and smallest activations are kept of each neuron
        name    of the layer, for errors
        """
        width = activation.shape[-1]
        columns = [slice(n, min(n + _TOGETHER, width)) for n in range(0, width, _TOGETHER)]
        largest = torch.cat(_each(lambda some: _largest(activation[..., some], lengths), columns))
        if not bool(torch.isfinite(largest).all()):
            raise FloatingPointError(f"NaN or Inf at {name}, in the first {len(lengths)} rows")
        reach = counts.reach(largest)

        def part(some: slice) -> "_Part":
            usual = moments.usual(activation[..., some], lengths)
            return _Part.empty(reach[some], usual, length=length, k=k, name=name)

        return cls(_each(part, columns), columns)

    def add(
        self,
        activation: Float[Tensor, "row pos neuron"],
        lengths: Int[Tensor, " row"],
        first: int,
        unit: Int[Tensor, " row"],
    ) -> None:
        """The rows of one batch, whose first is number `first` of the corpus."""

        def add(number: int) -> None:
            some = activation[..., self.columns[number]]
            self.parts[number].add(some, lengths, first, unit)

        _each(add, range(len(self.parts)))

    @property
    def sums(self) -> moments.Sums:
        """The sums of powers of all neurons."""
        return moments.Sums.together([part.sums for part in self.parts])

    @property
    def counts(self) -> Int[Tensor, "neuron bin"]:
        """The histograms of all neurons."""
        return torch.cat([part.counts for part in self.parts])

    @property
    def reach(self) -> Float[Tensor, " neuron"]:
        """What each neuron's histogram goes up to."""
        return torch.cat([part.reach for part in self.parts])

    @property
    def top(self) -> Ranked:
        """The largest activations of all neurons."""
        return Ranked.together([part.top.ranked() for part in self.parts])

    @property
    def bottom(self) -> Ranked:
        """The smallest activations of all neurons."""
        return Ranked.together([part.bottom.ranked() for part in self.parts])


@dataclass(eq=False)
class _Part:
    """The same for a few neurons, for one core to add to."""

    sums: moments.Sums
    counts: Int[Tensor, "neuron bin"]
    reach: Float[Tensor, " neuron"]
    top: Extremes
    bottom: Extremes
    name: str

    @classmethod
    def empty(cls, reach: Tensor, usual: Tensor, *, length: int, k: int, name: str) -> "_Part":
        width = len(reach)
        return cls(
            moments.Sums.empty(width, length, usual),
            torch.zeros(width, counts.BINS, dtype=torch.long), reach,
            Extremes.empty(width, k, length=length),
            Extremes.empty(width, k, length=length, sign=-1.0), name,
        )  # fmt: skip

    def add(self, activation: Tensor, lengths: Tensor, first: int, unit: Tensor) -> None:
        single = activation.float()
        largest, smallest = by_block(single, lengths)
        if bool(torch.isnan(largest).any() | (largest == torch.inf).any()) or bool(
            (smallest == -torch.inf).any()
        ):
            raise FloatingPointError(f"NaN or Inf at {self.name}, in rows from {first} on")
        self.sums.add(activation, lengths)
        counts.add(self.counts, single, lengths, counts.BINS / 2 / self.reach)
        self.top.add(single, largest, lengths, first=first, unit=unit)
        self.bottom.add(single, smallest, lengths, first=first, unit=unit)


def _each(do: Callable[[Of], Found], of: Iterable[Of]) -> list[Found]:
    """`do` of each, in as many threads as torch may use; torch holds no lock while it computes."""
    if torch.get_num_threads() == 1:
        return [do(one) for one in of]
    with ThreadPoolExecutor(torch.get_num_threads()) as threads:
        return list(threads.map(do, of))


def _largest(
    activation: Float[Tensor, "row pos neuron"], lengths: Int[Tensor, " row"]
) -> Float[Tensor, " neuron"]:
    """How large each neuron is anywhere but at first tokens and in padding."""
    largest, smallest = by_block(activation, lengths)
    # A row of one token has no other, and its extremes are infinite.
    return torch.maximum(largest, -smallest).float().amax((0, 1)).clamp(min=0)
