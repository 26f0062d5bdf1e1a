"""Sweeps: every place of a stream, in either direction, from any source; all exact."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from hooks import HookedModel, Positions, Site, edits
from hooks.replay import Cell
from hooks.sites import Stream
from workbench import effects
from workbench.effects import Source
from workbench.effects.exact import Run
from workbench.effects.sources import Kind
from workbench.metrics import Metric
from workbench.patching import evidence
from workbench.patching.evidence import RUN, Direction
from workbench.patching.maps import Sweep, Sweeps
from workbench.patching.places import Over, Place, has, places, sites, usual
from workbench.patching.ranking import Ranking
from workbench.tasks import Task, provenance, solved


@dataclass(frozen=True, eq=False)
class Where:
    """Which part of a stream a sweep visits, beyond its columns. None is all of it.

    positions   restricts heads, neurons and "all" to some tokens, such as task.positions["END"]
    neurons     which neurons are columns, the same in every layer
    """

    layers: Sequence[int] | None = None
    positions: Positions | None = None
    neurons: Sequence[int] | None = None


EVERYWHERE = Where()


def sweep(
    model: HookedModel,
    task: Task,
    stream: Stream,
    *,
    metric: Metric,
    over: Over | None = None,
    direction: Direction = "denoise",
    source: Source | Kind = "counterfactual",
    where: Where = EVERYWHERE,
    seed: int = 0,
) -> Sweep:
    """What patching each place of `stream` alone does to a metric, for every layer and column.

    `over` says what the columns are: "position", "role" (of the task), "head" (key-value heads
    for k and v), "neuron" or "all"; heads for streams that have them and positions otherwise
    when nothing is said. "denoise" edits the corrupt prompts with values of the clean ones,
    "noise" the clean prompts with values of the corrupt ones; other sources take their values as
    `effects.Source` says. `seed` draws the bootstrap, the sign flips and the checked cells.
    """
    found = sweeps(
        model, task, stream, metrics=[metric], over=over, directions=[direction], source=source,
        where=where, running=Running(seed=seed),
    )  # fmt: skip
    return found.one()


@dataclass(frozen=True)
class Running:
    """How a sweep is carried out; `effects.exact` says what each of these does."""

    memory: str | int = "2GB"
    keep: str | Path | None = None
    seed: int = 0


USUALLY = Running()


def sweeps(
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
) -> Sweeps:
    """`sweep` in both directions and for several metrics at once.

    Each direction is one sweep, whatever the number of metrics.
    """
    evidence.check(task, directions)
    over, source = usual(stream) if over is None else over, Source.of(source)
    swept = sites(model, stream, where.layers)
    columns = places(
        model, task, stream, over=over, positions=where.positions, neurons=where.neurons
    )
    there = torch.tensor([[has(model, site, column) for column in columns] for site in swept])
    visited = [(swept[row], columns[column]) for row, column in there.nonzero().tolist()]
    found = [
        _one_way(model, task, visited, metrics=metrics, source=source,
                 run=RUN[direction], running=running)
        for direction in directions
    ]  # fmt: skip
    ends = _ends(model, task, metrics, dict(zip(directions, found, strict=True)))
    shape = (len(metrics), len(swept), len(columns), len(task))
    per_prompt = torch.full((len(found), *shape), torch.nan)
    per_prompt[:, :, there] = torch.stack([one.effect for one in found])
    return Sweeps(
        **evidence.tested(per_prompt, seed=running.seed, cells=2, there=there),
        clean=ends["clean"],
        corrupt=ends["corrupt"],
        directions=list(directions),
        metrics=[metric.name for metric in metrics],
        units=[metric.unit for metric in metrics],
        layers=[site.layer for site in swept],
        places=[column.label for column in columns],
        stream=stream,
        over=over,
        source=str(source),
        cost="; ".join(str(one.cost) for one in found),
        caveat=_caveat(model, task, over),
        **provenance.of_task(model, task),
    )


def neurons(
    model: HookedModel,
    task: Task,
    chosen: Sequence[tuple[int, int]],
    *,
    metric: Metric,
    direction: Direction = "noise",
    source: Source | Kind = "mean",
    positions: Positions | None = None,
    running: Running = USUALLY,
) -> Ranking:
    """What each of some MLP neurons, (layer, neuron), does alone; for example the top ones of an
    attribution."""
    if not chosen:
        raise ValueError("no neurons were chosen: give (layer, neuron) pairs")
    evidence.check(task, [direction])
    swept = sorted({Site("neuron", layer) for layer, _ in chosen})
    values = effects.values(model, task, swept, source=source, run=RUN[direction])
    cells: dict[str, Cell] = {}
    for layer, neuron in chosen:
        site = Site("neuron", layer)
        cells[f"neuron {layer}.{neuron}"] = {
            site: edits.replace(values[site], neurons=[neuron], positions=positions)
        }
    what = f"{Source.of(source)} ablation of single neurons"
    return each(model, task, cells, metric=metric, what=what, run=RUN[direction], running=running)


def each(
    model: HookedModel,
    task: Task,
    cells: Mapping[str, Cell],
    *,
    metric: Metric,
    what: str = "Edits",
    run: Run = "clean",
    running: Running = USUALLY,
) -> Ranking:
    """What each of some named sets of edits does to a metric, with bounds and corrected p."""
    evidence.check(task, ())
    found = effects.exact(
        model, task, list(cells.values()), metrics=[metric], run=run,
        memory=running.memory, keep=running.keep, seed=running.seed,
    )  # fmt: skip
    return Ranking(
        **evidence.tested(found.effect[0], seed=running.seed, cells=1),
        baseline=found.baseline[0],
        places=list(cells),
        what=what,
        run=run,
        metric=metric.name,
        unit=metric.unit,
        cost=str(found.cost),
        caveat=_caveat(model, task, "all"),
        **provenance.of_task(model, task),
    )


def _one_way(
    model: HookedModel,
    task: Task,
    visited: Sequence[tuple[Site, Place]],
    *,
    metrics: Sequence[Metric],
    source: Source,
    run: Run,
    running: Running,
) -> effects.Effects:
    values = effects.values(model, task, [site for site, _ in visited], source=source, run=run)
    cells = [{site: column.write(values[site])} for site, column in visited]
    return effects.exact(
        model, task, cells, metrics=metrics, run=run,
        memory=running.memory, keep=running.keep, seed=running.seed,
    )  # fmt: skip


def _ends(
    model: HookedModel,
    task: Task,
    metrics: Sequence[Metric],
    found: Mapping[Direction, effects.Effects],
) -> dict[str, Float[Tensor, "metric batch"]]:
    """The metrics of the unedited clean and corrupt prompts; run where no sweep has done it."""
    known = {RUN[direction]: one.baseline for direction, one in found.items()}
    for run, prompts in (("clean", task.clean), ("corrupt", task.corrupt)):
        if run not in known:
            known[run] = torch.stack(
                [effects.measure(model, task, metric=one, prompts=prompts) for one in metrics]
            )
    return {str(run): value for run, value in known.items()}


def _caveat(model: HookedModel, task: Task, over: str) -> str:
    found = solved(model, task)
    said = [] if found.is_solved else [f"{found.sentence()} The effects may be noise."]
    shortest, longest = int(task.clean.lengths.min()), int(task.clean.lengths.max())
    if over == "position" and shortest < longest:
        said.append(
            f"The prompts have {shortest} to {longest} tokens; the first {shortest} positions "
            "were swept. Roles (over='role') line up what positions do not."
        )
    return f"Caveat: {' '.join(said)}" if said else ""
