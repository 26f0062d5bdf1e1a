"""What each of many edits does to a metric, as if each had been a forward pass of its own."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm.auto import tqdm

from hooks import HookedModel, Prompts, replay
from hooks.replay import Cell, Plan, Reads, Trail
from workbench.effects.kept import Kept, folder_for
from workbench.metrics import Metric, check_metrics
from workbench.tasks import Task
from workbench.tasks.task import ABSENT

Run = Literal["clean", "corrupt"]
"""Which of the task's prompts the edits are made in."""

_CELLS_A_BATCH = 32  # where results are kept: an interruption loses at most one batch


@dataclass(frozen=True)
class Cost:
    """What a sweep did, what it left out, and how it was checked."""

    cells: int
    forwards: float  # in full forward passes; without savings there would be one for each cell
    savings: str
    checked: int  # cells that also ran in full
    largest_difference: float  # of those from the replayed ones, as a share of the largest logit
    resumed: int = 0  # cells whose numbers were kept from an earlier run
    backoffs: str = ""  # what was done when memory could not be had

    def __str__(self) -> str:
        kept = f", {self.resumed} of them kept from an earlier run" if self.resumed else ""
        short = f"; {self.backoffs}" if self.backoffs else ""
        return (
            f"{self.cells} cells{kept}, {self.forwards:.1f} forward passes ({self.savings}); "
            f"{self.checked} cells also run in full differ by at most "
            f"{self.largest_difference:.0e} of the largest logit{short}"
        )


@dataclass(frozen=True, eq=False)
class Effects:
    """Metrics of every cell and prompt, and those of the same prompts without edits."""

    values: Float[Tensor, "metric cell batch"]
    baseline: Float[Tensor, "metric batch"]
    metrics: tuple[Metric, ...]
    cost: Cost

    @property
    def effect(self) -> Float[Tensor, "metric cell batch"]:
        """Change in the metric by each cell. Negative: the metric is lower under the edits."""
        return self.values - self.baseline[:, None]


def plan(
    model: HookedModel,
    task: Task,
    cells: Sequence[Cell],
    *,
    metrics: Sequence[Metric],
    run: Run = "clean",
    memory: str | int = "2GB",
) -> Plan:
    """What `exact` would do and cost, from one forward pass; `str(plan)` says it."""
    return _plan(model, task, cells, metrics=metrics, run=run, memory=memory)


def exact(
    model: HookedModel,
    task: Task,
    cells: Sequence[Cell],
    *,
    metrics: Sequence[Metric],
    run: Run = "clean",
    memory: str | int = "2GB",
    keep: str | Path | None = None,
    check: int = 3,
    seed: int = 0,
) -> Effects:
    """The metrics of every cell, a set of edits as `intervening` takes it, on every prompt.

    The numbers are those of one full forward pass for each cell, at a fraction of the cost
    (`hooks.replay`). `check` cells, drawn with `seed`, are also run in full, on one prompt each;
    a difference is an error that names the cell. The plan is printed before the run.

    run     the edits are made in the task's "clean" or its "corrupt" prompts
    memory  what the sweep may hold beside the model; batches are made to fit
    keep    a folder in which results are kept as they come: when the sweep is interrupted, the
            same call goes on where it stopped. Own functions, as edits or metrics, cannot be kept
    """
    check_metrics(metrics)
    folder = folder_for(keep, cells, metrics)
    planned = _plan(
        model, task, cells, metrics=metrics, run=run, memory=memory, check=check, seed=seed,
        most=None if folder is None else _CELLS_A_BATCH,
    )  # fmt: skip
    tqdm.write(str(planned), file=sys.stderr)
    reduce = _reduction(task, metrics, run, planned.reads)
    baseline = replay.recorded(planned, reduce)
    values = baseline[None].repeat(len(cells), 1, 1)
    kept = None if folder is None else Kept.of(folder, model, planned, task, metrics)
    trail = Trail()
    resumed = _carry_out(planned, reduce, values, kept, trail)
    cost = Cost(
        len(cells), planned.forwards, str(planned.savings), len(trail.checked),
        trail.largest_difference, resumed, "; ".join(trail.backoffs),
    )  # fmt: skip
    values = values.permute(2, 0, 1).contiguous()
    return Effects(values, baseline.T.contiguous(), tuple(metrics), cost)


