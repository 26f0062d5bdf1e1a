"""Rows of several cells on their way through the blocks together."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Int
from torch import Tensor

from hooks.intervene import is_finite, written_between
from hooks.places import Edit, Window
from hooks.replay.cells import Step, Work
from hooks.replay.memory import blocks
from hooks.replay.planning import Plan
from hooks.replay.watching import EverythingSeen, Watch
from hooks.sites import Site

_KEYS_AND_VALUES = ("k", "k_rot", "v")
"""Streams that later positions of the same block look at."""


@dataclass(frozen=True, eq=False)
class _Span:
    """Consecutive rows of a call that belong to one cell, and its edits of one site."""

    edits: tuple[Edit, ...]
    first: int
    end: int
    prompts: Int[Tensor, " row"]


@dataclass(frozen=True, eq=False)
class Wave:
    """A row for each prompt that a cell changes, all from position `start` up to `end`.

    The rows are in the order in which they enter, so those on their way are always the first.
    """

    plan: Plan
    start: int
    end: int  # behind it there is only padding, or it is where the prompts end
    works: Sequence[Work]
    owner: Int[Tensor, " row"]  # which of `works` a row belongs to
    prompt: Int[Tensor, " row"]
    entry: Int[Tensor, " row"]

    @classmethod
    def of(cls, plan: Plan, start: int, works: Sequence[Work], *, end: int | None = None) -> "Wave":
        """The rows of `works`, which start at the same position; their prompts end by `end`."""
        device = plan.recording.resid[0].device
        none = [torch.zeros(0, dtype=torch.long, device=device)]
        owner = [torch.full_like(work.rows, index) for index, work in enumerate(works)]
        entry = torch.cat([work.entry for work in works] or none)
        order = entry.argsort(stable=True)
        prompt = torch.cat([work.rows for work in works] or none)
        owners, end = torch.cat(owner or none)[order], end or plan.recording.resid[0].shape[1]
        return cls(plan, start, end, works, owners, prompt[order], entry[order])

    def run(
        self, advance: Callable[[int], object]
    ) -> Iterator[tuple[Int[Tensor, " row"], Int[Tensor, " row"], Tensor]]:
        """Cells, prompts and the logits that are read of them, some rows at a time."""
        state, live = self._walk(advance)
        cells = self._cell()
        for rows in blocks(live, self.plan.rows_at_once, self.owner.device):
            yield cells[rows], self.prompt[rows], self._logits(state, rows)

    def watched(self, watch: Watch, advance: Callable[[int], object]) -> None:
        """Show `watch` what flows through its sites; nothing above the last of them is run."""
        self._walk(advance, watch)

    def logits_of_recording(self, prompts: Int[Tensor, " row"]) -> Tensor:
        """What is read of the recorded run itself."""
        resid = self.plan.recording.resid[-1]
        if self.plan.reads.rows == "last":
            return self.last_of_recording(prompts)
        return self._read_rows(resid[prompts], prompts)

    def last_of_recording(self, prompts: Int[Tensor, " row"]) -> Tensor:
        """What is read, or would be, at the last tokens of the recorded run."""
        at = self.plan.recording.prompts.last[prompts]
        resid = self.plan.recording.resid[-1][prompts, at]
        return self._read_rows(rearrange(resid, "row d -> row 1 d"), prompts)

    def _walk(
        self, advance: Callable[[int], object], watch: Watch | None = None
    ) -> tuple[Tensor, int]:
        """The state behind the last block, and how many of its rows entered."""
        recording = self.plan.recording
        layers, width = len(recording.calls), recording.resid[0].shape[-1]
        state = recording.resid[0].new_empty(len(self.owner), self.end - self.start, width)
        ends = torch.searchsorted(
            self.entry.contiguous(), torch.arange(layers + 1).to(self.entry), right=True
        )
        live = 0
        for index, end in enumerate(ends.tolist()):
            if watch is not None and index > watch.last:
                break
            entering = self.prompt[live:end], slice(self.start, self.end)
            state[live:end] = recording.resid[index][entering]
            live = end
            self._edit_between(state, index, live)
            if index < layers and live:
                self._through_block(state, index, live, advance, watch)
        return state, live

    def _cell(self) -> Int[Tensor, " row"]:
        """The number of the cell that each row belongs to."""
        numbers = [work.cell for work in self.works]
        return torch.tensor(numbers, dtype=torch.long, device=self.owner.device)[self.owner]

    def _due(self, index: int, live: int, *, between: bool) -> list[tuple[Step, Tensor]]:
        """The edits to make at this point of the way, each with the rows it is for."""
        found = []
        for which, work in enumerate(self.works):
            steps = [s for s in work.steps if s.at == index and s.between == between]
            if steps:
                rows = (self.owner[:live] == which).nonzero()[:, 0]
                found += [(step, rows) for step in steps if len(rows)]
        return found

    def _edit_between(self, state: Tensor, index: int, live: int) -> None:
        for step, rows in self._due(index, live, between=True):
            window = self._window(step.site, self.prompt[rows], self.start)
            changed = state[rows]
            for edit in step.edits:
                changed = edit(changed, window)
            _check_finite(changed, step.site)
            state[rows] = changed

    def _through_block(
        self,
        state: Tensor,
        layer: int,
        live: int,
        advance: Callable[[int], object],
        watch: Watch | None,
    ) -> None:
        due = self._due(layer, live, between=False)
        edited = torch.zeros(live, dtype=torch.bool, device=state.device)
        for _, rows in due:
            edited[rows] = True
        for chosen, steps in ((~edited, []), (edited, due)):
            rows = chosen.nonzero()[:, 0]
            if self._read_alone(layer, watch):
                self._through_last_block(state, rows, steps, advance)
                continue
            rows = rows[self.owner[rows].argsort(stable=True)] if steps else rows
            for part in self._parts(rows):
                place = _consecutive(part)
                hidden = state[place]
                hooks = self._hooks(part, steps, hidden, start=self.start)
                if watch is not None:
                    cells = self._cell()[part]
                    hooks += watch.hooks(layer, cells, self.prompt[part], self.start)
                with suppress(EverythingSeen):
                    state[place] = self.plan.recording.run_block(
                        layer, hidden, rows=self.prompt[part], start=self.start, hooks=hooks
                    )
                advance(len(hidden) * self._planned)

    def _parts(self, rows: Int[Tensor, " row"]) -> Sequence[Int[Tensor, " part"]]:
        """So many rows at a time as a call takes."""
        size = max(1, self.plan.tokens_at_once // (self.end - self.start))
        return rows.split(size) if len(rows) else []

    @property
    def _planned(self) -> int:
        """The tokens of a row that the plan counted, padding included."""
        return self.plan.recording.resid[0].shape[1] - self.start

    def _read_alone(self, layer: int, watch: Watch | None) -> bool:
        """Whether of a block's output nothing matters but the one row that is read."""
        recording = self.plan.recording
        last = layer == len(recording.calls) - 1
        several = self.end - self.start > 1
        reads = self.plan.reads.rows == "last" and recording.savings.positions
        # A window of the first position alone looks to edits like one of all positions.
        return (
            last and several and reads and watch is None and int(recording.prompts.last.min()) > 0
        )

    def _through_last_block(
        self,
        state: Tensor,
        rows: Int[Tensor, " row"],
        steps: list[tuple[Step, Tensor]],
        advance: Callable[[int], object],
    ) -> None:
        """Keys and values of all positions, and the rest of the block where the logits are read.

        The other positions keep what entered the block: nothing reads them.
        """
        recording = self.plan.recording
        layer = len(recording.calls) - 1
        early = [one for one in steps if one[0].site.stream in _KEYS_AND_VALUES]
        late = [one for one in steps if one[0].site.stream not in _KEYS_AND_VALUES]
        last = recording.prompts.last[self.prompt]
        for some in self._parts(rows[last[rows].argsort(stable=True)]):
            part = some[self.owner[some].argsort(stable=True)]
            hidden, prompts = state[part], self.prompt[part]
            hooks = self._hooks(part, early, hidden, start=self.start)
            keys, values = recording.keys_and_values(
                layer, hidden, rows=prompts, start=self.start, hooks=hooks
            )
            for position in last[part].unique().tolist():
                here = (last[part] == position).nonzero()[:, 0]
                own = hidden[here, position - self.start, None]
                hooks = self._hooks(part[here], late, own, start=position)
                state[part[here], position - self.start, None] = recording.run_block(
                    layer, own, rows=prompts[here], start=position, hooks=hooks,
                    held=(keys[here], values[here]),
                )  # fmt: skip
            advance(len(part) * self._planned)

    def _hooks(
        self,
        part: Int[Tensor, " row"],
        steps: list[tuple[Step, Tensor]],
        hidden: Tensor,
        *,
        start: int,
    ) -> list[tuple[str, Any]]:
        """One hook for each site at which rows of this call, from `start` on, are edited."""
        if not steps:
            return []
        spans: dict[Site, list[_Span]] = {}
        owners = self.owner[part]
        first, last = int(owners[0]), int(owners[-1])
        for step, rows in steps:
            which = int(self.owner[rows[0]])
            if first <= which <= last:
                bounds = torch.tensor([which, which + 1], device=owners.device)
                begin, end = torch.searchsorted(owners, bounds).tolist()
                if begin == end:
                    continue
                span = _Span(step.edits, begin, end, self.prompt[part[begin:end]])
                spans.setdefault(step.site, []).append(span)
        # resid_mid is written through attn_out, after the edits of attn_out itself.
        ordered = sorted(spans, key=lambda site: site.stream == "resid_mid")
        return [self._hook(site, spans[site], hidden, start) for site in ordered]

    def _hook(self, site: Site, spans: list[_Span], hidden: Tensor, start: int) -> tuple[str, Any]:
        def write(activation: Tensor, hook: object) -> Tensor:
            return self._edited(activation, site, spans, start)

        def write_between(attn_out: Tensor, hook: object) -> Tensor:
            target = self._edited(hidden + attn_out, site, spans, start)
            return written_between(hidden, attn_out, target)

        if site.stream == "resid_mid":
            return Site("attn_out", site.layer).hook_name, write_between
        return site.hook_name, write

    def _edited(self, activation: Tensor, site: Site, spans: list[_Span], start: int) -> Tensor:
        changed = activation.clone()
        for span in spans:
            window = self._window(site, span.prompts, start)
            rows = changed[span.first : span.end]
            for edit in span.edits:
                rows = edit(rows, window)
            changed[span.first : span.end] = rows
        _check_finite(changed, site)
        return changed

    def _window(self, site: Site, prompts: Int[Tensor, " row"], start: int) -> Window:
        cut = self.end < self.plan.recording.resid[0].shape[1]
        return Window.at(self.plan.recording.model, site, start=start, rows=prompts, cut=cut)

    def _logits(self, state: Tensor, rows: Int[Tensor, " row"]) -> Tensor:
        prompts = self.prompt[rows]
        if self.plan.reads.rows == "last":
            at = self.plan.recording.prompts.last[prompts] - self.start
            return self._read_rows(rearrange(state[rows, at], "row d -> row 1 d"), prompts)
        before = self.plan.recording.resid[-1][prompts, : self.start]
        return self._read_rows(torch.cat([before, state[rows]], dim=1), prompts)

    def _read_rows(self, resid: Tensor, prompts: Tensor) -> Tensor:
        tail, columns = self.plan.recording.tail, self.plan.reads.columns
        assert tail is not None
        if columns is None:
            return tail.logits(resid)
        return tail.columns(resid, columns.to(resid.device)[prompts])


def _consecutive(part: Int[Tensor, " row"]) -> slice | Int[Tensor, " row"]:
    """The same rows, as a slice where they follow each other: it is read without a copy."""
    first, last = int(part[0]), int(part[-1])
    if last - first + 1 == len(part) and bool((part.diff() == 1).all()):
        return slice(first, last + 1)
    return part


def _check_finite(activation: Tensor, site: Site) -> None:
    if not is_finite(activation, site):
        raise FloatingPointError(f"an edit at {site} gave NaN or Inf")
