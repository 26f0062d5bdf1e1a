"""What flows through chosen sites in every cell, without going on to the logits."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool
from torch import Tensor

from hooks.replay import checking
from hooks.replay.cells import by_start
from hooks.replay.planning import Plan
from hooks.replay.running import Trail, halving
from hooks.replay.watching import Seen, Watch
from hooks.replay.wave import Wave
from hooks.sites import Site


@torch.no_grad()
def watch(
    plan: Plan, sites: Iterable[Site], show: Callable[[Seen], None], *, trail: Trail | None = None
) -> None:
    """Show what flows through `sites`, which lie in blocks, in every cell and prompt it changes.

    What is not shown is as in the recorded run: prompts that a cell does not change, and
    positions before the first one that it does. Every row is shown once. When memory cannot be had
    a batch is halved, as in `run`, and `ReplayMismatch` is raised as there.
    """
    trail = trail or Trail()
    kept: list[Seen] = []

    def showing(seen: Seen) -> None:
        kept.extend(_checked_rows(plan, seen))
        show(seen)

    wanted = list(sites)
    watching = Watch.of(plan.recording.model, wanted, _Once.of(plan, wanted, showing))

    def walk(batch: Sequence[int]) -> None:
        for start, group in by_start([plan.works[cell] for cell in batch if cell in plan.works]):
            Wave.of(plan, start, group).watched(watching, trail.advance)
        for cell in batch:
            if cell in plan.in_full:
                _show_in_full(plan, cell, watching)

    for batch in plan.batches:
        halving(batch, walk, trail)
    _check(plan, kept, trail)


@dataclass(frozen=True, eq=False)
class _Once:
    """Shows every row once: a batch that had no memory is run again from its beginning."""

    show: Callable[[Seen], None]
    done: dict[Site, Bool[Tensor, "cell batch"]]

    @classmethod
    def of(cls, plan: Plan, sites: Iterable[Site], show: Callable[[Seen], None]) -> "_Once":
        shape = len(plan.cells), len(plan.recording.prompts)
        device = plan.recording.resid[0].device
        return cls(show, {site: torch.zeros(shape, dtype=torch.bool, device=device)
                          for site in sites})  # fmt: skip

    def __call__(self, seen: Seen) -> None:
        done = self.done[seen.site]
        before = done[seen.cells, seen.prompts]
        if bool(before.any()):
            new = (~before).nonzero()[:, 0]
            seen = Seen(
                seen.site, seen.cells[new], seen.prompts[new], seen.start, seen.activation[new]
            )
        if len(seen.cells):
            self.show(seen)
            done[seen.cells, seen.prompts] = True


def _show_in_full(plan: Plan, cell: int, watching: Watch) -> None:
    for rows in checking.prompts(plan):
        found = checking.seen_in_full(plan, cell, rows, watching.sites)
        for site in watching.sites:
            watching.show(Seen(site, torch.full_like(rows, cell), rows, 0, found[site]))


def _checked_rows(plan: Plan, seen: Seen) -> Iterator[Seen]:
    """Copies of those rows that are also run in full."""
    for cell, prompt in plan.checked:
        at = ((seen.cells == cell) & (seen.prompts == prompt)).nonzero()[:, 0]
        if len(at):
            row = seen.activation[at].clone()
            yield Seen(seen.site, seen.cells[at], seen.prompts[at], seen.start, row)


def _check(plan: Plan, kept: list[Seen], trail: Trail) -> None:
    if not kept:
        return
    pairs = list(dict.fromkeys((int(one.cells), int(one.prompts)) for one in kept))
    expected = checking.seen(plan, pairs, list(dict.fromkeys(one.site for one in kept)))
    for one in kept:
        pair = (int(one.cells), int(one.prompts))
        at = pairs.index(pair)
        difference = checking.compare_seen(plan, pair, one, expected[one.site][at : at + 1])
        trail.checked[pair] = max(difference, trail.checked.get(pair, 0.0))
