"""What a sweep will do and what it will cost, before it is done."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from hooks.prompts import Prompts
from hooks.replay.cells import Cell, Changes, Work, has_own, sites_to_record, steps_of
from hooks.replay.memory import Budget, Shape, bytes_of_edits, said, size
from hooks.replay.reading import Reads
from hooks.replay.recording import Recording, Savings, record
from hooks.sites import HookedModel

_TOKENS_AT_ONCE = {"cpu": 2048}  # larger calls are slower on a CPU, and take more memory
_TOKENS_ELSEWHERE = 16384


@dataclass(frozen=True, eq=False)
class Plan:
    """Cells, what of them has to run, in which batches, and the cost of it.

    `str(plan)` says it in a sentence. `forwards` counts in full forward passes of the prompts;
    without any saving there would be one for each cell.
    """

    recording: Recording
    cells: tuple[Cell, ...]
    reads: Reads
    works: dict[int, Work]  # cell -> what of it runs again; a cell that is absent is the base run
    in_full: tuple[int, ...]  # cells that run as full forward passes
    batches: tuple[tuple[int, ...], ...]  # cells that run together
    checked: tuple[tuple[int, int], ...]  # (cell, prompt) that also run in full
    tokens_at_once: int  # in a call of a block
    rows_at_once: int  # of logits
    prompts_at_once: int  # in a full pass
    bytes: int  # held at once beside the model, what the edits write included

    @property
    def savings(self) -> Savings:
        """What is saved, and why something is not."""
        return self.recording.savings

    @property
    def block_tokens(self) -> int:
        """Tokens to send through a block, over all blocks and cells.

        With the padding of shorter prompts, of which less is run.
        """
        return self.tokens_of(range(len(self.cells)))

    def tokens_of(self, cells: Iterable[int]) -> int:
        """The tokens of some of the cells."""
        layers, (batch, length) = len(self.recording.calls), self.recording.prompts.tokens.shape
        total, in_full = 0, frozenset(self.in_full)
        for cell in cells:
            if cell in in_full:
                total += layers * batch * length
            elif cell in self.works:
                work = self.works[cell]
                passes = (layers - work.entry).clamp(min=0) * (length - work.start)
                total += int(passes.sum())
        return total

    @property
    def forwards(self) -> float:
        """The cost of the sweep in forward passes of all prompts."""
        one = len(self.recording.calls) * self.recording.prompts.tokens.numel()
        return self.block_tokens / max(one, 1)

    @property
    def seconds(self) -> float:
        """About how long the sweep will take, by the time of the recorded pass."""
        return self.forwards * self.recording.seconds

    def __str__(self) -> str:
        same = len(self.cells) - len(self.works) - len(self.in_full)
        full = f", {len(self.in_full)} in full" if self.in_full else ""
        return (
            f"{len(self.cells)} cells × {len(self.recording.prompts)} prompts: {same} change "
            f"nothing{full}; {self.forwards:.1f} forward passes instead of {len(self.cells)} "
            f"({self.savings}); {len(self.batches)} batches, {said(self.bytes)}, "
            f"about {self.seconds:.0f} s"
        )


@torch.no_grad()
def plan(
    model: HookedModel,
    prompts: Prompts | Tensor,
    cells: Sequence[Cell],
    *,
    reads: Reads | None = None,
    memory: str | int = "2GB",
    most: int | None = None,
    check: int = 3,
    seed: int = 0,
) -> Plan:
    """Record one run of `prompts`, and find out what each of `cells` makes necessary.

    reads   the logits that are wanted; none given: the whole vocabulary at each last token
    memory  what a sweep may hold beside the model, such as "2GB"; the batches are made to fit
    most    at most so many cells in a batch, however much memory there is
    check   so many cells, drawn with `seed`, are also run in full, on one prompt each
    """
    prompts, reads = Prompts.of(prompts), reads or Reads()
    reads.check(len(prompts), model.cfg.d_vocab)
    if not cells:
        raise ValueError("no cells were given: a sweep needs at least one set of edits")
    limit, steps = size(memory), [steps_of(model, cell) for cell in cells]
    recorded, edits = sites_to_record(model, steps), bytes_of_edits(cells)
    shape = Shape.of(model, prompts, reads)
    held = shape.recorded(recorded) + edits + min(check, len(cells)) * shape.answer
    Budget(limit, held, shape).check_record(edits)
    recording = record(model, prompts, recorded)
    replayable = recording.savings.layers
    changes = Changes.of(recording, reads)
    found = {
        index: changes.work(index, step)
        for index, step in enumerate(steps)
        if step is not None and replayable
    }
    works = {index: work for index, work in found.items() if work is not None}
    in_full = tuple(i for i, step in enumerate(steps) if step is None or not replayable)
    drawn = _drawn(works, check, torch.Generator().manual_seed(seed))
    unfitted = Plan(recording, tuple(cells), reads, works, in_full, (), drawn, 0, 0, 0, 0)
    held = recording.bytes + edits + len(drawn) * shape.answer
    return _fitted(unfitted, Budget(limit, held, shape), most)


def _fitted(plan: Plan, budget: Budget, most: int | None) -> Plan:
    """The plan with batches that fit, and how much of each kind of work is done at once."""
    resid = plan.recording.resid[0]
    needs = Needs(resid.shape[1], resid.shape[2] * resid.element_size())
    largest = {cell: needs.of(needs.rows(work)) for cell, work in plan.works.items()}
    cell = max(largest, key=largest.__getitem__, default=0)
    room = largest.get(cell, 0)
    budget.check_cell(cell, room, checked=bool(plan.checked))
    tokens, rows = budget.sizes(
        _TOKENS_AT_ONCE.get(resid.device.type, _TOKENS_ELSEWHERE),
        max(len(resid), sum(len(work.rows) for work in plan.works.values())),
        room,
    )
    working = budget.working(tokens, rows)
    free = budget.limit - budget.held - working
    batches, peak = _batches(plan.works, needs, room=free, most=most)
    full = prompts = 0
    if plan.in_full or plan.recording.tail is None:
        prompts = budget.prompts_in_full(whole=any(has_own(plan.cells[c]) for c in plan.in_full))
        full = prompts * budget.shape.in_full
    elif plan.checked:
        prompts = budget.prompts_in_full(whole=False)
        full = min(len(plan.checked), prompts) * budget.shape.in_full
    return replace(
        plan,
        batches=(*batches, *((index,) for index in plan.in_full)),
        tokens_at_once=tokens,
        rows_at_once=rows,
        prompts_at_once=max(1, prompts),
        bytes=budget.held + max(working + peak, full),
    )


@dataclass(frozen=True, eq=False)
class Needs:
    """What the rows of a batch take on their way through the blocks."""

    length: int
    row: int  # bytes of a position

    @property
    def nothing(self) -> Tensor:
        """No rows."""
        return torch.zeros(self.length, dtype=torch.long)

    def rows(self, work: Work) -> Tensor:
        """How many rows of a cell start at each position."""
        return work.start.cpu().bincount(minlength=self.length)

    def of(self, counts: Tensor) -> int:
        """The bytes of so many rows from each position on; those of one position run together."""
        return int((counts * (self.length - torch.arange(self.length))).max()) * self.row


def _batches(
    works: dict[int, Work], needs: Needs, *, room: int, most: int | None
) -> tuple[list[tuple[int, ...]], int]:
    """Cells that run together, in order, each batch within the room; and what the largest takes."""
    batches: list[tuple[int, ...]] = []
    counts, current, peak = needs.nothing, [], 0
    for index, work in works.items():
        own = needs.rows(work)
        if current and (needs.of(counts + own) > room or len(current) == most):
            batches.append(tuple(current))
            counts, current = needs.nothing, []
        counts = counts + own
        peak = max(peak, needs.of(counts))
        current.append(index)
    return [*batches, tuple(current)] if current else batches, peak


def _drawn(
    works: dict[int, Work], check: int, generator: torch.Generator
) -> tuple[tuple[int, int], ...]:
    """Cells and prompts that are checked, without repetition of a cell."""
    cells = list(works)
    chosen = torch.randperm(len(cells), generator=generator)[:check].tolist()
    drawn = []
    for cell in sorted(cells[index] for index in chosen):
        rows = works[cell].rows
        which = int(torch.randint(len(rows), (1,), generator=generator))
        drawn.append((cell, int(rows[which])))
    return tuple(drawn)
