"""The cells of a batch, run together: one walk through the blocks for each first position."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from hooks.activations import Activations
from hooks.capture import capture, last_logits
from hooks.intervene import intervening
from hooks.places import Edit
from hooks.prompts import Prompts
from hooks.replay.cells import Cell, Work, by_start
from hooks.replay.planning import Plan, rows_at_once
from hooks.replay.recording import CLOSE, ROUNDING
from hooks.replay.watching import Seen, Watch
from hooks.replay.wave import Wave
from hooks.sites import Site

Reduce = Callable[[Tensor, Tensor], Tensor]
"""From the prompts' numbers and their logits, (row, pos, column), to numbers: (row, value)."""


class ReplayMismatch(RuntimeError):  # noqa: N818 - the name says what went wrong
    """A replayed cell differs from the same cell run in full."""


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
    checked: list[tuple[int, int, float]] = field(default_factory=list)  # cell, prompt, difference

    @property
    def largest_difference(self) -> float:
        """The largest difference of a checked cell from a full forward pass, relative."""
        return max((difference for _, _, difference in self.checked), default=0.0)


@torch.no_grad()
def run(plan: Plan, batch: Sequence[int], reduce: Reduce, *, trail: Trail | None = None) -> Answers:
    """What `reduce` makes of the logits of the cells `batch`, one of `plan.batches`.

    When memory cannot be had the batch is halved, and the trail says so. Raises
    `ReplayMismatch` when a checked cell differs from its full forward pass.
    """
    trail = trail or Trail()
    try:
        parts = list(_run(plan, batch, reduce, trail))
    except (MemoryError, RuntimeError) as error:
        if not _is_shortage(error) or len(batch) == 1:
            raise
        trail.backoffs.append(f"no memory for {len(batch)} cells at once: halved")
        half = len(batch) // 2
        parts = [run(plan, part, reduce, trail=trail) for part in (batch[:half], batch[half:])]
    return _joined(parts)


@torch.no_grad()
def recorded(plan: Plan, reduce: Reduce) -> Float[Tensor, "batch value"]:
    """What `reduce` makes of the logits of the recorded run."""
    rows = torch.arange(len(plan.recording.prompts), device=plan.recording.resid[0].device)
    if plan.recording.tail is None:
        return reduce(rows, _in_full(plan, None, rows)).cpu()
    wave = Wave.of(plan, 0, [])
    step = rows_at_once(plan.recording.model.cfg, plan.recording.resid[0].shape[1], plan.reads)
    parts = rows.split(step)
    return torch.cat([reduce(part, wave.logits_of_recording(part)).cpu() for part in parts])


@torch.no_grad()
def watch(
    plan: Plan, sites: Iterable[Site], show: Callable[[Seen], None], *, trail: Trail | None = None
) -> None:
    """Show what flows through `sites`, which lie in blocks, in every cell and prompt it changes.

    What is not shown is as in the recorded run: prompts that a cell does not change, and
    positions before the first one that it does. Raises `ReplayMismatch` as `run` does.
    """
    trail = trail or Trail()
    kept: list[Seen] = []

    def showing(seen: Seen) -> None:
        kept.extend(_checked_rows(plan, seen))
        show(seen)

    watching = Watch.of(plan.recording.model, sites, showing)
    for batch in plan.batches:
        for start, group in by_start([plan.works[cell] for cell in batch if cell in plan.works]):
            Wave.of(plan, start, group).watched(watching, trail.advance)
        for cell in set(batch) & set(plan.in_full):
            _show_in_full(plan, cell, watching)
    for seen in kept:
        _check_seen(plan, seen, trail)


def _checked_rows(plan: Plan, seen: Seen) -> Iterator[Seen]:
    """Copies of those rows that are also run in full."""
    for cell, prompt in plan.checked:
        at = ((seen.cells == cell) & (seen.prompts == prompt)).nonzero()[:, 0]
        if len(at):
            row = seen.activation[at].clone()
            yield Seen(seen.site, seen.cells[at], seen.prompts[at], seen.start, row)


def _show_in_full(plan: Plan, cell: int, watching: Watch) -> None:
    everyone = torch.arange(len(plan.recording.prompts), device=plan.recording.resid[0].device)
    with intervening(plan.recording.model, plan.cells[cell]):
        found = _read_in_full(plan, plan.recording.prompts, watching.sites)
    for site in watching.sites:
        watching.show(Seen(site, torch.full_like(everyone, cell), everyone, 0, found[site]))


def _read_in_full(plan: Plan, prompts: Prompts, sites: Sequence[Site]) -> Activations:
    # With logits the pass goes on to its end, so that edits above the sites take place too.
    return capture(plan.recording.model, prompts, sites, logits="last")


