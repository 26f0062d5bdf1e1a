"""The cells of a batch, run together: one walk through the blocks for each first position."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from hooks.replay import checking
from hooks.replay.cells import Work, by_length, by_start
from hooks.replay.memory import blocks
from hooks.replay.planning import Plan
from hooks.replay.recording import ROUNDING
from hooks.replay.wave import Wave

Done = TypeVar("Done")

_WORTH = 4  # calls' worth of tokens that are worth a walk of their own, without padding

Reduce = Callable[[Tensor, Tensor], Tensor]
"""From the prompts' numbers and their logits, (row, pos, column), to numbers: (row, value)."""


@dataclass(frozen=True, eq=False)
class Answers:
    """What was read of each changed cell and prompt; what is absent is as in the recorded run."""

    cells: Int[Tensor, " row"]
    prompts: Int[Tensor, " row"]
    values: Float[Tensor, "row value"]


@dataclass
class Trail:
    """What happened while a plan was carried out."""

    advance: Callable[[int], object] = lambda tokens: None  # told of every token through a block
    backoffs: list[str] = field(default_factory=list)
    below_rounding: int = 0  # rows that differ from the recorded run by no more than rounding does
    checked: dict[tuple[int, int], float] = field(default_factory=dict)  # (cell, prompt)

    @property
    def largest_difference(self) -> float:
        """The largest difference of a checked cell from a full forward pass, relative."""
        return max(self.checked.values(), default=0.0)


@torch.no_grad()
def run(plan: Plan, batch: Sequence[int], reduce: Reduce, *, trail: Trail | None = None) -> Answers:
    """What `reduce` makes of the logits of the cells `batch`, one of `plan.batches`.

    When memory cannot be had the batch is halved, and the trail says so. Raises
    `ReplayMismatch` when a checked cell differs from its full forward pass.
    """
    trail = trail or Trail()
    parts = halving(batch, lambda some: list(_run(plan, some, reduce, trail)), trail)
    return _joined([answers for part in parts for answers in part])


def halving(batch: Sequence[int], do: Callable[[Sequence[int]], Done], trail: Trail) -> list[Done]:
    """`do` of the whole batch; of its halves, and theirs, where memory cannot be had."""
    try:
        return [do(batch)]
    except (MemoryError, RuntimeError) as error:
        if not _is_shortage(error) or len(batch) == 1:
            raise
        trail.backoffs.append(f"no memory for {len(batch)} cells at once: halved")
    half = len(batch) // 2
    return [*halving(batch[:half], do, trail), *halving(batch[half:], do, trail)]


@torch.no_grad()
def recorded(plan: Plan, reduce: Reduce) -> Float[Tensor, "batch value"]:
    """What `reduce` makes of the logits of the recorded run."""
    if plan.recording.tail is None:
        parts = checking.prompts(plan)
        return torch.cat([reduce(some, checking.in_full(plan, None, some)).cpu() for some in parts])
    wave = Wave.of(plan, 0, [])
    parts = blocks(len(plan.recording.prompts), plan.rows_at_once, plan.recording.resid[0].device)
    return torch.cat([reduce(part, wave.logits_of_recording(part)).cpu() for part in parts])


def _joined(parts: list[Answers]) -> Answers:
    if not parts:
        nothing = torch.zeros(0, dtype=torch.long)
        return Answers(nothing, nothing, torch.zeros(0, 1))
    return Answers(
        torch.cat([part.cells for part in parts]),
        torch.cat([part.prompts for part in parts]),
        torch.cat([part.values for part in parts]),
    )


def _is_shortage(error: BaseException) -> bool:
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return "allocate memory" in str(error) or "not enough memory" in str(error)


def _waves(plan: Plan, works: Sequence[Work]) -> Iterator[Wave]:
    """The rows that run together: from one position on, and of prompts about as long."""
    # What writes attention itself, (query, key), needs all keys.
    looks = any("query" in step.site.axes for work in works for step in work.steps)
    cut = plan.reads.rows == "last" and plan.savings.positions and not looks
    for start, group in by_start(works):
        if not cut:
            yield Wave.of(plan, start, group)
            continue
        least, lengths = _WORTH * plan.tokens_at_once, plan.recording.prompts.lengths
        for end, some in by_length(group, lengths, start=start, least=least):
            yield Wave.of(plan, start, some, end=end)


def _run(plan: Plan, batch: Sequence[int], reduce: Reduce, trail: Trail) -> Iterator[Answers]:
    works: list[Work] = [plan.works[cell] for cell in batch if cell in plan.works]
    pairs = [pair for pair in plan.checked if pair[0] in batch]
    known = dict(zip(pairs, checking.expected(plan, pairs), strict=True)) if pairs else {}
    for wave in _waves(plan, works):
        for cells, rows, logits in wave.run(trail.advance):
            for pair, logits_in_full in known.items():
                at = ((cells == pair[0]) & (rows == pair[1])).nonzero()[:, 0]
                if len(at):
                    difference = checking.compare(plan, pair, logits[at], logits_in_full)
                    trail.checked[pair] = difference
            moved = _moved(wave, rows, logits)
            trail.below_rounding += int((~moved).sum())
            if bool(moved.any()):
                values = reduce(rows[moved], logits[moved])
                yield Answers(cells[moved].cpu(), rows[moved].cpu(), values.cpu())
    for cell in [cell for cell in batch if cell in plan.in_full]:
        for some in checking.prompts(plan):
            values = reduce(some, checking.in_full(plan, cell, some)).cpu()
            yield Answers(torch.full((len(values),), cell), some.cpu(), values)
        trail.advance(plan.tokens_of([cell]))


def _moved(wave: Wave, prompts: Int[Tensor, " row"], logits: Tensor) -> Bool[Tensor, " row"]:
    """Which rows differ from the recorded run by more than rounding does.

    The order in which a sum is made depends on how many rows are multiplied at once, so that a
    cell without any effect comes back with the last bits changed. Such a cell is the base run.
    """
    scale = wave.plan.recording.scale[prompts]
    if wave.plan.reads.rows == "last":
        return _differ(logits, wave.last_of_recording(prompts), scale)
    # Nearly all that differ do so at their last token, and one unembedding is cheaper than many.
    last = wave.plan.recording.prompts.last[prompts]
    ends = logits[torch.arange(len(logits), device=last.device), last, None]
    moved = _differ(ends, wave.last_of_recording(prompts), scale)
    rest = (~moved).nonzero()[:, 0]
    if len(rest):
        before = wave.logits_of_recording(prompts[rest])
        moved[rest] = _differ(logits[rest], before, scale[rest])
    return moved


def _differ(
    logits: Float[Tensor, "row pos column"],
    before: Float[Tensor, "row pos column"],
    scale: Float[Tensor, " row"],
) -> Bool[Tensor, " row"]:
    difference = before.sub_(logits).abs_().flatten(1).max(dim=1).values  # no other copy of them
    return ~(difference <= ROUNDING[logits.dtype] * scale)  # NaN has moved
