"""Is there anything but chance? Sign flips, and corrections for asking many times."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Float64, Shaped
from scipy import stats
from torch import Tensor, from_numpy

from workbench.statistics.randomness import Randomness, numpy_generator
from workbench.statistics.units import (
    CHUNK,
    Array,
    Groups,
    finite_array,
    mix,
    sum_by_unit,
    units_of,
)


@dataclass(frozen=True, eq=False)
class PermutationTest:
    """How often chance alone gives a mean as far from zero, in either direction, as the one seen.

    `p` is for each cell alone; `corrected` is the chance that any of all cells gets there, so
    `corrected < 0.05` is wrong about even one cell in at most 5 % of families without effects.
    """

    p: Float64[Tensor, "*cells"]
    corrected: Float64[Tensor, "*cells"]
    permutations: int
    method: Literal["exact", "sampled"]


def permutation_test(
    values: Shaped[Tensor, "*cells batch"],
    *,
    groups: Groups | None = None,
    seed: Randomness = 0,
    permutations: int = 10_000,
) -> PermutationTest:
    """Is the mean of each cell zero? Two-sided, by flipping the signs of prompts (or groups).

    The values are paired differences, for example edited minus baseline; where nothing changes
    they are taken to be symmetric about zero. Every flip is shared by all cells. All 2^n flips
    are used when there are at most `permutations` of them, else p = (1 + count) / (1 + draws).
    """
    array = finite_array(values)
    member, size = units_of(groups, array.shape[-1])
    flat = array.reshape(-1, array.shape[-1])
    if permutations < 1:
        raise ValueError(f"{permutations} permutations cannot give a p-value: take 1000 or more")
    total = sum_by_unit(flat, member, len(size))
    # r = |sum| / sqrt(n * sum of squares) grows with |t|, and the sum of squares keeps its value
    # under flips; unlike t it is finite for cells of equal values.
    scale = np.sqrt(len(size) * (total**2).sum(0))
    unit = np.divide(total, scale, out=np.zeros_like(total), where=scale > 0)
    seen = np.abs(unit.sum(0)) - 1e-10  # ties are ties whatever the order of a sum
    exact = 2 ** min(len(size), 62) <= permutations
    draws = 2 ** len(size) if exact else permutations
    generator = None if exact else numpy_generator(seed)
    step = max(1, CHUNK // max(len(seen), len(size)))
    alone = largest = np.full(len(seen), 0.0 if exact else 1.0)  # all flips hold the one seen
    for signs in _flips(draws, len(size), step, generator=generator):
        chance = np.abs(mix(signs, unit))
        alone = alone + (chance >= seen).sum(0)
        top = np.sort(chance.max(1, initial=0.0))
        largest = largest + len(top) - np.searchsorted(top, seen)
    among = draws if exact else draws + 1
    shape = values.shape[:-1]
    p, corrected = _tensor(alone / among, shape), _tensor(largest / among, shape)
    return PermutationTest(p, corrected, draws, "exact" if exact else "sampled")


def benjamini_hochberg(p: Float[Tensor, "*cells"]) -> Float64[Tensor, "*cells"]:
    """p-values adjusted so that keeping those below q has an expected false share of at most q."""
    flat = p.detach().cpu().double().numpy().reshape(-1)
    if not ((flat >= 0) & (flat <= 1)).all():
        raise ValueError(
            "p-values lie in [0, 1]; found others or NaN: correct them before adjusting"
        )
    return _tensor(stats.false_discovery_control(flat) if flat.size else flat, p.shape)


def _flips(
    draws: int, units: int, step: int, *, generator: np.random.Generator | None
) -> Iterator[Array]:
    """All signs in the order of their bits, or drawn where a generator is given."""
    for start in range(0, draws, step):
        rows = np.arange(start, min(start + step, draws))
        if generator is None:
            bits = rows[:, None] >> np.arange(units) & 1
        else:
            bits = generator.integers(0, 2, size=(len(rows), units))
        yield 1.0 - 2.0 * bits


def _tensor(values: Array, shape: Sequence[int]) -> Tensor:
    return from_numpy(np.ascontiguousarray(values)).reshape(tuple(shape))
