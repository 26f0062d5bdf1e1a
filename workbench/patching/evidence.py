"""What every study of patching shares: its direction, its bounds and p-values, whom it is about."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from hooks import HookedModel
from workbench import statistics
from workbench.effects.exact import Run
from workbench.tasks import Task, solved

Direction = Literal["denoise", "noise"]
"""Edits in the corrupt prompts, towards the answer; or in the clean ones, away from it."""

RUN: Mapping[Direction, Run] = {"denoise": "corrupt", "noise": "clean"}
"""In which prompts the edits of each direction are made."""


def tested(per_prompt: Float[Tensor, "*maps batch"], *, seed: int, cells: int) -> dict[str, Tensor]:
    """Means, bounds and p-values; p is corrected over the last `cells` axes before the batch."""
    effect, low, high = statistics.bounds(per_prompt, seed=seed)
    shape = per_prompt.shape
    maps = per_prompt.reshape(-1, *shape[-1 - cells :])
    p = torch.stack([statistics.permutation_test(one, seed=seed).corrected for one in maps])
    found = {"effect": effect, "low": low, "high": high, "p": p.reshape(shape[:-1])}
    return {name: one.float() for name, one in found.items()} | {"per_prompt": per_prompt}


def names(model: HookedModel, task: Task) -> dict[str, Any]:
    """Which task and model a result is about."""
    origin = getattr(model, "origin", None)
    return {
        "task": task.name,
        "task_digest": task.digest,
        "model": getattr(origin, "name", "a model"),
        "model_digest": getattr(origin, "digest", ""),
    }


def check(task: Task, directions: Sequence[str]) -> None:
    """Raise for a task without bounds, or a direction that there is not."""
    if len(task) < 2:
        raise ValueError(f"{task.name} has one prompt: bounds and tests need at least two")
    wrong = [one for one in directions if one not in RUN]
    if wrong:
        raise ValueError(f"no direction {wrong[0]!r}; there are 'denoise' and 'noise'")


def caveat(model: HookedModel, task: Task, over: str) -> str:
    """What speaks against believing the numbers; empty where nothing is known to."""
    found = solved(model, task)
    said = [] if found.is_solved else [f"{found.sentence()} The effects may be noise."]
    shortest, longest = int(task.clean.lengths.min()), int(task.clean.lengths.max())
    if over == "position" and shortest < longest:
        said.append(
            f"The prompts have {shortest} to {longest} tokens; the first {shortest} positions "
            "were swept. Roles (over='role') line up what positions do not."
        )
    return f"Caveat: {' '.join(said)}" if said else ""