def _check_seen(plan: Plan, seen: Seen, trail: Trail) -> None:
    """Compare what one row of a cell was seen to hold with an ordinary pass under its edits."""
    cell, prompt = int(seen.cells), int(seen.prompts)
    with intervening(plan.recording.model, _edits(plan, cell, seen.prompts)):
        expected = _read_in_full(plan, _some(plan, seen.prompts), [seen.site])[seen.site]
    axis = seen.site.axes.index("query" if "query" in seen.site.axes else "pos")
    real = int(plan.recording.prompts.lengths[prompt]) - seen.start
    expected = expected.narrow(axis, seen.start, real)
    found = seen.activation.narrow(axis, 0, real)
    if "key" in seen.site.axes:  # masked scores are huge
        expected, found = (one.clamp(min=-1e4) for one in (expected, found))
    _compare(plan, cell, prompt, found, expected, trail, of=f"{seen.site}")


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


def _run(plan: Plan, batch: Sequence[int], reduce: Reduce, trail: Trail) -> Iterator[Answers]:
    works: list[Work] = [plan.works[cell] for cell in batch if cell in plan.works]
    for start, group in by_start(works):
        wave = Wave.of(plan, start, group)
        for cells, rows, logits in wave.run(trail.advance):
            for cell, prompt in plan.checked:
                at = ((cells == cell) & (rows == prompt)).nonzero()[:, 0]
                if len(at):
                    _check(plan, cell, prompt, logits[at], trail)
            moved = _moved(logits, wave.logits_of_recording(rows))
            trail.below_rounding += int((~moved).sum())
            if bool(moved.any()):
                values = reduce(rows[moved], logits[moved])
                yield Answers(cells[moved].cpu(), rows[moved].cpu(), values.cpu())
    everyone = torch.arange(len(plan.recording.prompts), device=plan.recording.resid[0].device)
    for cell in batch:
        if cell in plan.in_full:
            values = reduce(everyone, _in_full(plan, cell, everyone)).cpu()
            layers, tokens = len(plan.recording.calls), plan.recording.prompts.tokens.numel()
            trail.advance(layers * tokens)
            yield Answers(torch.full((len(values),), cell), everyone.cpu(), values)


def _moved(logits: Tensor, before: Tensor) -> Bool[Tensor, " row"]:
    """Which rows differ from the recorded run by more than rounding does.

    The order in which a sum is made depends on how many rows are multiplied at once, so that a
    cell without any effect comes back with the last bits changed. Such a cell is the base run.
    """
    floor = ROUNDING[logits.dtype] * before.abs().flatten(1).max(dim=1).values
    return (logits - before).abs().flatten(1).max(dim=1).values > floor


def _check(plan: Plan, cell: int, prompt: int, found: Tensor, trail: Trail) -> None:
    row = torch.tensor([prompt], device=found.device)
    expected = _in_full(plan, cell, row)
    real = slice(None)
    if plan.reads.rows == "all":
        real = slice(int(plan.recording.prompts.lengths[prompt]))
    expected, found = expected[:, real], found[:, real]
    _compare(plan, cell, prompt, found, expected, trail, of="logit")


def _compare(  # noqa: PLR0917
    plan: Plan, cell: int, prompt: int, found: Tensor, expected: Tensor, trail: Trail, *, of: str
) -> None:
    scale = expected.abs().max().clamp(min=1e-30)
    difference = float((found - expected).abs().max() / scale)
    trail.checked.append((cell, prompt, difference))
    if not difference <= CLOSE[found.dtype]:
        edits = ", ".join(f"{site}" for site in plan.cells[cell])
        raise ReplayMismatch(
            f"cell {cell} ({edits}), prompt {prompt}: replay and a full forward pass differ by "
            f"{difference:.1e} of the largest {of}, allowed is {CLOSE[found.dtype]:.0e}. The "
            "results would be wrong; run it with effects.measure, and report the architecture "
            f"{type(plan.recording.model.original_model).__name__}"
        )


def _in_full(plan: Plan, cell: int | None, rows: Int[Tensor, " row"]) -> Tensor:
    """The logits that are read of some prompts, by an ordinary forward pass under the edits."""
    model, chosen = plan.recording.model, _some(plan, rows)

    def logits() -> Tensor:
        return last_logits(model, chosen) if plan.reads.rows == "last" else model(chosen)

    if cell is None:
        found = logits()
    else:
        with intervening(model, _edits(plan, cell, rows)):
            found = logits()
    if plan.reads.columns is None:
        return found
    ids = plan.reads.columns.to(found.device)[rows].clamp(min=0)
    return found.gather(2, ids[:, None].expand(-1, found.shape[1], -1))


def _some(plan: Plan, rows: Int[Tensor, " row"]) -> Prompts:
    """Some of the recorded prompts, at the width of all of them."""
    prompts = plan.recording.prompts
    return Prompts(prompts.tokens[rows], prompts.lengths[rows])


def _edits(plan: Plan, cell: int, rows: Int[Tensor, " row"]) -> Cell:
    """The edits of a cell, for some of the prompts."""
    everyone = len(rows) == len(plan.recording.prompts)
    return {
        site: [
            edit.of(rows) if isinstance(edit, Edit) and not everyone else edit
            for edit in (given if isinstance(given, Sequence) else [given])
        ]
        for site, given in plan.cells[cell].items()
    }
