"""What was measured of one type, for every head in a row; and how it is judged."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from hooks.heads import LayerHeads
from workbench import statistics


@dataclass(frozen=True, eq=False)
class Measured:
    """One type's score of every head, what chance would give, and how sure their difference is."""

    type: str
    unit: str
    null_is: str
    threshold: float
    score: Float[Tensor, " head"]
    null: Float[Tensor, " head"]
    low: Float[Tensor, " head"]
    high: Float[Tensor, " head"]
    p: Float[Tensor, " head"]

    @property
    def effect(self) -> Float[Tensor, " head"]:
        """The score beyond chance."""
        return self.score - self.null

    def named(self, *, level: float) -> Bool[Tensor, " head"]:
        """Which heads are of this type: surely, and enough to speak of."""
        return (self.p <= level) & (self.effect >= self.threshold)


def by_prompt(
    score: Float[Tensor, "*cells batch"], null: Float[Tensor, "*cells batch"], *, seed: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Bounds of the mean difference, and its p corrected for all cells: sign flips of prompts."""
    found = statistics.bounds(score - null, seed=seed)
    test = statistics.permutation_test(score - null, seed=seed)
    return found.low, found.high, test.corrected


def one_sided(p: Tensor, effect: Tensor) -> Tensor:
    """A two-sided p where the effect is in the direction of the type, one elsewhere."""
    return torch.where(effect > 0, p, torch.ones_like(p))


def both_ways(measured: Measured, other: str) -> list[Measured]:
    """A type, and the one whose heads do the contrary, from one two-sided test."""
    contrary = replace(
        measured,
        type=other,
        score=-measured.score,
        null=-measured.null,
        low=-measured.high,
        high=-measured.low,
    )
    return [replace(one, p=one_sided(one.p, one.effect)) for one in (measured, contrary)]


def per_query_head(
    values: Float[Tensor, "batch pos kv d_head"], heads: LayerHeads
) -> Float[Tensor, "batch pos head d_head"]:
    """Values of the key-value heads of a layer, repeated for each query head that reads them."""
    reads = torch.tensor(heads.reads, dtype=torch.long, device=values.device)
    return values.index_select(2, reads)
