"""Do rows go with their own columns, or with any?"""

import numpy as np
from jaxtyping import Float
from torch import Tensor, from_numpy

from workbench.statistics.permutation import PermutationTest
from workbench.statistics.randomness import Randomness, numpy_generator
from workbench.statistics.units import CHUNK, Array, Groups, finite_array, labels_of


def matching_test(
    scores: Float[Tensor, "*cells row column"],
    *,
    groups: Groups | None = None,
    seed: Randomness = 0,
    permutations: int = 2000,
) -> PermutationTest:
    """Is the mean of each cell's diagonal higher than when rows are matched at random?

    One-sided, exact where nothing ties a row to its own column (Mantel 1967). The columns are
    shuffled, within `groups` where they are given; every shuffle is shared by all cells, and
    `corrected` is for all of them (Westfall & Young 1993, single step): the largest excess over
    a cell's own mean under all shuffles. p = (1 + count) / (1 + draws).
    """
    array = finite_array(scores)
    rows = array.shape[-1]
    if array.ndim < 2 or array.shape[-2] != rows or rows < 2:
        raise ValueError(
            f"scores have shape {tuple(scores.shape)}: rows and columns are the same two or more "
            "things, so that the diagonal holds the matching ones"
        )
    if permutations < 1:
        raise ValueError(f"{permutations} permutations cannot give a p-value: take 1000 or more")
    flat = array.reshape(-1, rows, rows)
    labels = np.zeros(rows, dtype=int) if groups is None else labels_of(groups)
    same = labels[:, None] == labels[None]
    chance = (flat * (same / same.sum(1, keepdims=True))).sum((1, 2)) / rows
    seen = flat[:, np.arange(rows), np.arange(rows)].mean(1) - chance - 1e-10
    generator = numpy_generator(seed)
    alone = largest = np.ones(len(flat))
    step = max(1, CHUNK // (rows * max(1, len(flat))))
    for start in range(0, permutations, step):
        shuffles = _shuffles(labels, min(step, permutations - start), generator)
        excess = flat[:, np.arange(rows), shuffles].mean(2) - chance[:, None]
        alone = alone + (excess >= seen[:, None]).sum(1)
        top = np.sort(excess.max(0))
        largest = largest + len(top) - np.searchsorted(top, seen)
    shape = scores.shape[:-2]
    p, corrected = (
        from_numpy(np.ascontiguousarray(count / (permutations + 1))).reshape(shape)
        for count in (alone, largest)
    )
    return PermutationTest(p, corrected, permutations, "sampled")


def _shuffles(labels: Array, draws: int, generator: np.random.Generator) -> Array:
    """Random orders of the columns, each column staying in its group: (draws, columns)."""
    orders = np.tile(np.arange(len(labels)), (draws, 1))
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        keys = generator.random((draws, len(members)))
        orders[:, members] = members[keys.argsort(1)]
    return orders
