"""How much of what a model does its circuits do: faithfulness, alone and over sizes."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hooks import HookedModel
from hooks.choices import check_choice
from workbench.effects import Source
from workbench.effects.sources import Kind
from workbench.metrics import Metric
from workbench.patching.circuits import Circuit
from workbench.patching.scores import By, EdgeScores, How
from workbench.patching.shares import Shares, trapezoid
from workbench.results import Result
from workbench.statistics import Estimate
from workbench.tasks import Task
from workbench.tasks.provenance import labels

FRACTIONS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""The shares of all edges at which MIB (Mueller et al. 2025) measures circuits."""


@dataclass(frozen=True, eq=False)
class Faithfulness(Result):
    """Share of a metric that each circuit keeps. 1: as the whole model does; 0: as no edges do.

    (metric of the circuit - of no edges) / (of the whole model - of no edges), means over
    prompts before the division. Above 1 the circuit does more than the model, below 0 the
    opposite of it.
    """

    faithfulness: Float[Tensor, " circuit"] = field(metadata={"means": "share of the metric kept"})
    low: Float[Tensor, " circuit"] = field(metadata={"means": "lower 95 % bound"})
    high: Float[Tensor, " circuit"] = field(metadata={"means": "upper 95 % bound"})
    size: Int[Tensor, " circuit"] = field(metadata={"means": "number of edges"})
    per_prompt: Float[Tensor, "circuit batch"] = field(metadata={"means": "metric of the circuit"})
    full: Float[Tensor, " batch"] = field(metadata={"means": "metric of the whole model"})
    empty: Float[Tensor, " batch"] = field(metadata={"means": "metric without any edge"})
    circuit: list[str] = field(metadata={"axis": "circuit"})
    edges: int
    source: str
    metric: str
    unit: str
    task: str
    task_digest: str
    model: str
    model_digest: str
    caveat: str = ""

    def sentence(self) -> str:
        """What was found, in a sentence or two."""
        best = int(self.faithfulness.sub(1).abs().argmin())
        value, low, high = (float(v[best]) for v in (self.faithfulness, self.low, self.high))
        most = f"Closest to the model among {len(self.circuit)}: " * (len(self.circuit) > 1)
        return (
            f"{most}{self.circuit[best]} ({int(self.size[best])} of {self.edges} edges) keeps "
            f"{value:.0%} [{low:.0%}, {high:.0%}] of {self.metric} on {self.task} in "
            f"{self.model}, where cut edges carry: {self.source}. {self.caveat}"
        ).strip()

    def headline(self) -> dict[str, Any]:
        """Faithfulness and size of the circuit that is closest to the model."""
        best = int(self.faithfulness.sub(1).abs().argmin())
        return {"faithfulness": float(self.faithfulness[best]), "edges": int(self.size[best])}


@dataclass(frozen=True, eq=False)
class FaithfulnessCurve(Result):
    """Share of a metric kept by circuits of growing size: 0 without edges, 1 with all of them.

    `cpr` and `cmd` are the areas under the curve and between the curve and 1, as MIB (Mueller et
    al. 2025) defines them. Peculiar in that: the area begins at the smallest fraction (0.001),
    not at 0; half of its width lies beyond 0.5, where all curves are close to 1, and in fact no
    circuit is measured between; where the curve crosses 1, the straight line between |1 - f| of
    both ends counts area that is not there. MIB ranks edges by help for CPR (more is better, and
    above 1 better still) and by magnitude for CMD (less is better): `by` says which this is.
    """

    fraction: Float[Tensor, " circuit"] = field(metadata={"means": "share of all edges"})
    size: Int[Tensor, " circuit"] = field(metadata={"means": "number of edges"})
    faithfulness: Float[Tensor, " circuit"] = field(metadata={"means": "share of the metric kept"})
    low: Float[Tensor, " circuit"] = field(metadata={"means": "lower 95 % bound"})
    high: Float[Tensor, " circuit"] = field(metadata={"means": "upper 95 % bound"})
    per_prompt: Float[Tensor, "circuit batch"] = field(metadata={"means": "metric of the circuit"})
    cpr: Estimate
    cmd: float
    method: str
    by: str
    how: str
    source: str
    metric: str
    unit: str
    task: str
    task_digest: str
    model: str
    model_digest: str
    caveat: str = ""

    def smallest(self, share: float = 0.9) -> int:
        """The fewest edges, of the sizes that were measured, that keep `share` of the metric."""
        return smallest(self.size, self.faithfulness, share)

    def sentence(self) -> str:
        """What was found, in a few sentences."""
        size = self.smallest()
        return (
            f"Of {int(self.size.max())} edges of {self.model}, the {size} that {self.method} ranks "
            f"first ({self.by}, {self.how}) keep at least 90 % of {self.metric} on {self.task}, "
            f"where cut edges carry: {self.source}. CPR {self.cpr}, CMD {self.cmd:.3f}. "
            f"{self.caveat}"
        ).strip()

    def headline(self) -> dict[str, Any]:
        """The two areas, and the size that keeps 90 %."""
        return {"cpr": self.cpr.value, "cmd": self.cmd, "edges": self.smallest()}


