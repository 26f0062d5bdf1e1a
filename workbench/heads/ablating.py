"""What heads are replaced by when they are ablated: one meaning for all that ablate heads."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from hooks import Edit, HookedModel, Positions, Site, edits, sites
from hooks.replay import Cell
from workbench import effects
from workbench.heads.naming import Head
from workbench.tasks import Task

Ablation = Literal["zero", "mean", "resample", "counterfactual"]
"""What stands in the place of a head's z at every position, from the task's corrupt prompts:

zero             nothing
mean             its mean over their real tokens but the first
resample         what it is there in one of those that are at least as long, drawn at random
counterfactual   what it is in the prompt's own pair
"""


@dataclass(frozen=True, eq=False)
class Ablating:
    """Sets of heads to the edits that ablate them together; what is written is found once.

    `values` is what is written at z: one vector a head, or also a row for each prompt and
    position. A layer without any is written zeros.
    """

    source: str
    values: Mapping[Site, Float[Tensor, "..."]] = field(default_factory=dict)

    def cell(self, heads: Iterable[Head], *, positions: Positions | None = None) -> Cell:
        """The edits that ablate all of `heads`, at all positions or at these."""
        by_layer: dict[int, list[int]] = {}
        for layer, head in heads:
            by_layer.setdefault(layer, []).append(head)
        return {
            Site("z", layer): self._edit(Site("z", layer), sorted(by_layer[layer]), positions)
            for layer in sorted(by_layer)
        }

    def at(
        self, site: Site, rows: Tensor, length: int
    ) -> Float[Tensor, "batch pos head d_head"] | None:
        """What is written for some of the prompts, cut to `length`; None is zeros."""
        value = self.values.get(site)
        if value is None or value.ndim == 4:
            return None if value is None else value[rows.to(value.device), :length]
        return value[None, None]

    def _edit(self, site: Site, heads: list[int], at: Positions | None) -> Edit:
        value = self.values.get(site)
        if value is None:
            return edits.zero(heads=heads, positions=at)
        write = edits.mean if value.ndim == 2 else edits.replace
        return write(value, heads=heads, positions=at)


@torch.no_grad()
def ablating(
    model: HookedModel,
    task: Task,
    ablation: Ablation | effects.Source,
    *,
    batch_size: int = 64,
    seed: int = 0,
) -> Ablating:
    """How `ablation` ablates heads of the clean prompts; `seed` draws what is resampled.

    An `effects.Source` says the same with more freedom, such as means over other prompts.
    """
    source = ablation if isinstance(ablation, effects.Source) else _source(ablation, task, seed)
    wanted = sites.all(model, "z")
    if source.kind == "zero":
        return Ablating(str(source))
    if source.kind == "mean":
        over = task.corrupt if source.over is None else source.over
        means = effects.mean_over(model, over, wanted, batch_size=batch_size)
        return Ablating(str(source), means)
    if source.kind == "constant":
        assert source.constants is not None
        return Ablating(str(source), source.constants)
    found = effects.values(model, task, wanted, source=source, batch_size=batch_size)
    return Ablating(str(source), found)


def _source(ablation: str, task: Task, seed: int) -> effects.Source:
    if ablation not in get_args(Ablation):
        there = ", ".join(map(repr, get_args(Ablation)))
        raise ValueError(f"no ablation {ablation!r}; there are {there}, or an effects.Source")
    # Without `over`, the longest prompt could be given no other one's activations.
    over = task.corrupt if ablation == "resample" else None
    return effects.Source(ablation, over=over, seed=seed)  # type: ignore[arg-type]
