"""What flows through chosen sites in every cell, without going on to the logits."""

from collections.abc import Callable, Iterable, Iterator

import torch

from hooks.replay import checking
from hooks.replay.cells import by_start
from hooks.replay.planning import Plan
from hooks.replay.running import Trail
from hooks.replay.watching import Seen, Watch
from hooks.replay.wave import Wave
from hooks.sites import Site


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
        for cell in batch:
            if cell in plan.in_full:
                _show_in_full(plan, cell, watching)
    _check(plan, kept, trail)


def _show_in_full(plan: Plan, cell: int, watching: Watch) -> None:
    found = checking.seen_in_full(plan, cell, watching.sites)
    everyone = torch.arange(len(plan.recording.prompts), device=plan.recording.resid[0].device)
    for site in watching.sites:
        watching.show(Seen(site, torch.full_like(everyone, cell), everyone, 0, found[site]))


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
