"""Rows of several cells on their way through the blocks together."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from hooks.intervene import is_finite, written_between
from hooks.places import Edit, Window
from hooks.replay.cells import Step, Work
from hooks.replay.memory import blocks
from hooks.replay.planning import Plan
from hooks.replay.watching import EverythingSeen, Watch
from hooks.sites import Site


@dataclass(frozen=True, eq=False)
class _Span:
    """Consecutive rows of a call that belong to one cell, and its edits of one site."""

    edits: tuple[Edit, ...]
    first: int
    end: int
    prompts: Int[Tensor, " row"]


@dataclass(frozen=True, eq=False)
class Wave:
    """A row for each prompt that a cell changes, all from position `start` on.

    The rows are in the order in which they enter, so those on their way are always the first.
    """

    plan: Plan
    start: int
    works: Sequence[Work]
    owner: Int[Tensor, " row"]  # which of `works` a row belongs to
    prompt: Int[Tensor, " row"]
    entry: Int[Tensor, " row"]

    @classmethod
    def of(cls, plan: Plan, start: int, works: Sequence[Work]) -> "Wave":
        """The rows of `works`, which all start at the same position."""
        device = plan.recording.resid[0].device
        none = [torch.zeros(0, dtype=torch.long, device=device)]
        owner = [torch.full_like(work.rows, index) for index, work in enumerate(works)]
        entry = torch.cat([work.entry for work in works] or none)
        order = entry.argsort(stable=True)
        prompt = torch.cat([work.rows for work in works] or none)
        return cls(plan, start, works, torch.cat(owner or none)[order], prompt[order], entry[order])

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
        resid = self.plan.recording.resid[-1][prompts]
        return self._read(resid, prompts)

    def _walk(
        self, advance: Callable[[int], object], watch: Watch | None = None
    ) -> tuple[Tensor, int]:
        """The state behind the last block, and how many of its rows entered."""
        recording = self.plan.recording
        layers, (_, length, width) = len(recording.calls), recording.resid[0].shape
        state = recording.resid[0].new_empty(len(self.owner), length - self.start, width)
        ends = torch.searchsorted(
            self.entry.contiguous(), torch.arange(layers + 1).to(self.entry), right=True
        )
        live = 0
        for index, end in enumerate(ends.tolist()):
            if watch is not None and index > watch.last:
                break
            state[live:end] = recording.resid[index][self.prompt[live:end], self.start :]
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
            window = self._window(step.site, self.prompt[rows])
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
        at_once = max(1, self.plan.tokens_at_once // state.shape[1])
        for chosen, steps in ((~edited, []), (edited, due)):
            rows = chosen.nonzero()[:, 0]
            if not len(rows):
                continue
            rows = rows[self.owner[rows].argsort(stable=True)] if steps else rows
            for part in rows.split(at_once):
                hidden = state[part]
                hooks = self._hooks(part, steps, hidden)
                if watch is not None:
                    cells = self._cell()[part]
                    hooks += watch.hooks(layer, cells, self.prompt[part], self.start)
                with suppress(EverythingSeen):
                    state[part] = self.plan.recording.run_block(
                        layer, hidden, rows=self.prompt[part], start=self.start, hooks=hooks
                    )
                advance(len(part) * state.shape[1])

    def _hooks(
        self, part: Int[Tensor, " row"], steps: list[tuple[Step, Tensor]], hidden: Tensor
    ) -> list[tuple[str, Any]]:
        """One hook for each site at which rows of this call are edited."""
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
                span = _Span(step.edits, begin, end, self.prompt[part[begin:end]])
                spans.setdefault(step.site, []).append(span)
        # resid_mid is written through attn_out, after the edits of attn_out itself.
        ordered = sorted(spans, key=lambda site: site.stream == "resid_mid")
        return [self._hook(site, spans[site], hidden) for site in ordered]

    def _hook(self, site: Site, spans: list[_Span], hidden: Tensor) -> tuple[str, Any]:
        def write(activation: Tensor, hook: object) -> Tensor:
            return self._edited(activation, site, spans)

        def write_between(attn_out: Tensor, hook: object) -> Tensor:
            target = self._edited(hidden + attn_out, site, spans)
            return written_between(hidden, attn_out, target)

        if site.stream == "resid_mid":
            return Site("attn_out", site.layer).hook_name, write_between
        return site.hook_name, write

    def _edited(self, activation: Tensor, site: Site, spans: list[_Span]) -> Tensor:
        changed = activation.clone()
        for span in spans:
            window = self._window(site, span.prompts)
            rows = changed[span.first : span.end]
            for edit in span.edits:
                rows = edit(rows, window)
            changed[span.first : span.end] = rows
        _check_finite(changed, site)
        return changed

    def _window(self, site: Site, prompts: Int[Tensor, " row"]) -> Window:
        return Window.at(self.plan.recording.model, site, start=self.start, rows=prompts)

    def _logits(self, state: Tensor, rows: Int[Tensor, " row"]) -> Tensor:
        prompts = self.prompt[rows]
        if self.plan.reads.rows == "last":
            at = self.plan.recording.prompts.last[prompts] - self.start
            return self._read_rows(rearrange(state[rows, at], "row d -> row 1 d"), prompts)
        before = self.plan.recording.resid[-1][prompts, : self.start]
        return self._read_rows(torch.cat([before, state[rows]], dim=1), prompts)

    def _read(self, resid: Float[Tensor, "row pos d_model"], prompts: Tensor) -> Tensor:
        if self.plan.reads.rows == "last":
            at = self.plan.recording.prompts.last[prompts]
            resid = rearrange(resid[torch.arange(len(resid)), at], "row d -> row 1 d")
        return self._read_rows(resid, prompts)

    def _read_rows(self, resid: Tensor, prompts: Tensor) -> Tensor:
        tail, columns = self.plan.recording.tail, self.plan.reads.columns
        assert tail is not None
        if columns is None:
            return tail.logits(resid)
        return tail.columns(resid, columns.to(resid.device)[prompts])


def _check_finite(activation: Tensor, site: Site) -> None:
    if not is_finite(activation, site):
        raise FloatingPointError(f"an edit at {site} gave NaN or Inf")
