"""Where in an activation an edit applies: which heads, neurons and positions, in absolute terms."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from operator import index
from typing import Literal

import torch
from einops import rearrange
from jaxtyping import Bool, Int
from torch import Tensor

from hooks import heads
from hooks.sites import HookedModel, Site

Positions = (
    int | Sequence[int] | Int[Tensor, ""] | Int[Tensor, " batch"] | Int[Tensor, "batch chosen"]
)
"""One for all prompts, several for all, or one or several for each prompt."""

NotFinite = Literal["refuse", "keep"]
"""What is done about NaN and Inf."""


@dataclass(frozen=True)
class Window:
    """Which part of the prompts an activation covers, and what its axes are."""

    axes: tuple[str, ...]
    start: int = 0  # the absolute position of the first row; above 0 when a cache holds the rest
    rows: Int[Tensor, " batch"] | None = None  # which prompts these are; None is all of them
    heads: tuple[int, ...] | None = None  # their numbers, where some were removed from the model
    cut: bool = False  # whether positions behind the last row are left out

    @property
    def pos_axis(self) -> int:
        """The axis along which edits choose positions."""
        return self.axes.index("query" if "query" in self.axes else "pos")

    @classmethod
    def at(
        cls,
        model: HookedModel,
        site: Site,
        *,
        start: int = 0,
        rows: Int[Tensor, " batch"] | None = None,
        cut: bool = False,
    ) -> "Window":
        """The window of what flows through `site`."""
        return cls(site.axes, start, rows, heads.numbers(model, site), cut)

    @classmethod
    def of(cls, activation: Tensor) -> "Window":
        """The usual axes of a tensor of this rank."""
        by_rank = {3: ("batch", "pos", "d_model"), 4: ("batch", "pos", "head", "d_head")}
        if activation.ndim not in by_rank:
            raise ValueError(f"an activation has 3 or 4 axes, got {tuple(activation.shape)}")
        return cls(by_rank[activation.ndim])


Change = Callable[[Tensor, Window], Tensor]


@dataclass(frozen=True, eq=False)
class Edit:
    """A pure function from an activation to the one that replaces it, and where it applies.

    What is written at a position depends on what stands at that position alone, so an edit can
    be made on some prompts and from some position on (`Window`) with the same outcome.
    """

    name: str
    change: Change
    heads: tuple[int, ...] | None = None
    neurons: tuple[int, ...] | None = None
    positions: Positions | None = None
    value: Tensor | None = None  # what is written, when it has positions of its own
    parts: tuple[Tensor | float, ...] = ()  # what `change` was made from

    def __call__(self, activation: Tensor, window: Window | None = None) -> Tensor:
        """The edited activation; the same tensor when nothing here is to be edited."""
        window = window or Window.of(activation)
        if not self.reaches(activation, window):
            return activation
        changed = self.change(activation, window)
        where = self._where(activation, window)
        # GPT-2's matrices refuse what was broadcast, such as one mean for all prompts.
        return changed.contiguous() if where is None else torch.where(where, changed, activation)

    def of(self, rows: Int[Tensor, " chosen"]) -> "Edit":
        """The same edit for some of the prompts, which then are all there are."""

        def change(activation: Tensor, window: Window) -> Tensor:
            chosen = rows if window.rows is None else rows[window.rows.to(rows.device)]
            return self.change(activation, replace(window, rows=chosen))

        positions = self.positions
        if isinstance(positions, Tensor) and positions.ndim:
            positions = positions[rows.to(positions.device)]
        parts = (*self.parts, rows)
        return replace(self, change=change, positions=positions, parts=parts)

    def reaches(self, activation: Tensor, window: Window) -> bool:
        """Whether any chosen position lies in this window."""
        chosen = self._positions(activation, window)
        return chosen is None or bool(chosen.any())

    def _where(self, activation: Tensor, window: Window) -> Bool[Tensor, "..."] | None:
        """True where the edit applies, broadcastable to the activation; None is everywhere."""
        chosen = self._positions(activation, window)
        parts = [] if chosen is None else [_spread(chosen, ("batch", "pos"), window)]
        for axis, indices in (("head", self.heads), ("neuron", self.neurons)):
            if indices is not None:
                parts.append(_spread(_members(activation, window, axis, indices), (axis,), window))
        if not parts:
            return None
        where = parts[0]
        for part in parts[1:]:
            where = where & part
        return where

    def _positions(self, activation: Tensor, window: Window) -> Bool[Tensor, "batch pos"] | None:
        size = activation.shape[window.pos_axis]
        batch = activation.shape[0]
        at = torch.arange(size, device=activation.device) + window.start
        chosen = None
        if self.positions is not None:
            positions = self.positions
            if isinstance(positions, Tensor) and positions.ndim and window.rows is not None:
                positions = positions[window.rows.to(positions.device)]
            wanted = rows_of_positions(positions, batch).to(activation.device)
            chosen = (at[None, :, None] == wanted[:, None, :]).any(dim=-1)
        length = self._length(activation, window)
        if length is not None and window.start + size > length:
            inside = (at < length).expand(batch, size)
            chosen = inside if chosen is None else chosen & inside
        return chosen

    def _length(self, activation: Tensor, window: Window) -> int | None:
        """How many positions the value has; those behind it (in `generate`) are left alone."""
        if self.value is None or window.start == 0:
            return None
        axis = window.pos_axis - (activation.ndim - self.value.ndim)
        if self.value.ndim < activation.ndim - 1 or self.value.shape[axis] == 1:
            return None
        return self.value.shape[axis]


def rows_of_positions(positions: Positions, batch: int) -> Int[Tensor, "batch chosen"]:
    """Absolute positions as one row for each prompt."""
    if isinstance(positions, str):
        raise TypeError(
            f"positions={positions!r}: a role's indices are in the task, "
            f"write positions=task.positions[{positions!r}]"
        )
    if isinstance(positions, Tensor) and positions.ndim:
        if positions.shape[0] != batch or positions.ndim > 2 or not _whole(positions):
            raise ValueError(
                f"{positions.shape[0]} positions for {batch} prompts: give one whole number for "
                f"each prompt, or a list of ints for all of them, not {positions.dtype} of shape "
                f"{tuple(positions.shape)}"
            )
        rows = positions[:, None] if positions.ndim == 1 else positions
    else:
        listed = list(positions) if isinstance(positions, Sequence) else [positions]
        rows = torch.tensor([index(one) for one in listed], dtype=torch.long)[None]
        rows = rows.expand(batch, -1)
    if rows.numel() == 0 or bool((rows < 0).any()):
        raise ValueError(
            f"positions must be indices from 0, got {rows.tolist()[:3]}; "
            "the last real token of each prompt is prompts.last"
        )
    return rows


def _whole(positions: Tensor) -> bool:
    return positions.dtype != torch.bool and not positions.dtype.is_floating_point


def _members(activation: Tensor, window: Window, axis: str, indices: Sequence[int]) -> Tensor:
    if axis not in window.axes:
        raise ValueError(f"{axis}s were chosen, but this site has the axes {window.axes}")
    size = activation.shape[window.axes.index(axis)]
    numbers = window.heads if axis == "head" and window.heads is not None else range(size)
    wrong = [index for index in indices if index not in numbers]
    if wrong or not indices:
        what = f"{axis} {wrong[0]} does not exist" if wrong else f"no {axis}s were chosen"
        there = f"0 to {size - 1}" if isinstance(numbers, range) else str(list(numbers))
        raise ValueError(f"{what}: this site has {axis}s {there}")
    members = torch.zeros(size, dtype=torch.bool, device=activation.device)
    members[[numbers.index(index) for index in indices]] = True
    return members


def _spread(part: Tensor, names: tuple[str, ...], window: Window) -> Tensor:
    """Insert axes of size one, so that `part` broadcasts against the activation."""
    own = tuple("query" if n == "pos" and "query" in window.axes else n for n in names)
    target = " ".join(axis if axis in own else "1" for axis in window.axes)
    return rearrange(part, f"{' '.join(own)} -> {target}")
