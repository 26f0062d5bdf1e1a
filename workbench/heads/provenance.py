"""Which model and task a result came from, and whether the model solves that task."""

from typing import Any

from hooks import HookedModel
from workbench.tasks import Task, solved


def labels(model: HookedModel, task: Task) -> dict[str, Any]:
    """The fields that every result of this room carries."""
    origin = getattr(model, "origin", None)
    found = solved(model, task)
    return {
        "task": task.name,
        "task_digest": task.digest,
        "model": getattr(origin, "name", "a model"),
        "model_digest": getattr(origin, "digest", ""),
        "caveat": ""
        if found.is_solved
        else f"Caveat: {found.sentence()} The effects may be noise.",
    }
