"""What is kept of one layer's neurons while rows go by."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.neurons import counts, moments
from workbench.neurons.blocks import by_block
from workbench.neurons.extremes import Extremes, Ranked


@dataclass(eq=False)
class LayerState:
    """All that is kept of one layer; changed in place."""

    sums: moments.Sums
    counts: Int[Tensor, "neuron bin"]
    reach: Float[Tensor, " neuron"]
    ends: tuple[Extremes, Extremes]  # the largest and the smallest
    name: str

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
        highest, lowest = by_block(activation, lengths)
        # A row of one token has no other, and its extremes are infinite.
        largest = torch.maximum(highest, -lowest).float().amax((0, 1)).clamp(min=0)
        if not bool(torch.isfinite(largest).all()):
            raise FloatingPointError(f"NaN or Inf at {name}, in the first {len(lengths)} rows")
        usual = moments.usual(activation, lengths)
        ends = [Extremes.empty(width, k, length=length, sign=sign) for sign in (1.0, -1.0)]
        return cls(
            moments.Sums.empty(width, length, usual),
            torch.zeros(width, counts.BINS, dtype=torch.long),
            counts.reach(largest), (ends[0], ends[1]), name,
        )  # fmt: skip

    def add(
        self,
        activation: Float[Tensor, "row pos neuron"],
        lengths: Int[Tensor, " row"],
        first: int,
        unit: Int[Tensor, " row"],
    ) -> None:
        """The rows of one batch, whose first is number `first` of the corpus."""
        single = activation.float()
        largest, smallest = by_block(single, lengths)
        if bool(torch.isnan(largest).any() | (largest == torch.inf).any()) or bool(
            (smallest == -torch.inf).any()
        ):
            raise FloatingPointError(f"NaN or Inf at {self.name}, in rows from {first} on")
        self.sums.add(activation, lengths)
        counts.add(self.counts, single, lengths, counts.BINS / 2 / self.reach)
        for end, most in zip(self.ends, (largest, smallest), strict=True):
            end.add(single, most, lengths, first=first, unit=unit)

    @property
    def top(self) -> Ranked:
        """The largest activations so far."""
        return self.ends[0].ranked()

    @property
    def bottom(self) -> Ranked:
        """The smallest activations so far."""
        return self.ends[1].ranked()
