"""Is a circuit nothing but the mechanism? (Minimality, Wang et al. 2022)"""

from dataclasses import dataclass, field
from typing import Any

from jaxtyping import Float
from torch import Tensor

from hooks import HookedModel
from workbench import statistics
from workbench.effects import Source
from workbench.effects.sources import Kind
from workbench.metrics import Metric
from workbench.patching.circuits import Circuit
from workbench.patching.cutting import Cutter
from workbench.results import Result
from workbench.tasks import Task
from workbench.tasks.provenance import labels


@dataclass(frozen=True, eq=False)
class Minimality(Result):
    """Change in the metric when a circuit loses one edge. Negative: the edge was helping.

    `p` is corrected for looking at all edges of the circuit (sign flips, largest over edges).
    """

    effect: Float[Tensor, " edge"] = field(metadata={"means": "mean change in the metric"})
    low: Float[Tensor, " edge"] = field(metadata={"means": "lower 95 % bound"})
    high: Float[Tensor, " edge"] = field(metadata={"means": "upper 95 % bound"})
    p: Float[Tensor, " edge"] = field(metadata={"means": "p-value, corrected for all edges"})
    per_prompt: Float[Tensor, "edge batch"] = field(metadata={"means": "change of each prompt"})
    edge: list[str] = field(metadata={"axis": "edge"})
    baseline: Float[Tensor, " batch"] = field(metadata={"means": "metric of the circuit"})
    circuit: str
    source: str
    metric: str
    unit: str
    task: str
    task_digest: str
    model: str
    model_digest: str
    caveat: str = ""

    def idle(self, level: float = 0.05) -> list[str]:
        """The edges whose loss does not change the metric significantly, least effect first."""
        order = self.effect.abs().argsort(stable=True).tolist()
        return [self.edge[at] for at in order if self.p[at] > level]

    def sentence(self) -> str:
        """What was found, in a sentence."""
        most = int(self.effect.abs().argmax())
        return (
            f"Of {len(self.edge)} edges of {self.circuit}, {len(self.idle())} can be cut one at a "
            f"time without a significant change of {self.metric} on {self.task} (corrected p > "
            f"0.05). The most is lost with {self.edge[most]}: {float(self.effect[most]):+.2f} "
            f"{self.unit}. {self.caveat}"
        ).strip()

    def headline(self) -> dict[str, Any]:
        """How many edges there are, and how many do nothing by themselves."""
        return {"edges": len(self.edge), "idle": len(self.idle())}


def minimality(
    model: HookedModel,
    task: Task,
    circuit: Circuit,
    *,
    metric: Metric,
    source: Source | Kind = "counterfactual",
    batch_size: int = 16,
    seed: int = 0,
) -> Minimality:
    """Cut each edge of the circuit in turn, the rest of the circuit staying as it is.

    Each edge alone: edges that stand in for each other all look idle. (Wang et al. also take
    sets out before; `completeness` does.)
    """
    places = circuit.mask.nonzero().tolist()
    if not places or len(task) < 2:
        raise ValueError(
            f"a circuit of {len(places)} edges over {len(task)} prompts: minimality needs an edge "
            "to cut, and two prompts for its bounds"
        )
    cutter = Cutter.of(
        model, task, circuit.graph, metric=metric, source=source, batch_size=batch_size
    )
    values = cutter.measure([circuit, *(_less(circuit, *place) for place in places)])
    per_prompt = values[1:] - values[0]
    effect, low, high = statistics.bounds(per_prompt, seed=seed)
    return Minimality(
        effect=effect.float(),
        low=low.float(),
        high=high.float(),
        p=statistics.permutation_test(per_prompt, seed=seed).corrected.float(),
        per_prompt=per_prompt,
        edge=circuit.edges,
        baseline=values[0],
        circuit=circuit.name,
        source=str(Source.of(source)),
        metric=metric.name,
        unit=metric.unit,
        **labels(model, task),
    )


def _less(circuit: Circuit, writer: int, reader: int) -> Circuit:
    mask = circuit.mask.clone()
    mask[writer, reader] = False
    return Circuit(circuit.graph, mask, circuit.name)
