"""The metric of a task's prompts, with or without edits, computing only the rows it reads."""

import torch
from jaxtyping import Float
from torch import Tensor

from hooks import HookedModel, Prompts, intervening, last_logits
from hooks.replay import Cell
from workbench.metrics import Metric, check_metrics
from workbench.tasks import Task


@torch.no_grad()
def measure(
    model: HookedModel,
    task: Task,
    *,
    metric: Metric,
    edits: Cell | None = None,
    prompts: Prompts | None = None,
) -> Float[Tensor, " batch"]:
    """`metric` of each prompt in one forward pass, on the CPU, in the order of the task.

    `prompts` are the task's clean ones unless others are given.
    """
    check_metrics([metric])
    prompts = task.clean if prompts is None else prompts
    if edits:
        with intervening(model, edits):
            logits = _logits(model, prompts, metric)
    else:
        logits = _logits(model, prompts, metric)
    logits = logits if logits.dtype in (torch.float32, torch.float64) else logits.float()
    return metric(logits, task, prompts).float().cpu()


def _logits(model: HookedModel, prompts: Prompts, metric: Metric) -> Tensor:
    return last_logits(model, prompts) if metric.rows == "last" else model(prompts)
