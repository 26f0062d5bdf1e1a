"""Learning one number for each head of a model whose weights stay as they are."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from einops import einsum, rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor

from hooks import HookedModel, Site, gradients, intervening, sites
from hooks import heads as numbering
from workbench import effects
from workbench.heads.ablating import Ablating
from workbench.metrics import Metric, check
from workbench.tasks import Task


@dataclass(frozen=True)
class Descent:
    """How gates are learned: steps of Adam at this rate, each on so many prompts."""

    steps: int = 200
    rate: float = 0.1
    prompts: int = 16

    def __post_init__(self) -> None:
        if self.steps < 1 or self.prompts < 1 or not self.rate > 0:
            raise ValueError(
                f"{self.steps} steps at rate {self.rate} on {self.prompts} prompts: each must be "
                "above zero"
            )

    def rows(self, task: Task, generator: torch.Generator) -> Int[Tensor, " chosen"]:
        """The prompts of one step: all, where there are no more than asked for."""
        if len(task) <= self.prompts:
            return torch.arange(len(task))
        return torch.randperm(len(task), generator=generator)[: self.prompts]


ENOUGH = Descent()
"""Enough for a few hundred heads."""


@dataclass(frozen=True, eq=False)
class Gated:
    """A model on a task, each head's z multiplied by a gate: 1 leaves it, 0 ablates it.

    Between them z is mixed with what the ablation writes. Gates of heads that were removed from the
    model do nothing.
    """

    model: HookedModel
    task: Task
    metric: Metric
    ablating: Ablating

    def __post_init__(self) -> None:
        check(self.metric)

    @property
    def shape(self) -> tuple[int, int]:
        """Layers, and heads in each before any was removed."""
        return self.model.cfg.n_layers, numbering.count(self.model)

    @property
    def there(self) -> Bool[Tensor, "layer head"]:
        """Which heads the model has."""
        return numbering.present(self.model)

    def slopes(
        self, gates: Float[Tensor, "chosen layer head"], rows: Int[Tensor, " chosen"]
    ) -> tuple[Float[Tensor, " chosen"], Float[Tensor, "chosen layer head"]]:
        """The metric of some prompts, each under gates of its own, and its derivative by them."""
        part, metric = self.task[rows], self.metric[rows]
        changes: dict[Site, Tensor] = {}
        edits = self._edits(gates.detach(), rows, part.clean.tokens.shape[1], changes)

        def of(logits: Tensor) -> Tensor:
            exact = logits if logits.dtype in (torch.float32, torch.float64) else logits.float()
            return metric(exact, part, part.clean)

        with intervening(self.model, edits):
            found = gradients(self.model, part.clean, list(edits), of=of, logits=metric.rows)
        # z' = g * (z - r) + r, so the derivative by g is that by z' times (z - r).
        each = [
            einsum(found[site].float(), changes[site].float(), "b pos h d, b pos h d -> b h")
            for site in edits
        ]
        wide = [
            numbering.widened(self.model, *one, axis=1) for one in zip(edits, each, strict=True)
        ]
        slopes = torch.stack(wide, dim=1).cpu()
        return found.measured.float().cpu(), torch.where(self.there, slopes, 0.0)

    def measured(
        self, gates: Float[Tensor, "layer head"], *, batch_size: int = 32
    ) -> Float[Tensor, " batch"]:
        """The metric of every prompt under the same gates."""
        found = []
        for rows in torch.arange(len(self.task)).split(batch_size):
            part, own = self.task[rows], gates.expand(len(rows), *gates.shape)
            edits = self._edits(own, rows, part.clean.tokens.shape[1], {})
            metric = self.metric[rows]
            found.append(effects.measure(self.model, part, metric=metric, edits=edits))  # type: ignore[arg-type]
        return torch.cat(found)

    def _edits(
        self,
        gates: Float[Tensor, "chosen layer head"],
        rows: Int[Tensor, " chosen"],
        length: int,
        changes: dict[Site, Tensor],
    ) -> dict[Site, Callable[[Tensor], Tensor]]:
        """The gate of every layer; what it multiplies is noted in `changes`."""

        def gate(site: Site) -> Callable[[Tensor], Tensor]:
            columns = list(numbering.at(self.model, site.layer).query)
            share = rearrange(gates[:, site.layer, columns], "chosen head -> chosen 1 head 1")
            value = self.ablating.at(site, rows, length)

            def edit(z: Tensor) -> Tensor:
                change = z if value is None else z - value
                changes[site] = change.detach()
                opened = share.to(z) * change
                return opened if value is None else opened + value

            return edit

        return {site: gate(site) for site in sites.all(self.model, "z")}
