"""The constant that does least harm in an activation's place (optimal ablation)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from hooks import HookedModel, Site, capture, intervening, last_logits
from hooks.choices import check_choice
from hooks.heads import places
from workbench.effects.exact import Run
from workbench.effects.sources import mean_over
from workbench.metrics import Metric, check_metrics
from workbench.tasks import Task


@dataclass(frozen=True, eq=False)
class Optimum:
    """A constant for one site (or one head of it), and what the metric is with it.

    `value` is to be put at all positions; `metric` is the mean over the prompts it was fitted on,
    `zero` and `mean` are what those two constants give on the same prompts.
    """

    value: Float[Tensor, "..."]
    metric: float
    zero: float
    mean: float


@torch.no_grad()
def optimal_constant(
    model: HookedModel,
    task: Task,
    site: Site,
    *,
    metric: Metric,
    heads: Sequence[int] | None = None,
    run: Run = "clean",
    steps: int = 60,
    rate: float = 0.1,
) -> Optimum:
    """The constant at `site` under which the task's metric is highest (Li & Janson 2024).

    Found by Adam from the better of zero and the mean over the other run's tokens, and never
    worse than either on the prompts it is fitted on, because the best constant met on the way
    is the one that is kept. `rate` is in units of the mean activation's size. The paper fits one
    constant for each component on the loss; this fits it on the metric that will be measured,
    which is the same when that is a log-probability. A metric without a gradient is refused.
    """
    check_choice("run", run, Run)
    check_metrics([metric])
    prompts, others = (task.clean, task.corrupt) if run == "clean" else (task.corrupt, task.clean)
    if "query" in site.axes:
        raise ValueError(f"{site} has no constant value: its keys are other tokens in every row")
    average = mean_over(model, others, [site])[site]
    size = float(capture(model, prompts, [site])[site].abs().mean())

    def measured(value: Tensor) -> Tensor:
        def write(activation: Tensor) -> Tensor:
            constant = value.expand(activation.shape)
            if heads is None:
                return constant.clone()
            chosen = torch.zeros(activation.shape[2], dtype=torch.bool, device=activation.device)
            chosen[places(model, site, heads)] = True
            return torch.where(chosen[:, None], constant, activation)

        with intervening(model, {site: write}):
            logits = last_logits(model, prompts) if metric.rows == "last" else model(prompts)
        return metric(logits, task, prompts).float().mean()

    ends = {name: measured(start) for name, start in
            (("zero", torch.zeros_like(average)), ("mean", average))}  # fmt: skip
    best = max(ends, key=lambda name: float(ends[name]))
    start = average if best == "mean" else torch.zeros_like(average)
    value, found = _climb(measured, start, ends[best], steps=steps, rate=rate * size)
    return Optimum(value, float(found), float(ends["zero"]), float(ends["mean"]))


def _climb(
    measured: Callable[[Tensor], Tensor],
    start: Tensor,
    first: Tensor,
    *,
    steps: int,
    rate: float,
) -> tuple[Tensor, Tensor]:
    """The best value that Adam meets on its way up from `start`."""
    best, highest = start.clone(), first
    value = start.clone().requires_grad_()
    optimiser = torch.optim.Adam([value], lr=rate)
    for _ in range(steps):
        with torch.enable_grad():
            found = measured(value)
            if not found.requires_grad:
                raise ValueError("this metric has no gradient: fit the constant on another one")
            (gradient,) = torch.autograd.grad(-found, value)
        if found > highest:
            best, highest = value.detach().clone(), found.detach()
        value.grad = gradient
        optimiser.step()
    return best, highest
