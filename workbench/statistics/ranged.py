"""How large is a mean of values that lie in a known range? Bounds that no sample makes vanish."""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from workbench.statistics.randomness import Randomness, numpy_generator
from workbench.statistics.units import Array, finite_array


class RangedMean(NamedTuple):
    """The mean of each cell, the bounds that cover the true mean, and p of a true mean of zero."""

    mean: Float64[Tensor, "*cells"]
    low: Float64[Tensor, "*cells"]
    high: Float64[Tensor, "*cells"]
    p: Float64[Tensor, "*cells"]


def ranged_mean(
    values: Float[Tensor, "*cells sample"],
    *,
    least: float,
    most: float,
    seed: Randomness = 0,
    level: float = 0.95,
    draws: int = 20_000,
) -> RangedMean:
    """Bounds and a two-sided p of a mean, for values that cannot lie outside `least` to `most`.

    A sample of one value repeated has no spread, and Student's bounds are then the value itself,
    though one in ten may be another. Here the sample is mixed by weights that are even over all
    that sum to 1 (a Bayesian bootstrap), with one value more: `most` for the upper bound, `least`
    for the lower one (Gaffke 2005). Of values that are one of two these are Clopper & Pearson's
    bounds; of others no case is known where they cover less (Learned-Miller & Thomas 2020).
    """
    array = finite_array(values)
    if array.shape[-1] < 1:
        raise ValueError("no values: a mean needs one or more")
    if array.min() < least - 1e-9 or array.max() > most + 1e-9:
        raise ValueError(
            f"values from {array.min():.6g} to {array.max():.6g} do not lie in the range "
            f"{least:.6g} to {most:.6g}: give the range that values can have"
        )
    weights = numpy_generator(seed).dirichlet(np.ones(array.shape[-1] + 1), size=draws)
    flat = array.reshape(-1, array.shape[-1])
    rows = [_bounds(one, weights, least, most, level) for one in flat]
    low, high, p = (
        torch.tensor(column, dtype=torch.double).reshape(values.shape[:-1])
        for column in zip(*rows, strict=True)
    )
    return RangedMean(torch.from_numpy(flat.mean(1)).reshape(values.shape[:-1]), low, high, p)


def _bounds(
    values: Array, weights: Array, least: float, most: float, level: float
) -> tuple[float, float, float]:
    # Not a BLAS product: its bits may change with the number of threads.
    mixed = np.einsum("du,u->d", weights[:, :-1], values, optimize=False)
    below, above = mixed + weights[:, -1] * least, mixed + weights[:, -1] * most
    tail = (1 - level) / 2
    further = min((below <= 0).sum(), (above >= 0).sum())
    p = min(1.0, 2 * (1 + int(further)) / (1 + len(weights)))
    return float(np.quantile(below, tail)), float(np.quantile(above, 1 - tail)), p