def _carry_out(
    planned: Plan,
    reduce: Callable[[Tensor, Tensor], Tensor],
    values: Float[Tensor, "cell batch metric"],
    kept: Kept | None,
    trail: Trail,
) -> int:
    """Fill in `values`; the number of cells that did not have to run again."""
    resumed = 0
    with tqdm(
        total=planned.block_tokens, desc=f"{len(planned.cells)} cells", mininterval=0.5, delay=0.5,
        bar_format="{desc}: {percentage:3.0f}%|{bar}| {elapsed} so far, {remaining} left",
    ) as bar:  # fmt: skip
        trail.advance = bar.update
        for batch in planned.batches:
            found = {} if kept is None else kept.read(batch)
            for cell, value in found.items():
                values[cell] = value
            resumed += len(found)
            missing = [cell for cell in batch if cell not in found]
            bar.update(planned.tokens_of(found))
            if missing:
                answers = replay.run(planned, missing, reduce, trail=trail)
                values[answers.cells, answers.prompts] = answers.values
                if kept is not None:
                    kept.write({cell: values[cell] for cell in missing})
    return resumed


def _plan(
    model: HookedModel,
    task: Task,
    cells: Sequence[Cell],
    *,
    metrics: Sequence[Metric],
    run: Run,
    memory: str | int,
    most: int | None = None,
    check: int = 3,
    seed: int = 0,
) -> Plan:
    check_metrics(metrics)
    if not metrics:
        raise ValueError("no metric was given: name at least one, such as metrics.logit_diff")
    if run not in ("clean", "corrupt"):
        raise ValueError(f"no run {run!r}: edits are made in the 'clean' or the 'corrupt' prompts")
    for metric in metrics:
        if metric.reference is not None and len(metric.reference) != len(task):
            raise ValueError(
                f"{metric.name} has a reference of {len(metric.reference)} prompts for "
                f"{len(task)}: choose the same rows of both, metric[rows] and task[rows]"
            )
    prompts = _prompts(task, run)
    return replay.plan(
        model, prompts, cells, reads=_reads(task, metrics), memory=memory, most=most,
        check=check, seed=seed,
    )  # fmt: skip


def _prompts(task: Task, run: Run) -> Prompts:
    return task.clean if run == "clean" else task.corrupt


def _reads(task: Task, metrics: Sequence[Metric]) -> Reads:
    """The rows and columns that some of the metrics read."""
    rows = "all" if any(metric.rows == "all" for metric in metrics) else "last"
    if any(metric.columns == "all" for metric in metrics):
        return Reads(rows)
    return Reads(rows, torch.cat([task.answer, task.foil], dim=1))


def _reduction(
    task: Task, metrics: Sequence[Metric], run: Run, reads: Reads
) -> Callable[[Int[Tensor, " row"], Tensor], Tensor]:
    """From prompts' numbers and their logits to the metrics, (row, metric)."""
    if reads.columns is not None:  # the logits have these columns only, so ids are places in them
        width = task.answer.shape[1]
        places = torch.arange(reads.columns.shape[1]).expand_as(reads.columns)
        places = torch.where(reads.columns == ABSENT, ABSENT, places)
        task = replace(task, answer=places[:, :width], foil=places[:, width:])
    prompts = _prompts(task, run)

    def reduce(rows: Int[Tensor, " row"], logits: Tensor) -> Tensor:
        rows = rows.cpu()
        some = Prompts(prompts.tokens[rows], prompts.lengths[rows])
        part = task[rows]
        logits = logits if logits.dtype in (torch.float32, torch.float64) else logits.float()
        found = [metric[rows](logits, part, some) for metric in metrics]
        return torch.stack(found, dim=1).float()

    return reduce
