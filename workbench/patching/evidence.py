"""Which way a study of patching goes, and its numbers with bounds and corrected p-values."""

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from workbench import statistics
from workbench.effects.exact import Run
from workbench.tasks import Task

Direction = Literal["denoise", "noise"]
"""Edits in the corrupt prompts, towards the answer; or in the clean ones, away from it."""

RUN: Mapping[Direction, Run] = {"denoise": "corrupt", "noise": "clean"}
"""In which prompts the edits of each direction are made."""


def tested(
    per_prompt: Float[Tensor, "*maps batch"],
    *,
    seed: int,
    cells: int,
    there: Bool[Tensor, "*cells"] | None = None,
) -> dict[str, Tensor]:
    """Means, bounds and p-values; p is corrected over the last `cells` axes before the batch.

    Where some cells are not `there`, because their heads were removed from the model, they are
    NaN, and not among those that p is corrected for.
    """
    if there is not None and not bool(there.all()):
        found = tested(per_prompt[..., there, :], seed=seed, cells=1)
        behind = {name: one.ndim - found["p"].ndim for name, one in found.items()}
        return {name: _spread(one, there, behind[name]) for name, one in found.items()}
    shape = per_prompt.shape
    maps = per_prompt.reshape(-1, *shape[-1 - cells :])
    # Map by map, so that a metric gives the same numbers whichever others are swept with it.
    bounds = [statistics.bounds(one, seed=seed) for one in maps]
    p = [statistics.permutation_test(one, seed=seed).corrected for one in maps]
    effect, low, high = (torch.stack(one) for one in zip(*bounds, strict=True))
    found = {"effect": effect, "low": low, "high": high, "p": torch.stack(p)}
    found = {name: one.reshape(shape[:-1]) for name, one in found.items()}
    return {name: one.float() for name, one in found.items()} | {"per_prompt": per_prompt}


def _spread(values: Tensor, there: Bool[Tensor, "*cells"], behind: int) -> Tensor:
    """Values of the cells there are, with so many axes behind, at full width; NaN elsewhere."""
    axis = values.ndim - behind - 1
    shape = [*values.shape[:axis], there.numel(), *values.shape[axis + 1 :]]
    places = there.flatten().nonzero()[:, 0]
    return (
        values.new_full(shape, torch.nan)
        .index_copy(axis, places, values)
        .unflatten(axis, there.shape)
    )


def check(task: Task, directions: Sequence[str]) -> None:
    """Raise for a task without bounds, or a direction that there is not."""
    if len(task) < 2:
        raise ValueError(f"{task.name} has one prompt: bounds and tests need at least two")
    several = [directions] if isinstance(directions, str) else directions
    wrong = [one for one in several if one not in RUN]
    if wrong:
        raise ValueError(f"no direction {wrong[0]!r}; there are 'denoise' and 'noise'")


def check_listed(directions: Sequence[str]) -> None:
    """Raise unless directions are in a list, at least one."""
    if isinstance(directions, str) or not directions:
        raise ValueError(
            f"directions={directions!r}: give a list of one or both, such as directions=['noise']"
        )
