"""Two runs: the one whose nodes are replaced, and the one their replacements come from."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from hooks import (
    Edit,
    Gradients,
    HookedModel,
    Prompts,
    Site,
    capture,
    gradients,
    gradients_without_each_layer,
)
from workbench.effects.exact import Run
from workbench.effects.measure import measure
from workbench.metrics import Metric, check_metrics
from workbench.tasks import Task

Replacement = Literal["counterfactual", "zero"] | Mapping[Site, Tensor]
"""What nodes are replaced by: what the other run has there, nothing, or these tensors."""

_FLAT = {torch.float32: 1e-5, torch.float64: 1e-9}  # slopes below this are rounding


@dataclass(frozen=True, eq=False)
class Pair:
    """Some prompts of a task in two runs; the one called `at` is measured and differentiated."""

    model: HookedModel
    task: Task
    metric: Metric
    at: Run
    replacement: Replacement = "counterfactual"
    start: int = 0  # the first prompt's place in the whole task

    def __post_init__(self) -> None:
        check_metrics([self.metric])

    def batches(self, size: int) -> Iterator["Pair"]:
        """The same for `size` prompts at a time, in their order."""
        for start in range(0, len(self.task), size):
            rows = slice(start, start + size)
            part = self.task[rows], self.metric[rows]
            yield Pair(self.model, *part, self.at, self.replacement, start)

    @property
    def base(self) -> Prompts:
        """The prompts of the run whose nodes are replaced."""
        return self.task.clean if self.at == "clean" else self.task.corrupt

    @property
    def other(self) -> Prompts:
        """The prompts of the other run."""
        return self.task.corrupt if self.at == "clean" else self.task.clean

    def gradients(self, sites: Sequence[Site]) -> Gradients:
        """Of the metric, at the base run, with the edits that are in force."""
        return gradients(self.model, self.base, sites, of=self._of, logits=self.metric.rows)

    def gradients_without_each_layer(self, sites: Sequence[Site]) -> Iterator[Gradients]:
        """Of the metric, at the base run, with each layer's outputs held fixed in turn."""
        each = partial(gradients_without_each_layer, self.model, self.base, sites)
        for _, found in each(of=self._of, logits=self.metric.rows):
            yield found

    def measured(self, edits: Mapping[Site, Edit] | None = None) -> Float[Tensor, " batch"]:
        """The metric of the base run, under `edits`."""
        return measure(self.model, self.task, metric=self.metric, edits=edits, prompts=self.base)

    def activations(self, sites: Sequence[Site]) -> Mapping[Site, Tensor]:
        """What the base run has at the sites."""
        return capture(self.model, self.base, sites)

    def targets(self, base: Mapping[Site, Tensor]) -> Mapping[Site, Tensor]:
        """What is written at each site of `base`, in its shape."""
        if self.replacement == "zero":
            return {site: torch.zeros_like(found) for site, found in base.items()}
        if isinstance(self.replacement, Mapping):
            return {site: self._own(site, found) for site, found in base.items()}
        return capture(self.model, self.other, list(base))

    def changes(self, base: Mapping[Site, Tensor]) -> dict[Site, Tensor]:
        """By how much replacing changes each site."""
        return {
            # Not by subtraction alone: masked scores may be infinite in both runs.
            site: torch.where(target == base[site], 0, target - base[site])
            for site, target in self.targets(base).items()
        }

    def _own(self, site: Site, activation: Tensor) -> Tensor:
        """The given replacement for these prompts, in the shape of the activation."""
        own = self.replacement
        if not isinstance(own, Mapping) or site not in own:
            raise KeyError(f"source has nothing for {site}: give a tensor for every site")
        value = own[site].to(activation)
        if value.ndim == activation.ndim and value.shape[0] > 1:  # one for each prompt of the task
            value = value[self.start : self.start + activation.shape[0]]
        behind = activation.ndim - value.ndim
        for place, axis in enumerate(site.axes):
            size = activation.shape[place]
            if axis in ("pos", "query", "key") and place >= behind:
                if value.shape[place - behind] > size:  # the batch is cut to its longest prompt
                    value = value.narrow(place - behind, 0, size)
        try:
            return value.expand(activation.shape)
        except RuntimeError:
            raise ValueError(
                f"cannot replace {site}, of shape {tuple(activation.shape)} {site.axes}, by "
                f"{tuple(own[site].shape)}: give a tensor that broadcasts to it, with or without "
                "a row for each prompt of the task"
            ) from None

    def _of(self, logits: Tensor) -> Tensor:
        exact = logits if logits.dtype in _FLAT else logits.float()
        self._refuse_flat(exact.detach().requires_grad_())
        return self.metric(exact, self.task, self.base)

    def _refuse_flat(self, logits: Tensor) -> None:
        """A metric that no small change of the logits moves gives zeros, which would mislead."""
        values = self.metric(logits, self.task, self.base)
        if values.requires_grad:
            (slope,) = torch.autograd.grad(values.sum(), logits)
            if float(slope.abs().max()) > _FLAT[logits.dtype]:
                return
        best = " (it has its best value there)" if self.metric.reference is not None else ""
        raise ValueError(
            f"the gradient of {self.metric.name} at the {self.at} run is zero{best}, so all "
            "attributions would be: take the gradient at the other run, or a metric that small "
            "changes move, such as logit_diff"
        )
