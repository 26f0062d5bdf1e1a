"""How much each attention head matters to a task when it alone is ablated."""

from dataclasses import dataclass, field
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from hooks import HookedModel, heads
from workbench import effects, statistics
from workbench.heads.ablating import Ablation, ablating
from workbench.heads.bounding import bounded
from workbench.heads.naming import Head
from workbench.heads.ranking import Importance, Kind, in_order, labels
from workbench.metrics import Metric
from workbench.tasks import Task


@dataclass(frozen=True, eq=False)
class HeadEffects(Importance):
    """Change in a metric when each head is ablated alone. Negative: the head was helping.

    `p` is corrected for testing every head at once (max-statistic over sign flips, Westfall
    & Young 1993): the chance that any head of a model in which no head matters looks as
    strong. The null is that each prompt's changes are as likely to be up as down, as they are
    where answers and foils are exchanged at random; a model with random weights need not meet it,
    since its heads too change the metric of the prompts that were drawn. `low` and `high` bound
    each head's own mean effect, uncorrected.
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

    @property
    def way(self) -> str:
        """How it was measured."""
        return f"{self.ablation} ablation"

    @property
    def kind(self) -> Kind:
        """What it looks at."""
        return "alone"

    @property
    def score(self) -> Float[Tensor, "layer head"]:
        """What the loss of each head costs."""
        return -self.effect

    @property
    def score_of_prompts(self) -> Float[Tensor, "layer head batch"]:
        """What it costs each prompt."""
        return -self.per_prompt

    def most_helpful(self, n: int) -> list[Head]:
        """The `n` heads whose loss costs most, worst first."""
        return self.ranked()[:n]

    def least_helpful(self, n: int) -> list[Head]:
        """The `n` heads whose loss costs least (or gains most), best to remove first."""
        return in_order(self.effect)[:n]

    def significant(self, level: float = 0.05) -> list[Head]:
        """The heads whose corrected p-value is at most `level`, strongest effect first."""
        return [head for head in in_order(self.effect.abs()) if self.p[head] <= level]

    def sentence(self) -> str:
        """What was found, in one sentence or two."""
        found = self.significant()
        helping = [head for head in found if self.effect[head] < 0]
        base = self.baseline.mean().item()
        text = (
            f"Of {len(self.ranked())} heads of {self.model}, {len(found)} change {self.metric} on "
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
        order = in_order(self.effect.abs())[:n]
        return statistics.table(order, result=self, named="head", value="effect")


def ablate_each(
    model: HookedModel,
    task: Task,
    *,
    metric: Metric,
    ablation: Ablation | effects.Source = "zero",
    batch_size: int = 64,
    memory: str | int = "2GB",
    keep: str | Path | None = None,
    seed: int = 0,
) -> HeadEffects:
    """Ablate every head of `model` in turn, alone, at all positions of the clean prompts.

    "zero" writes zeros in place of the head's z. The others write what it is in the task's
    corrupt prompts, in which what the task asks for is absent: "mean" its mean over their real
    tokens but the first (attention sinks make those unlike all others), "resample" what it is in
    one of them, at least as long, drawn with `seed`, "counterfactual" what it is in the prompt's
    own pair. An `effects.Source` takes them from elsewhere. The effects are exact
    (`effects.exact`, which also says what `memory` and `keep` do); `batch_size` prompts at a time
    go into the means. `seed` also draws the bootstrap and the sign flips.
    """
    if len(task) < 2:
        raise ValueError(f"{task.name} has one prompt: bounds and tests need at least two")
    how = ablating(model, task, ablation, batch_size=batch_size, seed=seed)
    cells = [how.cell([head]) for head in heads.all(model)]
    found = effects.exact(model, task, cells, metrics=[metric], memory=memory, keep=keep, seed=seed)
    per_prompt = heads.on_grid(model, found.effect[0])
    effect, low, high, p = bounded(per_prompt, seed=seed)
    return HeadEffects(
        effect=effect,
        low=low,
        high=high,
        p=p,
        per_prompt=per_prompt,
        baseline=found.baseline[0],
        ablation=how.source,
        **labels(model, task, metric),
    )
