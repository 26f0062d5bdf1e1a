"""What a sweep is asked to visit, and what that will cost."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Bool
from torch import Tensor

from hooks import HookedModel, Site
from hooks.replay import Cell, Plan
from hooks.sites import Stream
from workbench import effects
from workbench.effects import Source
from workbench.effects.exact import Run
from workbench.effects.sources import Kind
from workbench.metrics import Metric, check_all
from workbench.patching import evidence
from workbench.patching.evidence import RUN, Direction
from workbench.patching.places import Over, Place, Where, has, places, sites, usual
from workbench.tasks import Task

EVERYWHERE = Where()


@dataclass(frozen=True)
class Running:
    """How a sweep is carried out; `effects.exact` says what each of these does."""

    memory: str | int = "2GB"
    keep: str | Path | None = None
    seed: int = 0


USUALLY = Running()


@dataclass(frozen=True, eq=False)
class SweepPlan:
    """The plan of each direction of a sweep; they run one after the other."""

    parts: Mapping[Direction, Plan]

    @property
    def cells(self) -> int:
        """How many cells there are, in all directions."""
        return sum(len(plan.cells) for plan in self.parts.values())

    @property
    def forwards(self) -> float:
        """The cost in forward passes of all prompts; without savings it would be one a cell."""
        return sum(plan.forwards for plan in self.parts.values())

    @property
    def seconds(self) -> float:
        """About how long the sweep will take."""
        return sum(plan.seconds for plan in self.parts.values())

    @property
    def bytes(self) -> int:
        """What it holds at once beside the model."""
        return max(plan.bytes for plan in self.parts.values())

    def __str__(self) -> str:
        return "\n".join(f"{direction}: {plan}" for direction, plan in self.parts.items())


def plan(
    model: HookedModel,
    task: Task,
    stream: Stream,
    *,
    metrics: Sequence[Metric],
    over: Over | None = None,
    directions: Sequence[Direction] = ("denoise", "noise"),
    source: Source | Kind = "counterfactual",
    where: Where = EVERYWHERE,
    running: Running = USUALLY,
) -> SweepPlan:
    """What `sweeps` with the same arguments would do and cost; `str(plan)` says it.

    Costs the values of the source, and one pass of the prompts in each direction.
    """
    asked = asked_of(
        model, task, stream, metrics=metrics, over=over, directions=directions, source=source,
        where=where,
    )  # fmt: skip
    return SweepPlan({
        direction: effects.plan(
            model, task, asked.cells(model, task, RUN[direction]), metrics=metrics,
            run=RUN[direction], memory=running.memory,
        )
        for direction in directions
    })  # fmt: skip


@dataclass(frozen=True, eq=False)
class Asked:
    """What a sweep visits, and what it writes there."""

    over: Over
    source: Source
    swept: list[Site]
    columns: list[Place]
    there: Bool[Tensor, "layer place"]

    def cells(self, model: HookedModel, task: Task, run: Run) -> list[Cell]:
        """The edits of each place that is visited, row by row."""
        rows = [(self.swept[row], self.columns[at]) for row, at in self.there.nonzero().tolist()]
        values = effects.values(
            model, task, [site for site, _ in rows], source=self.source, run=run
        )
        return [{site: column.write(values[site])} for site, column in rows]


def asked_of(
    model: HookedModel,
    task: Task,
    stream: Stream,
    *,
    metrics: Sequence[Metric],
    over: Over | None,
    directions: Sequence[Direction],
    source: Source | Kind,
    where: Where,
) -> Asked:
    """What a sweep with these arguments visits; what makes no sense is refused."""
    evidence.check(task, directions)
    evidence.check_listed(directions)
    check_all(metrics)
    if not isinstance(where, Where):
        raise TypeError(
            f"where={where!r}: give patching.Where(layers=[...]), or positions, neurons"
        )
    over = usual(stream) if over is None else over
    where.check(over)
    swept = sites(model, stream, where.layers)
    columns = places(
        model, task, stream, over=over, positions=where.positions, neurons=where.neurons
    )
    there = torch.tensor([[has(model, site, column) for column in columns] for site in swept])
    return Asked(over, Source.of(source), swept, columns, there)
