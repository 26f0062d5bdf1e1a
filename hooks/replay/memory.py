"""What a sweep holds beside the model, and what fits into a budget of memory."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import ceil
from typing import Any

import torch
from torch import Tensor

from hooks.places import Edit
from hooks.prompts import Prompts
from hooks.replay.cells import Cell, edits_of
from hooks.replay.reading import Reads
from hooks.replay.recording import takes_cache
from hooks.sites import HookedModel, Site

_UNITS = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_NUMBERS_READ = 25_000_000  # of logits at once; more is no faster
_COPIES = 5  # of logits that stand beside each other while a metric is read off them
_KEYS_AND_VALUES = frozenset({"k", "v", "k_rot"})
_QUERIES = frozenset({"q", "q_rot", "z"})
_NEURONS = frozenset({"neuron", "neuron_pre"})


class BudgetTooSmall(MemoryError):  # noqa: N818 - the name says what went wrong
    """A budget that one cell of so many prompts does not fit."""


def size(memory: str | int) -> int:
    """A number of bytes, from "2GB", "500 MB" or an int."""
    advice = "write '2GB', '500MB' or a whole number of bytes"
    if isinstance(memory, int) and not isinstance(memory, bool):
        if memory < 1:
            raise ValueError(f"memory {memory} leaves nothing to work with: {advice}")
        return memory
    said = memory.upper() if isinstance(memory, str) else ""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?B)\s*", said)
    if not found:
        raise ValueError(f"memory {memory!r} is no size: {advice}")
    return size(int(float(found[1]) * _UNITS[found[2]]))


def said(count: int) -> str:
    """A number of bytes as one reads it."""
    unit = next((u for u in ("GB", "MB", "KB") if count >= _UNITS[u]), "B")
    short = f"{count / _UNITS[unit]:.3g}" if unit == "GB" else f"{count / _UNITS[unit]:.0f}"
    return f"{short} {unit}"


def bytes_of(tensors: Iterable[Tensor]) -> int:
    """The memory of some tensors; what several share, or spread, counts once."""
    stores = [one.untyped_storage() for one in tensors]
    return sum({store.data_ptr(): store.nbytes() for store in stores}.values())


def bytes_of_edits(cells: Iterable[Cell]) -> int:
    """What the cells write, and where: held for as long as the sweep lasts."""
    return bytes_of(
        one
        for cell in cells
        for given in cell.values()
        for edit in edits_of(given)
        if isinstance(edit, Edit)
        for one in (edit.value, edit.positions, *edit.parts)
        if isinstance(one, Tensor)
    )


@dataclass(frozen=True)
class Shape:
    """How much the steps of a sweep take, by the shape of the model, the prompts and the reads."""

    cfg: Any
    prompts: int
    length: int
    last: int  # how many different last positions the prompts have
    reads: Reads
    element: int  # bytes of a number
    cached: int  # heads whose keys and values are recorded

    @classmethod
    def of(cls, model: HookedModel, prompts: Prompts, reads: Reads) -> "Shape":
        """The shape of a sweep over `prompts`."""
        element = next(model.original_model.parameters()).element_size()
        batch, length = prompts.tokens.shape
        cached = _heads(model.cfg) if takes_cache(model) else 0
        last = len(prompts.lengths.unique())
        return cls(model.cfg, batch, length, last, reads, element, cached)

    @property
    def token(self) -> int:
        """About what a token takes while it is in a block, in bytes."""
        mlp = getattr(self.cfg, "d_mlp", 0) or 0
        width = 8 * self.cfg.d_model + 4 * mlp + 3 * self.cfg.n_heads * self.length
        return width * self.element

    @property
    def _read(self) -> int:
        """How many numbers a row of logits is while it is read."""
        columns = self.reads.columns
        wide = self.cfg.d_vocab if columns is None else columns.shape[1] * self.cfg.d_model
        return wide * (self.length if self.reads.rows == "all" else 1)

    @property
    def row(self) -> int:
        """What reading one row of logits takes, in bytes."""
        return _COPIES * self._read * self.element

    @property
    def answer(self) -> int:
        """What is kept of a prompt that is also run in full, to be compared with."""
        columns = self.reads.columns
        wide = self.cfg.d_vocab if columns is None else columns.shape[1]
        return wide * (self.length if self.reads.rows == "all" else 1) * self.element

    def rows(self, room: int) -> int:
        """How many rows of logits are read at once where there is so much room for it."""
        return max(1, min(4096, _NUMBERS_READ // self._read, room // self.row))

    @property
    def in_full(self) -> int:
        """What a prompt takes in an ordinary pass, with all the logits that it computes."""
        rows = self.length if self.reads.rows == "all" else self.last
        return self.length * self.token + _COPIES * rows * self.cfg.d_vocab * self.element

    @property
    def in_record(self) -> int:
        """What a prompt takes while it is recorded, beside what is kept of it."""
        return self.length * self.token + self.cfg.d_vocab * self.element

    def recorded(self, sites: Iterable[Site]) -> int:
        """What is kept of the recorded run, in bytes, before it is made."""
        layers = self.cfg.n_layers
        numbers = (layers + 1) * self.cfg.d_model + 2 * layers * self.cached * self.cfg.d_head
        numbers += sum(self._width(site) for site in sites)
        return numbers * self.prompts * self.length * self.element

    def _width(self, site: Site) -> int:
        if "query" in site.axes:
            return self.cfg.n_heads * self.length
        if site.stream in _QUERIES:
            return self.cfg.n_heads * self.cfg.d_head
        if site.stream in _KEYS_AND_VALUES:
            return _heads(self.cfg) * self.cfg.d_head
        return self.cfg.d_mlp if site.stream in _NEURONS else self.cfg.d_model


@dataclass(frozen=True)
class Budget:
    """A limit, what is held all the time, and how much of the rest each kind of work gets."""

    limit: int
    held: int  # by the recorded run and by what edits write
    shape: Shape

    def working(self, tokens: int, rows: int) -> int:
        """What a call of a block with so many tokens takes, or reading so many rows of logits."""
        return max(tokens * self.shape.token, rows * self.shape.row)

    def check_record(self, edits: int) -> None:
        """Raise, before anything is run, where even the recorded run does not fit."""
        shape = self.shape
        needs = self.held + shape.prompts * shape.in_record
        if needs > self.limit:
            cell = shape.prompts * shape.length * shape.cfg.d_model
            least = self.held + max(shape.prompts * shape.in_record, shape.row, shape.in_full)
            advice = _advice(least + cell * shape.element)
            raise BudgetTooSmall(
                f"memory {said(self.limit)} is too small for one cell: recording "
                f"{_prompts(shape.prompts)} takes about {said(needs - edits)}, what the edits "
                f"write {said(edits)}; give memory={advice} or fewer prompts"
            )

    def check_cell(self, cell: int, needs: int, *, checked: bool) -> None:
        """Raise where the cell that takes most does not fit."""
        shape = self.shape
        own = max(self.working(shape.prompts * shape.length, 1), shape.in_full if checked else 0)
        if self.held + own + needs > self.limit:
            raise BudgetTooSmall(
                f"memory {said(self.limit)} is too small for one cell: the recorded run, what the "
                f"edits write and the work on it take {said(self.held + own)}, cell {cell} another "
                f"{said(needs)}; give memory={_advice(self.held + own + needs)} or fewer prompts"
            )

    def sizes(self, tokens: int, rows: int, needs: int) -> tuple[int, int]:
        """Tokens in a call of a block, at most `tokens`, and rows of logits read at once.

        There are `rows` rows to send through the blocks and to read.
        With little room both shrink, so that most of it is left for cells of which the largest
        `needs` so much.
        """
        shape = self.shape
        tokens = min(tokens, rows * shape.length)
        least = max(shape.length, min(tokens, shape.prompts * shape.length))
        rest = self.limit - self.held - needs - self.working(least, 1)
        room = self.working(least, 1) + rest // 4
        return max(least, min(tokens, room // shape.token)), min(rows, shape.rows(room))

    def prompts_in_full(self, *, whole: bool) -> int:
        """How many prompts run at once in an ordinary pass; all of them if it must be `whole`."""
        shape, room = self.shape, self.limit - self.held
        fit = min(shape.prompts, room // shape.in_full)
        if fit < 1 or (whole and fit < shape.prompts):
            count = shape.prompts if whole else 1
            why = "an edit that is a function of your own gets all prompts at once, and " * whole
            least = self.held + count * shape.in_full
            raise BudgetTooSmall(
                f"memory {said(self.limit)} is too small for one cell that runs in full: {why}"
                f"{_prompts(count)} with their logits take {said(count * shape.in_full)} beside "
                f"{said(self.held)} that are held; give memory={_advice(least)} or fewer prompts"
            )
        return fit


def _heads(cfg: Any) -> int:
    """How many key-value heads a layer has."""
    return getattr(cfg, "n_key_value_heads", None) or cfg.n_heads


def _prompts(count: int) -> str:
    return "one prompt" if count == 1 else f"{count} prompts"


def _advice(count: int) -> str:
    """A budget of at least so many bytes, to be written as it stands."""
    unit = next((u for u in ("GB", "MB") if count >= 10 * _UNITS[u]), "KB")
    return f"{ceil(count / _UNITS[unit])}{unit}"


def blocks(count: int, size: int, device: torch.device) -> Iterator[Tensor]:
    """The numbers below `count`, `size` at a time."""
    if count:
        yield from torch.arange(count, device=device).split(size)
