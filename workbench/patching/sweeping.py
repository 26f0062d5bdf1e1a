"""Sweeps: every place of a stream, in either direction, from any source; all exact."""

from collections.abc import Mapping, Sequence

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
from workbench.patching.asking import EVERYWHERE, USUALLY, Running, asked_of
from workbench.patching.evidence import RUN, Direction
from workbench.patching.maps import Sweep, Sweeps
from workbench.patching.places import Over, Where, check_distinct, sites
from workbench.patching.ranking import Ranking
from workbench.tasks import Task, provenance, solved


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
    asked = asked_of(
        model, task, stream, metrics=metrics, over=over, directions=directions, source=source,
        where=where,
    )  # fmt: skip
    swept, columns, there, over = asked.swept, asked.columns, asked.there, asked.over
    found = [
        effects.exact(
            model, task, asked.cells(model, task, RUN[direction]), metrics=metrics,
            run=RUN[direction], memory=running.memory, keep=running.keep, seed=running.seed,
        )
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
        source=str(asked.source),
        cost="; ".join(str(one.cost) for one in found),
        caveat=_caveat(model, task, over),
        **provenance.of_task(model, task),
    )


def neurons(
    model: HookedModel,
    task: Task,
    chosen: Sequence[tuple[int, int] | effects.Node],
    *,
    metric: Metric,
    direction: Direction = "noise",
    source: Source | Kind = "mean",
    positions: Positions | None = None,
    running: Running = USUALLY,
) -> Ranking:
    """What each of some MLP neurons does alone.

    `chosen` are pairs (layer, neuron), or the nodes of an attribution, the strongest of which are
    `effects.attribute(model, task, sites, metric=..., summed=("pos",)).strongest(n)`.
    """
    if not chosen:
        raise ValueError("no neurons were chosen: give (layer, neuron) pairs")
    evidence.check(task, [direction])
    pairs = [_neuron(one) for one in chosen]
    check_distinct("neuron (layer, index)", pairs)
    swept = sites(model, "neuron", sorted({layer for layer, _ in pairs}))
    values = effects.values(model, task, swept, source=source, run=RUN[direction])
    cells: dict[str, Cell] = {}
    for layer, neuron in pairs:
        site = Site("neuron", layer)
        cells[f"neuron {layer}.{neuron}"] = {
            site: edits.replace(values[site], neurons=[neuron], positions=positions)
        }
    what = f"{Source.of(source)} ablation of single neurons"
    return each(model, task, cells, metric=metric, what=what, run=RUN[direction], running=running)


def _neuron(one: tuple[int, int] | effects.Node) -> tuple[int, int]:
    """A neuron as (layer, index)."""
    if not isinstance(one, effects.Node):
        layer, neuron = one
        return layer, neuron
    if one.site.stream != "neuron" or set(one.at) != {"neuron"}:
        raise ValueError(
            f"{one} is not one neuron at all positions: attribute Site('neuron', layer) with "
            "summed=('pos',), and give its nodes"
        )
    return one.site.layer, one.at["neuron"]


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
