"""What is resampled or flipped: prompts, or whole groups of prompts that hang together."""

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from jaxtyping import Shaped
from torch import Tensor

Array: TypeAlias = np.ndarray
Groups: TypeAlias = Sequence[str] | Sequence[int] | Shaped[Tensor, " batch"]

CHUNK = 1_000_000
"""How many numbers an intermediate holds at once."""


def units_of(groups: Groups | None, batch: int) -> tuple[Array, Array]:
    """Which unit each prompt belongs to, and how many prompts each unit has."""
    labels = np.arange(batch) if groups is None else labels_of(groups)
    if len(labels) != batch:
        raise ValueError(f"{len(labels)} groups for {batch} prompts: give each prompt its group")
    _, member, size = np.unique(labels, return_inverse=True, return_counts=True)
    if len(size) < 2:
        what = "prompt" if groups is None else "group"
        raise ValueError(f"bounds and tests need at least 2 {what}s, got {len(size)}: add {what}s")
    return member.reshape(-1), size.astype(float)


def sum_by_unit(values: Array, member: Array, units: int) -> Array:
    """Values (cells, prompts) summed within each unit: (units, cells)."""
    total = np.zeros((units, len(values)))
    np.add.at(total, member, values.T)
    return total


def mix(weights: Array, values: Array) -> Array:
    """The sums over units, one row per resample: (resamples, units), (units, cells)."""
    # Not a BLAS product: its bits may change with the number of threads.
    return np.einsum("ru,uc->rc", weights, values, optimize=False)


def finite_array(values: Tensor) -> Array:
    """The values in float64; NaN and infinity are refused with their place."""
    if values.ndim == 0:
        raise ValueError("a single number has no bounds: give one value per prompt")
    array = np.ascontiguousarray(values.detach().cpu().double().numpy())
    bad = np.argwhere(~np.isfinite(array))
    if len(bad):
        *cell, prompt = bad[0].tolist()
        where = f"cell {tuple(cell)}, prompt {prompt}" if cell else f"prompt {prompt}"
        raise ValueError(
            f"{len(bad)} of {array.size} values are not finite, first {array[tuple(bad[0])]} at "
            f"{where}: leave those prompts out, and say so, or find where they come from"
        )
    return array


def labels_of(groups: Groups) -> Array:
    """The group labels as an array."""
    return groups.detach().cpu().numpy() if isinstance(groups, Tensor) else np.asarray(groups)
