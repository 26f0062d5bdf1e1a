"""Bounds and tests for heads, of which some may be missing: NaN in, NaN out."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from workbench import statistics


class Bounded(NamedTuple):
    """Each head's mean over prompts, its 95 % bounds, and a p-value corrected for all heads."""

    mean: Float[Tensor, "layer head"]
    low: Float[Tensor, "layer head"]
    high: Float[Tensor, "layer head"]
    p: Float[Tensor, "layer head"]


def bounded(values: Float[Tensor, "layer head batch"], *, seed: int) -> Bounded:
    """`statistics.bounds` and `statistics.permutation_test` of the heads that have numbers."""
    there = ~values.isnan().any(dim=-1)
    if bool(there.all()):
        found, test = statistics.bounds(values, seed=seed), statistics.permutation_test
        parts = (found.mean, found.low, found.high, test(values, seed=seed).corrected)
        return Bounded(*(part.float() for part in parts))
    full = [torch.full(there.shape, torch.nan) for _ in range(4)]
    if bool(there.any()):
        some = values[there]
        found = statistics.bounds(some, seed=seed)
        corrected = statistics.permutation_test(some, seed=seed).corrected
        for part, one in zip(full, (found.mean, found.low, found.high, corrected), strict=True):
            part[there] = one.float()
    return Bounded(*full)
