"""What a sweep will do and what it will cost, before it is done."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

import torch
from torch import Tensor

from hooks.prompts import Prompts
from hooks.replay.cells import Cell, Changes, Work, sites_to_record, steps_of
from hooks.replay.reading import Reads
from hooks.replay.recording import Recording, Savings, record
from hooks.sites import HookedModel

_UNITS = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_TOKENS_AT_ONCE = {"cpu": 1024}  # larger calls are slower on a CPU, and take more memory
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
    tokens_at_once: int
    bytes: int

    @property
    def savings(self) -> Savings:
        """What is saved, and why something is not."""
        return self.recording.savings

    @property
    def block_tokens(self) -> int:
        """Tokens to send through a block, over all blocks and cells."""
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
            f"({self.savings}); {len(self.batches)} batches, {self.bytes / 1e9:.2f} GB, "
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
    steps = [steps_of(model, cell) for cell in cells]
    recording = record(model, prompts, sites_to_record(model, steps))
    replayable = recording.savings.layers
    changes = Changes.of(recording, reads)
    found = {
        index: changes.work(index, step)
        for index, step in enumerate(steps)
        if step is not None and replayable
    }
    works = {index: work for index, work in found.items() if work is not None}
    in_full = tuple(i for i, step in enumerate(steps) if step is None or not replayable)
    tokens = _TOKENS_AT_ONCE.get(recording.resid[0].device.type, _TOKENS_ELSEWHERE)
    batches, peak = _batches(recording, works, tokens, reads, limit=size(memory), most=most)
    batches += [(index,) for index in in_full]
    drawn = _drawn(works, check, torch.Generator().manual_seed(seed))
    return Plan(recording, tuple(cells), reads, works, in_full, tuple(batches), drawn, tokens, peak)


def size(memory: str | int) -> int:
    """A number of bytes, from "2GB", "500 MB" or an int."""
    if isinstance(memory, int):
        return memory
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?B)\s*", memory.upper())
    if not found:
        raise ValueError(f"memory {memory!r} is no size: write '2GB', '500MB' or a number of bytes")
    return int(float(found[1]) * _UNITS[found[2]])


def _batches(
    recording: Recording,
    works: dict[int, Work],
    tokens: int,
    reads: Reads,
    *,
    limit: int,
    most: int | None,
) -> tuple[list[tuple[int, ...]], int]:
    """Cells that run together, in order, each batch within the limit; and the largest of all."""
    resid = recording.resid[0]
    length, row = resid.shape[1], resid.shape[2] * resid.element_size()
    fixed = recording.bytes + _working(recording.model.cfg, tokens, length, reads, resid)
    batches: list[tuple[int, ...]] = []
    counts, current, peak = torch.zeros(length, dtype=torch.long), [], 0
    for index, work in works.items():
        own = work.start.cpu().bincount(minlength=length)
        needs = int(((counts + own) * (length - torch.arange(length))).max()) * row
        if current and (fixed + needs > limit or len(current) == most):
            batches.append(tuple(current))
            counts, current = torch.zeros(length, dtype=torch.long), []
            needs = int((own * (length - torch.arange(length))).max()) * row
        if fixed + needs > limit:
            raise MemoryError(
                f"memory {limit / 1e6:.0f} MB is too small for one cell: the recorded run and the "
                f"work on it take {fixed / 1e6:.0f} MB, cell {index} another {needs / 1e6:.0f} MB; "
                f"give memory={ceil((fixed + needs) / 1e6)}MB or fewer prompts"
            )
        counts, peak = counts + own, max(peak, fixed + needs)
        current.append(index)
    return [*batches, tuple(current)] if current else batches, peak or fixed


def _working(cfg: Any, tokens: int, length: int, reads: Reads, resid: Tensor) -> int:
    """About what one call of a block, or reading one batch of logits, takes for itself."""
    width = 8 * cfg.d_model + 4 * (getattr(cfg, "d_mlp", 0) or 0) + 3 * cfg.n_heads * length
    wide = cfg.d_vocab if reads.columns is None else reads.columns.shape[1] * cfg.d_model
    read = rows_at_once(cfg, length, reads) * wide * (length if reads.rows == "all" else 1)
    return max(tokens * width, 3 * read) * resid.element_size()


def rows_at_once(cfg: Any, length: int, reads: Reads) -> int:
    """How many rows of logits are computed in one go: about 25 million numbers."""
    wide = cfg.d_vocab if reads.columns is None else reads.columns.shape[1] * cfg.d_model
    wide *= length if reads.rows == "all" else 1
    return max(1, min(4096, 25_000_000 // max(wide, 1)))


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
