"""Which model and task a result came from, and whether the model solves that task.

What every result says of itself; analyses take these fields from here.
"""

from typing import Any

from hooks import HookedModel
from workbench.tasks.solved import solved
from workbench.tasks.task import Task


def of_model(model: HookedModel) -> dict[str, Any]:
    """The model's name and the digest of its weights."""
    origin = getattr(model, "origin", None)
    return {
        "model": getattr(origin, "name", "a model"),
        "model_digest": getattr(origin, "digest", ""),
    }


def of_task(model: HookedModel, task: Task) -> dict[str, Any]:
    """The same, and the task's name and digest."""
    return {"task": task.name, "task_digest": task.digest, **of_model(model)}


def labels(
    model: HookedModel, task: Task, *, unsolved: str = "The effects may be noise."
) -> dict[str, Any]:
    """The same, and a caveat: how well the model does the task, where it is not shown to solve it.

    `unsolved` says what that means for the result.
    """
    caveat = "One prompt: nothing says how far this holds for others."
    if len(task) > 1:
        found = solved(model, task)
        caveat = "" if found.is_solved else f"Caveat: {found.sentence()} {unsolved}".strip()
    return {**of_task(model, task), "caveat": caveat}
