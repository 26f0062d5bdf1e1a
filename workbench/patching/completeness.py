"""Is a circuit all of the mechanism? (Completeness, Wang et al. 2022)"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from hooks import HookedModel
from workbench.effects import Source
from workbench.effects.sources import Kind
from workbench.metrics import Metric
from workbench.patching.circuits import Circuit
from workbench.patching.cutting import Cutter
from workbench.results import Result
from workbench.tasks import Task
from workbench.tasks.provenance import labels

Search = Literal["random", "greedy"]


@dataclass(frozen=True, eq=False)
class Completeness(Result):
    """Metric of circuit and model when the same components are taken out of both; equal is good.

    A circuit that is complete stays faithful whatever is taken out: a difference says that the
    model has something that stands in for what was taken out, and the circuit has not. The first
    set is empty, so that its difference is what faithfulness is about.
    """

    of_circuit: Float[Tensor, "set batch"] = field(metadata={"means": "metric of the circuit"})
    of_model: Float[Tensor, "set batch"] = field(metadata={"means": "metric of the model"})
    removed: list[list[str]] = field(metadata={"axis": "set"})
    circuit: str
    size: int
    source: str
    metric: str
    unit: str
    task: str
    task_digest: str
    model: str
    model_digest: str
    caveat: str = ""

    @property
    def incompleteness(self) -> Float[Tensor, " set"]:
        """The size of the difference of the means over prompts, for each set."""
        return (self.of_circuit - self.of_model).mean(dim=1).abs()

    @property
    def worst(self) -> list[str]:
        """The components whose loss sets circuit and model furthest apart."""
        return self.removed[int(self.incompleteness.argmax())]

    def sentence(self) -> str:
        """What was found, in a sentence."""
        gaps, worst = self.incompleteness, ", ".join(self.worst) or "nothing"
        return (
            f"Over {len(self.removed)} sets of components of {self.circuit} that are taken out of "
            f"it and of {self.model}, {self.metric} on {self.task} differs by at most "
            f"{float(gaps.max()):.2f} {self.unit} (without: {worst}); with nothing taken out by "
            f"{float(gaps[0]):.2f}. {self.caveat}"
        ).strip()

    def headline(self) -> dict[str, Any]:
        """The largest difference, and that with nothing taken out."""
        gaps = self.incompleteness
        return {"incompleteness": float(gaps.max()), "unfaithfulness": float(gaps[0])}


def completeness(
    model: HookedModel,
    task: Task,
    circuit: Circuit,
    *,
    metric: Metric,
    search: Search = "random",
    sets: int = 20,
    source: Source | Kind = "counterfactual",
    batch_size: int = 16,
    seed: int = 0,
) -> Completeness:
    """Take the same components out of circuit and model, and compare.

    search   "random": each component of the circuit is taken out with chance 1/2, `sets` times.
             "greedy": from nothing on, the component that sets circuit and model furthest apart
             is added, `sets` times; a run of both for each component that is left.

    A component is taken out by cutting every edge from and to it. The embedding is never.
    """
    if search not in get_args(Search):
        raise ValueError(f"no search {search!r}; there are {', '.join(get_args(Search))}")
    cutter = Cutter.of(
        model, task, circuit.graph, metric=metric, source=source, batch_size=batch_size
    )
    candidates = [name for name in circuit.components if name != circuit.graph.writers[0]]
    if search == "random":
        generator = torch.Generator().manual_seed(seed)
        draws = torch.rand(sets, len(candidates), generator=generator) < 0.5
        removed = [
            [],
            *([c for c, out in zip(candidates, row, strict=True) if out] for row in draws),
        ]
        of_circuit, of_model = _without(cutter, circuit, removed)
    else:
        removed, of_circuit, of_model = _greedily(cutter, circuit, candidates, sets)
    return Completeness(
        of_circuit=of_circuit,
        of_model=of_model,
        removed=removed,
        circuit=circuit.name,
        size=len(circuit),
        source=str(Source.of(source)),
        metric=metric.name,
        unit=metric.unit,
        **labels(model, task),
    )


def _without(
    cutter: Cutter, circuit: Circuit, removed: Sequence[Sequence[str]]
) -> tuple[Float[Tensor, "set batch"], Float[Tensor, "set batch"]]:
    """The metric of circuit and of model without each set of components."""
    whole = Circuit.full(circuit.graph)
    smaller = [one.without(*names) for one in (circuit, whole) for names in removed]
    values = cutter.measure(smaller)
    return values[: len(removed)], values[len(removed) :]


def _greedily(
    cutter: Cutter, circuit: Circuit, candidates: list[str], steps: int
) -> tuple[list[list[str]], Float[Tensor, "set batch"], Float[Tensor, "set batch"]]:
    chosen: list[list[str]] = [[]]
    values = [_without(cutter, circuit, chosen)]
    for _ in range(min(steps, len(candidates))):
        longer = [[*chosen[-1], name] for name in candidates if name not in chosen[-1]]
        of_circuit, of_model = _without(cutter, circuit, longer)
        best = int((of_circuit - of_model).mean(dim=1).abs().argmax())
        chosen.append(longer[best])
        values.append((of_circuit[best : best + 1], of_model[best : best + 1]))
    of_circuit, of_model = (torch.cat(each) for each in zip(*values, strict=True))
    return chosen, of_circuit, of_model
