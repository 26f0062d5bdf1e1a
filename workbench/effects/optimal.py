"""The constant that does least harm in an activation's place (optimal ablation)."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from hooks import HookedModel, Site, capture, intervening, last_logits
from hooks.choices import check_choice
from hooks.heads import at, places
from workbench.effects.exact import Run
from workbench.effects.sources import Source, mean_over
from workbench.metrics import Metric, check
from workbench.tasks import Task

Together = Literal["each", "together"]
"""Whether each head of a site gets a constant of its own making, or all at once."""


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
    check(metric)
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


def optimal_constants(
    model: HookedModel,
    task: Task,
    sites: Iterable[Site],
    *,
    metric: Metric,
    heads: Together = "each",
    run: Run = "clean",
    steps: int = 60,
    rate: float = 0.1,
) -> Source:
    """A source with the constants under which the metric is highest, as `optimal_constant` has it.

    heads   "each": every head has the constant that is best when it alone is ablated, for sweeps
            over heads. "together": all heads of a site are ablated at once, for sweeps over "all"
    run     the prompts that will be edited: "clean" for noising, "corrupt" for denoising

    One fit for each head of each site, or for each site: `steps` passes forward and back.
    """
    check_choice("heads", heads, Together)
    wanted = list(dict.fromkeys(sites))
    if not wanted:
        raise ValueError("no site was given: name at least one, such as Site('z', 5)")
    fits = [(site, group) for site in wanted for group in _groups(model, site, heads)]
    constants: dict[Site, Tensor] = {}
    with tqdm(fits, desc="optimal constants", unit="fit", mininterval=0.5, delay=0.5) as bar:
        for site, group in bar:
            found = optimal_constant(
                model, task, site, metric=metric, heads=group, run=run, steps=steps, rate=rate
            ).value
            value = constants.setdefault(site, torch.zeros_like(found))
            rows = slice(None) if group is None else places(model, site, group)
            value[rows] = found[rows]
    return Source("constant", constants=constants)


def _groups(model: HookedModel, site: Site, heads: Together) -> list[list[int] | None]:
    """Which heads of a site are fitted together; None for all of it."""
    if heads == "together" or "head" not in site.axes:
        return [None]
    return [[head] for head in at(model, site.layer).of(site.stream)]


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
