"""Which of all neurons matter to a task: estimated for all from one gradient, exact for the top.

The estimate is attribution patching (Nanda 2023), its gradient taken on the clean prompts: first
order, so that it misses what saturates. The exact effects say how far it can be trusted.
"""

from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hooks import HookedModel, sites
from workbench import effects, statistics
from workbench.metrics import Metric
from workbench.neurons.ablation import NeuronEffects, ablate_each
from workbench.neurons.naming import Neuron, at, in_order
from workbench.results import Result
from workbench.tasks import Task, provenance


@dataclass(frozen=True, eq=False)
class Screen(Result):
    """Effect of ablating each neuron alone, estimated, and exact for the top. Negative: it helps.

    The estimate is attribution patching: (replacement - activation) . gradient, summed over
    positions. `agreement` is Spearman's correlation of estimate and exact effect over the neurons
    that were ablated, half of them drawn at random.
    """

    estimate: Float[Tensor, "layer neuron"] = field(metadata={"means": "estimated mean change"})
    chosen: Int[Tensor, "cell part"] = field(metadata={"means": "layer and number of the ablated"})
    exact: NeuronEffects
    top: int
    agreement: float
    agreement_top: float
    metric: str
    unit: str
    ablation: str
    task: str
    task_digest: str
    model: str
    model_digest: str
    caveat: str = ""

    @property
    def strongest(self) -> list[Neuron]:
        """The ablated neurons, the one whose exact effect is largest first."""
        order = self.exact.effect.abs().argsort(descending=True, stable=True)
        return [Neuron(*self.chosen[one].tolist()) for one in order.tolist()]

    def sentence(self) -> str:
        """What was found, in a sentence or two."""
        said = ", ".join(f"{one} ({self.exact.of(one):+.3f})" for one in self.strongest[:3])
        return (
            f"Estimated for {self.estimate.numel():,} neurons and exact for the top {self.top}: "
            f"{self.ablation} ablation on {self.task} in {self.model} changes {self.metric} "
            f"({self.unit}) most at {said}. Estimates agree with exact effects with a rank "
            f"correlation of {self.agreement:.2f} ({self.agreement_top:.2f} among the top). "
            f"{self.caveat}"
        ).strip()

    def headline(self) -> dict[str, float]:
        """The strongest exact effect, and how well estimates order the neurons."""
        return {**self.exact.headline(), "agreement": self.agreement}

    def table(self, n: int = 15) -> str:
        """The neurons with the strongest exact effects as text."""
        return self.exact.table(n)


def screen(
    model: HookedModel,
    task: Task,
    *,
    metric: Metric,
    ablation: Literal["zero", "mean", "counterfactual"] = "counterfactual",
    n: int = 20,
    batch_size: int = 16,
    seed: int = 0,
) -> Screen:
    """Estimate what ablating every neuron does, then do it for the top `n`, and for `n` others.

    The others are drawn with `seed`; they show whether the estimate is any good where it is small.
    """
    found = effects.attribute(
        model, task, sites.all(model, "neuron"), metric=metric, source=ablation,
        summed=("pos",), batch_size=batch_size,
    )  # fmt: skip
    estimate = found.stacked("neuron").mean(-1)
    top = in_order(estimate.abs(), n)
    rest = torch.randperm(estimate.numel(), generator=statistics.derive(seed, "screen"))
    width = estimate.shape[1]
    others = [Neuron(*divmod(one, width)) for one in rest.tolist()]
    others = [one for one in others if one not in set(top)][:n]
    exact = ablate_each(model, task, [*top, *others], metric=metric, ablation=ablation, seed=seed)
    guess = at(estimate, [*top, *others])
    return Screen(
        estimate=estimate, chosen=torch.tensor([*top, *others]), exact=exact, top=len(top),
        agreement=statistics.rank_correlation(guess, exact.effect),
        agreement_top=_correlation(guess[: len(top)], exact.effect[: len(top)]),
        metric=metric.name, unit=metric.unit, ablation=ablation,
        **provenance.labels(model, task),
    )  # fmt: skip


def _correlation(one: Tensor, other: Tensor) -> float:
    return statistics.rank_correlation(one, other) if len(one) > 1 else float("nan")