def faithfulness(
    model: HookedModel,
    task: Task,
    circuits: Circuit | Sequence[Circuit],
    *,
    metric: Metric,
    source: Source | Kind = "counterfactual",
    batch_size: int = 16,
    seed: int = 0,
) -> Faithfulness:
    """How much of the metric each circuit keeps on the clean prompts, its other edges cut."""
    circuits = [circuits] if isinstance(circuits, Circuit) else list(circuits)
    if not circuits:
        raise ValueError("no circuit was given: name at least one")
    found = Shares.of(model, task, circuits, metric=metric, source=source, batch_size=batch_size)
    value, low, high = found.kept(seed)
    return Faithfulness(
        faithfulness=value[2:],
        low=low[2:],
        high=high[2:],
        size=torch.tensor([len(circuit) for circuit in circuits]),
        per_prompt=found.values[2:],
        full=found.values[1],
        empty=found.values[0],
        circuit=[circuit.name for circuit in circuits],
        edges=circuits[0].graph.size,
        source=str(Source.of(source)),
        metric=metric.name,
        unit=metric.unit,
        **_labels(model, task, found),
    )


def faithfulness_curve(
    model: HookedModel,
    task: Task,
    scores: EdgeScores,
    *,
    metric: Metric,
    by: By = "magnitude",
    how: How = "top",
    fractions: Sequence[float] = FRACTIONS,
    source: Source | Kind = "counterfactual",
    batch_size: int = 16,
) -> FaithfulnessCurve:
    """Faithfulness of the first edges of a ranking, for growing numbers of edges.

    `fractions` of all edges, the counts rounded down; no edges and all of them are added.
    """
    check_choice("by", by, By)
    check_choice("how", how, How)
    graph = scores.graph
    fractions = sorted({*fractions, 1.0} - {0.0})
    if len(fractions) < 2:
        raise ValueError("fractions: give at least one share of all edges below 1")
    if not 0 < fractions[0] <= fractions[-1] <= 1:
        raise ValueError(f"fractions of all edges lie between 0 and 1, got {fractions}")
    sizes = [int(fraction * graph.size) for fraction in fractions]
    circuits = [scores.circuit(size, by=by, how=how) for size in sizes[:-1]]
    found = Shares.of(model, task, circuits, metric=metric, source=source, batch_size=batch_size)
    order = [0, *range(2, len(found.values)), 1]
    value, low, high = (one[order] for one in found.kept(0))
    return FaithfulnessCurve(
        fraction=torch.tensor([0.0, *fractions]),
        size=torch.tensor([0, *(len(circuit) for circuit in circuits), graph.size]),
        faithfulness=value,
        low=low,
        high=high,
        per_prompt=found.values[order],
        cpr=found.weighted(order[1:], trapezoid(fractions)),
        cmd=float((trapezoid(fractions) * (1 - value[1:]).abs()).sum()),
        method=scores.method,
        by=by,
        how=how,
        source=str(Source.of(source)),
        metric=metric.name,
        unit=metric.unit,
        **_labels(model, task, found),
    )


def smallest(size: Int[Tensor, " circuit"], kept: Float[Tensor, " circuit"], share: float) -> int:
    """The fewest edges of circuits that keep a share; an error says what the best one keeps."""
    reached = size[kept >= share]
    if not len(reached):
        best = int(kept.nan_to_num(nan=-torch.inf).argmax())
        raise ValueError(
            f"no circuit that was measured keeps {share:.0%}: the most is {float(kept[best]):.0%}, "
            f"by {int(size[best])} edges; ask for less"
        )
    return int(reached.min())


def _labels(model: HookedModel, task: Task, found: Shares) -> dict[str, str]:
    known = labels(model, task)
    if found.gap_is_uncertain:
        known["caveat"] = (
            f"Caveat: over these {len(task)} prompts the gap between all edges and none could be "
            f"chance, so shares of it mean little. {known['caveat']}"
        ).strip()
    return known
