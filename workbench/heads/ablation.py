"""How much each attention head matters to a task when it alone is ablated."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from jaxtyping import Float
from torch import Tensor

from hooks import Edit, HookedModel, Site, edits, heads, sites
from workbench import effects, statistics
from workbench.metrics import Metric
from workbench.results import Result
from workbench.tasks import Task, solved

Head = tuple[int, int]
"""(layer, head), both counted from zero."""

Ablation = Literal["zero", "mean"]


@dataclass(frozen=True, eq=False)
class HeadEffects(Result):
    """Change in a metric when each head is ablated alone. Negative: the head was helping.

    `p` is corrected for testing every head at once (max-statistic over sign flips, Westfall
    & Young 1993): the chance that any head of a model in which no head matters looks as
    strong. `low` and `high` bound each head's own mean effect, uncorrected. Everything is NaN
    for a head that was removed from the model.
    """

    effect: Float[Tensor, "layer head"] = field(metadata={"means": "mean change in the metric"})
    low: Float[Tensor, "layer head"] = field(metadata={"means": "lower 95 % bound of effect"})
    high: Float[Tensor, "layer head"] = field(metadata={"means": "upper 95 % bound of effect"})
    p: Float[Tensor, "layer head"] = field(metadata={"means": "p-value, corrected for all heads"})
    per_prompt: Float[Tensor, "layer head batch"] = field(
        metadata={"means": "change in the metric of each prompt"}
    )
    baseline: Float[Tensor, " batch"] = field(metadata={"means": "the metric without ablation"})
    metric: str
    unit: str
    ablation: str
    task: str
    task_digest: str
    model: str
    model_digest: str
    caveat: str = ""

    def most_helpful(self, n: int) -> list[Head]:
        """The `n` heads whose loss costs most, worst first."""
        return self._ranked(self.effect, n)

    def least_helpful(self, n: int) -> list[Head]:
        """The `n` heads whose loss costs least (or gains most), best to remove first."""
        return self._ranked(-self.effect, n)

    def significant(self, level: float = 0.05) -> list[Head]:
        """The heads whose corrected p-value is at most `level`, strongest effect first."""
        order = self._ranked(-self.effect.abs(), self.effect.numel())
        return [head for head in order if self.p[head] <= level]

    def sentence(self) -> str:
        """What was found, in one sentence or two."""
        found = self.significant()
        helping = [head for head in found if self.effect[head] < 0]
        base = self.baseline.mean().item()
        there = int((~self.effect.isnan()).sum())
        text = (
            f"Of {there} heads of {self.model}, {len(found)} change {self.metric} on "
            f"{self.task} when {self.ablation}-ablated alone (corrected p ≤ 0.05): {len(helping)} "
            f"help, {len(found) - len(helping)} get in the way. Without ablation it is "
            f"{base:+.2f} {self.unit} over {len(self.baseline)} prompts."
        )
        if helping:
            layer, head = helping[0]
            value, low, high = (float(v[layer, head]) for v in (self.effect, self.low, self.high))
            text += (
                f" The most helpful is head {layer}.{head}: "
                f"{value:+.2f} {self.unit} [{low:+.2f}, {high:+.2f}] without it."
            )
        return f"{text} {self.caveat}".strip()

    def headline(self) -> dict[str, float]:
        """The strongest helping head's effect with its bounds, and how many are significant."""
        layer, head = self.most_helpful(1)[0]
        at = (layer, head)
        return {
            "effect": float(self.effect[at]),
            "low": float(self.low[at]),
            "high": float(self.high[at]),
            "layer": layer,
            "head": head,
            "significant": len(self.significant()),
        }

    def table(self, n: int = 15) -> str:
        """The strongest heads as text, one a line."""
        order = self._ranked(-self.effect.abs(), n)
        return statistics.table(order, result=self, named="head", value="effect")

    def _ranked(self, by: Float[Tensor, "layer head"], n: int) -> list[Head]:
        there = int((~by.isnan()).sum())  # heads that were removed sort last
        order = by.flatten().argsort(stable=True)[: min(n, there)].tolist()
        width = self.effect.shape[1]
        return [(index // width, index % width) for index in order]


def ablate_each(
    model: HookedModel,
    task: Task,
    *,
    metric: Metric,
    ablation: Ablation = "zero",
    batch_size: int = 64,
    memory: str | int = "2GB",
    keep: str | Path | None = None,
    seed: int = 0,
) -> HeadEffects:
    """Ablate every head of `model` in turn, alone, at all positions of the clean prompts.

    "zero" writes zeros in place of the head's z; "mean" writes its mean over the real tokens
    of the task's corrupt prompts, in which what the task asks for is absent. The first tokens
    are left out of that mean: attention sinks make them unlike all others. The effects are exact
    (`effects.exact`, which also says what `memory` and `keep` do); `batch_size` prompts at a time
    go into the means. `seed` draws the bootstrap and the sign flips.
    """
    if len(task) < 2:
        raise ValueError(f"{task.name} has one prompt: bounds and tests need at least two")
    writes = _edits(model, task, ablation, batch_size)
    cells = [{Site("z", layer): writes(layer, head)} for layer, head in heads.all(model)]
    found = effects.exact(model, task, cells, metrics=[metric], memory=memory, keep=keep, seed=seed)
    return _result(
        model, task, found.effect[0], found.baseline[0], metric=metric, ablation=ablation, seed=seed
    )


def _edits(
    model: HookedModel, task: Task, ablation: Ablation, batch_size: int
) -> Callable[[int, int], Edit]:
    """A function from layer and head to the edit that ablates it."""
    if ablation == "zero":
        return lambda layer, head: edits.zero(heads=[head])
    if ablation != "mean":
        raise ValueError(f"no ablation {ablation!r}; there are 'zero' and 'mean'")
    means = _means(model, task, batch_size)
    return lambda layer, head: edits.mean(means[Site("z", layer)], heads=[head])


def _means(
    model: HookedModel, task: Task, batch_size: int
) -> dict[Site, Float[Tensor, "head d_head"]]:
    """Each head's mean z over the real tokens of the corrupt prompts, but for the first ones."""
    wanted = sites.all(model, "z")
    return effects.mean_over(model, task.corrupt, wanted, batch_size=batch_size)


def _result(
    model: HookedModel,
    task: Task,
    per_prompt: Float[Tensor, "cell batch"],
    baseline: Float[Tensor, " batch"],
    *,
    metric: Metric,
    ablation: str,
    seed: int,
) -> HeadEffects:
    measured = statistics.bounds(per_prompt, seed=seed)
    test = statistics.permutation_test(per_prompt, seed=seed)
    origin = getattr(model, "origin", None)
    return HeadEffects(
        **{
            name: heads.on_grid(model, one.float())
            for name, one in zip(("effect", "low", "high"), measured, strict=True)
        },
        p=heads.on_grid(model, test.corrected.float()),
        per_prompt=heads.on_grid(model, per_prompt),
        baseline=baseline,
        metric=metric.name,
        unit=metric.unit,
        ablation=ablation,
        task=task.name,
        task_digest=task.digest,
        model=getattr(origin, "name", "a model"),
        model_digest=getattr(origin, "digest", ""),
        caveat=_caveat(model, task),
    )


def _caveat(model: HookedModel, task: Task) -> str:
    found = solved(model, task)
    return "" if found.is_solved else f"Caveat: {found.sentence()} The effects may be noise."
