"""Does one thing do more than others that were drawn at random in its place?"""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from workbench.statistics.units import finite_array


class PlaceboTest(NamedTuple):
    """How often a placebo does as much, for each cell alone and for the most of all cells."""

    p: Float64[Tensor, " cell"]
    corrected: Float64[Tensor, " cell"]


def placebo_test(
    seen: Float[Tensor, " cell"], placebos: Float[Tensor, "cell placebo"]
) -> PlaceboTest:
    """p-values of values among placebos, by their size whatever the sign; ties count against.

    `p` is (1 + placebos at least as far from zero) / (1 + placebos): exact when what was seen is
    one more draw of the same kind (Monte Carlo test, Barnard 1963). `corrected` compares with the
    largest over all cells of each placebo, in units of the cell's own spread, so that a cell is
    called by chance in at most 5 % of families (Westfall & Young 1993).
    """
    if placebos.ndim != 2 or len(placebos) != len(seen) or placebos.shape[1] < 1:
        raise ValueError(
            f"{len(seen)} values and placebos of shape {tuple(placebos.shape)}: give a row of at "
            "least one placebo for each value"
        )
    size = np.abs(np.c_[finite_array(seen), finite_array(placebos)])
    spread = np.sqrt((size**2).mean(1, keepdims=True))  # the one seen too: all are exchangeable
    size = np.divide(size, spread, out=np.zeros_like(size), where=spread > 0)
    least = size[:, :1] - 1e-12
    count = size.shape[1]
    alone = (size >= least).sum(1) / count
    largest = (size.max(0)[None] >= least).sum(1) / count
    return PlaceboTest(torch.from_numpy(alone), torch.from_numpy(largest))
