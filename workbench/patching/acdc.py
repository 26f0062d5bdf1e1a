"""Circuits found by cutting one edge after the other (ACDC, Conmy et al. 2023)."""

from dataclasses import dataclass, field
from math import isnan
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from tqdm.auto import tqdm

from hooks import HookedModel, last_logits
from workbench import metrics
from workbench.effects import Source
from workbench.effects.sources import Kind
from workbench.metrics import Metric
from workbench.patching.circuits import Circuit
from workbench.patching.cutting import Cutter
from workbench.patching.exact_edges import MOST, check_small
from workbench.patching.graph import Graph
from workbench.results import Result
from workbench.tasks import Task
from workbench.tasks.provenance import labels


@dataclass(frozen=True, eq=False)
class AcdcCircuit(Result):
    """What is left when every edge is cut whose loss costs the metric less than a threshold.

    `cost` is how much the metric fell when the edge was tried, with the edges that had been cut
    by then. Positive: the edge was helping. 0 for edges that nothing read any more.
    """

    graph: Graph
    mask: Bool[Tensor, "writer reader"] = field(metadata={"means": "true for the edges kept"})
    cost: Float[Tensor, "writer reader"] = field(metadata={"means": "fall of the metric"})
    start: float
    end: float
    tried: int
    threshold: float
    source: str
    metric: str
    unit: str
    task: str
    task_digest: str
    model: str
    model_digest: str
    caveat: str = ""

    @property
    def circuit(self) -> Circuit:
        """The edges that were kept."""
        return Circuit(self.graph, self.mask, f"ACDC on {self.task}, threshold {self.threshold:g}")

    def sentence(self) -> str:
        """What was found, in a sentence."""
        circuit = self.circuit
        return (
            f"{circuit.sentence()} {self.metric} went from {self.start:.3f} to {self.end:.3f} "
            f"{self.unit}; {self.tried} edges were tried. {self.caveat}"
        ).strip()

    def headline(self) -> dict[str, Any]:
        """How many edges are left, and the metric with them."""
        return {"edges": int(self.mask.sum()), self.metric: self.end}


def acdc(
    model: HookedModel,
    task: Task,
    *,
    threshold: float,
    metric: Metric | None = None,
    graph: Graph | None = None,
    source: Source | Kind = "counterfactual",
    most: int = MOST,
    batch_size: int = 32,
) -> AcdcCircuit:
    """Go through the edges from the logits back, and cut each that costs less than `threshold`.

    The cost is the fall of the metric's mean over prompts, from what it is with the edges cut
    so far; without a metric it is minus the divergence from the whole model (nats). Readers
    come in reverse order, and for each its writers in reverse order; what is left depends on
    that order. Edges into what nothing reads any more are cut without a run.

    Several edges are tried in one run as if all before them will be cut; those behind one that
    is kept are tried again, so the outcome is that of one run for each.
    """
    if isnan(threshold):
        raise ValueError("threshold is NaN: give a number, in the metric's unit")
    graph = Graph.of(model) if graph is None else graph
    check_small(graph, most)
    if metric is None:
        with torch.no_grad():
            metric = metrics.minus_kl(last_logits(model, task.clean)[:, 0].float())
    cutter = Cutter.of(model, task, graph, metric=metric, source=source, batch_size=batch_size)
    start = float(cutter.measure([Circuit.full(graph)]).mean())
    found = _search(cutter, start, threshold, count=max(1, batch_size // len(task)))
    return AcdcCircuit(
        graph=graph,
        mask=found.mask,
        cost=found.cost,
        start=start,
        end=found.value,
        tried=found.tried,
        threshold=threshold,
        source=str(Source.of(source)),
        metric=metric.name,
        unit=metric.unit,
        **labels(model, task),
    )


class _Found(NamedTuple):
    mask: Bool[Tensor, "writer reader"]
    cost: Float[Tensor, "writer reader"]
    value: float
    tried: int


class _Trial(NamedTuple):
    """An edge to be cut: its place in the order, and the edges left before and after."""

    place: int
    before: Bool[Tensor, "writer reader"]
    after: Bool[Tensor, "writer reader"]


def _search(cutter: Cutter, value: float, threshold: float, *, count: int) -> _Found:
    graph = cutter.graph
    order = graph.edges.T.nonzero().flip(0, 1).tolist()  # (writer, reader), the last first
    mask, cost = graph.edges.clone(), torch.zeros(graph.edges.shape)
    place = tried = 0
    with tqdm(total=len(order), desc="cutting edges", unit="edge", mininterval=0.5) as bar:
        while place < len(order):
            trials, rest = _trials(graph, order, place, mask, count)
            if not trials:
                mask, place = rest, len(order)
                break
            found = cutter.measure([Circuit(graph, trial.after) for trial in trials]).mean(dim=1)
            for trial, after in zip(trials, found.tolist(), strict=True):
                tried, place = tried + 1, trial.place + 1
                writer, reader = order[trial.place]
                cost[writer, reader] = value - after
                if not value - after < threshold:
                    mask = trial.before
                    break
                mask, value = trial.after, after
            bar.update(place - bar.n)
    return _Found(mask, cost, value, tried)


def _trials(
    graph: Graph,
    order: list[list[int]],
    place: int,
    mask: Bool[Tensor, "writer reader"],
    count: int,
) -> tuple[list[_Trial], Bool[Tensor, "writer reader"]]:
    """The next `count` edges that something reads, and the edges left when all are cut."""
    trials: list[_Trial] = []
    left = mask.clone()
    for at in range(place, len(order)):
        writer, reader = order[at]
        logits = reader == len(graph.readers) - 1
        read = logits or bool((graph.feeds[reader] & left.any(dim=1)).any())
        if read and len(trials) == count:
            break
        before = left.clone()
        left[writer, reader] = False
        if read:
            trials.append(_Trial(at, before, left.clone()))
    return trials, left
