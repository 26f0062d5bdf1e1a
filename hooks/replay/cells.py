"""What each cell can change: at which prompts, from which position and which layer on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from hooks.intervene import AnyEdit, EditNeverFired, check_heads, check_real
from hooks.places import Edit, Window
from hooks.prompts import Prompts
from hooks.replay.reading import Reads
from hooks.replay.recording import Recording
from hooks.sites import HookedModel, Site, check_writable

Cell = Mapping[Site, AnyEdit | Sequence[AnyEdit]]
"""One set of edits, as `intervening` takes it."""

_BETWEEN = ("resid_pre", "resid_post", "final")  # changed between blocks, without a hook
_OWN_ROW = frozenset({
    "resid_mid", "resid_post", "attn_out", "mlp_out", "q", "q_rot", "z", "scores", "pattern",
    "neuron_pre", "neuron_up", "neuron", "final",
})  # fmt: skip
"""Streams that in the last layer reach no other position than their own."""


@dataclass(frozen=True, eq=False)
class Step:
    """The edits of one cell at one site, and when in a walk through the blocks they are due."""

    site: Site
    edits: tuple[Edit, ...]
    at: int  # the block they are due before (between blocks) or in

    @property
    def between(self) -> bool:
        """Whether it edits the residual stream between two blocks."""
        return self.site.stream in _BETWEEN


@dataclass(frozen=True, eq=False)
class Work:
    """One cell to be run again: the prompts it changes, and from where on.

    `entry` and `start` are for each of its `rows`: the first block that gives something else
    than in the recording, and the first position at which it does.
    """

    cell: int
    steps: tuple[Step, ...]
    rows: Int[Tensor, " row"]
    entry: Int[Tensor, " row"]
    start: Int[Tensor, " row"]


def edits_of(given: AnyEdit | Sequence[AnyEdit]) -> tuple[AnyEdit, ...]:
    """What a cell has at one site, one edit or several in order."""
    return tuple(given) if isinstance(given, Sequence) else (given,)


def has_own(cell: Cell) -> bool:
    """Whether some edit is a bare function, which nobody can make on some of the prompts."""
    return not all(isinstance(edit, Edit) for given in cell.values() for edit in edits_of(given))


def for_prompts(cell: Cell, rows: Int[Tensor, " chosen"]) -> Cell:
    """The same edits for some of the prompts, which then are all there are."""
    return {
        site: [edit.of(rows) for edit in edits_of(given) if isinstance(edit, Edit)]
        for site, given in cell.items()
    }


def steps_of(model: HookedModel, cell: Cell) -> tuple[Step, ...] | None:
    """The cell's edits in the order in which they take place; None where it must run in full."""
    found, in_full = [], False
    for site, given in cell.items():
        check_writable(model, site)
        edits = edits_of(given)
        if not edits:
            raise ValueError(f"no edit was given for {site}")
        check_heads(model, site, edits)
        if site.stream == "embed" or not all(isinstance(edit, Edit) for edit in edits):
            in_full = True
            continue
        at = site.layer + (site.stream == "resid_post")
        at = model.cfg.n_layers if site.stream == "final" else at
        found.append(Step(site, edits, at))  # pyright: ignore[reportArgumentType]
    if in_full:
        return None
    if not found:
        raise ValueError("a cell without edits: give each at least one {site: edit}")
    # resid_post of a block comes before resid_pre of the next; resid_mid after attn_out.
    return tuple(
        sorted(
            found, key=lambda s: (s.at, s.site.stream != "resid_post", s.site.stream == "resid_mid")
        )
    )


def sites_to_record(model: HookedModel, cells: Sequence[tuple[Step, ...] | None]) -> list[Site]:
    """The sites inside blocks at which some cell edits."""
    steps = [step for cell in cells if cell is not None for step in cell]
    return sorted({step.site for step in steps if not step.between})


