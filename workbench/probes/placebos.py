"""Random directions to compare a direction with, so that an effect is not that of any push."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.probes.erasure import Eraser, projection

PlaceboKind = Literal["norm", "spread", "rank"]


@dataclass(frozen=True)
class Placebos:
    """How many random changes a change is compared with, and of which kind.

    kind   "norm": every activation is moved exactly as far, along random directions; where a few
           directions have most of the variance and are read, meaningless labels pass for used;
           "spread": the same, along directions drawn with the activations' own covariance, as
           a fit to meaningless labels finds them: the strictest, and right there, too;
           "rank": as many random directions are projected out (Elazar et al. 2021), which
           moves activations less than taking out a direction they vary along.
    """

    kind: PlaceboKind = "norm"
    count: int = 99

    def __post_init__(self) -> None:
        if self.kind not in ("norm", "spread", "rank"):
            raise ValueError(f"no placebo {self.kind!r}; there are 'norm', 'spread' and 'rank'")
        if self.count < 19:
            raise ValueError(
                f"{self.count} placebos cannot give a p-value of 0.05: take at least 19"
            )

    def directions(
        self, rows: int, x: Float[Tensor, "example d_model"], *, generator: torch.Generator
    ) -> Float[Tensor, "direction d_model"]:
        """`rows` random directions, of length one."""
        if self.kind == "spread":
            centred = x.double().cpu() - x.double().cpu().mean(dim=0)
            weight = torch.randn(rows, len(x), generator=generator, dtype=torch.float64)
            found = weight @ centred
        else:
            found = torch.randn(rows, x.shape[1], generator=generator, dtype=torch.float64)
        return found / found.norm(dim=1, keepdim=True)

    def of(
        self, eraser: Eraser, x: Float[Tensor, "example d_model"], *, generator: torch.Generator
    ) -> Eraser:
        """One placebo of an eraser; `x` are the activations that it is used on."""
        rows = self.directions(eraser.rank, x, generator=generator)
        if self.kind == "rank":
            return projection(rows, mean=eraser.mean.double())
        return eraser.along(rows)
