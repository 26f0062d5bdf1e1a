"""What sets of heads cost beyond the sum of their members.

An effect is a change in a metric, so it is negative where the ablated heads were helping. The
interaction of a set is its effect minus the sum of its members' effects, each ablated alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from hooks import HookedModel
from workbench import effects, statistics
from workbench.effects import Source
from workbench.heads.ablating import Ablation
from workbench.heads.naming import Head, named
from workbench.heads.redundancy import ready
from workbench.heads.sets import cells
from workbench.metrics import Metric
from workbench.results import Result
from workbench.tasks import Task
from workbench.tasks.provenance import labels


@dataclass(frozen=True, eq=False)
class Interaction(Result):
    """What each set of heads costs beyond the sum of its members. Negative: more than the sum.

    `effect` is the change in the metric with the whole set ablated, `sum` that of its members
    ablated one by one and added up, `interaction` the difference. `p` says whether that
    difference is zero, corrected for all sets.
    """

    interaction: Float[Tensor, " set"] = field(metadata={"means": "effect minus sum"})
    low: Float[Tensor, " set"] = field(metadata={"means": "lower 95 % bound of interaction"})
    high: Float[Tensor, " set"] = field(metadata={"means": "upper 95 % bound of interaction"})
    p: Float[Tensor, " set"] = field(metadata={"means": "p-value, corrected for all sets"})
    effect: Float[Tensor, " set"] = field(metadata={"means": "effect of ablating the whole set"})
    effect_low: Float[Tensor, " set"] = field(metadata={"means": "lower 95 % bound of effect"})
    effect_high: Float[Tensor, " set"] = field(metadata={"means": "upper 95 % bound of effect"})
    sum: Float[Tensor, " set"] = field(metadata={"means": "sum of its members' effects, alone"})
    effect_per_prompt: Float[Tensor, "set batch"]
    sum_per_prompt: Float[Tensor, "set batch"]
    baseline: Float[Tensor, " batch"] = field(metadata={"means": "the metric without ablation"})
    sets: list[str] = field(metadata={"axis": "set", "means": "the heads, joined by +"})
    metric: str
    unit: str
    ablation: str
    task: str
    task_digest: str
    model: str
    model_digest: str
    caveat: str = ""

    @property
    def ratio(self) -> Float[Tensor, " set"]:
        """Effect of the whole set over the sum of its members': 1 where they only add up."""
        return self.effect / self.sum

    def sentence(self) -> str:
        """What was found about the set that departs most from its sum."""
        at = int(self.interaction.abs().argmax())
        value, low, high = (float(v[at]) for v in (self.interaction, self.low, self.high))
        most = f" (the most of {len(self.sets)} sets)" * (len(self.sets) > 1)
        return (
            f"Ablating {self.sets[at]} of {self.model} together changes {self.metric} on "
            f"{self.task} by {float(self.effect[at]):+.2f} {self.unit}, one by one by "
            f"{float(self.sum[at]):+.2f} in all: {value:+.2f} [{low:+.2f}, {high:+.2f}] beyond "
            f"the sum{most}, corrected p = {float(self.p[at]):.3g}. {self.caveat}"
        ).strip()

    def headline(self) -> dict[str, Any]:
        """The set that departs most from the sum of its members."""
        at = int(self.interaction.abs().argmax())
        found = {name: float(getattr(self, name)[at]) for name in ("interaction", "low", "high")}
        return {"set": self.sets[at], **found, "ratio": float(self.ratio[at])}


def interaction(
    model: HookedModel,
    task: Task,
    sets: Sequence[Sequence[Head]],
    *,
    metric: Metric,
    ablation: Source | Ablation = "mean",
    seed: int = 0,
) -> Interaction:
    """Ablate each set of heads as a whole, and each of their members alone."""
    listed = [ready(model, task, some) for some in sets]
    if not listed:
        raise ValueError("no set of heads was given: give a list of lists of heads")
    members = sorted({head for some in listed for head in some})
    sets = [*([head] for head in members), *listed]
    edits = cells(model, task, sets, ablation=ablation, seed=seed)
    found = effects.exact(model, task, edits, metrics=[metric], seed=seed)
    single, whole = found.effect[0].split([len(members), len(listed)])
    summed = torch.stack(
        [single[[members.index(head) for head in some]].double().sum(0) for some in listed]
    )
    beyond = whole.double() - summed
    mean, low, high = statistics.bounds(beyond, seed=seed)
    effect, effect_low, effect_high = statistics.bounds(whole, seed=seed)
    return Interaction(
        interaction=mean.float(),
        low=low.float(),
        high=high.float(),
        p=statistics.permutation_test(beyond, seed=seed).corrected.float(),
        effect=effect.float(),
        effect_low=effect_low.float(),
        effect_high=effect_high.float(),
        sum=summed.mean(-1).float(),
        effect_per_prompt=whole,
        sum_per_prompt=summed.float(),
        baseline=found.baseline[0],
        sets=[named(*some) for some in listed],
        metric=metric.name,
        unit=metric.unit,
        ablation=str(Source.of(ablation)),
        **labels(model, task),
    )