@dataclass(frozen=True, eq=False)
class Changes:
    """Finds out what cells change in one recorded run."""

    recording: Recording
    reads: Reads
    matters: Bool[Tensor, "batch pos"]  # positions that reach something that is read
    known: dict[tuple[Site, tuple[int, ...]], Bool[Tensor, "batch pos"]]

    @classmethod
    def of(cls, recording: Recording, reads: Reads) -> "Changes":
        """For what is read of the recorded prompts. Padding reaches nothing: it is masked."""
        return cls(recording, reads, recording.prompts.mask.bool(), {})

    def work(self, index: int, steps: tuple[Step, ...]) -> Work | None:
        """What of a cell has to be run again; None when nothing of it has."""
        batch, length = self.recording.prompts.tokens.shape
        device = self.recording.prompts.tokens.device
        layers = self.recording.model.cfg.n_layers
        entry = torch.full((batch,), layers + 1, device=device)
        start = torch.full((batch,), length, device=device)
        at = torch.arange(length, device=device)
        looks_anywhere = any("query" in step.site.axes for step in steps)
        for step in steps:
            differs = self._changed(step)
            changed = differs & self._reaches(step)
            first = torch.where(changed, at, length).min(dim=1).values
            start = torch.minimum(start, first)
            felt = differs if looks_anywhere else changed  # edited attention may see padding
            entry = torch.where(felt.any(dim=1), entry.clamp(max=step.at), entry)
        rows = (start < length).nonzero()[:, 0]
        if len(rows) == 0:
            return None
        start = start if self.recording.savings.positions else torch.zeros_like(start)
        return Work(index, steps, rows, entry[rows], start[rows])

    def _changed(self, step: Step) -> Bool[Tensor, "batch pos"]:
        """Where the recorded activation would be another one."""
        key = (step.site, tuple(id(edit) for edit in step.edits))
        if key not in self.known:
            self.known[key] = self._compare(step)
        return self.known[key]

    def _compare(self, step: Step) -> Bool[Tensor, "batch pos"]:
        recorded = self._recorded(step)
        for edit in step.edits:
            check_edit(edit, step.site, self.recording.prompts, recorded)
        window = Window.at(self.recording.model, step.site)
        at = _only_position(step.edits)
        if at is not None:  # an edit reads and writes its own position alone
            recorded = recorded.narrow(window.pos_axis, at, 1)
            window = replace(window, start=at)
        before = after = recorded
        for edit in step.edits:
            after = edit(after, window)
            if after.shape != before.shape or after.dtype != before.dtype:
                raise ValueError(
                    f"{edit.name} at {step.site} returned {tuple(after.shape)} {after.dtype}, the "
                    f"activation has {tuple(before.shape)} {before.dtype}"
                )
        differs = (after != before).movedim(window.pos_axis, 1).flatten(2).any(dim=2)
        if at is None:
            return differs
        everywhere = torch.zeros_like(self.matters)
        everywhere[:, at] = differs[:, 0]
        return everywhere

    def _recorded(self, step: Step) -> Tensor:
        return self.recording.resid[step.at] if step.between else self.recording.seen[step.site]

    def _reaches(self, step: Step) -> Bool[Tensor, "batch pos"]:
        """The positions of a site that can reach what is read."""
        last = self.recording.model.cfg.n_layers - 1
        alone = step.site.stream in _OWN_ROW and step.site.layer == last
        alone = alone or step.site.stream == "final"
        if not alone or self.reads.rows == "all" or not self.recording.savings.positions:
            return self.matters
        at = torch.arange(self.matters.shape[1], device=self.matters.device)
        return at == self.recording.prompts.last[:, None]


def _only_position(edits: tuple[Edit, ...]) -> int | None:
    """The one position that all edits are at; None where there are several, or it is the first.

    A window of the first position alone looks to edits like one of all positions.
    """
    found = {edit.positions if isinstance(edit.positions, int) else 0 for edit in edits}
    at = found.pop()
    return at if at > 0 and not found else None


def check_edit(edit: Edit, site: Site, prompts: Prompts, activation: Tensor) -> None:
    """Raise for an edit that would never fire on these prompts, or that edits padding."""
    if not edit.reaches(activation, Window(site.axes)):
        raise EditNeverFired(
            f"{edit.name} at {site} never fires: its positions {edit.positions} are in none of "
            f"the prompts, which have {prompts.tokens.shape[1]} tokens"
        )
    check_real(edit, site, prompts.mask, batch=len(prompts))


def by_start(works: Sequence[Work]) -> list[tuple[int, list[Work]]]:
    """The works split by the position they start at, so that each part is one block of rows."""
    parts: list[tuple[int, Work]] = []
    for work in works:
        for start in work.start.unique().tolist():
            parts.append((start, _part(work, work.start == start)))
    parts.sort(key=lambda part: part[0])
    return [(start, [w for _, w in group]) for start, group in groupby(parts, key=lambda p: p[0])]


def by_length(
    works: Sequence[Work], lengths: Int[Tensor, " batch"], *, start: int, least: int
) -> list[tuple[int, list[Work]]]:
    """The works split by how long their prompts are, each part with where its longest one ends.

    So that little padding is run. Parts have at least `least` tokens from `start` on, if need be
    of prompts that are not as long: many small calls would cost more than padding does.
    """
    sizes, counts = torch.cat([lengths[work.rows] for work in works]).unique(return_counts=True)
    parts: list[tuple[int, int]] = []  # the shortest and the longest
    tokens, longest = 0, 0
    for size, count in reversed(list(zip(sizes.tolist(), counts.tolist(), strict=True))):
        longest = longest or size
        tokens += count * (longest - start)
        if tokens >= least:
            parts.append((size, longest))
            tokens, longest = 0, 0
    if longest:
        parts[-1:] = [(int(sizes[0]), parts[-1][1] if parts else longest)]
    return [(high, _within(works, lengths, low, high)) for low, high in parts]


def _within(
    works: Sequence[Work], lengths: Int[Tensor, " batch"], low: int, high: int
) -> list[Work]:
    found = []
    for work in works:
        size = lengths[work.rows]
        chosen = (low <= size) & (size <= high)
        if bool(chosen.any()):
            found.append(_part(work, chosen))
    return found


def _part(work: Work, chosen: Bool[Tensor, " row"]) -> Work:
    return Work(work.cell, work.steps, work.rows[chosen], work.entry[chosen], work.start[chosen])
